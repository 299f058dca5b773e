r"""Noisy-OR: hidden causes, each of which turns findings on with a probability of its own.

    z_k ~ Bernoulli(prior_k),    p(x_i = 0 | z) = (1 - leak_i) prod_k (1 - strength_ik)^{z_k}

Learned by EM. With few causes the E-step sums over all their states, and the M-step is closed: a finding
that is on was turned on by cause k with probability strength_ik E[z_k / p(x_i = 1 | z)]. With many causes
the posterior is factorised, and the same expectations are taken under it.

Symbols:
    n samples, d findings, K causes, x (n, d) bits, z (n, K) causes.

Source:
    Shwe et al. (1991), Probabilistic diagnosis using a reformulation of the INTERNIST-1/QMR knowledge base;
    Singliar and Hauskrecht (2006), Noisy-OR component analysis, JMLR 7 (learning by variational EM);
    inference: the module `leadline.inference.noisy_or`.

Departs from the source:
    Probabilities stay within [1e-4, 1 - 1e-4], which the M-step keeps exactly.
    Factorised posteriors are found anew in each step. Should the bound fall for it, the start is done.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from leadline.core import Bits, DataError, Density, Described, Domain, counted
from leadline.core.errors import checked_codes
from leadline.core.randomness import bernoulli
from leadline.inference.gaussians import widened
from leadline.inference.noisy_or import (
    Net,
    field_moments,
    gibbs_marginals,
    joint_table,
    mean_field,
    quickscore,
    upper_bound,
)
from leadline.models.graphical.em import EM, checked_options
from leadline.models.graphical.rankings import Ranking, ranked

__all__ = ["NoisyOr"]

Posterior = Literal["auto", "exact", "mean field"]
POSTERIORS = ("auto", "exact", "mean field")
_EXACT, _MOST_CAUSES, _MOST_FINDINGS = 10, 16, 16
_LEAST = 1e-4
_ROWS = 1 << 22


class _Layer(nn.Module):
    """Probabilities of a layer of causes, held in buffers."""

    prior: Tensor
    strength: Tensor
    leak: Tensor

    def __init__(self, findings: int, causes: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.full((causes,), 0.3))
        self.register_buffer("strength", torch.rand(findings, causes).mul_(0.6).add_(0.2))
        self.register_buffer("leak", torch.full((findings,), 0.05))

    @property
    def free_parameters(self) -> int:
        """Return the number of probabilities."""
        return self.prior.numel() + self.strength.numel() + self.leak.numel()

    def net(self) -> Net:
        """Return the layer as inference reads it, in float64."""
        return Net(
            -torch.log1p(-widened(self.strength)), -torch.log1p(-widened(self.leak)), widened(self.prior)
        )

    def become(self, prior: Tensor, strength: Tensor, leak: Tensor) -> None:
        """Take probabilities, moved inside their limits."""
        for held, value in ((self.prior, prior), (self.strength, strength), (self.leak, leak)):
            held.copy_(value.clamp(_LEAST, 1 - _LEAST))


class NoisyOr(EM):
    """Noisy-OR findings of `causes` hidden causes.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: Bits.
        causes: Number K of causes, at least 1.
        posterior: "exact" sums over all 2^K states of the causes (at most 16 causes), "mean field" is a
            lower bound; "auto" is exact up to 10 causes.
        restarts: How many starts to learn from; the best is kept.
        tolerance: A start is done when a step gains less than this, in nats per sample.
        max_sweeps: Most steps from one start.

    Raises:
        ValueError: If an option is out of range.
        DomainError: If samples are not bits.

    Example:
        >>> model = NoisyOr(Bits((4,)), causes=2)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 2]))
    """

    best: _Layer
    trial: _Layer

    def __init__(
        self,
        domain: Domain,
        causes: int = 8,
        posterior: Posterior = "auto",
        *,
        restarts: int = 1,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> None:
        super().__init__(causes, restarts, tolerance, max_sweeps)
        if causes < 1:
            raise ValueError(f"causes must be at least 1, got {causes}")
        checked_options(causes, restarts, 1.0, max_sweeps)
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior must be one of {', '.join(POSTERIORS)}, got {posterior!r}")
        if posterior == "exact" and causes > _MOST_CAUSES:
            raise ValueError(
                f"posterior: exact sums over 2^causes states; at most {_MOST_CAUSES} causes, got {causes}"
            )
        self.domain = domain.require(Bits)
        self.exact = posterior == "exact" or (posterior == "auto" and causes <= _EXACT)
        self.best, self.trial = (_Layer(domain.dims, causes) for _ in range(2))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        causes: int = 8,
        posterior: Posterior = "auto",
        restarts: int = 1,
        tolerance: float = 1e-4,
        max_sweeps: int = 200,
    ) -> "NoisyOr":
        """Return a model of the bits of `data`."""
        return cls(
            data.domain, causes, posterior, restarts=restarts, tolerance=tolerance, max_sweeps=max_sweeps
        )

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of raw samples (n, *shape)."""
        z = bernoulli(self.best.prior.expand(n, -1).contiguous(), generator)
        return bernoulli(self._chances(z), generator).to(self.domain.dtype).unflatten(1, self.domain.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row, exact or a lower bound, in nats: (n, *shape) -> (n,)."""
        net, flat = self.best.net(), self._flat(x)
        if self.exact:
            rows = [torch.logsumexp(joint_table(part, net), 1) for part in self._parts(flat)]
        else:
            rows = [mean_field(part, net).bound for part in self._parts(flat)]
        return (torch.cat(rows) if rows else flat.new_zeros(0)).to(self.best.prior)

    def encode(self, x: Tensor) -> Tensor:
        """Return the probability of each cause given the findings: (n, *shape) -> (n, K)."""
        return self.posterior(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return which findings are more probable than not under the causes: (n, K) -> (n, *shape)."""
        chance = self._chances(checked_codes(z, self.components).to(self.best.prior))
        return (chance > 0.5).to(self.domain.dtype).unflatten(1, self.domain.shape)

    @property
    def density(self) -> Density:
        """Return the kind of `log_prob`."""
        return Density() if self.exact else Density("lower bound", "factorised posterior")

    @property
    def means(self) -> Tensor:
        """Return the probability that each cause alone turns on each finding, (K, *shape)."""
        return self.best.strength.T.unflatten(1, self.domain.shape)

    def top_words(self, count: int = 10) -> Ranking:
        """Return what each cause alone turns on most surely, with the probability.

        Raises:
            DomainError: If the bits have no names.
        """
        return ranked(self.best.strength.T, self.domain, count)

    def posterior(self, x: Tensor, method: str = "auto", generator: torch.Generator | None = None) -> Tensor:
        """Return the probability of each cause given the findings: (n, *shape) -> (n, K).

        Args:
            x: Findings.
            method: "exact" (all states of at most 16 causes, else all subsets of at most 16 positive
                findings), "mean field", or "gibbs" (2,000 states of a chain for each row, an estimate).
                "auto" is what the model learns by.
            generator: Source of the chain's draws.

        Raises:
            ValueError: If the method is unknown.
            DataError: If the exact sum is too large.
        """
        net, flat = self.best.net(), self._flat(x)
        how = ("exact" if self.exact else "mean field") if method == "auto" else method
        if how == "exact":
            rows = [_marginals(part, net) for part in self._parts(flat)]
        elif how == "mean field":
            rows = [mean_field(part, net).mean for part in self._parts(flat)]
        elif how == "gibbs":
            rows = [gibbs_marginals(flat, net, 2000, 200, generator)]
        else:
            raise ValueError(f"method must be auto, exact, mean field or gibbs, got {method!r}")
        return (torch.cat(rows) if rows else flat.new_zeros(0, self.components)).to(self.best.prior)

    def elbo(self, x: Tensor) -> Tensor:
        """Return the lower bound of the factorised posterior, in nats: (n, *shape) -> (n,)."""
        net, flat = self.best.net(), self._flat(x)
        rows = [mean_field(part, net).bound for part in self._parts(flat)]
        return (torch.cat(rows) if rows else flat.new_zeros(0)).to(self.best.prior)

    def upper_bound(self, x: Tensor) -> Tensor:
        """Return an upper bound on log p(x), in nats: (n, *shape) -> (n,)."""
        return upper_bound(self._flat(x), self.best.net()).to(self.best.prior)

    def exact_log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) summed over causes or over subsets of positive findings: (n, *shape) -> (n,).

        Raises:
            DataError: If there are more than 16 of both.
        """
        net, flat = self.best.net(), self._flat(x)
        if self.components <= _MOST_CAUSES:
            rows = [torch.logsumexp(joint_table(part, net), 1) for part in self._parts(flat)]
        else:
            rows = [quickscore(_few(row), net)[0][None] for row in flat]
        return (torch.cat(rows) if rows else flat.new_zeros(0)).to(self.best.prior)

    def _chances(self, z: Tensor) -> Tensor:
        """Return p(x_i = 1 | z): (n, K) -> (n, d)."""
        net = self.best.net()
        return -torch.expm1(-(net.leak + z.to(net.leak) @ net.weights.T)).to(z)

    def _flat(self, x: Tensor) -> Tensor:
        """Return findings as rows in float64."""
        return widened(self.domain.validated(x).flatten(1))

    def _parts(self, x: Tensor) -> list[Tensor]:
        """Return rows in blocks whose tables fit."""
        wide = 1 << self.components if self.exact else 4 * self.domain.dims
        return list(x.split(max(1, _ROWS // wide))) if len(x) else []

    def _begin(self, x: Tensor) -> None:
        """Put the trial near the data: each cause turns on what is on in a random sample, more or less.

        What is seldom on begins nearly off elsewhere: else few causes explain most of what is rare, and the
        others are left idle.
        """
        flat = self._flat(x)
        rows = flat[torch.randperm(len(flat), device="cpu")[: self.components].to(flat.device)]
        noise = torch.rand(rows.shape, device="cpu").to(flat)
        mean = flat.mean(0).clamp(0.02, 0.98)
        other = mean.clamp(max=0.3)
        strength = (0.1 + 0.3 * noise) * (other + (1 - other) * rows)
        self.trial.become(torch.full((self.components,), 0.1), strength.T, 0.3 * mean)

    def _expect(self, x: Tensor) -> tuple[float, Tensor]:
        """Return the summed log-likelihood or bound, and what the M-step needs (K + 1, d + 1).

        That is sum x E[z / p] and sum x E[1 / p], with p = p(x_i = 1 | z); in the last column the expected
        causes and the number of samples.
        """
        net, flat = self.trial.net(), self._flat(x)
        total, moments = 0.0, flat.new_zeros(self.components + 1, self.domain.dims + 1)
        for part in self._parts(flat):
            value, shown, mean = _summed_states(part, net) if self.exact else _summed_field(part, net)
            total += value
            moments[:, :-1] += shown
            moments[:-1, -1] += mean
            moments[-1, -1] += len(part)
        return total, moments

    def _maximise(self, moments: Tensor) -> Tensor:
        """Take the M-step; no cause counts as empty."""
        on, n = moments[:-1, -1], moments[-1, -1]
        strength = widened(self.trial.strength) * (moments[:-1, :-1] / on.clamp(min=1e-12)[:, None]).T
        leak = widened(self.trial.leak) * moments[-1, :-1] / n
        self.trial.become(on / n, strength, leak)
        return torch.zeros(self.components, dtype=torch.bool)

    def _reseed(self, x: Tensor, empty: Tensor, moments: Tensor) -> None:
        """Do nothing: no cause counts as empty."""


def _few(row: Tensor) -> Tensor:
    """Return a sample whose positive findings are few enough for a sum over their subsets.

    Raises:
        DataError: If they are not.
    """
    if int(row.sum()) > _MOST_FINDINGS:
        raise DataError(
            f"an exact posterior sums over 2^causes or 2^positive findings; {int(row.sum())} are positive, "
            f"at most {_MOST_FINDINGS}: use method='mean field' or 'gibbs'"
        )
    return row


def _marginals(x: Tensor, net: Net) -> Tensor:
    """Return exact posterior means: (n, d) -> (n, K)."""
    if net.causes <= _MOST_CAUSES:
        return torch.softmax(joint_table(x, net), 1) @ net.states()
    return torch.stack([quickscore(_few(row), net)[1] for row in x])


def _summed_states(x: Tensor, net: Net) -> tuple[float, Tensor, Tensor]:
    """Return sums over samples by their exact posteriors: log p, E[z / p] and E[1 / p] of findings, E[z]."""
    joint = joint_table(x, net)
    evidence = torch.logsumexp(joint, 1, keepdim=True)
    share, z = (joint - evidence).exp(), net.states()  # (rows, 2^K), (2^K, K)
    per = (share.T @ x) / -torch.expm1(-(net.leak + z @ net.weights.T))  # (2^K, d)
    return float(evidence.sum()), torch.cat([z.T @ per, per.sum(0)[None]]), (share @ z).sum(0)


def _summed_field(x: Tensor, net: Net) -> tuple[float, Tensor, Tensor]:
    """Return the same by factorised posteriors."""
    field, shown = field_moments(x, net)
    return float(field.bound.sum()), shown, field.mean.sum(0)
