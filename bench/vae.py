"""Steps a second of `fit` on a variational autoencoder, against pythae's trainer and a hand-written loop.

The step asked about is 64-256-20 and 10-256-64 with batch 128 on binarised digits: 16 million
multiply-adds in the three passes and 0.2 MB of weights. So small a step is bounded by the number of
kernels and by Python around them. On the raw 17 levels the decoder has 1,088 outputs: 120 million
multiply-adds and a softmax over 139,000 numbers, where arithmetic weighs more.
All three have the same layers, the same likelihood and the same batches of the whole training split;
pythae's trainer writes its progress bars and its final model, which it cannot be told to leave out.
"""

import logging
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leadline as ll
from bench.common import ratio
from leadline.data import Dataset

HIDDEN, LATENT, BATCH, EPOCHS = 256, 10, 128, 40


def ours(data: Dataset) -> None:
    """Train with `fit`."""
    model = ll.build("vae", data, hidden=(HIDDEN,), latent=LATENT)
    ll.fit(model, data, epochs=EPOCHS, batch_size=BATCH, validate_every=10_000, out=False, progress=False)


def by_hand(x: Tensor, target: Tensor, values: int, cost: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Train with a loop that knows its one likelihood."""
    torch.set_num_threads(1)
    encoder = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 64 * values))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], fused=True)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(BATCH):
            mean, log_scale = encoder(x[index]).chunk(2, 1)
            scale = log_scale.exp()
            logits = decoder(mean + scale * torch.randn_like(mean))
            kl = 0.5 * (mean.square() + scale.square() - 1).sum() - log_scale.sum()
            loss = (cost(logits, target[index]) + kl) / len(index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def bits_cost(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def levels_cost(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.view(-1, 17), target.flatten(), reduction="sum")


def pythae_trainer(x: Tensor) -> Callable[[], None] | None:
    """Return the training by pythae, or None if it is not installed."""
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.pipelines import TrainingPipeline
        from pythae.trainers import BaseTrainerConfig
    except ImportError as error:
        print(f"pythae is left out: {error}")
        return None
    logging.disable(logging.WARNING)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            BaseEncoder.__init__(self)
            self.layers = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.layers(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            BaseDecoder.__init__(self)
            self.layers = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 64))

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z).sigmoid())

    def train() -> None:
        torch.set_num_threads(1)
        setting = VAEConfig(input_dim=(64,), latent_dim=LATENT, reconstruction_loss="bce")
        with tempfile.TemporaryDirectory() as folder:
            training = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-3,
                no_cuda=True,
            )
            pipeline = TrainingPipeline(model=VAE(setting, Encoder(), Decoder()), training_config=training)
            pipeline(train_data=x)

    return train


def main() -> None:
    """Print the ratios."""
    raw = ll.load("digits")
    data = raw.binarize()
    bits = data.train.x.flatten(1)
    x, levels = raw.domain.features(raw.train.x), raw.train.x.flatten(1).long()
    peer = pythae_trainer(bits.float())
    if peer is not None:
        ratio("vae, binarised digits / pythae's trainer", lambda: ours(data), peer, goal=2.0)
    inputs = data.domain.features(data.train.x)
    ratio(
        "vae, binarised digits / hand-written loop, fused Adam",
        lambda: ours(data),
        lambda: by_hand(inputs, bits.float(), 1, bits_cost),
        goal=0.9,
    )
    ratio(
        "vae, digits of 17 levels / hand-written loop, fused Adam",
        lambda: ours(raw),
        lambda: by_hand(x, levels, 17, levels_cost),
        goal=0.9,
    )


if __name__ == "__main__":
    main()
