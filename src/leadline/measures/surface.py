r"""A loss as a function of all parameters at once: its value, its gradient, its Hessian times a vector.

    H v = d/dp (g(p) . v),  g = dL/dp

A product costs one backward pass through the gradient, about two gradients: the graphs of loss and gradient
are built once and kept, as many as the memory allowed holds; the others are built anew at each product.

Symbols:
    p (d,) all parameters in a row, L the mean loss, g (d,) its gradient, H (d, d) its Hessian, n samples.

Source:
    Pearlmutter (1994), Fast exact multiplication by the Hessian, Neural Computation 6(1).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from leadline.core import Batch, Classes, Labels, OptionError, Targets, VerbError, has_verb
from leadline.data import Dataset
from leadline.measures.answers import device_of, split_of
from leadline.measures.reading import MeasureError
from leadline.training.phases import learnable

__all__ = ["Loss", "Surface", "function_surface", "loss_surface", "mean_loss"]

Loss = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
Statistics = Literal["running", "batch"]
ROWS = 256  # most samples at once, where memory does not matter
MEMORY = 2e9
TRIAL = 2


class Surface:
    """A sum of scalar functions of one vector, at a point.

    Args:
        parts: Each p (d,) -> a share of L, shape ().
        point: Where (d,); a copy is kept, so that later steps of a training do not move it.
        kept: How many parts keep their graphs between products.
    """

    def __init__(self, parts: Sequence[Callable[[Tensor], Tensor]], point: Tensor, kept: int = 1) -> None:
        self.parts = list(parts)
        self.point = point.detach().clone().requires_grad_()
        self.kept = kept
        self._graphs: list[Tensor] = []
        self.products = 0

    @property
    def size(self) -> int:
        """Return the number d of parameters."""
        return self.point.numel()

    def direction(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a vector of independent normals with the type and device of the point, shape (d,)."""
        return torch.empty_like(self.point, requires_grad=False).normal_(generator=generator)

    def value(self, at: Tensor | None = None) -> float:
        """Return L at a point (d,), its own by default."""
        with torch.no_grad():
            where = self.point if at is None else at
            return sum(float(part(where)) for part in self.parts)

    def slope(self, at: Tensor | None = None) -> tuple[float, Tensor]:
        """Return L and its gradient (d,) at a point, its own by default."""
        where = (self.point if at is None else at).detach().requires_grad_()
        value, total = 0.0, torch.zeros_like(where, requires_grad=False)
        with torch.enable_grad():
            for part in self.parts:
                share = part(where)
                value += float(share.detach())
                if share.requires_grad:
                    total += torch.autograd.grad(share, where)[0]
        return value, total

    def product(self, v: Tensor) -> Tensor:
        """Return H v at the point: (d,) -> (d,)."""
        total = torch.zeros_like(v)
        self.products += 1
        with torch.enable_grad():
            for number in range(len(self.parts)):
                gradient = self._gradient(number)
                if gradient.requires_grad:
                    keep = number < self.kept
                    total += torch.autograd.grad(gradient, self.point, v, retain_graph=keep)[0]
        return total

    def release(self) -> None:
        """Forget the graphs; they are built again when they are needed."""
        self._graphs.clear()

    def _gradient(self, number: int) -> Tensor:
        """Return the gradient of a part with its graph."""
        if number < len(self._graphs):
            return self._graphs[number]
        share = self.parts[number](self.point)
        if not share.requires_grad:
            return torch.zeros_like(self.point, requires_grad=False)
        (gradient,) = torch.autograd.grad(share, self.point, create_graph=True)
        if number == len(self._graphs) and number < self.kept:
            self._graphs.append(gradient)
        return gradient


