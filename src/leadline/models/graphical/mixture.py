r"""Mixtures by expectation maximisation: Bernoulli, categorical, multinomial, Polya, Gaussian, Student's t.

    p(x) = sum_k w_k p(x | k)

One model whose components follow from the domain: bits are Bernoulli, finite values categorical, bags of
words multinomial or Polya (times the probability of their number of tokens), real columns Gaussian or
Student's t. `log_prob` is exact in each.

Symbols:
    n samples, K components, w (K,) weights, t (n, f) statistics of the samples.

Source:
    Dempster, Laird and Rubin (1977); Bishop (2006), sections 9.2 and 9.3; McLachlan and Peel (2000), Finite
    Mixture Models. Components: the modules `discrete`, `polya`, `gaussians` and `student` of this family.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from leadline.core import Bits, Categories, Counts, Described, Domain, DomainError, Images, Vectors, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import categorical, normal
from leadline.inference.gaussians import Gaussians, widened
from leadline.models.graphical.discrete import Discrete, one_hot
from leadline.models.graphical.em import EM, checked_options, checked_prior
from leadline.models.graphical.lengths import Lengths, bags_of, checked_counts, log_orders
from leadline.models.graphical.polya import Polya
from leadline.models.graphical.rankings import Ranking, ranked
from leadline.models.graphical.student import Students

__all__ = ["Mixture"]

Component = Literal["auto", "bernoulli", "categorical", "multinomial", "polya", "gaussian", "student"]
HOLDS: dict[str, tuple[type[Domain], ...]] = {
    "bernoulli": (Bits,),
    "categorical": (Categories, Bits, Images),
    "polya": (Counts,),
    "multinomial": (Counts,),
    "gaussian": (Vectors,),
    "student": (Vectors,),
}
_OF_BAGS = ("multinomial", "polya")
_CHUNK = 1 << 18
_MOST_COLUMNS = 1 << 16
_START_ROWS = 20_000
_FLOORS = {"gaussian": 1e-6, "student": 1e-6}
_FLOOR, _PRIOR = 1e-2, 1.0


class Mixture(EM):
    """Mixture of `components` distributions of one kind.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: Bits, Images or Categories (finite values), Counts (bags of words), or Vectors.
        components: Number K of components, at least 1.
        component: The kind: "bernoulli", "categorical", "polya" (words in bursts), "multinomial", "gaussian"
            or "student"; by "auto" the first of them that holds the domain.
        degrees: Degrees of freedom of "student"; learned for each component if None.
        restarts: How many starts to learn from; the best is kept.
        floor: Least variance in any direction in standardised units (1e-6), or least probability in units
            of that of a uniform table (0.01), by default.
        prior: Pseudo-samples that pull each covariance of "gaussian" and "student" to a share of the spread
            of all samples, 1 by default, 0 for maximum likelihood.
        tolerance: A start is done when a step gains less than this, in nats per sample.
        max_sweeps: Most steps from one start.

    Raises:
        ValueError: If an option is out of range.
        DomainError: If no such component holds the domain.

    Example:
        >>> model = Mixture(Bits((4,)), components=3)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    best: Any
    trial: Any
    sizes: Tensor

    def __init__(  # noqa: PLR0913
        self,
        domain: Domain,
        components: int = 8,
        component: Component = "auto",
        *,
        degrees: float | None = None,
        restarts: int = 1,
        floor: float | None = None,
        prior: float | None = None,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> None:
        super().__init__(components, restarts, tolerance, max_sweeps)
        self.component = _component(domain, component)
        self.domain = domain
        least = _FLOORS.get(self.component, _FLOOR) if floor is None else floor
        checked_options(components, restarts, least, max_sweeps)
        if degrees is not None and self.component != "student":
            raise ValueError(f"degrees are those of student components, not of {self.component} ones")
        if prior is not None and self.component not in _FLOORS:
            raise ValueError(
                f"a prior is that of gaussian and student components, not of {self.component} ones"
            )
        pull = checked_prior(prior, _PRIOR)
        sizes = torch.tensor(domain.cardinalities or ())
        self.register_buffer("sizes", sizes, persistent=False)
        self.best, self.trial = (self._made(degrees, least, pull) for _ in range(2))
        self.length = Lengths() if self.component in _OF_BAGS else None

    @classmethod
    def for_data(  # noqa: PLR0913
        cls,
        data: Described,
        *,
        components: int = 8,
        component: Component = "auto",
        degrees: float | None = None,
        restarts: int = 1,
        floor: float | None = None,
        prior: float | None = None,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> "Mixture":
        """Return a mixture over the samples of `data`."""
        return cls(
            data.domain, components, component, degrees=degrees, restarts=restarts, floor=floor,
            prior=prior, tolerance=tolerance, max_sweeps=max_sweeps,
        )  # fmt: skip

    @property
    def reads_sparse(self) -> bool:
        """Return whether `sweep` reads sparse samples: bags of words."""
        return self.component in _OF_BAGS

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of raw samples (n, *shape)."""
        which = categorical(self.best.log_weights.expand(n, -1), generator)
        if self.length is not None:
            tokens = self.length.sample(n, generator)
            return bags_of(self.best.tables(which, generator), tokens, generator)
        if self.component == "gaussian":
            u = normal((n, self.domain.dims), self.best.means, generator)
            for k in range(self.components):
                u[which == k] = self.best.spread(u[which == k], k) + self.best.means[k]
            return self.domain.quantize(u)
        drawn = self.best.draw(which, generator)
        if self.component == "student":
            return self.domain.quantize(drawn)
        return drawn.to(self.domain.dtype).view(n, *self.domain.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, in nats: (n, *shape) -> (n,)."""
        rows = [torch.logsumexp(scores, 1) for _, scores in self._scored(self._valid(x), self.best)]
        joined = torch.cat(rows) if rows else torch.zeros(0, device=x.device)
        return (joined + self._beside(x)).to(self.best.log_weights)

    def encode(self, x: Tensor) -> Tensor:
        """Return the responsibilities p(k | x): (n, *shape) -> (n, K)."""
        rows = [torch.softmax(scores, 1) for _, scores in self._scored(self._valid(x), self.best)]
        like = self.best.log_weights
        return torch.cat(rows).to(like) if rows else like.new_zeros(0, self.components)

    def decode(self, z: Tensor) -> Tensor:
        """Return the means weighted by the code, as raw values: (n, K) -> (n, *shape)."""
        share = checked_codes(z, self.components)
        if isinstance(self.domain, Categories):
            table = share @ self.best.log_p.exp().to(share)
            best = [table[:, start : start + size].argmax(1) for start, size in self.best._spans()]
            return torch.stack(best, 1).to(self.domain.dtype)
        mean = (share @ self.means.to(share).flatten(1)).unflatten(1, self.domain.shape)
        if self.domain.dtype.is_floating_point:
            return mean
        top = math.inf if self.domain.cardinalities is None else self.domain.cardinalities[0] - 1
        return mean.clamp(0, top).round().to(self.domain.dtype)

    @property
    def means(self) -> Tensor:
        """Return the mean raw sample of each component, numbers of categories as they are, (K, *shape)."""
        if self.component == "student":
            return self.domain.quantize(self.best.gaussians.means)
        if self.component == "gaussian":
            return self.domain.quantize(self.best.means)
        p = self.best.log_p.exp()
        if self.length is not None:
            return p * self.length.mean
        starts = self.sizes.cumsum(0) - self.sizes
        value = torch.arange(self.best.width, device=p.device) - starts[self.best.owners]
        mean = p.new_zeros(len(p), len(self.sizes)).index_add_(1, self.best.owners, p * value)
        return mean.unflatten(1, self.domain.shape)

    def bic(self, x: Tensor) -> float:
        """Return the Bayesian information criterion on `x`, in nats; the lower the better."""
        return self.best.free_parameters * math.log(x.shape[0]) - 2 * float(self.log_prob(x).double().sum())

    def top_words(self, count: int = 10) -> Ranking:
        """Return the most probable words of each component with their probabilities.

        Of bags a word is probable as the next one, of bits as being there at all.

        Raises:
            DomainError: If samples are neither bags of words nor bits that have names.
        """
        self.domain.require(Counts, Bits)
        words = self.best.log_p.exp() if self.length is not None else self.means.flatten(1)
        return ranked(words, self.domain, count)

    def _made(self, degrees: float | None, floor: float, prior: float) -> Any:
        """Return new components."""
        if self.component == "gaussian":
            return Gaussians(self.components, self.domain.dims, "full", floor, prior)
        if self.component == "student":
            return Students(self.components, self.domain.dims, degrees, floor, prior)
        if self.component == "polya":
            return Polya(self.components, self.domain.dims, floor)
        if self.component == "multinomial":
            return Discrete(self.components, torch.zeros(self.domain.dims, dtype=torch.int64), floor)
        owners = torch.repeat_interleave(torch.arange(len(self.sizes)), self.sizes)
        return Discrete(self.components, owners, floor)

    def _valid(self, x: Tensor) -> Tensor:
        """Return samples whose shape and values are of the domain, and whose counts are counts."""
        if self.component in _OF_BAGS:
            return checked_counts(self.domain.checked(x))
        return self.domain.validated(x)

    def _statistics(self, x: Tensor) -> Iterator[Tensor]:
        """Return t of the samples in float64, some rows at a time; sparse ones at once."""
        like = widened(self.best.log_weights)
        if x.is_sparse:
            yield x.to(like)
            return
        for rows in x.split(max(16, _CHUNK // self.best.width)):
            if self.component in ("gaussian", "student"):
                u = widened(self.domain.features(rows, self.best.log_weights))
                gaussians = self.best if self.component == "gaussian" else self.best.gaussians
                yield gaussians.statistics(u)
            elif self.component in _OF_BAGS:
                yield rows.to(like)
            else:
                yield one_hot(rows.flatten(1), self.sizes, like)

    def _scored(self, x: Tensor, parts: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Return t, and log w_k p(x | k) without what is the same for all components, (rows, K)."""
        for t in self._statistics(x):
            yield t, t @ parts.natural() if self.component == "gaussian" else parts.scores(t)

    def _beside(self, x: Tensor) -> Tensor:
        """Return the part of log p(x) that all components share, in nats: (n,)."""
        if self.length is not None:
            return log_orders(x) + self.length.log_prob(x.sum(1))
        volume = self.domain.log_volume if self.domain.dtype.is_floating_point else 0.0
        return torch.full((x.shape[0],), volume, dtype=torch.float64, device=x.device)

    def _begin(self, x: Tensor) -> None:
        """Put the trial on random samples; the moments of all data give the spread."""
        if self.length is None:
            self.domain.validated(x)
        else:
            x = checked_counts(x)
            self.length.learn(torch.sparse.sum(x, 1).to_dense() if x.is_sparse else x.sum(1))
        if isinstance(self.trial, (Discrete, Polya)):
            every = torch.stack([torch.ones(t.shape[0]).to(t) @ t for t in self._statistics(x)]).sum(0)
            self.trial.place(next(self._statistics(self._some(x, self.components))), every)
            return
        gaussians = self.trial if self.component == "gaussian" else self.trial.gaussians
        rows = self._some(x, _START_ROWS)
        gaussians.begin(widened(self.domain.features(rows, self.best.log_weights)))

    def _some(self, x: Tensor, count: int) -> Tensor:
        """Return random rows of the samples, dense."""
        places = torch.randperm(x.shape[0], device="cpu")[:count].to(x.device)
        return x.index_select(0, places).to_dense() if x.is_sparse else x[places]

    def _expect(self, x: Tensor) -> tuple[float, Tensor]:
        """Return the summed log-likelihood and log-prior, and the moments under responsibilities (K, f)."""
        total, moments = 0.0, None
        for t, scores in self._scored(x, self.trial):
            evidence = torch.logsumexp(scores, 1, keepdim=True)
            share = (scores - evidence).exp()
            total += float(evidence.sum())
            part = share.T @ t if self.component == "gaussian" else self.trial.moments(t, share)
            moments = part if moments is None else moments + part
        if self.component in _FLOORS:
            total += (self.trial if self.component == "gaussian" else self.trial.gaussians).log_prior()
        if self.length is None:
            total += float(self._beside(x).sum())
        else:
            tokens = torch.sparse.sum(x, 1).to_dense() if x.is_sparse else x.sum(1)
            values = x.coalesce().values() if x.is_sparse else x
            orders = torch.lgamma(tokens.double() + 1).sum() - torch.lgamma(values.double() + 1).sum()
            total += float(orders + self.length.log_prob(tokens).sum())
        return total, torch.zeros(0) if moments is None else moments

    def _maximise(self, moments: Tensor) -> Tensor:
        """Let the trial become the best mixture of its moments; return which components are empty (K,)."""
        empty: Tensor = self.trial.maximise(moments)
        return empty

    def _reseed(self, x: Tensor, empty: Tensor, moments: Tensor) -> None:
        """Put empty components on random samples."""
        rows = self._some(x, int(empty.sum()))
        if isinstance(self.trial, (Discrete, Polya)):
            rows = next(self._statistics(rows))
        else:
            rows = widened(self.domain.features(rows, self.best.log_weights))
        self.trial.revive(empty, rows, moments)


def _component(domain: Domain, name: str) -> str:
    """Return the kind of component for a domain.

    Raises:
        ValueError: If there is no such kind.
        DomainError: If it does not hold the domain.
    """
    if name != "auto" and name not in HOLDS:
        raise ValueError(f"component must be auto or one of {', '.join(HOLDS)}, got {name!r}")
    if name == "auto":
        kinds = tuple(kind for held in HOLDS.values() for kind in held)
        domain.require(*dict.fromkeys(kinds))
        name = next(kind for kind, held in HOLDS.items() if isinstance(domain, held))
    domain.require(*HOLDS[name])
    if name in ("bernoulli", "categorical") and sum(domain.cardinalities or ()) > _MOST_COLUMNS:
        raise DomainError(f"{domain} has more than {_MOST_COLUMNS} values in all; data.binarize() gives Bits")
    return name
