r"""How likely a model finds held-out samples, in the unit that fits the domain.

Finite domains in bits per dimension of the raw data, -log2 p(x) / d; text in bits per token; real
columns in nats per sample, since their density depends on the unit of each column.

Symbols:
    n samples, d dimensions of a sample.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from leadline.core import Density, Domain, Quantity, ShapeError, Tokens, mean_quantity
from leadline.data import Dataset, Split
from leadline.measures.answers import answers, device_of, evaluating, split_of
from leadline.measures.reading import Reading

__all__ = ["bits_per_dim", "density", "density_of_rows"]

TASK = "density"
MOST_WINDOWS = 2_000


def density(model: nn.Module, data: Dataset, split: str = "test") -> Reading:
    """Return the log-likelihood of a split under `log_prob`, with its kind and standard error.

    The headline is `bits_per_dim` (Images, Bits, Categories, Counts), `bits_per_token` (Tokens) or `nats`
    per sample (Vectors, Table). A model with `bits_per_token(x, stateful=True)` is read in that way too.

    Args:
        model: Anything that scores; its `density` says of what kind the scores are.
        data: The data.
        split: "train", "valid" or "test".

    Raises:
        ShapeError: If `log_prob` does not return one number a sample.
    """
    part = split_of(data, split)
    rows = answers(model, "log_prob", part)
    if rows.dim() != 1:
        raise ShapeError(f"log_prob must return (n,), got {tuple(rows.shape)}")
    said = getattr(model, "density", None)
    reading = density_of_rows(rows, data.domain, said if isinstance(said, Density) else Density())
    stateful = _stateful(model, data.domain, part)
    return reading if stateful is None else _with(reading, bits_per_token_stateful=stateful)


def density_of_rows(rows: Tensor, domain: Domain, about: Density | None = None) -> Reading:
    """Return the reading of log-likelihoods (n,) in nats per sample of raw data in `domain`."""
    about = about or Density()
    rows = rows.double()
    notes = _complaints(rows)
    nats = _mean(rows, about)
    bits = -1 / (domain.dims * math.log(2))
    quantities = {"nats": nats, "bits_per_dim": nats.scaled(bits, "bits/dim")}
    headline, factor = "bits_per_dim", bits
    if isinstance(domain, Tokens):
        quantities["bits_per_token"] = nats.scaled(bits, "bits/token")
        headline = "bits_per_token"
    elif domain.dtype.is_floating_point:
        headline, factor = "nats", 1.0
    return Reading(
        TASK,
        headline,
        higher_is_better=factor > 0,
        quantities=quantities,
        rows=factor * rows,
        details={"log_prob": rows, "notes": notes, "shared_stderr": abs(factor) * about.stderr},
    )


def bits_per_dim(nats: float, dims: int, levels: int = 1) -> float:
    """Return bits per dimension of raw data from a log-density in nats.

    Args:
        nats: Mean log-likelihood of a sample; of x / levels in [0, 1) if `levels` is given.
        dims: Number of dimensions of a sample.
        levels: Levels that one unit of the density's coordinate was divided into.
    """
    return (-nats / dims + math.log(levels)) / math.log(2)


def _mean(rows: Tensor, about: Density) -> Quantity:
    """Return the mean of `rows`, without an error or interval where it is not finite."""
    mean = mean_quantity(
        rows, unit="nats", kind=about.kind, shared_stderr=about.stderr, protocol=about.protocol
    )
    if math.isfinite(mean.value) and math.isfinite(mean.stderr or 0.0):
        return mean
    return Quantity(mean.value, "nats", about.kind, None, None, len(rows), about.protocol)


def _complaints(rows: Tensor) -> list[str]:
    """Return a line for each way in which some rows are not finite."""
    ways = {
        "NaN": rows.isnan(),
        "minus infinity (the model finds them impossible)": rows == -math.inf,
        "plus infinity": rows == math.inf,
    }
    counts = {name: int(mask.sum()) for name, mask in ways.items()}
    return [
        f"log_prob is {name} for {count} of {len(rows)} samples" for name, count in counts.items() if count
    ]


def _stateful(model: nn.Module, domain: Domain, part: Split) -> Quantity | None:
    """Return bits per token with the state carried from window to window, if the model can."""
    method = getattr(model, "bits_per_token", None)
    if not isinstance(domain, Tokens) or not callable(method):
        return None
    x = part.rows(torch.arange(min(len(part), MOST_WINDOWS)))[0]
    protocol = f"state carried through the first {len(x)} windows"
    with evaluating(model):
        said = method(x.to(device_of(model)), stateful=True)
    if isinstance(said, Quantity):
        return replace(said, protocol=protocol)
    return Quantity(float(said), "bits/token", samples=x.numel(), protocol=protocol)


def _with(reading: Reading, **more: Quantity) -> Reading:
    """Return the reading with more quantities."""
    return replace(reading, quantities={**reading.quantities, **more})
