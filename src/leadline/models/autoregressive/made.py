r"""MADE: a masked autoencoder whose outputs are the conditionals of an autoregressive distribution.

    log p(x) = sum_i log p(x_o(i) | x_o(1), ..., x_o(i-1))

for an order o of the dimensions. One pass of a dense network gives all conditionals, since its masks let
the outputs of dimension o(i) read only dimensions that come before it. With several orders or several
draws of the masks the model is a mixture of their distributions in equal parts,

    log p(x) = log (1/C) sum_c p_c(x),

which sums to one as each of them does. A sample is drawn dimension by dimension, at the cost of one pass.

Symbols:
    x (n, *shape) raw data, d dimensions, C components (orders times masks), P parameters of the likelihood.

Source:
    Germain, Gregor, Murray and Larochelle (2015), MADE: Masked Autoencoder for Distribution Estimation,
    ICML, sections 3, 4.2 (orders) and 4.3 (masks).

Departs from the source:
    Any likelihood of the domain stands where the paper has bits.
    The first order is the natural one. Orders and masks are a fixed list; each training step draws one
    component at random instead of going round the list.
"""

import math
from functools import cached_property

import torch
from torch import Tensor, nn

from leadline.core import Batch, Described, Domain, Likelihood, OptionError, counted
from leadline.core.randomness import generator_for
from leadline.nets.masked import MaskedStack, spread_degrees

__all__ = ["MADE"]

_NUMBERS_AT_ONCE = 1 << 22