def function_surface(function: Callable[[Tensor], Tensor], point: Tensor) -> Surface:
    """Return the surface of a plain function of a vector, (d,) -> (), at a point.

    Raises:
        OptionError: If the point is no vector of finite numbers, or the function gives no single number.
    """
    start = torch.as_tensor(point)
    start = start if start.is_floating_point() else start.double()
    if start.dim() != 1 or start.numel() == 0 or not bool(torch.isfinite(start).all()):
        raise OptionError(f"a point is a vector of finite numbers, got shape {tuple(start.shape)}")
    with torch.no_grad():
        value = function(start)
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise OptionError(f"the function must return one number as a tensor, got {found}")
    return Surface([lambda p: function(p).reshape(())], start)


def loss_surface(
    model: nn.Module,
    data: Dataset,
    *,
    loss: Loss | None = None,
    samples: int = 1000,
    rows: int | None = None,
    statistics: Statistics = "running",
    double: bool = False,
    memory: float = MEMORY,
) -> Surface:
    """Return the mean loss of a model on data, as a function of all its trainable parameters.

    The model is taken as it is when it answers: in evaluation mode, without dropout; what its loss draws
    is drawn alike each time. With `statistics="batch"` batch normalisation uses the mean and variance of
    each `rows` samples, as in training, and their derivatives belong to H.

    Args:
        model: One with `loss(batch)`, or `predict(x)` on labelled data, or any with `loss`.
        data: Its training samples are what the loss is averaged over.
        loss: (model, x, y) -> mean loss, shape (); the model's own by default, else that of its labels.
        samples: Most training samples, spread evenly over the split.
        rows: Samples that go through the model at once; as many as suit the memory, at most 256.
        statistics: Of batch normalisation: "running" or "batch".
        double: Whether to work in float64.
        memory: Bytes that graphs may take; one chunk is always kept.

    Raises:
        VerbError: If the model has no loss and none is given.
        MeasureError: If there is no sample, nothing can be trained, or the loss is not finite.
        OptionError: If an option is out of range.
    """
    if samples < 1 or (rows is not None and rows < 1) or not memory > 0:
        raise OptionError(f"samples, rows and memory must be above 0, got {samples}, {rows} and {memory}")
    if statistics not in ("running", "batch"):
        raise OptionError(f'statistics of batch normalisation are "running" or "batch", got "{statistics}"')
    part = learnable(model, split_of(data, "train"), data).head(samples)
    if len(part) == 0:
        raise MeasureError(f"the training split of {data.name} holds no labelled sample")
    objective = _Objective(model, mean_loss(model, data.labels) if loss is None else loss)
    dtype = torch.float64 if double else None
    assemble, point = _parameters(objective, dtype)

    def share(x: Tensor, y: Tensor | None, weight: float, p: Tensor) -> Tensor:
        place = p.device
        x = x.to(place, p.dtype) if x.is_floating_point() else x.to(place)
        y = None if y is None else (y.to(place, p.dtype) if y.is_floating_point() else y.to(place))
        with _still(model, statistics):
            value: Tensor = torch.func.functional_call(objective, assemble(p), (x, y))
        if value.numel() != 1:
            raise OptionError(f"the loss must be one number, got the shape {tuple(value.shape)}")
        return weight * value.reshape(()).to(p.dtype)

    n = len(part)
    trial = partial(share, *part.rows(torch.arange(min(TRIAL, n))), 1.0)
    each = _graph_bytes(trial, point) / min(TRIAL, n)
    size = rows or max(1, min(ROWS, n, int(memory / max(each, 1.0))))
    chunks = [part.rows(index) for index in torch.arange(n).tensor_split(-(-n // size))]
    parts = [partial(share, x, y, len(x) / n) for x, y in chunks]
    surface = Surface(parts, point, kept=max(1, int(memory / max(each * size, 1.0))))
    value = surface.value()
    if not -float("inf") < value < float("inf"):
        raise MeasureError(f"the loss of {type(model).__name__} on {data.name} is {value}")
    return surface


def mean_loss(model: nn.Module, labels: Labels | None) -> Loss:
    """Return the model's own loss, else the cross-entropy or half the squared error of what it predicts.

    Raises:
        VerbError: If it has neither.
    """
    if has_verb(model, "loss"):
        return lambda model, x, y: model.loss(Batch(x, y, progress=1.0))  # type: ignore[operator]
    if has_verb(model, "predict") and isinstance(labels, Classes):
        return _cross_entropy
    if has_verb(model, "predict") and isinstance(labels, Targets):
        return partial(_squared_error, labels)
    raise VerbError(
        f"{type(model).__name__} has no loss(batch), nor predict(x) on labelled data; "
        "give loss=function of (model, x, y)"
    )


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the mean negative log-probability of the labels, in nats."""
    answers: Tensor = model.predict(x)  # type: ignore[operator]
    return nn.functional.nll_loss(answers, _labelled(y))


def _squared_error(labels: Targets, model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """Return half the mean squared error in standard deviations of the targets."""
    answers: Tensor = model.predict(x)  # type: ignore[operator]
    return 0.5 * ((answers - _labelled(y)) / answers.new_tensor(labels.scale)).square().mean()


def _labelled(y: Tensor | None) -> Tensor:
    if y is None:
        raise MeasureError("the loss of what a model predicts needs labels, and these samples have none")
    return y


class _Objective(nn.Module):
    """A model's loss as a module, so that its parameters can be exchanged."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.of = model, loss

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Return the mean loss of a batch, shape ()."""
        return self.of(self.model, x, y)


def _parameters(
    objective: nn.Module, dtype: torch.dtype | None
) -> tuple[Callable[[Tensor], dict[str, Tensor]], Tensor]:
    """Return how a vector becomes the tensors of a module, and the vector of those it has.

    Raises:
        MeasureError: If it has nothing to train, or on more than one device.
    """
    free = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    if not free:
        raise MeasureError("the model has no parameter that can be trained")
    fixed = {
        name: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in (*objective.named_parameters(), *objective.named_buffers())
        if name not in free
    }
    kinds = {p.dtype if dtype is None else dtype for p in free.values()}
    if len({p.device for p in free.values()}) > 1 or len(kinds) > 1:
        raise MeasureError("parameters must be on one device and of one type; use double=True for several")
    if not kinds <= {torch.float32, torch.float64}:
        raise MeasureError(f"second derivatives need float32 or float64, not {kinds.pop()}; use double=True")
    sizes = [p.numel() for p in free.values()]
    shapes = [p.shape for p in free.values()]

    def assemble(point: Tensor) -> dict[str, Tensor]:
        pieces = (piece.view(shape) for piece, shape in zip(point.split(sizes), shapes, strict=True))
        return dict(zip(free, pieces, strict=True)) | fixed

    return assemble, torch.cat([p.detach().flatten().to(dtype) for p in free.values()])


@contextmanager
def _still(model: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Hold everything about a model still but its parameters, and put it back at the end."""
    training = [(part, part.training) for part in model.modules()]
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
    tracked = [norm.track_running_stats for norm in norms]
    device = device_of(model)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        # Kernels without second derivatives: fused attention, recurrent nets of cuDNN.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=not _recurrent(model)))
        torch.manual_seed(0)
        model.eval()
        if statistics == "batch":
            for norm in norms:
                norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for part, mode in training:
                part.training = mode
            for norm, mode in zip(norms, tracked, strict=True):
                norm.track_running_stats = mode


def _recurrent(model: nn.Module) -> bool:
    return any(isinstance(part, nn.RNNBase) for part in model.modules())


def _graph_bytes(part: Callable[[Tensor], Tensor], point: Tensor) -> float:
    """Return the bytes that a part's loss and gradient keep for a product, but for the parameters."""
    held: dict[int, int] = {}

    def count(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    where = point.detach().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        share = part(where)
        if share.requires_grad:
            torch.autograd.grad(share, where, create_graph=True)
    held.pop(where.untyped_storage().data_ptr(), None)
    return float(sum(held.values()))
