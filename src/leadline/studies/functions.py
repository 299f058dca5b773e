r"""Named functions of two variables on which the ways of descent and the kinds of stationary points show.

Source:
    Rosenbrock (1960), An automatic method for finding the greatest or least value of a function, Computer
    Journal 3. Beale (1958), On an iterative method for finding a local minimum. Himmelblau (1972), Applied
    Nonlinear Programming. Peano's surface: Genocchi and Peano (1884), Calcolo differenziale, no. 133-136.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from leadline.core.errors import unknown_name

__all__ = ["FUNCTIONS", "Function", "function_named"]


@dataclass(frozen=True)
class Function:
    """A function of two variables with what is known about it.

    Args:
        formula: It, in words of a formula.
        value: p (2,) -> (), differentiable.
        point: A point of interest: its stationary point, or its minimum.
        start: Where a descent starts.
        box: What a figure shows: (left, right, bottom, top).
        least: Its least value, or None where it has none.
    """

    formula: str
    value: Callable[[Tensor], Tensor]
    point: tuple[float, float]
    start: tuple[float, float]
    box: tuple[float, float, float, float]
    least: float | None

    def __call__(self, p: Tensor) -> Tensor:
        """Return the value at a point: (2,) -> ()."""
        return self.value(p)


def _beale(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _himmelblau(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _of(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of a point from one of x and y; points may come as (..., 2)."""
    return lambda p: rule(*p.unbind(-1))


_NEAR = (-1.2, 1.2, -1.2, 1.2)
FUNCTIONS: dict[str, Function] = {
    "bowl": Function("x^2 + y^2", _of(lambda x, y: x**2 + y**2), (0, 0), (1, 0.6), _NEAR, 0.0),
    "ravine": Function(
        "(x^2 + 100 y^2) / 2", _of(lambda x, y: 0.5 * (x**2 + 100 * y**2)), (0, 0), (2, 0.5),
        (-1, 2.4, -0.8, 0.8), 0.0,
    ),
    "rosenbrock": Function(
        "(1 - x)^2 + 100 (y - x^2)^2", _of(lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2), (1, 1),
        (-1.2, 1), (-2, 2, -1, 3), 0.0,
    ),
    "beale": Function(
        "(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2", _beale, (3, 0.5), (1, 1),
        (-1, 4.5, -1.5, 2), 0.0,
    ),
    "himmelblau": Function(
        "(x^2 + y - 11)^2 + (x + y^2 - 7)^2", _himmelblau, (3, 2), (-0.5, -1), (-5, 5, -5, 5), 0.0
    ),
    "saddle": Function("x^2 - y^2", _of(lambda x, y: x**2 - y**2), (0, 0), (1, 0), _NEAR, None),
    "flat_saddle": Function("y^4 - x^4", _of(lambda x, y: y**4 - x**4), (0, 0), (0, 1), _NEAR, None),
    "monkey_saddle": Function(
        "x^3 - 3 x y^2", _of(lambda x, y: x**3 - 3 * x * y**2), (0, 0), (1, 0), _NEAR, None
    ),
    "flat_bowl": Function("x^4 + y^4", _of(lambda x, y: x**4 + y**4), (0, 0), (1, 0.6), _NEAR, 0.0),
    "peano": Function(
        "(y - x^2) (y - 3 x^2)", _of(lambda x, y: (y - x**2) * (y - 3 * x**2)), (0, 0), (0.5, 1), _NEAR, None
    ),
    "hill": Function("-x^2 - y^2", _of(lambda x, y: -(x**2) - y**2), (0, 0), (0.1, 0), _NEAR, None),
    "constant": Function("0", _of(lambda x, y: 0 * x + 0 * y), (0, 0), (1, 0.6), _NEAR, 0.0),
}  # fmt: skip


def function_named(name: str) -> Function:
    """Return the function of that name.

    Raises:
        OptionError: If there is none.
    """
    if name not in FUNCTIONS:
        raise unknown_name("function", name, FUNCTIONS)
    return FUNCTIONS[name]
