"""Spoken digits by unheard speakers: the net with and without pre-training, the mixtures it replaced.

    python -m bench.spoken_digits ../shared/data/speech/fsdd.npz --seeds 3

Leaves one speaker out at a time: that one is the test split, another chooses the weights, the others are
learned from, with each of the seeds. The defaults of the net were chosen with jackson and theo as test
speakers, so the speakers left out here are the others. Accuracies of a fold have their Wilson interval;
samples of one speaker are alike, so what holds models against each other is the difference to the mixtures
in the same fold with the same seed, with its standard error over these pairs: about these speakers only.

Cost: a fold of 2,000 clips has 84,000 frames of 792 numbers; a step of the default net takes 6 x 340,000
operations a frame, so an epoch about 1.7e11: 4 s of one core, half as much again with the frames made anew.
Pre-training makes as many epochs of each of the three layers. The mixtures sweep in 0.7 s.
"""

import argparse
import time

import torch

import leadline as ll
from leadline.measures.classification import classification

MODELS = {
    "acoustic_gmm": ("acoustic_gmm", {}),
    "acoustic_dnn": ("acoustic_dnn", {}),
    "acoustic_dnn, pre-trained": ("acoustic_dnn", {"pretraining": "rbm"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", help="the packed spoken digits")
    parser.add_argument("--speakers", default="george,nicolas,yweweler", help="who is left out in turn")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the net, and of each of its layers")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model in each fold")
    told = parser.parse_args()
    reached: dict[str, list[float]] = {name: [] for name in MODELS}
    for speaker in told.speakers.split(","):
        data = ll.load(told.path, held=speaker)
        for seed in range(told.seeds):
            for name in MODELS:
                reached[name].append(_accuracy(data, speaker, name, seed, told.epochs))
    base = torch.tensor(reached["acoustic_gmm"])
    for name, values in reached.items():
        every = torch.tensor(values)
        gain = every - base
        error = gain.std() / len(gain) ** 0.5
        print(
            f"{'all':10} {name:26} {every.mean():.3f} [{every.min():.3f}, {every.max():.3f}] over "
            f"{len(every)} trainings, {gain.mean():+.3f} +/- {error:.3f} against the mixtures"
        )


def _accuracy(data: ll.Dataset, speaker: str, name: str, seed: int, epochs: int) -> float:
    """Train one model and print how it does on the speaker left out."""
    start = time.perf_counter()
    model, options = MODELS[name]
    torch.manual_seed(seed)
    net = ll.build(model, data, **options)
    length = {"epochs": epochs} if model == "acoustic_dnn" else {}
    ll.fit(net, data, seed=seed, out=False, progress=False, **length)
    found = classification(net, data).quantities
    accuracy = found["accuracy"]
    low, high = accuracy.interval or (0.0, 1.0)
    print(
        f"{speaker:10} {name:26} seed {seed}: {accuracy.value:.3f} [{low:.3f}, {high:.3f}] of "
        f"{len(data.test)}, nll {found['nll'].value:.3f} nats, {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return accuracy.value


if __name__ == "__main__":
    main()
