r"""LSTM language model: the next token from a state that has read all tokens before it.

    log p(x) = sum_t log p(x_t | h_t),    h_t, c_t = LSTM(e(x_(t-1)), h_(t-1), c_(t-1)),    h_0 = c_0 = 0

The first token is read from a learned start embedding in place of e(x_0), so that every window has an
exact probability. Windows that follow one another in a text can be scored with the state carried over.

Symbols:
    x (n, l) windows of l tokens, e embedding, h hidden state, c cell state, v size of the vocabulary.

Source:
    Hochreiter and Schmidhuber (1997), Long Short-Term Memory, Neural Computation 9(8); with the forget
    gate of Gers, Schmidhuber and Cummins (2000).
    Tied output weights: Press and Wolf (2017), Using the Output Embedding to Improve Language Models, EACL.

Departs from the source:
    The loss is a mean over tokens, so that its size does not depend on the length of windows; log_prob is
    the sum over a window as for every model.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leadline.core import Batch, Described, OptionError, Quantity, ShapeError, Tokens, counted, mean_quantity
from leadline.core.randomness import categorical

__all__ = ["LSTM"]

_NUMBERS_AT_ONCE = 1 << 22
State = tuple[Tensor, Tensor]


class LSTM(nn.Module):
    """Language model over windows of tokens, by `torch.nn.LSTM`.

    Verbs:
        sample, log_prob (exact), encode (the top layer's hidden state, averaged over the window)

    Args:
        domain: The tokens.
        embedding: Width of token embeddings.
        hidden: Width of each layer.
        layers: Number of layers.
        dropout: Probability that a number between layers is left out in training, in [0, 1).
        tied: Whether output weights are the embeddings; needs `embedding` = `hidden`.

    Raises:
        OptionError: If an option is out of range.

    Example:
        >>> from leadline.core import Signature
        >>> model = LSTM.for_data(Signature(Tokens(tuple("abc"), 8)), hidden=16)
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 16]))
    """

    def __init__(
        self,
        domain: Tokens,
        embedding: int = 128,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        *,
        tied: bool = False,
    ) -> None:
        super().__init__()
        if min(embedding, hidden, layers) < 1 or not 0 <= dropout < 1:
            raise OptionError("embedding, hidden and layers must be at least 1, dropout in [0, 1)")
        if tied and embedding != hidden:
            raise OptionError(f"tied weights need embedding = hidden, got {embedding} and {hidden}")
        size = len(domain.vocabulary)
        self.domain = domain
        self.embedding = nn.Embedding(size, embedding)
        self.start = nn.Parameter(torch.randn(embedding) / math.sqrt(embedding))
        self.lstm = nn.LSTM(
            embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.dropout = nn.Dropout(dropout)
        # Tied weights have one name: a file of weights holds no tensor twice.
        self.head = None if tied else nn.Linear(hidden, size, bias=False)
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(embedding))

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        embedding: int | None = None,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> "LSTM":
        """Return a model for windows of tokens.

        Args:
            data: A data set, or anything with a domain.
            embedding: Width of token embeddings; `hidden`, but at most 128 if not tied, if None.
            hidden: Width of each layer.
            layers: Number of layers.
            dropout: Probability that a number between layers is left out in training.
            tied: Whether output weights are the embeddings.
        """
        width = (hidden if tied else min(hidden, 128)) if embedding is None else embedding
        return cls(data.domain.require(Tokens), width, hidden, layers, dropout, tied=tied)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of a token of `batch.x` in nats, shape ()."""
        return -self.conditionals(batch.x).mean()

    @torch.no_grad()
    @counted
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        length: int | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Return `n` draws of text, (n, length).

        Args:
            n: Number of draws.
            generator: Source of the draws.
            temperature: What logits are divided by, at least 0; at 0 the most probable token is taken.
            top_k: Number of most probable tokens to choose from, at least 1; all if None.
            length: Tokens of each draw, the prompt included; that of a window if None.
            prompt: Tokens (m,), or (n, m), that every draw begins with.

        Raises:
            OptionError: If an option is out of range.
        """
        size = self.domain.length if length is None else length
        text = self._prompted(n, prompt)
        if not temperature >= 0 or (top_k is not None and top_k < 1) or size < text.shape[1]:
            raise OptionError(
                "temperature must be at least 0, top_k at least 1, length at least the prompt's"
            )
        inputs, state = self._inputs(text, None, keep_last=True), None
        tokens = [text]
        for _ in range(size - text.shape[1]):
            outputs, state = self.lstm(inputs, state)
            token = _chosen(self.logits(outputs[:, -1]), temperature, top_k, generator)
            tokens.append(token[:, None])
            inputs = self.embedding(token)[:, None]
        return torch.cat(tokens, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each window in nats: (n, l) -> (n,)."""
        rows = max(1, _NUMBERS_AT_ONCE // (self.domain.length * len(self.domain.vocabulary)))
        return torch.cat([self.conditionals(part).sum(1) for part in self.domain.checked(x).split(rows)])

    def encode(self, x: Tensor) -> Tensor:
        """Return the top layer's hidden state, averaged over the window: (n, l) -> (n, h)."""
        text = self.domain.checked(x).to(self.start.device)
        return self.lstm(self._inputs(text, None, keep_last=True))[0][:, 1:].mean(1)

    def conditionals(self, x: Tensor) -> Tensor:
        """Return log p(x_t | x_1, ..., x_(t-1)) in nats: (n, l) -> (n, l)."""
        return self._scored(self.domain.checked(x).to(self.start.device), None, None)[0]

    @torch.no_grad()
    def bits_per_token(self, x: Tensor, *, stateful: bool = True, streams: int = 1) -> Quantity:
        """Return the mean of -log2 p of a token, with the standard error over windows.

        Args:
            x: Windows (n, l) that follow one another in a text; l may be any number.
            stateful: Whether the state is carried from window to window, else each starts anew.
            streams: Number of equal parts of the text to score side by side, each from its own start;
                it must divide n. More of them is faster, and loses the context of the first windows.

        Raises:
            OptionError: If `streams` does not divide n.
        """
        if x.dim() != 2 or 0 in x.shape:
            raise ShapeError(f"expected windows of shape (n, l), got {tuple(x.shape)}")
        count = len(x) if not stateful else streams
        if count < 1 or len(x) % count:
            raise OptionError(f"streams must divide the number of windows, {len(x)}, got {streams}")
        mode, state, last = self.training, None, None
        self.eval()
        scores = []
        for window in x.to(self.start.device).unflatten(0, (count, -1)).unbind(1):  # (count, l) each
            each, state = self._scored(window, state, last)
            scores.append(each.mean(1))
            last = window[:, -1:]
        self.train(mode)
        how = f"state carried over, {count} streams" if stateful else "each window from its own start"
        bits = -torch.stack(scores, 1).flatten() / math.log(2)
        return mean_quantity(bits, unit="bits/token", protocol=how)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the logits of the next token, of the top layer's hidden state: (*, h) -> (*, v)."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(outputs, weight, self.bias)

    def _scored(self, x: Tensor, state: State | None, last: Tensor | None) -> tuple[Tensor, State]:
        """Return log p of each token and the state behind them: (n, l) -> (n, l)."""
        outputs, after = self.lstm(self.dropout(self._inputs(x, last)), state)
        logits = self.logits(self.dropout(outputs))  # (n, l, v)
        return -F.cross_entropy(logits.movedim(-1, 1), x, reduction="none"), after

    def _inputs(self, x: Tensor, last: Tensor | None, *, keep_last: bool = False) -> Tensor:
        """Return embeddings of what stands before each token, and of the last one if it is kept.

        Before the first token stands `last` (n, 1), the start of a text if None.
        """
        begin = self.start.expand(len(x), 1, -1) if last is None else self.embedding(last)
        return torch.cat([begin, self.embedding(x if keep_last else x[:, :-1])], 1)

    def _prompted(self, n: int, prompt: Tensor | None) -> Tensor:
        """Return the tokens that draws begin with, (n, m)."""
        if prompt is None:
            return torch.empty(n, 0, dtype=torch.int64, device=self.start.device)
        if prompt.dim() not in (1, 2) or (prompt.dim() == 2 and len(prompt) != n):
            raise ShapeError(f"prompt must have the shape (m,) or ({n}, m), got {tuple(prompt.shape)}")
        return prompt.to(self.start.device, torch.int64).expand(n, -1)


def _chosen(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Return one token a row: (n, v) -> (n,)."""
    if temperature == 0:
        return logits.argmax(-1)
    kept, tokens = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]))
    # Subtracting the largest first keeps a small temperature from overflowing.
    pick = categorical((kept - kept[:, :1]) / temperature, generator)
    return tokens.gather(1, pick[:, None]).squeeze(1)
