r"""Curvature of a loss: extreme eigenpairs, trace and density of its Hessian, each with an error.

Written against a `Surface`, so that a net's loss and a plain function are measured alike. The adaptive
eigenvalue is that of |p| H |p|, with each parameter measured in its own size: no rescaling of layers that
leaves the outputs alone changes it, since |p| takes up what H gives away.

Symbols:
    p (d,) parameters, H (d, d) Hessian, k eigenpairs.

Source:
    Yao, Gholami, Keutzer and Mahoney (2020), PyHessian: neural networks through the lens of the Hessian,
    IEEE Big Data. Density: Ghorbani, Krishnan and Xiao (2019), An investigation into neural net optimization
    via Hessian eigenvalue density, ICML.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from leadline.core import OptionError, Quantity
from leadline.core.randomness import generator_for
from leadline.data import Dataset
from leadline.inference.lanczos import EXTRA, Eigenpairs, Krylov, eigenpairs
from leadline.inference.traces import SpectralDensity, Trace, spectral_density, trace
from leadline.measures.sharpness import keskar
from leadline.measures.surface import MEMORY, Loss, Statistics, Surface, loss_surface

__all__ = [
    "adaptive_eigenvalue",
    "density_of",
    "eigenvalue_quantity",
    "extremes",
    "probe",
    "trace_of",
    "trace_quantity",
]

FEWEST = 6
PROBED = ("top", "bottom", "trace", "adaptive", "keskar")


def extremes(
    surface: Surface,
    *,
    largest: int = 1,
    smallest: int = 0,
    tolerance: float = 1e-3,
    most: int = 300,
    scale: Tensor | None = None,
    memory: float = MEMORY,
    seed: int = 0,
) -> Eigenpairs:
    """Return the largest and the most negative eigenpairs of a surface's Hessian; see `eigenpairs`.

    Args:
        surface: A loss or a function at a point.
        largest: How many from the upper end.
        smallest: How many from the lower end.
        tolerance: Largest error of each, relative to the eigenvalue of largest magnitude.
        most: Products after which to stop, converged or not.
        scale: Unit of each parameter (d,): the Hessian is then D H D with D = diag(scale).
        memory: Bytes that the basis of Lanczos' process may take; more restarts with less.
        seed: Seed of the start.
    """
    wanted = min(largest + smallest, surface.size)
    each = surface.size * surface.point.element_size()
    room = max(FEWEST, min(wanted + EXTRA, int(memory / each)))
    generator = generator_for(seed, "lanczos", device=surface.point.device)
    product = surface.product if scale is None else lambda v: scale * surface.product(scale * v)
    return eigenpairs(
        product,
        surface.direction(generator),
        largest=min(largest, surface.size),
        smallest=min(smallest, surface.size - min(largest, surface.size)),
        tolerance=tolerance,
        most=most,
        basis=room,
        generator=generator,
    )


def eigenvalue_quantity(pairs: Eigenpairs, number: int = 0) -> Quantity:
    """Return an eigenvalue with its estimated error; the interval is that of its residual."""
    value, error, reach = (float(part[number]) for part in (pairs.values, pairs.errors, pairs.residuals))
    protocol = f"Lanczos, {pairs.products} products, residual {reach:.2g}"
    protocol += "" if pairs.converged else ", not converged"
    return Quantity(value, "", "estimate", error, (value - reach, value + reach), pairs.products, protocol)


def adaptive_eigenvalue(
    surface: Surface, *, tolerance: float = 1e-3, most: int = 300, seed: int = 0
) -> Eigenpairs:
    """Return the largest eigenpair of |p| H |p|, which no rescaling of layers changes."""
    scale = surface.point.detach().abs()
    return extremes(surface, tolerance=tolerance, most=most, scale=scale, seed=seed)


def trace_of(
    surface: Surface,
    *,
    space: Krylov | None = None,
    tolerance: float = 0.05,
    least: int = 10,
    most: int = 100,
    seed: int = 0,
) -> Trace:
    """Return the trace of a surface's Hessian and of its square; see `leadline.inference.traces.trace`."""
    generator = generator_for(seed, "trace", device=surface.point.device)
    return trace(
        surface.product,
        surface.direction(generator),
        space=space,
        tolerance=tolerance,
        least=least,
        most=most,
        generator=generator,
    )


def trace_quantity(found: Trace) -> Quantity:
    """Return a trace with its standard error and normal 95 % interval; exact where it was."""
    reach = 1.96 * found.stderr
    interval = (found.value - reach, found.value + reach)
    if found.stderr == 0:
        return Quantity(found.value, "", "exact", 0.0, interval, found.products, "the diagonal")
    protocol = f"Hutchinson, {found.probes} probes" + ("" if found.converged else ", not converged")
    return Quantity(found.value, "", "estimate", found.stderr, interval, found.probes, protocol)


def density_of(surface: Surface, *, probes: int = 8, steps: int = 40, seed: int = 0) -> SpectralDensity:
    """Return nodes and weights of the density of a surface's eigenvalues; see `spectral_density`."""
    generator = generator_for(seed, "density", device=surface.point.device)
    like = surface.direction(generator)
    return spectral_density(surface.product, like, probes=probes, steps=steps, generator=generator)


def probe(
    data: Dataset,
    *,
    what: tuple[str, ...] = ("top",),
    samples: int = 500,
    tolerance: float = 0.01,
    most: int = 60,
    loss: Loss | None = None,
    statistics: Statistics = "running",
) -> Callable[[nn.Module, int], dict[str, float]]:
    """Return what `fit(..., probe=)` calls to record the curvature as a training goes on.

    Args:
        data: What the loss is averaged over.
        what: Of "top" and "bottom" (extreme eigenvalues), "trace", "adaptive" and "keskar".
        samples: Most training samples.
        tolerance: Error of an eigenvalue, relative to the largest in magnitude.
        most: Most products for each figure.
        loss: (model, x, y) -> mean loss; the model's own by default.
        statistics: Of batch normalisation: "running" or "batch".

    Raises:
        OptionError: If a figure is unknown, or none is asked for.

    Example:
        >>> import leadline as ll
        >>> data = ll.load("digits")
        >>> model = ll.build("mlp", data, hidden=(8,))
        >>> top = probe(data, samples=100)
        >>> run = ll.fit(model, data, steps=4, probe=top, probe_every=2, out=False, progress=False)
        >>> [sorted(line)[-2:] for line in run.metrics if "top" in line]
        [['top', 'top_error'], ['top', 'top_error']]
    """
    if not what or not set(what) <= set(PROBED):
        raise OptionError(f"a probe records some of {', '.join(PROBED)}; got {', '.join(what) or 'nothing'}")

    def measured(model: nn.Module, step: int) -> dict[str, float]:
        surface = loss_surface(model, data, loss=loss, samples=samples, statistics=statistics)
        options: dict[str, Any] = {"tolerance": tolerance, "most": most}
        found: dict[str, float] = {}
        for name in what:
            if name in ("top", "bottom"):
                upper = int(name == "top")
                pairs = extremes(surface, largest=upper, smallest=1 - upper, **options)
                found |= {name: float(pairs.values[0]), f"{name}_error": float(pairs.errors[0])}
            elif name == "trace":
                whole = trace_of(surface, tolerance=0.1, most=max(most, 10))
                found |= {name: whole.value, "trace_error": whole.stderr}
            elif name == "adaptive":
                found[name] = float(adaptive_eigenvalue(surface, **options).values[0])
            else:
                found[name] = keskar(surface, starts=1)
        return found

    return measured
