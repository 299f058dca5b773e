r"""Energy-based model: a network scores samples, and chains bring it the samples it believes in.

    p(v) = exp(f(v)) N(v; 0, I) / Z,        E(v) = |v|^2 / 2 - f(v)

with a network f. The normal reference keeps Z finite, and is where the model begins. The gradient of
-log p is that of E at the data less its mean under the model; in place of the model stand Langevin chains
that go on from batch to batch in a buffer, some of them begun anew each time.

Symbols:
    n samples, D visible units v (n, D): standardised columns, or pixels taken through their histograms to
    unit normals, f network, E energy, Z partition function over the reference, e step size,
    t temperature in [0, 1].

Source:
    Du and Mordatch (2019), Implicit Generation and Modeling with Energy-Based Models, NeurIPS, sections 3.1
    to 3.3. The reference: Xie, Lu, Zhu and Wu (2016), A Theory of Generative ConvNet, ICML, section 2.
    What goes wrong: Nijkamp, Hill, Han, Zhu and Wu (2020), On the Anatomy of MCMC-Based Maximum Likelihood
    Learning of Energy-Based Models, AAAI. The figure to choose by: Song, Garg, Shi and Ermon (2019), Sliced
    Score Matching, UAI, equation 8.

Departs from the source:
    The noise of a Langevin step is that of its temperature 1, so that the chains are of the model that
    `log_prob` scores; samples are drawn by steps that are accepted or refused. There is no spectral norm.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from leadline.core import Batch, Density, Described, Domain, Images, OptionError, Quantity, Vectors, counted
from leadline.core.randomness import generator_for, normal, uniform
from leadline.inference.chains import Hamiltonian, Langevin, Metropolis, Unadjusted
from leadline.models.boltzmann.annealing import Annealing, Method, Path, annealing, checked_method
from leadline.models.boltzmann.partition import Remembered, density_of, estimate_tensor
from leadline.models.boltzmann.visible import Visible
from leadline.nets.architecture import is_convolutional
from leadline.nets.convolution import ConvEncoder
from leadline.nets.dense import dense

__all__ = ["Energy"]

_DRAWS = 16
_RENEWED = 0.05  # share of chains begun anew in each loss
_STEP_SIZES = {True: 0.05, False: 0.02}  # whether pixels are gaussianised
# Noise of the data in training, in units of their scale: standard pixels that never change would make walls
# too steep for the steps of the chains.
_NOISE, _PIXEL_NOISE = 0.03, 0.2
_PENALTY = 1e-2  # weight of the squared scores, which keeps them near zero
_POINTS, _REACH = {1: 8001, 2: 401}, 9.0
_LEAPFROGS, _STEP, _ACCEPTED = 4, 0.2, 0.7
_LADDER = (300, 2400)


class Energy(nn.Module):
    """Neural energy over pictures or real columns.

    Verbs:
        sample, log_prob

    Args:
        domain: What one sample is.
        hidden: Widths of the hidden layers of a dense network.
        architecture: "dense", "conv" (pictures only), or "auto": convolutional for pictures whose sides
            have at least 16 pixels.
        steps: Langevin steps of a chain in one loss, at least 1.
        step_size: Their size e, above 0; the noise of a step has variance 2 e. None is 0.05 for gaussianised
            pixels, which have no walls, and 0.02 else.
        chains: Number of chains in the buffer, at least 1.
        burn_in: Steps before a sample is taken, at least 1.
        pixels: "gaussianised" takes each pixel of a picture through its own histogram of the training split
            to a unit normal: then the reference is those histograms; "standard" only stretches it.

    Raises:
        OptionError: If an option is unknown or out of range.
        DomainError: If the domain is not Images or Vectors.

    Example:
        >>> model = Energy(Vectors.standard(2), hidden=(8,), burn_in=10)
        >>> x = model.sample(5)
        >>> x.shape, model.log_prob(x).shape, model.density.kind
        (torch.Size([5, 2]), torch.Size([5]), 'exact')
    """

    buffer: Tensor

    def __init__(
        self,
        domain: Domain,
        hidden: tuple[int, ...] = (128, 128),
        architecture: str = "auto",
        steps: int = 20,
        step_size: float | None = None,
        chains: int = 1000,
        burn_in: int = 500,
        *,
        pixels: str = "gaussianised",
    ) -> None:
        super().__init__()
        self.domain = domain.require(Images, Vectors)
        self.visible = Visible(domain, pixels)
        for name, value in (("steps", steps), ("chains", chains), ("burn_in", burn_in)):
            if value < 1:
                raise OptionError(f"{name} must be at least 1, got {value}")
        usual = _STEP_SIZES[self.visible.gaussianised]
        self.steps, self.step_size, self.burn_in = steps, usual if step_size is None else step_size, burn_in
        if not 0 < self.step_size < math.inf:
            raise OptionError(f"step_size must be above 0, got {step_size}")
        planes = domain.planes
        if is_convolutional(architecture, planes) and planes is not None:
            trunk = ConvEncoder(planes, 1, activation="silu", norm="none")
            self.network = nn.Sequential(nn.Unflatten(1, planes), trunk)
        else:
            self.network = dense((domain.dims, *hidden, 1), "silu")
        # visible units at the end of each chain
        self.register_buffer("buffer", torch.randn(chains, domain.dims))
        self._partition = Remembered()

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (128, 128),
        architecture: str = "auto",
        steps: int = 20,
        step_size: float | None = None,
        chains: int = 1000,
        burn_in: int = 500,
        pixels: str = "gaussianised",
    ) -> "Energy":
        """Return a model of the samples of `data`: pictures or real columns."""
        return cls(data.domain, hidden, architecture, steps, step_size, chains, burn_in, pixels=pixels)

    @property
    def recommended(self) -> dict[str, Any]:
        """Return the settings of `fit` that go well with it."""
        if self.visible.gaussianised:
            return {"optimizer": "adam", "lr": 1e-3, "clip": 1.0, "schedule": "linear"}
        return {"optimizer": "adam", "lr": 3e-4, "clip": 1.0}

    def stages(self) -> list[nn.Module]:
        """Return what is learned before the network: the histograms of pixels, if it reads them."""
        return self.visible.stages()

    def loss(self, batch: Batch) -> Tensor:
        """Return what training descends on or, in evaluation mode, a figure to choose by, shape ().

        In training: mean E(data) - mean E(chain ends) and a small penalty on the scores; its value is no
        likelihood. In evaluation: sliced score matching, from one direction a sample, which is drawn.
        """
        v = self.visible.drawn(batch.x, self.buffer)
        if not self.training:
            return self._sliced(v)
        if not self.visible.gaussianised:
            v = v + (_PIXEL_NOISE if self.visible.noisy else _NOISE) * torch.randn_like(v)
        end = self._refreshed(len(v))
        real, made = self._score(v), self._score(end)
        squares = 0.5 * (end.square().sum(1).mean() - v.square().sum(1).mean())
        return made.mean() - real.mean() - squares + _PENALTY * (real.square().mean() + made.square().mean())

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None, *, steps: int | None = None) -> Tensor:
        """Return `n` draws (n, *shape): the ends of Langevin chains with an accept step, begun in the buffer.

        Args:
            n: Number of chains.
            generator: Source of randomness.
            steps: Length of the chains, `burn_in` by default.
        """
        return self.visible.raw(self._moved(n, generator, steps))

    def log_prob(self, x: Tensor, samples: int = _DRAWS, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(x) of each row, or its bound, in nats: (n, *shape) -> (n,).

        `density` says what it is. Where log Z is summed on a grid the model is exact; it has no gradient.

        Args:
            x: Raw samples.
            samples: Number S of draws of noise a row for pictures, at least 1; the bound tightens as it
                grows. Real columns need none.
            generator: Source of the noise; each row's own fixed noise if None.
        """
        log_z = estimate_tensor(next(self.network.parameters()), self.log_partition().value)
        return self.visible.averaged(x, self.buffer, self.log_unnormalised, samples, generator) - log_z

    @property
    def density(self) -> Density:
        """Return whether `log_prob` is exact, a bound or an estimate, with the error that all rows share."""
        return density_of(
            self.log_partition(), f"uniform noise, {_DRAWS} draws" if self.visible.noisy else ""
        )

    def log_unnormalised(self, v: Tensor) -> Tensor:
        """Return f(v) + log N(v; 0, I) of visible units, in nats: (n, D) -> (n,)."""
        return self._tempered(v, 1.0)

    def log_partition(
        self, method: Method = "auto", *, chains: int = 100, temperatures: int | None = None, seed: int = 0
    ) -> Quantity:
        """Return log Z in nats, with its standard error where it is estimated.

        Args:
            method: "exact" sums on a grid over one or two dimensions; "ais" is annealed importance sampling
                from the reference, "lower" and "upper" its stochastic bounds, forward and backward;
                "auto" is exact where that is possible.
            chains: Number of particles of the annealing.
            temperatures: Their number; None doubles 300 until the effective sample size is a fifth of the
                particles and the bounds meet, to 2400 at most.
            seed: Seed of the annealing.

        Raises:
            ValueError: If "exact" is asked of more than two dimensions.
            OptionError: If there is no such method, or a number is out of range.
        """
        method = checked_method(method, chains)
        few = self.domain.dims in _POINTS
        if method == "exact" and not few:
            raise ValueError(f"log Z is summed over at most 2 dimensions, got {self.domain.dims}")

        def find() -> Annealing:
            generator = generator_for(seed, "annealed log Z", device=self.buffer.device)
            return annealing(self._path(chains, generator), temperatures, generator)

        parameters = self.network.parameters()
        if few and method in ("auto", "exact"):
            return self._partition(parameters, self._summed)
        return self._partition(parameters, find, chains, temperatures, seed).found(method)

    def _score(self, v: Tensor) -> Tensor:
        """Return f(v): (n, D) -> (n,)."""
        return self.network(v).squeeze(1)

    def _tempered(self, v: Tensor, t: float) -> Tensor:
        """Return t f(v) + log N(v; 0, I), in nats: (n, D) -> (n,)."""
        log_reference = -0.5 * v.square().sum(1) - 0.5 * math.log(2 * math.pi) * v.shape[1]
        return log_reference + t * self._score(v)

    def _refreshed(self, n: int) -> Tensor:
        """Return the ends (n, D) of chains of the buffer after the steps of one loss, and keep them there."""
        device = self.buffer.device
        places = torch.randperm(len(self.buffer), device=device)[:n]
        start = self.buffer[places]
        anew = torch.rand(len(start), 1, device=device) < _RENEWED
        start = torch.where(anew, torch.randn_like(start), start)
        kernel = Unadjusted(self.log_unnormalised, Langevin(self.step_size))
        state = kernel.init(start)
        for _ in range(self.steps):
            state, _ = kernel.step(state)
        self.buffer[places] = state.position
        return state.position

    def _moved(self, n: int, generator: torch.Generator | None, steps: int | None = None) -> Tensor:
        """Return ends (n, D) of Langevin chains with an accept step, begun in the buffer."""
        place = (uniform((n,), self.buffer, generator) * len(self.buffer)).long()
        kernel = Metropolis(self.log_unnormalised, Langevin(self.step_size))
        with torch.no_grad():
            v = self.buffer[place.clamp(max=len(self.buffer) - 1)]
            if n == 0:
                return v
            state = kernel.init(v)
            for _ in range(self.burn_in if steps is None else steps):
                state, _ = kernel.step(state, generator)
            return state.position

    def _sliced(self, v: Tensor) -> Tensor:
        """Return the mean of u^T H u + |g|^2 / 2 with g and H of log p and a random u a row, shape ()."""
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.log_unnormalised(v).sum(), v, create_graph=True)
            u = torch.randn_like(v)
            (bent,) = torch.autograd.grad((g * u).sum(), v)
        return ((u * bent).sum(1) + 0.5 * g.detach().square().sum(1)).mean()

    def _summed(self) -> Quantity:
        """Return log Z by the midpoint rule on a grid."""
        points = _POINTS[self.domain.dims]
        axis = torch.linspace(-_REACH, _REACH, points).to(self.buffer)
        grid = torch.cartesian_prod(*(axis,) * self.domain.dims).view(-1, self.domain.dims)
        with torch.no_grad():
            each = torch.cat([self.log_unnormalised(part).double() for part in grid.split(1 << 16)])
        value = float(each.logsumexp(0)) + self.domain.dims * math.log(2 * _REACH / (points - 1))
        return Quantity(value, "nats", "exact", protocol=f"sum over a grid of {len(grid):,} points")

    def _path(self, chains: int, generator: torch.Generator) -> Path:
        """Return the path from the reference, whose particles move by Hamiltonian trajectories."""
        size = [_STEP]

        def transition(v: Tensor, t: float, source: torch.Generator | None) -> Tensor:
            move = Hamiltonian(size[0], leapfrogs=_LEAPFROGS)
            kernel = Metropolis(lambda at: self._tempered(at, t), move)
            state, told = kernel.step(kernel.init(v), source)
            size[0] *= math.exp(0.2 * (float(told.acceptance.mean()) - _ACCEPTED))
            return state.position

        start = normal((chains, self.domain.dims), self.buffer, generator)
        origin = f"{self.burn_in} Langevin steps from the buffer"
        return Path(
            self._tempered, transition, 0.0, start, lambda _: self._moved(chains, generator),
            exact=False, origin=origin, temperatures=_LADDER,
        )  # fmt: skip
