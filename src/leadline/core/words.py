"""Domains of text: bags of words and windows of tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from leadline.core.domain import MOST_STATES, Domain
from leadline.core.errors import DomainError
from leadline.core.likelihoods import Categorical, Likelihood, Poisson

__all__ = ["Counts", "Tokens"]


@dataclass(frozen=True)
class Counts(Domain):
    """Bags of words, raw x (n, words) int64 counts.

    Args:
        vocabulary: The words.
    """

    vocabulary: tuple[str, ...]
    kind: ClassVar[str] = "counts"
    heads: ClassVar[tuple[str, ...]] = ("poisson",)

    def __str__(self) -> str:
        return f"Counts({len(self.vocabulary)} words)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (words,)."""
        return (len(self.vocabulary),)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the words."""
        return self.vocabulary

    @property
    def dtype(self) -> torch.dtype:
        """Return int64."""
        return torch.int64

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a word."""
        return torch.arange(self.dims)

    def column(self, dim: int) -> "Counts":
        """Return the domain of one word."""
        return Counts((self.vocabulary[dim],))

    def shrunken(self) -> "Counts":
        """Return the first three words."""
        return Counts(self.vocabulary[:3])

    def _make_head(self, name: str) -> Likelihood:
        return Poisson(self.shape)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        return torch.log1p(x.to(like.device, like.dtype))

    def show(self, sample: Tensor) -> str:
        """Return the words of one bag, the most frequent first."""
        order = sample.argsort(descending=True)[:12].tolist()
        return ", ".join(f"{self.vocabulary[i]}:{int(sample[i])}" for i in order if sample[i] > 0)


@dataclass(frozen=True)
class Tokens(Domain):
    """Windows of text, raw x (n, length) int64 token numbers.

    Args:
        vocabulary: The tokens.
        length: Tokens in a window.
        joiner: What stands between two tokens when they are shown: "" for characters, " " for words.
    """

    vocabulary: tuple[str, ...]
    length: int
    joiner: str = ""
    kind: ClassVar[str] = "tokens"
    heads: ClassVar[tuple[str, ...]] = ("categorical",)

    def __str__(self) -> str:
        return f"Tokens({len(self.vocabulary)} tokens, windows of {self.length})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (length,)."""
        return (self.length,)

    @property
    def dtype(self) -> torch.dtype:
        """Return int64."""
        return torch.int64

    @property
    def cardinalities(self) -> tuple[int, ...] | None:
        """Return the size of the vocabulary, once a place."""
        return (len(self.vocabulary),) * self.length

    @property
    def feature_owners(self) -> Tensor:
        """Return one feature a token of the vocabulary at each place (one-hot).

        Raises:
            DomainError: If there would be more than 65,536 of them.
        """
        if len(self.vocabulary) * self.length > MOST_STATES:
            raise DomainError(f"{self} is too large for one-hot features; use a sequence model (lstm)")
        return torch.repeat_interleave(torch.arange(self.length), len(self.vocabulary))

    def column(self, dim: int) -> "Tokens":
        """Return the domain of one place."""
        return Tokens(self.vocabulary, 1, self.joiner)

    def shrunken(self) -> "Tokens":
        """Return windows of four over the first three tokens."""
        return Tokens(self.vocabulary[:3], 4, self.joiner)

    def _make_head(self, name: str) -> Likelihood:
        return Categorical(self.shape, (len(self.vocabulary),) * self.length)

    def _features(self, x: Tensor, like: Tensor) -> Tensor:
        _ = self.feature_owners
        return F.one_hot(x, len(self.vocabulary)).flatten(1).to(like.device, like.dtype)

    def show(self, sample: Tensor) -> str:
        """Return the text of one window."""
        return self.joiner.join(self.vocabulary[int(token)] for token in sample)
