r"""Latent Dirichlet allocation: a document is a mixture of topics, a topic a distribution over words.

    theta ~ D(alpha),  z_i ~ theta,  w_i ~ topic z_i,  topic_k ~ D(eta),  number of tokens ~ negative binomial

`log_prob` is that of a bag of words under the mean topics, with theta integrated out: a left-to-right
estimate whose exponential is unbiased, or a lower bound by q(theta) q(z).

Symbols:
    n documents, V words, K topics, N tokens of a document, x (n, V) counts, s (V, K) Dirichlet parameters
    of the topics, theta (n, K) proportions, g (n, K) their posterior parameters, z topics of tokens.

Source:
    Blei, Ng and Jordan (2003), Latent Dirichlet allocation, JMLR 3.
    Online: Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NIPS.
    Collapsed Gibbs: Griffiths and Steyvers (2004), Finding scientific topics, PNAS 101.

Departs from the source:
    The number of tokens is negative binomial, not Poisson: real lengths vary more.
    The posteriors of documents are found anew in every sweep, lest they be stuck with its first topics. Only
    if the bound would fall for it, they go on from the last ones where those are better: it never falls.
    Topics of a chain are the mean over about its last fifty sweeps.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from leadline.core import Counts, DataError, Density, Described, Domain, Quantity, counted
from leadline.core.errors import checked_codes
from leadline.inference.dirichlet import dirichlet, most_likely_dirichlet, polya_step
from leadline.inference.topic_chains import log_joint, shared_left_to_right, step
from leadline.inference.topics import counted_evidence, infer, prepare
from leadline.models.graphical.documents import Documents, documents_of, seeds_of
from leadline.models.graphical.lengths import Lengths, bags_of, log_orders
from leadline.models.graphical.rankings import Ranking, ranked

__all__ = ["LDA"]

Method = Literal["variational", "online", "gibbs"]
METHODS = ("variational", "online", "gibbs")
_STEPS, _CLOSE, _SCORED_STEPS, _SCORED_CLOSE = 100, 1e-3, 2000, 1e-8
_DELAY, _FORGETTING = 1.0, 0.7  # tau and kappa of Hoffman et al. (2010), table 1
_PARTICLES = 10  # of the left-to-right estimate, by default
_KEPT, _BURNT = 0.02, 5.0  # weight of the newest state in a chain's mean topics: at least, and at first


class LDA(nn.Module):
    """Latent Dirichlet allocation with `topics` topics.

    Verbs:
        sample, log_prob, encode, decode

    Args:
        domain: Bags of words.
        topics: Number K of topics, at least 1.
        method: "variational" (batch), "online" (a sweep is a pass in minibatches) or "gibbs".
        alpha: Prior of a document's topics, positive.
        eta: Prior of a topic's words, positive.
        learn_alpha: Whether alpha is learned too, one number a topic.
        batch: Documents of a minibatch of "online".
        tolerance: "variational" is done when a sweep gains less than this, in nats per token.

    Raises:
        ValueError: If an option is out of range.
        DomainError: If samples are not bags of words.

    Example:
        >>> model = LDA(Counts(("sea", "line", "lead", "deep")), topics=2)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 2]))
    """

    reads_sparse = True
    strength: Tensor
    alpha: Tensor
    progress: Tensor
    posterior: Tensor
    assignments: Tensor

    def __init__(
        self,
        domain: Domain,
        topics: int = 20,
        method: Method = "variational",
        *,
        alpha: float = 0.1,
        eta: float = 0.01,
        learn_alpha: bool = False,
        batch: int = 256,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        _check(topics, method, alpha, eta, batch)
        self.domain = domain.require(Counts)
        self.components = topics
        self.method = method
        self.eta = eta
        self.learn_alpha = learn_alpha
        self.batch = batch
        self.tolerance = tolerance
        self.length = Lengths()
        self.register_buffer("strength", torch.randn(domain.dims, topics).mul_(0.1).add_(1).clamp_(min=0.5))
        self.register_buffer("alpha", torch.full((topics,), float(alpha)))
        # sweeps, minibatches, whether it has settled; then the last objective as a sum of two
        self.register_buffer("progress", torch.zeros(5))
        self.register_buffer("posterior", torch.zeros(0, topics))  # of the training documents
        self.register_buffer("assignments", torch.zeros(0, dtype=torch.int32))  # of their tokens

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        topics: int = 20,
        method: Method = "variational",
        alpha: float = 0.1,
        eta: float = 0.01,
        learn_alpha: bool = False,
        batch: int = 256,
        tolerance: float = 1e-4,
    ) -> "LDA":
        """Return a model of the words of `data`, which must hold counts."""
        return cls(
            data.domain, topics, method, alpha=alpha, eta=eta, learn_alpha=learn_alpha, batch=batch,
            tolerance=tolerance,
        )  # fmt: skip

    def sweep(self, x: Tensor) -> float:
        """Go over all documents (n, V) once, dense or sparse; return the objective in nats per document.

        That is the bound on log p(all words) of the state before ("variational"), the same without the
        topics' share ("online"), or log p(words, topics of tokens) ("gibbs"). The number of tokens has
        no part in it.

        Raises:
            ShapeError: If a value is no count.
            DataError: If no document holds a word.
        """
        documents = documents_of(self.domain.checked(x))
        if not len(documents.counts):
            raise DataError("lda needs documents with words; all counts are zero")
        self.length.learn(torch.from_numpy(documents.tokens))
        sweeps = {"variational": self._batch, "online": self._online, "gibbs": self._gibbs}
        objective = sweeps[self.method](documents) / len(documents)
        last, gain = float(self.progress[3:].double().sum()), math.inf
        if self.progress[0] > 0:
            gain = objective - last
        done = self.method == "variational" and gain < self.tolerance * documents.tokens.mean()
        whole = torch.tensor(objective, dtype=torch.float64).float()
        self.progress[0] += 1
        self.progress[2] = float(done)
        self.progress[3], self.progress[4] = whole, objective - float(whole)
        return objective

    @property
    def converged(self) -> bool:
        """Return whether the bound has settled; an online pass or a chain goes on until it is stopped."""
        return bool(self.progress[2] > 0)

    @property
    def free_parameters(self) -> int:
        """Return the number of free parameters: topics, and alpha where it is learned."""
        words, topics = self.strength.shape
        return topics * (words - 1) + topics * self.learn_alpha

    @property
    def topics(self) -> Tensor:
        """Return the mean probability of each word in each topic, (K, V)."""
        return (self.strength / self.strength.sum(0)).T

    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` bags of words drawn from the model, (n, V) int64."""
        tokens = self.length.sample(n, generator).to(self.strength.device)
        theta = dirichlet(self.alpha.expand(n, -1), generator)
        return bags_of(theta @ self.topics, tokens, generator)

    def log_prob(
        self, x: Tensor, samples: int | None = _PARTICLES, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return log p(bag) of each document, in nats: (n, V) -> (n,).

        Args:
            x: Counts.
            samples: Particles of the left-to-right estimate; None for the variational lower bound.
            generator: Source of the particles' draws; without it they follow from each document itself.
        """
        tokens = self.evidence(x, samples, generator)
        N = x.sum(1)
        return (tokens + log_orders(x) + self.length.log_prob(N)).to(self.strength)

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean proportions of topics: (n, V) -> (n, K)."""
        g, _ = self._infer(documents_of(self.domain.checked(x)))
        return torch.from_numpy(g / g.sum(1, keepdims=True)).to(self.strength)

    def decode(self, z: Tensor) -> Tensor:
        """Return the expected counts of a document of mean length, rounded: (n, K) -> (n, V)."""
        share = checked_codes(z, self.components).to(self.strength)
        return (self.length.mean * (share @ self.topics)).clamp(min=0).round().long()

    @property
    def density(self) -> Density:
        """Return the kind of `log_prob`."""
        return Density("estimate", f"left to right, {_PARTICLES} particles, a little low on average")

    def elbo(self, x: Tensor) -> Tensor:
        """Return the variational bound on log p(bag), in nats: (n, V) -> (n,)."""
        return self.log_prob(x, None)

    def evidence(
        self, x: Tensor, samples: int | None = _PARTICLES, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return log p(words in their order | topics), bound or estimate as in `log_prob`: (n, V) -> (n,)."""
        documents = documents_of(self.domain.checked(x))
        if samples is None:
            return torch.from_numpy(self._infer(documents)[1])
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        words = documents.words_of_tokens()
        topics = np.ascontiguousarray(self.topics.T.double().cpu().numpy())
        alpha = self.alpha.double().cpu().numpy()
        seeds = seeds_of(x, generator)
        return torch.from_numpy(
            shared_left_to_right(documents.token_starts, words, topics, alpha, samples, seeds)
        )

    def exact_log_prob(self, x: Tensor) -> Tensor:
        """Return log p(bag) summed over every division of the tokens among topics: (n, V) -> (n,).

        Raises:
            ValueError: If a document has too many; few tokens or few topics are needed.
        """
        documents = documents_of(self.domain.checked(x))
        topics, alpha = self.topics.double().cpu().numpy(), self.alpha.double().cpu().numpy()
        rows = [
            counted_evidence(documents.words[s:e], documents.counts[s:e], topics, alpha)
            for s, e in zip(documents.starts[:-1], documents.starts[1:], strict=True)
        ]
        tokens = torch.tensor(rows, dtype=torch.float64)
        return (tokens + log_orders(x) + self.length.log_prob(x.sum(1))).to(self.strength)

    def perplexity(self, x: Tensor, samples: int | None = _PARTICLES) -> Quantity:
        """Return exp of minus log p(words) per token over all documents, as a bound or an estimate.

        Its standard error is that of the choice of documents (n, V).
        """
        told, N = self.evidence(x, samples).double().cpu(), x.sum(1).double().cpu()
        tokens = max(int(N.sum()), 1)
        rate = float(told.sum()) / tokens
        value, n = math.exp(-rate), len(N)
        spread = math.sqrt(float((told - rate * N).square().sum()) * n / max(n - 1, 1)) / tokens
        how = "variational bound" if samples is None else f"left-to-right, {samples} particles"
        kind: Any = "upper bound" if samples is None else "estimate"
        error = value * spread if n > 1 else None
        return Quantity(value, "per token", kind, stderr=error, samples=tokens, protocol=how)

    def top_words(self, count: int = 10) -> Ranking:
        """Return the most probable words of each topic with their probabilities."""
        return ranked(self.topics, self.domain, count)

    def pyldavis(self, x: Tensor) -> dict[str, Any]:
        """Return the five arrays from which pyLDAvis draws its map of topics, by their names there."""
        return {
            "topic_term_dists": self.topics.double().cpu().numpy(),
            "doc_topic_dists": self.encode(x).double().cpu().numpy(),
            "doc_lengths": x.sum(1).cpu().numpy(),
            "vocab": list(self.domain.vocabulary),
            "term_frequency": x.sum(0).cpu().numpy(),
        }

    def make_room(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Grow the state of the training documents to saved shapes, before it is read back."""
        for name in ("posterior", "assignments"):
            held = getattr(self, name)
            if name in shapes and tuple(held.shape) != shapes[name]:
                setattr(self, name, held.new_zeros(shapes[name]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        shapes = {
            key.removeprefix(prefix): tuple(value.shape)
            for key, value in state_dict.items()
            if key.startswith(prefix) and isinstance(value, Tensor)
        }
        self.make_room(shapes)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _infer(self, documents: Documents) -> tuple[Any, Any]:
        """Return posterior parameters (n, K) and bounds (n,) of documents under the mean topics."""
        B = np.ascontiguousarray(self.topics.T.double().cpu().numpy())
        alpha = self.alpha.double().cpu().numpy()
        g = np.empty((len(documents), self.components))
        bounds = infer(
            documents.starts, documents.words, documents.counts.astype(np.float64),
            np.arange(len(documents)), B, np.zeros(len(B)), alpha, g, np.zeros((0, self.components)),
            _SCORED_STEPS, _SCORED_CLOSE, known=False,
        )  # fmt: skip
        return g, bounds

    def _expect(self, documents: Documents, chosen: Any, *, known: bool) -> tuple[float, Any]:
        """Improve the posteriors of some documents; return their bound and the expected counts (V, K)."""
        strength, g = self.strength.cpu().numpy(), self.posterior.cpu().numpy()
        B, height = np.empty_like(strength), np.empty(len(strength))
        share = prepare(strength, self.eta, B, height)
        stats = np.zeros_like(B)
        bounds = infer(
            documents.starts, documents.words, documents.counts.astype(B.dtype), chosen, B, height,
            self.alpha.cpu().numpy(), g, stats, _STEPS, _CLOSE, known,
        )  # fmt: skip
        self.posterior.copy_(torch.from_numpy(g))
        return float(bounds.sum()) + (share if self.method == "variational" else 0.0), stats * B

    def _batch(self, documents: Documents) -> float:
        """Take one step of coordinate ascent on the bound, which is returned."""
        known, every = len(self.posterior) == len(documents), np.arange(len(documents))
        if not known:
            self.posterior = self.alpha.new_ones(len(documents), self.components)
        before, last = self.posterior.clone(), float(self.progress[3:].double().sum()) * len(documents)
        bound, stats = self._expect(documents, every, known=False)
        if known and bound < last:
            self.posterior.copy_(before)
            bound, stats = self._expect(documents, every, known=True)
        self.strength.copy_(torch.from_numpy(self.eta + stats))
        if self.learn_alpha:
            self._fit_alpha()
        return bound

    def _online(self, documents: Documents) -> float:
        """Take a natural-gradient step a minibatch, in a new order; return the sum of their bounds."""
        self.posterior = self.alpha.new_ones(len(documents), self.components)
        total = 0.0
        for chosen in torch.randperm(len(documents)).split(self.batch):
            bound, stats = self._expect(documents, chosen.numpy(), known=False)
            rate = (_DELAY + float(self.progress[1])) ** -_FORGETTING
            goal = self.eta + stats * (len(documents) / len(chosen))
            self.strength.lerp_(torch.from_numpy(goal).to(self.strength), rate)
            self.progress[1] += 1
            total += bound
        if self.learn_alpha:
            self._fit_alpha()
        return total

    def _fit_alpha(self) -> None:
        """Let alpha be the most likely one under the posteriors of the documents."""
        g = self.posterior.double()
        mean_log = (torch.digamma(g) - torch.digamma(g.sum(1, keepdim=True))).mean(0)
        self._set_alpha(most_likely_dirichlet(mean_log.cpu().numpy(), self.alpha.cpu().numpy()))

    def _gibbs(self, documents: Documents) -> float:
        """Draw the topic of every token once; return log p(words, topics of tokens) of what was drawn."""
        words, alpha = documents.words_of_tokens(), self.alpha.double().cpu().numpy()
        if len(self.assignments) != len(words):
            self.assignments = torch.randint(self.components, (len(words),), dtype=torch.int32)
        z = self.assignments.cpu().numpy()
        seed = int(torch.randint(1 << 62, ()))
        counts, own = step(documents.token_starts, words, z, alpha, self.eta, self.domain.dims, seed)
        self.assignments.copy_(torch.from_numpy(z))
        keep = max(_BURNT / (float(self.progress[0]) + _BURNT), _KEPT)
        self.strength.lerp_(torch.from_numpy(counts + self.eta).to(self.strength), keep)
        if self.learn_alpha:
            self._set_alpha(polya_step(own.astype(np.float64), alpha))
        return log_joint(counts, own, self.alpha.double().cpu().numpy(), self.eta)

    def _set_alpha(self, alpha: Any) -> None:
        self.alpha.copy_(torch.from_numpy(alpha))


def _check(topics: int, method: str, alpha: float, eta: float, batch: int) -> None:
    """Check the options.

    Raises:
        ValueError: If one is out of range.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    for name, value in (("topics", topics), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name, prior in (("alpha", alpha), ("eta", eta)):
        if not (prior > 0 and math.isfinite(prior)):
            raise ValueError(f"{name} must be positive, got {prior}")
