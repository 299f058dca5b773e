"""Small models, one of each way to learn, whose losses also draw random numbers."""

import torch
from torch import Tensor, nn

from leadline.core import Batch, Described, Player

__all__ = ["MODELS", "Adversaries", "Classifier", "Means", "Tower"]


class Classifier(nn.Module):
    """Descends: two layers with dropout and batch normalisation."""

    def __init__(self, data: Described, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.domain, self.labels = data.domain, data.labels
        assert self.labels is not None
        self.net = nn.Sequential(
            nn.Linear(data.domain.feature_count, 16),
            nn.BatchNorm1d(16) if dropout else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, self.labels.outputs),
        )

    def loss(self, batch: Batch) -> Tensor:
        return self.labels.loss(self.scores(batch.x), batch.y, batch.label_smoothing)

    def predict(self, x: Tensor) -> Tensor:
        return self.labels.predict(self.scores(x))

    def scores(self, x: Tensor) -> Tensor:
        return self.net(self.domain.features(x))


class Adversaries(nn.Module):
    """Descends with two players: a generator of noise and a critic that moves twice as often."""

    def __init__(self, data: Described) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.domain = data.domain
        size = data.domain.feature_count
        self.maker, self.critic = nn.Linear(3, size), nn.Linear(size, 1)

    def players(self) -> list[Player]:
        return [
            Player("critic", list(self.critic.parameters()), self._critic_loss, steps=2),
            Player("maker", list(self.maker.parameters()), self._maker_loss),
        ]

    def _made(self, n: int) -> Tensor:
        return self.maker(torch.randn(n, 3))

    def _critic_loss(self, batch: Batch) -> Tensor:
        real, made = self.domain.features(batch.x), self._made(len(batch.x)).detach()
        return nn.functional.softplus(self.critic(made) - self.critic(real)).mean()

    def _maker_loss(self, batch: Batch) -> Tensor:
        return -self.critic(self._made(len(batch.x))).mean()


class Means(nn.Module):
    """Sweeps: one step of k-means, with the start drawn at random in the first sweep."""

    def __init__(self, data: Described, components: int = 5) -> None:
        super().__init__()
        self.domain = data.domain
        self.register_buffer("centres", torch.zeros(components, data.domain.feature_count))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def sweep(self, x: Tensor) -> float:
        rows = self.domain.features(x)
        if not bool(self.started):
            self.centres.copy_(rows[torch.randperm(len(rows))[: len(self.centres)]])
            self.started.fill_(True)
        nearest = torch.cdist(rows, self.centres).argmin(1)
        for k in nearest.unique():
            self.centres[k] = rows[nearest == k].mean(0)
        return -float(torch.cdist(rows, self.centres).min(1).values.square().mean())


class _Layer(nn.Module):
    """A stage of the tower: an autoencoder with one hidden layer and noise on its input."""

    def __init__(self, inputs: int, outputs: int, features: Described | None = None) -> None:
        super().__init__()
        self.forth, self.back = nn.Linear(inputs, outputs), nn.Linear(outputs, inputs)
        self.reads = features

    def encode(self, x: Tensor) -> Tensor:
        return torch.tanh(self.forth(x if self.reads is None else self.reads.domain.features(x)))

    def loss(self, batch: Batch) -> Tensor:
        rows = batch.x if self.reads is None else self.reads.domain.features(batch.x)
        noisy = rows + 0.1 * torch.randn_like(rows)
        return (self.back(torch.tanh(self.forth(noisy))) - rows).square().mean()


class Tower(nn.Module):
    """Stacks: two autoencoders one on the codes of the other, then a joint classifier."""

    def __init__(self, data: Described) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.domain, self.labels = data.domain, data.labels
        self.first = _Layer(data.domain.feature_count, 8, data)
        self.second = _Layer(8, 4)
        self.top = nn.Linear(4, 3)
        self.register_buffer("joined", torch.zeros(()))

    def stages(self) -> list[nn.Module]:
        return [self.first, self.second]

    def join(self) -> None:
        self.joined.add_(1)

    def predict(self, x: Tensor) -> Tensor:
        return self.labels.predict(self.top(self.second.encode(self.first.encode(x))))

    def loss(self, batch: Batch) -> Tensor:
        return self.labels.loss(self.top(self.second.encode(self.first.encode(batch.x))), batch.y)


MODELS = {"descend": Classifier, "players": Adversaries, "sweep": Means, "stack": Tower}
