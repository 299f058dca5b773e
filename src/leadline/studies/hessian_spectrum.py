r"""The spectrum of a model's Hessian: a bulk at zero and a few eigenvalues far outside of it.

Claim:
    At least nine tenths of the eigenvalues lie within 5 % of the largest magnitude from zero.

Instrument:
    The extreme eigenpairs by Lanczos' process, each with an error; the density by Lanczos quadrature from
    random signs; the trace and the Frobenius norm by Hutchinson's estimator, from which the space of the
    extreme eigenvectors is taken out. The share near zero has bounds on both sides for each probe, from the
    nodes around the limits; its interval is Student's over the probes, from lower bounds to upper ones.

Controls:
    positive: a diagonal of which 97 % is near zero; the interval must hold 0.97.
    negative: a random symmetric matrix (a semicircle) has few eigenvalues there: the claim must be false.

Source:
    Sagun, Bottou and LeCun (2016), Eigenvalues of the Hessian in deep learning, arXiv:1611.07476. Ghorbani,
    Krishnan and Xiao (2019), An investigation into neural net optimization via Hessian eigenvalue density,
    ICML.

Cost:
    Seconds on digits: 8 probes of 40 products.
"""

import math

import pandas as pd
import scipy.stats
import torch
from torch import Tensor, nn

from leadline.core import Quantity
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.inference.traces import SpectralDensity, spectral_density
from leadline.measures.curvature import density_of, extremes, trace_of
from leadline.measures.surface import Loss, Statistics, loss_surface
from leadline.studies.finding import Finding
from leadline.studies.landscape_pictures import spectrum_figure
from leadline.studies.study import Control, passed, side

__all__ = ["hessian_spectrum", "share_near_zero"]

BULK, NEAR = 0.9, 0.05
PLAIN, SIZE = 0.97, 300
TOLERANCE, TRACE_TOLERANCE = 1e-3, 0.05


def hessian_spectrum(
    model: nn.Module,
    data: Dataset,
    *,
    loss: Loss | None = None,
    samples: int = 500,
    largest: int = 10,
    probes: int = 8,
    steps: int = 40,
    statistics: Statistics = "running",
) -> Finding:
    """Return whether most of a Hessian's eigenvalues are near zero, with its spectrum, trace and extremes.

    Args:
        model: Any module with a loss; see `leadline.measures.surface.loss_surface`.
        data: Its training samples are what the loss is averaged over.
        loss: (model, x, y) -> mean loss; the model's own by default.
        samples: Most training samples.
        largest: How many of the largest eigenvalues, at least 1; the two most negative come with them.
        probes: Random vectors behind the density and the trace, at least 2.
        steps: Nodes of the density for each.
        statistics: Of batch normalisation: "running" or "batch".

    Raises:
        OptionError: If an option is out of range.
        VerbError: If the model has no loss and none is given.
        StudyError: If a control fails.
    """
    surface = loss_surface(model, data, loss=loss, samples=samples, statistics=statistics)
    controls = passed(_controls())
    pairs = extremes(surface, largest=largest, smallest=2, tolerance=TOLERANCE)
    whole = trace_of(
        surface, space=pairs.space, tolerance=TRACE_TOLERANCE, least=max(probes, 2), most=max(10 * probes, 2)
    )
    density = density_of(surface, probes=probes, steps=steps)
    value = share_near_zero(density, float(pairs.values.abs().max()))
    norm = math.sqrt(max(whole.square, 0.0))
    rows = [(f"eigenvalue {place + 1}", *row) for place, row in enumerate(_rows(pairs.values, pairs.errors))]
    if len(rows) > largest:
        ends = ["second smallest eigenvalue", "smallest eigenvalue"][-(len(rows) - largest) :]
        bottom = sorted(rows[largest:], key=lambda row: -row[1])
        rows[largest:] = [(name, *row[1:]) for name, row in zip(ends, bottom, strict=True)]
    rows += [
        ("trace", whole.value, whole.stderr),
        ("Frobenius norm", norm, whole.square_stderr / (2 * norm) if norm else 0.0),
        ("trace by quadrature", *density.moment(1)),
    ]
    converged = "" if pairs.converged else ", not all converged"
    return Finding(
        study="hessian_spectrum",
        claim=(
            f"Nine tenths of the Hessian's eigenvalues of {type(model).__name__} on {data.name} lie within "
            "5 % of the largest from zero."
        ),
        holds=side(value.interval or (0.0, 1.0), BULK, above=True),
        value=value,
        controls=controls,
        table=pd.DataFrame(rows, columns=["quantity", "value", "error"]),
        protocol=(
            f"{len(data.train.head(samples)):,} samples, {surface.size:,} parameters; {pairs.products} "
            f"products for the eigenvalues{converged}, {whole.probes} probes for the trace, "
            f"{probes} x {steps} for the density"
        ),
        draw=spectrum_figure,
        details={"density": density, "eigenvalues": pairs.values, "pairs": pairs},
    )


def share_near_zero(density: SpectralDensity, scale: float) -> Quantity:
    """Return the share of eigenvalues within 5 % of `scale` from zero, with its 95 % interval."""
    low, high = density.share(-NEAR * scale, NEAR * scale)
    count = len(low)
    reach = float(scipy.stats.t.ppf(0.975, count - 1)) / math.sqrt(count) if count > 1 else math.inf
    ends = [float(low.mean()), float(high.mean())]
    if count > 1:
        ends = [ends[0] - reach * float(low.std()), ends[1] + reach * float(high.std())]
        interval = (max(ends[0], 0.0), min(ends[1], 1.0))
    else:
        interval = (0.0, 1.0)
    middle = (float(low.mean()) + float(high.mean())) / 2
    return Quantity(middle, "of the eigenvalues", "estimate", None, interval, count, "bounds of quadrature")


def _rows(values: Tensor, errors: Tensor) -> list[tuple[float, float]]:
    return list(zip(values.tolist(), errors.tolist(), strict=True))


def _controls() -> dict[str, Control]:
    """Return two operators whose spectra are known."""
    source = generator_for(0, "spectrum")
    noise = torch.randn(SIZE, SIZE, generator=source, dtype=torch.float64)
    matrix = (noise + noise.T) / math.sqrt(2 * SIZE)  # a semicircle on [-2, 2]
    diagonal = 0.01 * torch.rand(SIZE, generator=source, dtype=torch.float64)
    diagonal[: round((1 - PLAIN) * SIZE)] = torch.linspace(0.3, 1.0, round((1 - PLAIN) * SIZE)).double()

    def held() -> float:
        found = spectral_density(lambda v: diagonal * v, diagonal, generator=source)
        low, high = share_near_zero(found, 1.0).interval or (0.0, 0.0)
        return float(low <= PLAIN <= high)

    def circle() -> float:
        found = spectral_density(lambda v: matrix @ v, diagonal, generator=source)
        return (share_near_zero(found, 2.0).interval or (0.0, 1.0))[1]

    return {
        f"{PLAIN:.0%} near zero": Control(held, lambda hit: hit == 1.0, f"hold {PLAIN:g} in its interval"),
        "semicircle": Control(circle, lambda share: share < BULK, f"be below {BULK:g}"),
    }
