r"""Likelihood heads: how the numbers that a network gives become a distribution over raw samples.

A head reads a flat row of P parameters a sample. Parameter i belongs to dimension `owners[i]`; the
parameters of one dimension stand side by side. All densities are over raw values.

Symbols:
    n samples, d dimensions of a sample, k parameters a dimension, P = number of parameters a sample.

Source:
    Discretised logistic: Salimans et al. (2017), PixelCNN++, section 2.1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core.errors import ShapeError
from leadline.core.randomness import categorical, normal, uniform

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretizedLogistic",
    "Likelihood",
    "Normal",
    "Poisson",
    "Product",
]

_LOG_2PI = 1.8378770664093453


class Likelihood(ABC):
    """A distribution over one raw sample of `shape`, given a row of parameters.

    Args:
        shape: Shape of one sample.
        widths: Number of parameters of each dimension, in flat order.
        dtype: Type of raw samples.
    """

    def __init__(self, shape: tuple[int, ...], widths: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self.widths = tuple(widths)
        self.parameters = sum(self.widths)
        self.owners = torch.repeat_interleave(
            torch.arange(len(self.widths)), torch.tensor(self.widths, dtype=torch.long)
        )

    @abstractmethod
    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Return the expected raw value as a float: (n, P) -> (n, *shape)."""

    @abstractmethod
    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""

    @abstractmethod
    def column(self, dim: int) -> "Likelihood":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p(x | params) in nats: (..., n, P), (n, *shape) -> (..., n)."""
        return self.log_prob_each(params, x).sum(-1)

    def point(self, params: Tensor) -> Tensor:
        """Return the best single raw value, the mean on the domain's grid: (n, P) -> (n, *shape)."""
        mean = self.mean(params)
        return mean if self.dtype.is_floating_point else mean.round().to(self.dtype)

    def from_planes(self, planes: Tensor) -> Tensor:
        """Return flat parameters of a convolution's output: (n, c * k, h, w) -> (n, P)."""
        n, channels, height, width = planes.shape
        k = channels // self.shape[0]
        # (n, c, k, h, w) -> (n, c, h, w, k): the parameters of one dimension side by side
        return planes.view(n, self.shape[0], k, height, width).movedim(2, -1).flatten(1)

    def _split(self, params: Tensor) -> Tensor:
        """Return parameters by dimension, all of one width: (..., P) -> (..., d, k)."""
        if params.shape[-1] != self.parameters:
            raise ShapeError(
                f"this likelihood needs {self.parameters} parameters a sample, got {params.shape[-1]}"
            )
        return params.view(*params.shape[:-1], len(self.widths), self.widths[0])


