"""How well a model predicts labels: accuracy, likelihood, calibration, per class.

Symbols:
    n judged samples, K classes, p (n,) confidence in the predicted class.

Source:
    Wilson (1927), Probable inference; Guo et al. (2017), On Calibration of Modern Neural Networks,
    section 2 (expected calibration error).

Departs from the source:
    The calibration error of a finite sample is above zero even for a perfect predictor, so it is
    given beside its floor: what labels drawn from the model's own confidences would show.
"""

import math

import pandas as pd
import torch
from torch import Tensor, nn

from leadline.core import Classes, Quantity, ShapeError, Targets, mean_quantity
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.measures.answers import answers, known, split_of
from leadline.measures.reading import Reading
from leadline.measures.regression import regression_reading

__all__ = [
    "calibration_error",
    "classification",
    "classification_controls",
    "reliability",
    "wilson_interval",
]

TASK = "classification"
BINS = 15
FLOOR_DRAWS = 100


def classification(model: nn.Module, data: Dataset, split: str = "test", bins: int = BINS) -> Reading:
    """Return how well `predict` meets the labels of a split; samples without a label are left out.

    With Classes: accuracy (the headline, Wilson interval), negative log-likelihood, calibration error
    with cells of equal width and of equal count beside its floor, balanced accuracy. With Targets: root
    mean squared error (the headline), mean absolute error, R2.

    Args:
        model: Anything that predicts.
        data: The labelled data.
        split: "train", "valid" or "test".
        bins: Cells of the calibration table, at least 1.

    Raises:
        MeasureError: If no sample carries a label.
        ShapeError: If `predict` does not return one column a class or target.
    """
    part = split_of(data, split)
    mask = known(data, part)
    predicted = answers(model, "predict", part)[mask].double()
    return _reading(data, predicted, part.y[mask], int((~mask).sum()), bins)  # type: ignore[index]


def classification_controls(data: Dataset) -> dict[str, Reading]:
    """Return what is reached without looking at x: the class frequencies, or the mean, of the train split."""
    train, part = split_of(data, "train"), split_of(data, "test")
    seen, mask = known(data, train), known(data, part)
    y = train.y[seen]  # type: ignore[index]
    count, left_out = int(mask.sum()), int((~mask).sum())
    truth = part.y[mask]  # type: ignore[index]
    if isinstance(data.labels, Classes):
        share = torch.bincount(y, minlength=data.labels.outputs).double() + 1
        name, row = "class frequencies", (share / share.sum()).log()
    else:
        name, row = "train mean", y.double().mean(0)
    return {name: _reading(data, row.expand(count, -1), truth, left_out, BINS)}


def _reading(data: Dataset, predicted: Tensor, y: Tensor, left_out: int, bins: int) -> Reading:
    """Return the reading of predictions (n, K) or (n, D) for known labels."""
    labels = data.labels
    if labels is None or predicted.dim() != 2 or predicted.shape[1] != labels.outputs:
        wanted = 0 if labels is None else labels.outputs
        raise ShapeError(f"predict must return (n, {wanted}), got {tuple(predicted.shape)}")
    notes = [f"{left_out} samples without a label left out"] if left_out else []
    broken = int((~torch.isfinite(predicted).all(1) & ~_certain(predicted)).sum())
    if broken:
        notes.append(f"predict gave NaN or infinity for {broken} of {len(predicted)} samples")
    if isinstance(labels, Targets):
        return regression_reading(predicted, y.double(), labels, notes)
    return _classes_reading(predicted, y, labels, notes, bins)


def _certain(logp: Tensor) -> Tensor:
    """Return which rows are log-probabilities of which some are exactly -inf and none is NaN."""
    return ((logp <= 1e-6) & ~logp.isnan()).all(1) & torch.isfinite(logp).any(1)


