"""Spoken digits by unheard speakers: the net with and without pre-training, the mixtures it replaced.

    python -m bench.spoken_digits ../shared/data/speech/fsdd.npz --speakers jackson,lucas,theo --epochs 8

Leaves one speaker out at a time: that one is the test split, another chooses the weights, the others are
learned from. Accuracies are given with their Wilson intervals, a fold each and over all folds; samples of one
speaker are alike, so the interval over folds is about these speakers, not about all there are.

Cost: a fold of 2,000 clips has 84,000 frames of 792 numbers; a step of the default net takes 6 x 340,000
operations a frame, so an epoch about 1.7e11: 4 s of one core, half as much again with the frames made anew.
Pre-training makes as many epochs of each of the three layers. The mixtures sweep in 0.7 s.
"""

import argparse
import time

import torch

import leadline as ll
from leadline.measures.classification import classification, wilson_interval

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
    parser.add_argument("--speakers", default="jackson,lucas,theo", help="who is left out in turn")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the net, and of each of its layers")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    right: dict[str, list[int]] = {name: [] for name in MODELS}
    for speaker in told.speakers.split(","):
        data = ll.load(told.path, held=speaker)
        for name, (model, options) in MODELS.items():
            start = time.perf_counter()
            torch.manual_seed(told.seed)
            net = ll.build(model, data, **options)
            length = {"epochs": told.epochs} if model == "acoustic_dnn" else {}
            ll.fit(net, data, seed=told.seed, out=False, progress=False, **length)
            found = classification(net, data)
            accuracy = found.quantities["accuracy"]
            right[name].append(int((found.rows if found.rows is not None else torch.zeros(1)).sum()))
            low, high = accuracy.interval or (0.0, 1.0)
            took = time.perf_counter() - start
            print(
                f"{speaker:10} {name:26} {accuracy.value:.3f} [{low:.3f}, {high:.3f}] of {len(data.test)}, "
                f"nll {found.quantities['nll'].value:.3f} nats, {took:.0f} s",
                flush=True,
            )
    folds = len(told.speakers.split(","))
    for name, hits in right.items():
        every = wilson_interval(sum(hits), 500 * folds)
        low, high = every.interval or (0.0, 1.0)
        print(f"{'all':10} {name:26} {every.value:.3f} [{low:.3f}, {high:.3f}] of {500 * folds}")


if __name__ == "__main__":
    main()
