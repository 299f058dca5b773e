r"""Whether the words of a topic occur together: what people call a topic that makes sense.

With D(v) documents that hold word v, and D(v, w) that hold both, over n documents:

    NPMI(v, w) = log(p(v, w) / p(v) p(w)) / -log p(v, w),  p = D / n, in [-1, 1]
    UMass(v, w) = log((D(v, w) + 1) / D(w)) for w ranked above v

Symbols:
    n documents, V words, T topics, m words of a topic.

Source:
    NPMI: Lau, Newman and Baldwin (2014), Machine reading tea leaves, EACL.
    UMass: Mimno, Wallach, Talley, Leenders and McCallum (2011), Optimizing semantic coherence, EMNLP.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from leadline.core import Bits, Counts, OptionError
from leadline.data import Dataset

__all__ = ["coherence"]


def coherence(topics: Sequence[Sequence[str]], data: Dataset, kind: str = "npmi") -> Tensor:
    """Return how much the words of each topic occur together in the training documents, (T,) float64.

    Args:
        topics: The words of each topic, the most probable first; at least two.
        data: Bags of words, or bits that have names.
        kind: "npmi", or "umass", in nats and below zero for words that seldom meet.

    Raises:
        OptionError: If a word is not in the vocabulary, a topic has fewer than two, or the kind is unknown.
        DomainError: If samples are neither.
    """
    if kind not in ("npmi", "umass"):
        raise OptionError(f'kind={kind!r}: give "npmi" or "umass"')
    named = isinstance(data.domain, Bits) and data.domain.names
    names = named or data.domain.require(Counts).vocabulary
    place = {word: number for number, word in enumerate(names)}
    unknown = next((word for words in topics for word in words if word not in place), None)
    if unknown is not None:
        raise OptionError(f'"{unknown}" is not a word of {data.name}')
    if any(len(words) < 2 for words in topics):
        raise OptionError("a topic needs at least two words to be coherent")
    used = sorted({place[word] for words in topics for word in words})
    column = {number: i for i, number in enumerate(used)}
    held = torch.cat([(x[:, used] > 0).double() for x, _ in data.train.batches(512)])  # (n, used)
    together = held.T @ held
    score = _npmi if kind == "npmi" else _umass
    rows = [torch.tensor([column[place[word]] for word in words]) for words in topics]
    return torch.stack([score(together[row][:, row], len(held)) for row in rows])


def _npmi(together: Tensor, n: int) -> Tensor:
    """Return the mean over pairs, -1 for a pair that never meets: documents of pairs (m, m) -> ()."""
    p = together / n
    alone = p.diagonal().clamp(min=1e-300)
    log_p = p.clamp(min=1e-300).log()
    value = (log_p - alone.log()[:, None] - alone.log()) / -log_p
    value = torch.where(p > 0, torch.where(p >= 1, 1.0, value), -1.0)
    upper = torch.ones_like(p).triu(1).bool()
    return value[upper].mean()


def _umass(together: Tensor, n: int) -> Tensor:
    """Return the mean over pairs: documents of pairs (m, m), in order of rank -> ()."""
    above = together.diagonal().clamp(min=1)[:, None]  # the word ranked first
    value = ((together + 1) / above).log()
    return value[torch.ones_like(together).triu(1).bool()].mean()
