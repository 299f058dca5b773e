r"""What kind of stationary point a model's weights, or a point of a plain function, are.

Claim:
    The function has a local minimum at the point.

Instrument:
    The gradient, which must make less than a thousandth of what the function changes over the reach; the
    extreme eigenvalues of the Hessian by Lanczos' process, with errors; and where those do not decide, the
    lowest and the highest point on spheres around the point, ever smaller ones. True needs a smallest
    eigenvalue clear of zero. Lower points on every sphere, or a gradient, make it false. A singular Hessian
    without a lower point is undecided: floating point cannot prove that minimum.

Controls:
    positive: x^2 + y^2 has a minimum at 0.
    negative: y^4 - x^4 has none at 0, though its Hessian is zero; of a constant nothing can be said.

Source:
    Dauphin et al. (2014), Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization, NeurIPS. Second-order conditions: Nocedal and Wright (2006), section 2.1.

Cost:
    Seconds for a function of two variables; for a net some hundred products with its Hessian.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import torch
from torch import Tensor, nn

from leadline.core import OptionError
from leadline.data import Dataset
from leadline.measures.curvature import eigenvalue_quantity
from leadline.measures.stationary import Nature, nature_of
from leadline.measures.surface import Loss, Surface, function_surface, loss_surface
from leadline.studies.finding import Finding
from leadline.studies.functions import FUNCTIONS, function_named
from leadline.studies.landscape_pictures import stationary_figure
from leadline.studies.study import Control, passed

__all__ = ["stationary_point"]

HOLDS = {"minimum": True, "minimum not refuted": None, "undecided": None}  # every other kind: False
PLACES = 61


def stationary_point(
    model: nn.Module | None = None,
    data: Dataset | None = None,
    *,
    function: str | Callable[[Tensor], Tensor] | None = None,
    at: tuple[float, ...] | None = None,
    loss: Loss | None = None,
    samples: int = 500,
    settle: int = 0,
    reach: float = 0.01,
) -> Finding:
    """Return whether a point is a local minimum, with its kind and the points nearby that prove it.

    Args:
        model: A model with a loss; its weights are the point. Or give `function`.
        data: What the model's loss is averaged over.
        function: A function of a vector (d,) -> (), or the name of one of `leadline.studies.functions`.
        at: The point of the function; by default where the named one is of interest.
        loss: (model, x, y) -> mean loss; the model's own by default.
        samples: Most training samples.
        settle: Steps of L-BFGS by which the point is first brought nearer to a minimum.
        reach: Radius of the largest sphere, relative to max(1, |p|).

    Raises:
        OptionError: If neither a model with data nor a function with a point is given, or both are.
        StudyError: If a control fails.
    """
    name, surface = _subject(model, data, function, at, loss, samples)
    if settle:
        surface = _settled(surface, settle)
    controls = passed(_controls())
    nature = nature_of(surface, reach=reach)
    top, bottom = (eigenvalue_quantity(nature.eigenpairs, place) for place in (0, -1))
    dtype = str(surface.point.dtype).removeprefix("torch.")
    spheres = {
        "radius": nature.radii, "lowest": nature.lowest, "highest": nature.highest,
        "rounding": nature.rounding,
    }  # fmt: skip
    return Finding(
        study="stationary_point",
        claim=f"{name} has a local minimum at the point.",
        holds=HOLDS.get(nature.kind, False),
        value=bottom,
        controls=controls,
        table=pd.DataFrame(spheres),
        protocol=(
            f"{nature.kind}; gradient norm {nature.gradient_norm:.3g}, {nature.linear:.2g} of the change "
            f"over {nature.radii[0]:.3g}; eigenvalues of the Hessian from {bottom} to {top}; "
            f"{surface.size:,} parameters, {dtype}"
        ),
        draw=stationary_figure,
        details=_pictured(surface, nature) | {"nature": nature, "kind": nature.kind, "top": top},
    )


def _subject(
    model: nn.Module | None,
    data: Dataset | None,
    function: str | Callable[[Tensor], Tensor] | None,
    at: tuple[float, ...] | None,
    loss: Loss | None,
    samples: int,
) -> tuple[str, Surface]:
    """Return the name of what is looked at, and its surface in float64."""
    if (model is None) == (function is None):
        raise OptionError("stationary_point needs a model with data, or a function with a point (at=)")
    if model is not None:
        if data is None:
            raise OptionError("stationary_point of a model needs the data that its loss is averaged over")
        surface = loss_surface(model, data, loss=loss, samples=samples, double=True)
        return f"The loss of {type(model).__name__} on {data.name}", surface
    if isinstance(function, str):
        named = function_named(function)
        point = torch.tensor(named.point if at is None else at, dtype=torch.float64)
        if point.numel() != 2:
            raise OptionError(f"{function} is a function of two numbers; at has {point.numel()}")
        return named.formula, function_surface(named.value, point)
    if function is None or at is None:
        raise OptionError("a function of one's own needs a point: at=(0.0, 0.0)")
    return getattr(function, "__name__", "f"), function_surface(function, torch.tensor(at).double())


def _settled(surface: Surface, steps: int) -> Surface:
    """Return the surface at the point to which L-BFGS leads."""

    def slope(place: Any) -> tuple[float, Any]:
        value, gradient = surface.slope(torch.from_numpy(place).to(surface.point))
        return value, gradient.double().cpu().numpy()

    start = surface.point.detach().double().cpu().numpy()
    limits = {"maxiter": steps, "maxfun": 10 * steps, "gtol": 1e-12, "ftol": 0.0}
    found = scipy.optimize.minimize(slope, start, jac=True, method="L-BFGS-B", options=limits)
    return Surface(surface.parts, torch.from_numpy(found.x).to(surface.point), surface.kept)


def _pictured(surface: Surface, nature: Nature) -> dict[str, Any]:
    """Return the function along lines through the point, and around it where it has two variables."""
    point = surface.point.detach()
    ways = {
        "largest eigenvalue": nature.eigenpairs.vectors[0],
        "smallest eigenvalue": nature.eigenpairs.vectors[-1],
    }
    ways |= {
        name: move / move.norm()
        for name, move in (("lower", nature.low), ("higher", nature.high))
        if move is not None
    }
    places = np.linspace(-1.5, 1.5, PLACES) * nature.radii[0]
    here = surface.value()
    lines = {
        name: [surface.value(point + step * way) - here for step in places.tolist()]
        for name, way in ways.items()
    }
    found: dict[str, Any] = {"places": places, "lines": lines}
    if surface.size == 2:
        grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
        heights = [surface.value(point + torch.from_numpy(move).to(point)) - here for move in grid]
        found["around"] = np.array(heights).reshape(PLACES, PLACES)
    return found


def _controls() -> dict[str, Control]:
    """Return the functions whose kind is known."""

    def is_a(kind: str, name: str) -> Control:
        def measure() -> float:
            known = FUNCTIONS[name]
            point = torch.tensor(known.point, dtype=torch.float64)
            return float(nature_of(function_surface(known.value, point)).kind == kind)

        return Control(measure, lambda hit: hit == 1.0, f"be 1: {kind}")

    return {
        "x^2 + y^2 is a minimum": is_a("minimum", "bowl"),
        "y^4 - x^4 is a saddle": is_a("saddle", "flat_saddle"),
        "a constant is undecided": is_a("undecided", "constant"),
    }