class MADE(nn.Module):
    """Masked autoencoder for distribution estimation, over any domain that has features.

    Verbs:
        sample, log_prob (exact), encode (the last hidden layer, averaged over components)

    Args:
        domain: What one sample is.
        net: Network (n, features) -> (n, P) whose component c respects `orders[c]`.
        orders: The dimensions of each component as they come, (C, d).
        likelihood: Name of the domain's likelihood head, its default if None.

    Raises:
        OptionError: If the domain has no such head.

    Example:
        >>> from leadline.core import Bits, Signature
        >>> model = MADE.for_data(Signature(Bits((8,))), hidden=(32,))
        >>> x = model.sample(5)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([5]), torch.Size([5, 32]))
    """

    def __init__(
        self, domain: Domain, net: MaskedStack, orders: Tensor, likelihood: str | None = None
    ) -> None:
        super().__init__()
        self.domain = domain
        self.likelihood = domain.likelihood(likelihood)
        self.net = net
        self.orders: Tensor
        self.register_buffer("orders", orders)

    @classmethod
    def for_data(
        cls,
        data: Described,
        *,
        hidden: tuple[int, ...] = (512,),
        orders: int = 1,
        masks: int = 1,
        direct: bool = False,
        activation: str = "relu",
        likelihood: str | None = None,
        seed: int = 0,
    ) -> "MADE":
        """Return a model for any domain that has features and a likelihood.

        Args:
            data: A data set, or anything with a domain.
            hidden: Widths of the hidden layers, at least one.
            orders: Number of orders of the dimensions: the natural one, then random ones.
            masks: Number of draws of the masks for each order.
            direct: Whether inputs lead straight to outputs as well.
            activation: Name of the activation.
            likelihood: Name of the domain's likelihood head, its default if None.
            seed: Seed of orders and masks.
        """
        domain = data.domain
        if not hidden or min(hidden) < 1:
            raise OptionError(f"hidden must hold at least one positive width, got {hidden}")
        if min(orders, masks) < 1:
            raise OptionError(f"orders and masks must be at least 1, got {orders} and {masks}")
        order = _orders(domain.dims, orders, seed).repeat_interleave(masks, 0)  # (C, d)
        position = order.argsort(1) + 1  # (C, d), from 1
        layers = [_degrees(width, domain.dims, masks, seed, depth) for depth, width in enumerate(hidden)]
        net = MaskedStack(
            position[:, domain.feature_owners],
            position[:, domain.likelihood(likelihood).owners],
            [layer.repeat(orders, 1) for layer in layers],
            activation,
            direct=direct,
        )
        return cls(domain, net, order, likelihood)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of `batch.x` in nats, shape ().

        In training that of one component, drawn at random; else that of the mixture.
        """
        if not self.training:
            return -self.log_prob(batch.x).mean()
        components = len(self.orders)
        component = int(torch.randint(components, ())) if components > 1 else 0
        return -self.conditionals(batch.x, component).sum(1).mean()

    @torch.no_grad()
    @counted
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return `n` independent draws of x, each from a random component, shape (n, *shape)."""
        components = len(self.orders)
        if components == 1:
            return self._drawn(n, 0, generator)
        pick = torch.randint(components, (n,), generator=generator, device=self.orders.device)
        parts = [
            self._drawn(int((pick == component).sum()), component, generator)
            for component in range(components)
        ]
        return torch.cat(parts)[pick.argsort(stable=True).argsort()]

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row in nats: (n, *shape) -> (n,)."""
        rows = max(1, _NUMBERS_AT_ONCE // self.likelihood.parameters)
        return torch.cat([self._mixed(part) for part in self.domain.checked(x).split(rows)])

    def encode(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, averaged over components: (n, *shape) -> (n, h)."""
        features = self._features(x)
        codes = [self.net.hidden(features, component) for component in range(len(self.orders))]
        return torch.stack(codes).mean(0)

    def conditionals(self, x: Tensor, component: int = 0) -> Tensor:
        """Return log p(x_i | what comes before i in `orders[component]`) in nats: (n, *shape) -> (n, d)."""
        params = self.net(self._features(x), component)
        return self.likelihood.log_prob_each(params, x.to(params.device))

    def _mixed(self, x: Tensor) -> Tensor:
        """Return log p(x): (n, *shape) -> (n,)."""
        components = len(self.orders)
        each = torch.stack([self.conditionals(x, component).sum(1) for component in range(components)])
        return each[0] if components == 1 else each.logsumexp(0) - math.log(components)

    def _features(self, x: Tensor) -> Tensor:
        return self.domain.features(x, self.net.head.weight)

    def _drawn(self, n: int, component: int, generator: torch.Generator | None) -> Tensor:
        """Return draws from one component, one dimension after the other: (n, *shape)."""
        like = self.net.head.weight
        walk = self.net.walk(n, component)
        draws: list[Tensor] = []
        order: list[int] = self.orders[component].tolist()
        for dim in order:
            head, column = self._columns[dim]
            draws.append(head.sample(walk.outputs(), generator))  # (n, 1)
            if dim != order[-1]:
                walk.feed(column.features(draws[-1].view(-1, *column.shape), like))
        flat = torch.cat(draws, 1)[:, self.orders[component].argsort()]
        return flat.to(self._dtype(like)).view(n, *self.domain.shape)

    @cached_property
    def _columns(self) -> list[tuple[Likelihood, Domain]]:
        """Return likelihood and domain of each dimension alone."""
        return [(self.likelihood.column(dim), self.domain.column(dim)) for dim in range(self.domain.dims)]

    def _dtype(self, like: Tensor) -> torch.dtype:
        """Return the type of raw samples, the parameters' own if they are real numbers."""
        return like.dtype if self.domain.dtype.is_floating_point else self.domain.dtype


def _orders(dims: int, count: int, seed: int) -> Tensor:
    """Return the natural order and random ones, (count, d)."""
    source = generator_for(seed, "orders")
    return torch.stack(
        [torch.arange(dims), *(torch.randperm(dims, generator=source) for _ in range(count - 1))]
    )


def _degrees(width: int, dims: int, masks: int, seed: int, depth: int) -> Tensor:
    """Return the degrees of a hidden layer in each draw of the masks, (masks, h)."""
    source = generator_for(seed, "masks", depth)
    return torch.stack([spread_degrees(width, dims, source if draw else None) for draw in range(masks)])