def _classes_reading(logp: Tensor, y: Tensor, labels: Classes, notes: list[str], bins: int) -> Reading:
    sums = logp.logsumexp(1)
    if bool((sums.abs() > 1e-3).any()):
        notes.append(f"probabilities of a sample sum to between {_span(sums.exp())}, not 1")
    usable = ~logp.isnan().any(1)
    ranked = torch.where(usable[:, None], logp, -math.inf)
    guess = ranked.argmax(1)
    correct = ((guess == y) & usable).double()
    confidence = torch.where(usable, ranked.amax(1).exp(), 0.0).clamp(max=1)
    nll = -logp.gather(1, y[:, None]).squeeze(1)
    confusion = torch.bincount(y * labels.outputs + guess, minlength=labels.outputs**2)
    confusion = confusion.view(labels.outputs, labels.outputs)
    table = reliability(confidence, correct, bins)
    adaptive = reliability(confidence, correct, bins, adaptive=True)
    recall = (confusion.diagonal() / confusion.sum(1))[confusion.sum(1) > 0]
    n = len(y)
    return Reading(
        TASK,
        "accuracy",
        higher_is_better=True,
        quantities={
            "accuracy": wilson_interval(int(correct.sum()), n),
            "nll": mean_quantity(nll, unit="nats"),
            "calibration_error": Quantity(
                calibration_error(table), samples=n, protocol=f"{bins} cells of equal width"
            ),
            "calibration_error_adaptive": Quantity(
                calibration_error(adaptive), samples=n, protocol=f"{bins} cells of equal count"
            ),
            "calibration_floor": calibration_floor(confidence, bins),
            "balanced_accuracy": Quantity(float(recall.mean()), samples=n, protocol="mean recall of classes"),
        },
        rows=correct,
        details={
            "confusion": confusion,
            "reliability": table,
            "reliability_adaptive": adaptive,
            "per_class": per_class(confusion, labels),
            "notes": notes,
        },
    )


def _span(values: Tensor) -> str:
    return f"{float(values.min()):.3g} and {float(values.max()):.3g}"


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> Quantity:
    """Return the fraction of successes with its Wilson score interval; `trials` is at least 1."""
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return Quantity(
        share,
        stderr=math.sqrt(share * (1 - share) / trials),
        interval=(max(0.0, centre - half), min(1.0, centre + half)),
        samples=trials,
        protocol="Wilson score interval",
    )


def reliability(
    confidence: Tensor, correct: Tensor, bins: int = BINS, *, adaptive: bool = False
) -> pd.DataFrame:
    """Return the reliability table: a row a filled cell with count, mean confidence and accuracy.

    Args:
        confidence: Probability of the predicted class (n,).
        correct: Whether the prediction was right (n,), 0 or 1.
        bins: Number of cells.
        adaptive: Whether cells hold equal counts rather than have equal width.
    """
    cell = _cells(confidence, bins, adaptive=adaptive)
    count = torch.bincount(cell, minlength=bins).double()
    filled = count > 0
    mean = torch.bincount(cell, confidence.double(), bins) / count.clamp(min=1)
    accuracy = torch.bincount(cell, correct.double(), bins) / count.clamp(min=1)
    return pd.DataFrame(
        {
            "count": count[filled].long().tolist(),
            "confidence": mean[filled].tolist(),
            "accuracy": accuracy[filled].tolist(),
        }
    )


def _cells(confidence: Tensor, bins: int, *, adaptive: bool) -> Tensor:
    """Return the cell of each sample, (n,); equal confidences share a cell in either way."""
    if not adaptive:
        return (confidence * bins).long().clamp(0, bins - 1)
    edges = torch.quantile(confidence.double(), torch.linspace(0, 1, bins + 1).double()[1:-1])
    return torch.bucketize(confidence.double().contiguous(), edges)


def calibration_error(table: pd.DataFrame) -> float:
    """Return the mean distance of confidence and accuracy over cells, weighted by their counts."""
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["count"]).sum() / table["count"].sum())


def calibration_floor(confidence: Tensor, bins: int = BINS) -> Quantity:
    """Return the calibration error that a perfectly calibrated model of these confidences would show.

    Labels are drawn from the confidences 100 times; the interval holds 95 % of the draws.
    """
    generator = generator_for(0, "calibration floor")
    cell = _cells(confidence, bins, adaptive=False)
    errors = []
    for _ in range(FLOOR_DRAWS):
        right = (torch.rand(len(confidence), generator=generator) < confidence).double()
        errors.append(torch.bincount(cell, right - confidence, bins).abs().sum() / len(confidence))
    drawn = torch.stack(errors).double()
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975]).double()).tolist()
    return Quantity(
        float(drawn.mean()),
        kind="estimate",
        stderr=float(drawn.std()),
        interval=(low, high),
        samples=FLOOR_DRAWS,
        protocol="labels drawn from the confidences; stderr is the spread of one draw",
    )


def per_class(confusion: Tensor, labels: Classes) -> pd.DataFrame:
    """Return precision, recall and count of each class; NaN where a class was never said or never true."""
    hits = confusion.diagonal().double()
    return pd.DataFrame(
        {
            "class": list(labels.names),
            "precision": (hits / confusion.sum(0)).tolist(),
            "recall": (hits / confusion.sum(1)).tolist(),
            "count": confusion.sum(1).tolist(),
        }
    )
