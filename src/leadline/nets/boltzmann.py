r"""Two layers of units with weights between them: binary hidden units, binary or Gaussian visible ones.

    p(v, h) = exp(g(v, b) + c h + r(v) W h) / Z
    binary:    g(v, b) = b v,                       r(v) = v,        v | h ~ sigmoid(b + W h)
    Gaussian:  g(v, b) = -1/2 sum ((v - b) / s)^2,  r(v) = v / s,    v | h ~ N(b + s W h, s^2)

so that p(v) = exp(-F(v)) / Z with the free energy F(v) = -g(v, b) - sum_j softplus(c + r(v) W)_j.
The gradient of -log p is that of F at the data less its mean under the model. CD-k puts the end of a
Gibbs chain of k steps, started at the data, in place of the model; persistent chains go on instead.

Symbols:
    n rows, D visible units v (n, D), H hidden units h (n, H), W (D, H) weights, b (D,) visible and
    c (H,) hidden biases, s (D,) scales, a centre (n, D): logits or means of visible units.

Source:
    Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence.
    Persistent chains: Tieleman (2008), Training RBMs using Approximations to the Likelihood Gradient.
    Gaussian units: Hinton (2010), A Practical Guide to Training Restricted Boltzmann Machines, section 13.2.
    The figure of Gaussian units to choose by: Hyvarinen (2005), Estimation of Non-Normalized Statistical
    Models by Score Matching, JMLR 6, equation 4.

Departs from the source:
    The last hidden layer of a chain is its probabilities, not a draw: the same gradient with less noise.
    A learned scale is never below a tenth: s = 1/10 + 9/10 exp(t), since gradients grow as 1 / s^2. The
    centred gradient is that in b / s, and its step is taken in b: the length of a step of the mean is then
    that of data of unit variance, however small the noise of a unit is.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core.errors import OptionError
from leadline.core.randomness import bernoulli, normal, uniform
from leadline.nets.centring import Centring
from leadline.nets.contrast import Contrast
from leadline.nets.enumeration import (
    draws_of_pairs,
    draws_of_smaller,
    log_partition_by_pairs,
    log_partition_of,
    log_partition_with_gradient,
)

__all__ = ["BernoulliLayer", "BoltzmannLayer", "GaussianLayer"]

_LEAST_SCALE = 0.1
_START = 0.3  # size of what a hidden unit adds to Gaussian units, in units of their noise, before training


class BoltzmannLayer(nn.Module, ABC):
    """Visible and hidden units; what the visible ones are is said below.

    Args:
        visible: Number D of visible units, at least 1.
        hidden: Number H of hidden units, at least 1.
        chains: Number of Gibbs chains that go on from contrast to contrast; with 0 they start at the data.

    Raises:
        ValueError: If a size is out of range.
    """

    chain: Tensor
    centring: Centring | None

    def __init__(self, visible: int, hidden: int, chains: int = 0) -> None:
        super().__init__()
        for name, value in (("visible", visible), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if chains < 0:
            raise ValueError(f"chains must be at least 0, got {chains}")
        self.weights = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        # visible units at the end of each chain; none unless they persist
        self.register_buffer("chain", self.start(chains))

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Hold as many chains as were saved, and no running means if none were, given shapes by name."""
        self.chain = self.chain.new_zeros(shapes.get("chain", self.chain.shape))
        if not any(name.startswith("centring.") for name in shapes):
            self.centring = None

    @property
    @abstractmethod
    def enumerated(self) -> int:
        """Return over how many binary units `log_partition` sums."""

    @abstractmethod
    def log_partition(self, known: float | None = None) -> Tensor:
        """Return log Z in nats, shape (), by enumeration; its gradient is found when it is asked for.

        Args:
            known: Its value, if it was found before for these parameters.
        """

    @abstractmethod
    def exact_draws(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return exact draws of visible units, by enumeration: (n, D)."""

    @abstractmethod
    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return visible units that know nothing yet, shape (n, D): where a chain begins."""

    @abstractmethod
    def read(self, v: Tensor) -> Tensor:
        """Return r(v), what the weights multiply: (n, D) -> (n, D)."""

    @abstractmethod
    def centre(self, h: Tensor) -> Tensor:
        """Return logits or means of visible units given hidden ones: (n, H) -> (n, D)."""

    @abstractmethod
    def mean(self, centre: Tensor) -> Tensor:
        """Return the expected visible units of a centre: (..., D) -> (..., D)."""

    @abstractmethod
    def centre_of(self, mean: Tensor) -> Tensor:
        """Return the centre of an expectation, the inverse of `mean`: (..., D) -> (..., D)."""

    @abstractmethod
    def draw(self, centre: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return visible units drawn about a centre: (n, D) -> (n, D)."""

    @abstractmethod
    def log_factor(self, v: Tensor, centre: Tensor) -> Tensor:
        """Return g(v, centre), in nats: (n, D), (D,) or (n, D) -> (n,)."""

    @abstractmethod
    def log_normaliser(self, centre: Tensor) -> Tensor:
        """Return log of the sum of exp(g(v, centre)) over all v, in nats: (..., D) -> (...)."""

    @abstractmethod
    def misfit(self, v: Tensor) -> Tensor:
        """Return a figure to choose by without log Z, lower is better: (n, D) -> ()."""

    @abstractmethod
    def _difference(self, data: Tensor, end: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """Return mean F(data) - mean F(end), given the inputs of both without their graphs."""

    def inputs(self, v: Tensor) -> Tensor:
        """Return the logits c + r(v) W of hidden units: (n, D) -> (n, H)."""
        return torch.addmm(self.hidden_bias, self.read(v), self.weights).to(self.weights)

    def hidden(self, v: Tensor) -> Tensor:
        """Return the probability of each hidden unit: (n, D) -> (n, H)."""
        return self.inputs(v).sigmoid()

    def free_energy(self, v: Tensor) -> Tensor:
        """Return F(v) of each row, in nats: (n, D) -> (n,)."""
        return -self.log_factor(v, self.visible_bias) - F.softplus(self.inputs(v)).sum(1)

    def draw_visible(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return visible units drawn given hidden ones that are drawn: inputs (n, H) -> (n, D)."""
        return self.draw(self.centre(bernoulli(inputs.sigmoid(), generator)), generator)

    def begin(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return where chains begin: at persistent ones, drawn with replacement, or else blind: (n, D).

        Chains that begin blind fall into the few widest modes and stay; persistent ones have seen more.
        """
        if not len(self.chain):
            return self.start(n, generator)
        place = (uniform((n,), self.weights, generator) * len(self.chain)).long()
        return self.chain[place.clamp(max=len(self.chain) - 1)]

    def chain_end(self, inputs: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Return visible units after `steps` Gibbs steps that begin at inputs (n, H).

        Raises:
            OptionError: If `steps` is below 1.
        """
        if steps < 1:
            raise OptionError(f"steps must be at least 1, got {steps}")
        for _ in range(steps - 1):
            inputs = self.inputs(self.draw_visible(inputs, generator))
        return self.draw_visible(inputs, generator)

    def contrast(self, v: Tensor, steps: int = 1) -> Tensor:
        """Return mean F(v) - mean F(end of a chain), in nats, shape (); its gradient is that of CD-k.

        Its value is no likelihood; it may rise while the layer improves.

        Args:
            v: Data, (n, D).
            steps: Number k of Gibbs steps, at least 1.
        """
        return self.contrast_and_end(v, steps)[0]

    def contrast_and_end(self, v: Tensor, steps: int = 1) -> tuple[Tensor, Tensor]:
        """Return `contrast` and the visible units at the end of the chains, (n or chains, D)."""
        with torch.no_grad():
            inputs = self.inputs(v)
            end = self.chain_end(self.inputs(self.chain) if len(self.chain) else inputs, steps)
            if len(self.chain):
                self.chain.copy_(end)
            down = self.inputs(end)
        return self._difference(v, end, inputs, down), end


class BernoulliLayer(BoltzmannLayer):
    """Binary visible units; numbers in [0, 1] are taken as their probabilities.

    Args:
        visible: Number D of visible units, at least 1.
        hidden: Number H of hidden units, at least 1.
        chains: Number of persistent chains; 0 for none.
        centred: Whether the gradient of `contrast` is the centred one.

    Raises:
        ValueError: If a size is out of range.

    Example:
        >>> layer = BernoulliLayer(6, hidden=4)
        >>> v = layer.start(3)
        >>> layer.contrast(v).shape, layer.hidden(v).shape
        (torch.Size([]), torch.Size([3, 4]))
    """

    def __init__(self, visible: int, hidden: int, chains: int = 0, *, centred: bool = False) -> None:
        super().__init__(visible, hidden, chains)
        self.centring = Centring((visible, hidden)) if centred else None

    @classmethod
    def of(
        cls, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, chain: Tensor | None = None
    ) -> "BernoulliLayer":
        """Return a layer that holds these tensors, (D, H), (D,), (H,), (c, D), and does not learn."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.centring = None
        for name, value in (
            ("weights", weights), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)
        ):  # fmt: skip
            layer.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
        none = weights.new_empty(0, len(visible_bias))
        layer.register_buffer("chain", none if chain is None else chain)
        return layer

    @property
    def enumerated(self) -> int:
        """Return the size of the smaller layer."""
        return min(self.weights.shape)

    def log_partition(self, known: float | None = None) -> Tensor:
        """Return log Z in nats, shape (), by summing over the smaller layer; see `BoltzmannLayer`."""
        tensors = (self.weights, self.visible_bias, self.hidden_bias)
        value = float(log_partition_of(*tensors)) if known is None else known
        return log_partition_with_gradient(*tensors, value)

    def exact_draws(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return exact draws of visible units: the smaller layer by enumeration, then the other."""
        units = draws_of_smaller(self.weights, self.visible_bias, self.hidden_bias, n, generator)
        visible_is_smaller = self.weights.shape[0] < self.weights.shape[1]
        return units if visible_is_smaller else self.draw(self.centre(units), generator)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return fair coins, shape (n, D)."""
        return uniform((n, len(self.visible_bias)), self.weights, generator).round()

    def read(self, v: Tensor) -> Tensor:
        """Return v itself."""
        return v

    def centre(self, h: Tensor) -> Tensor:
        """Return the logits b + h W^T: (n, H) -> (n, D)."""
        return torch.addmm(self.visible_bias, h, self.weights.T).to(self.weights)

    def mean(self, centre: Tensor) -> Tensor:
        """Return the probability of a one: (..., D) -> (..., D)."""
        return centre.sigmoid()

    def centre_of(self, mean: Tensor) -> Tensor:
        """Return the logit: (..., D) -> (..., D)."""
        return torch.logit(mean)

    def draw(self, centre: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return bits with the logits `centre`: (n, D) -> (n, D)."""
        return bernoulli(centre.sigmoid(), generator)

    def log_factor(self, v: Tensor, centre: Tensor) -> Tensor:
        """Return v centre, in nats: (n, D), (D,) or (n, D) -> (n,)."""
        return v @ centre if centre.dim() == 1 else (v * centre).sum(1)

    def log_normaliser(self, centre: Tensor) -> Tensor:
        """Return sum softplus(centre), in nats: (..., D) -> (...)."""
        return F.softplus(centre).sum(-1)

    def misfit(self, v: Tensor) -> Tensor:
        """Return the mean of -D log p(v_i | all other bits) with i drawn for each row, in nats, shape ()."""
        places = torch.randint(v.shape[1], (v.shape[0], 1), device="cpu").to(v.device)
        flipped = v.scatter(1, places, 1 - v.gather(1, places))
        return v.shape[1] * F.softplus(self.free_energy(v) - self.free_energy(flipped)).mean()

    def _difference(self, data: Tensor, end: Tensor, up: Tensor, down: Tensor) -> Tensor:
        biases = (self.visible_bias, self.hidden_bias)
        found: Tensor = Contrast.apply(self.weights, *biases, data, end, up, down)
        if self.centring is None:
            return found
        centred: Tensor = self.centring(found, (self.weights,), biases, (data, up.sigmoid()))
        return centred


class GaussianLayer(BoltzmannLayer):
    """Real visible units, normal given the hidden ones.

    Args:
        visible: Number D of visible units, at least 1.
        hidden: Number H of hidden units, at least 1.
        chains: Number of persistent chains; 0 for none.
        learned: Whether the scale of each unit is learned; it is 1 otherwise.
        centred: Whether the gradient of `contrast` is the centred one.

    Raises:
        ValueError: If a size is out of range.

    Example:
        >>> layer = GaussianLayer(6, hidden=4)
        >>> v = layer.start(3)
        >>> layer.contrast(v).shape, layer.hidden(v).shape
        (torch.Size([]), torch.Size([3, 4]))
    """

    def __init__(
        self, visible: int, hidden: int, chains: int = 0, *, learned: bool = False, centred: bool = False
    ) -> None:
        super().__init__(visible, hidden, chains)
        self.centring = Centring((visible, hidden)) if centred else None
        self.free_scale = nn.Parameter(torch.zeros(visible)) if learned else None
        with torch.no_grad():  # without any weights the gradient would have nothing to grow from
            self.weights.mul_(_START / (0.01 * visible**0.5))

    @property
    def enumerated(self) -> int:
        """Return the number of hidden units."""
        return self.weights.shape[1]

    @property
    def scale(self) -> Tensor:
        """Return s, the noise of each visible unit given the hidden ones, shape (D,)."""
        if self.free_scale is None:
            return torch.ones_like(self.visible_bias)
        return _LEAST_SCALE + (1 - _LEAST_SCALE) * self.free_scale.exp()

    def log_partition(self, known: float | None = None) -> Tensor:
        """Return log Z in nats, shape (), by summing over the hidden units; see `BoltzmannLayer`."""
        if known is not None and not torch.is_grad_enabled():
            return self.weights.new_tensor(known)
        return log_partition_by_pairs(*self._of_hidden()) + self.log_normaliser(self.visible_bias)

    def exact_draws(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return exact draws of visible units: the hidden ones by enumeration, then these."""
        return self.draw(self.centre(draws_of_pairs(*self._of_hidden(), n, generator)), generator)

    def start(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return unit normals, shape (n, D)."""
        return normal((n, len(self.visible_bias)), self.weights, generator)

    def read(self, v: Tensor) -> Tensor:
        """Return v in units of the scale: (n, D) -> (n, D)."""
        return v if self.free_scale is None else v / self.scale

    def centre(self, h: Tensor) -> Tensor:
        """Return the means b + s W h: (n, H) -> (n, D)."""
        if self.free_scale is None:
            return torch.addmm(self.visible_bias, h, self.weights.T).to(self.weights)
        return torch.addcmul(self.visible_bias, self.scale, (h @ self.weights.T).to(self.weights))

    def mean(self, centre: Tensor) -> Tensor:
        """Return the centre itself."""
        return centre

    def centre_of(self, mean: Tensor) -> Tensor:
        """Return the mean itself."""
        return mean

    def draw(self, centre: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return normals about `centre`, the noise included: (n, D) -> (n, D)."""
        noise = normal(tuple(centre.shape), centre, generator)
        return centre + noise if self.free_scale is None else torch.addcmul(centre, self.scale, noise)

    def log_factor(self, v: Tensor, centre: Tensor) -> Tensor:
        """Return -1/2 sum ((v - centre) / s)^2, in nats: (n, D), (D,) or (n, D) -> (n,)."""
        return -0.5 * self.read(v - centre).square().sum(1)

    def log_normaliser(self, centre: Tensor) -> Tensor:
        """Return the log of the volume of a normal, in nats: (..., D) -> (...)."""
        volume = self.scale.log().sum() + 0.5 * math.log(2 * math.pi) * len(self.visible_bias)
        return volume.expand(centre.shape[:-1])

    def misfit(self, v: Tensor) -> Tensor:
        """Return the score-matching objective, mean of sum_i psi_i^2 / 2 + d psi_i / d v_i: (n, D) -> ()."""
        on = self.hidden(v)
        psi = (self.centre(on) - v) / self.scale.square()  # d log p / d v, equation 4
        bend = (on * (1 - on)) @ self.weights.T.square() - 1
        return (0.5 * psi.square() + bend / self.scale.square()).sum(1).mean()

    def _of_hidden(self) -> tuple[Tensor, Tensor]:
        """Return pairs (H, H) and linear terms (H,) of the hidden units, visible ones integrated out."""
        a = self.visible_bias / self.scale
        return self.weights.T @ self.weights, self.hidden_bias + a @ self.weights

    def _difference(self, data: Tensor, end: Tensor, up: Tensor, down: Tensor) -> Tensor:
        b, s = self.visible_bias, self.scale
        if self.centring is None:
            return self._contrast((self.weights, b / s, self.hidden_bias), data / s, end / s, up, down)
        # r is to W and b / s what bits are to W and b
        with torch.no_grad():
            r, e = data / s, end / s
        machine = (self.weights, b / s, self.hidden_bias)
        plain = self._contrast(machine, r, e, up, down)
        # in units of s a step of the mean would be 1 / s^2 as long
        takers = (b * s.detach(), self.hidden_bias)
        found: Tensor = self.centring(plain, machine[:1], machine[1:], (r, up.sigmoid()), takers)
        if self.free_scale is None:
            return found
        held = (self.weights.detach(), b.detach() / s, self.hidden_bias.detach())
        of_scale = self._contrast(held, data / s, end / s, up, down)
        return found + (of_scale - of_scale.detach())

    def _contrast(
        self, machine: tuple[Tensor, Tensor, Tensor], r: Tensor, e: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        # F(v) = r^2 / 2 - r (b / s) - sum softplus(c + r W) + a constant: binary units but for the square
        linear: Tensor = Contrast.apply(*machine, r, e, up, down)
        return linear + 0.5 * (r.square().sum() / len(r) - e.square().sum() / len(e))