class Bernoulli(Likelihood):
    """Independent bits; one logit a dimension."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> None:
        super().__init__(shape, [1] * prod(shape), dtype)

    def column(self, dim: int) -> "Bernoulli":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        return Bernoulli((1,), self.dtype)

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        bits = x.flatten(1).to(params.dtype).expand_as(params)
        return -F.binary_cross_entropy_with_logits(params, bits, reduction="none")

    def mean(self, params: Tensor) -> Tensor:
        """Return the probability of a one: (n, P) -> (n, *shape)."""
        return params.sigmoid().unflatten(-1, self.shape)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        draws = uniform(tuple(params.shape), params, generator) < params.sigmoid()
        return draws.to(self.dtype).unflatten(-1, self.shape)


class Categorical(Likelihood):
    """Independent categories; one logit a value of each dimension, which may have unlike numbers of values.

    Args:
        shape: Shape of one sample.
        cardinalities: Number of values of each dimension, in flat order.
        dtype: Type of raw samples.
        ordered: Whether values are levels of a quantity: then `mean` is their expectation and
            `point` its rounding, else both are the most probable value.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        cardinalities: Sequence[int],
        dtype: torch.dtype = torch.int64,
        *,
        ordered: bool = False,
    ) -> None:
        super().__init__(shape, cardinalities, dtype)
        self.ordered = ordered
        most = max(self.widths)
        starts = torch.tensor([0, *self.widths]).cumsum(0)[:-1]
        place = torch.arange(most)
        # Ragged rows point past the end, where -inf is appended.
        inside = place < torch.tensor(self.widths)[:, None]
        self._table = torch.where(inside, starts[:, None] + place, self.parameters)  # (d, most)
        self._even = len(set(self.widths)) == 1

    def column(self, dim: int) -> "Categorical":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        return Categorical((1,), (self.widths[dim],), self.dtype, ordered=self.ordered)

    def log_probs(self, params: Tensor) -> Tensor:
        """Return log p of every value: (..., P) -> (..., d, values), -inf where a value does not exist."""
        if self._even:
            return F.log_softmax(self._split(params), -1)
        padded = F.pad(params, (0, 1), value=float("-inf"))
        return F.log_softmax(padded[..., self._table.to(params.device)], -1)

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        table = self.log_probs(params)
        index = x.flatten(1).long().expand(table.shape[:-1])
        return table.gather(-1, index[..., None]).squeeze(-1)

    def mean(self, params: Tensor) -> Tensor:
        """Return the expected level, or the most probable value: (n, P) -> (n, *shape)."""
        table = self.log_probs(params)
        if not self.ordered:
            return table.argmax(-1).to(params).unflatten(-1, self.shape)
        levels = torch.arange(table.shape[-1], dtype=params.dtype, device=params.device)
        return (table.exp() @ levels).unflatten(-1, self.shape)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        draws = categorical(self.log_probs(params), generator)
        return draws.to(self.dtype).unflatten(-1, self.shape)


class DiscretizedLogistic(Likelihood):
    """Independent logistics, integrated over the cell of each level; the outer cells reach to infinity.

    Args:
        shape: Shape of one sample.
        levels: Number of levels; a raw value v stands for 2 v / (levels - 1) - 1 in [-1, 1].
        dtype: Type of raw samples.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, dtype: torch.dtype = torch.uint8) -> None:
        super().__init__(shape, [2] * prod(shape), dtype)
        self.levels = levels

    def column(self, dim: int) -> "DiscretizedLogistic":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        return DiscretizedLogistic((1,), self.levels, self.dtype)

    def _centre(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and log-scale, on the [-1, 1] scale: (..., P) -> two of (..., d)."""
        centre, log_scale = self._split(params).unbind(-1)
        return centre, log_scale.clamp(-7.0, 5.0)

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        centre, log_scale = self._centre(params)
        levels = x.flatten(1).to(params.dtype).expand_as(centre)
        value = 2 * levels / (self.levels - 1) - 1
        half = 1 / (self.levels - 1)
        upper = (value - centre + half) * torch.exp(-log_scale)
        lower = (value - centre - half) * torch.exp(-log_scale)
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u))
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        edge = torch.where(levels >= self.levels - 1, F.logsigmoid(-lower), inner)
        return torch.where(levels <= 0, F.logsigmoid(upper), edge)

    def mean(self, params: Tensor) -> Tensor:
        """Return the location on the raw scale, inside its range: (n, P) -> (n, *shape)."""
        return self._raw(self._centre(params)[0]).unflatten(-1, self.shape)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        centre, log_scale = self._centre(params)
        noise = uniform(tuple(centre.shape), centre, generator).clamp(1e-6, 1 - 1e-6)
        value = centre + log_scale.exp() * torch.logit(noise)
        return self._raw(value).round().to(self.dtype).unflatten(-1, self.shape)

    def _raw(self, value: Tensor) -> Tensor:
        """Return raw levels as floats of values in [-1, 1]."""
        return ((value + 1) / 2 * (self.levels - 1)).clamp(0, self.levels - 1)


class Normal(Likelihood):
    """Independent normals; location and log-scale of each dimension, in standardised units.

    Args:
        mean: Raw mean of each dimension, to which location 0 refers.
        scale: Raw standard deviation of each dimension, to which scale 1 refers.
        shape: Shape of one sample; one dimension a column by default.
    """

    def __init__(
        self, mean: Sequence[float], scale: Sequence[float], shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(shape or (len(mean),), [2] * len(mean), torch.float32)
        self._mean = torch.tensor(mean)
        self._scale = torch.tensor(scale)

    def column(self, dim: int) -> "Normal":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        return Normal(self._mean[dim : dim + 1].tolist(), self._scale[dim : dim + 1].tolist())

    def _moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw mean and log standard deviation: (..., P) -> two of (..., d)."""
        centre, log_scale = self._split(params).unbind(-1)
        scale = self._scale.to(params)
        return centre * scale + self._mean.to(params), log_scale.clamp(-7.0, 7.0) + scale.log()

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        mean, log_scale = self._moments(params)
        error = (x.flatten(1).to(params.dtype) - mean) * torch.exp(-log_scale)
        return -0.5 * error.square() - log_scale - 0.5 * _LOG_2PI

    def mean(self, params: Tensor) -> Tensor:
        """Return the raw mean: (n, P) -> (n, *shape)."""
        return self._moments(params)[0].unflatten(-1, self.shape)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        centre, log_scale = self._split(params).unbind(-1)
        noise = normal(tuple(centre.shape), centre, generator)
        unit = torch.addcmul(centre, log_scale.clamp(-7.0, 7.0).exp(), noise)
        return torch.addcmul(self._mean.to(params), unit, self._scale.to(params)).view(-1, *self.shape)


class Poisson(Likelihood):
    """Independent counts; one log-rate a dimension."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, [1] * prod(shape), torch.int64)

    def column(self, dim: int) -> "Poisson":
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        return Poisson((1,))

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, *shape) -> (..., n, d)."""
        counts = x.flatten(1).to(params.dtype)
        return counts * params - params.exp() - torch.lgamma(counts + 1)

    def mean(self, params: Tensor) -> Tensor:
        """Return the rate: (n, P) -> (n, *shape)."""
        return params.exp().unflatten(-1, self.shape)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, *shape)."""
        return torch.poisson(params.exp(), generator).to(self.dtype).unflatten(-1, self.shape)


class Product(Likelihood):
    """Several heads side by side: a sample is their flat samples joined, in float32."""

    def __init__(self, parts: Sequence[Likelihood]) -> None:
        self.parts = tuple(parts)
        widths = [width for part in self.parts for width in part.widths]
        super().__init__((len(widths),), widths, torch.float32)

    def column(self, dim: int) -> Likelihood:
        """Return the head of dimension `dim` alone, over samples of shape (1,)."""
        for part in self.parts:
            if dim < len(part.widths):
                return part.column(dim)
            dim -= len(part.widths)
        raise IndexError(dim)

    def _pieces(self, params: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters of each part."""
        return params.split([part.parameters for part in self.parts], -1)

    def log_prob_each(self, params: Tensor, x: Tensor) -> Tensor:
        """Return log p of each dimension in nats: (..., n, P), (n, d) -> (..., n, d)."""
        columns = x.split([len(part.widths) for part in self.parts], -1)
        triples = zip(self.parts, self._pieces(params), columns, strict=True)
        return torch.cat([part.log_prob_each(piece, column) for part, piece, column in triples], -1)

    def mean(self, params: Tensor) -> Tensor:
        """Return the parts' means joined: (n, P) -> (n, d)."""
        pairs = zip(self.parts, self._pieces(params), strict=True)
        return torch.cat([part.mean(piece).flatten(1).to(params) for part, piece in pairs], -1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one raw draw a row: (n, P) -> (n, d)."""
        pairs = zip(self.parts, self._pieces(params), strict=True)
        draws = [part.sample(piece, generator).flatten(1).to(params) for part, piece in pairs]
        return torch.cat(draws, -1)
