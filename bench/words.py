"""Which family finds unseen documents most likely: topics, mixtures, and each word by itself, in one unit.

All of them are distributions over bags, number of tokens included, and are judged on the same test documents,
so that their bits per word of the vocabulary are comparable; the table says which differences are beyond
chance. What parts them is whether a word that occurred once is expected again: the histogram of each
word and Polya components know it, tokens drawn alike from topics do not.

Each model is trained from three seeds, and the intervals are over them and over documents.

Run: python -m bench.words [path of a corpus]
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import leadline as ll

AP = Path(__file__).parents[2] / "shared" / "data" / "topics" / "ap" / "ap.dat"
SWEEPS, SEEDS = 300, 3
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "one multinomial": ("mixture", {"components": 1, "component": "multinomial"}),
    "8 multinomials": ("mixture", {"components": 8, "component": "multinomial"}),
    "one Polya": ("mixture", {"components": 1, "component": "polya"}),
    "8 Polyas": ("mixture", {"components": 8, "component": "polya"}),
    "lda 20, variational": ("lda", {"topics": 20}),
    "lda 20, Gibbs": ("lda", {"topics": 20, "method": "gibbs"}),
    "lda 100, Gibbs": ("lda", {"topics": 100, "method": "gibbs"}),
}


def built(name: str, options: dict[str, Any], data: ll.Dataset) -> nn.Module:
    """Return a new model."""
    return ll.build(name, data, **options)


def main() -> None:
    """Print the table."""
    data = ll.load(sys.argv[1] if len(sys.argv) > 1 else str(AP))
    models: dict[str, Callable[[ll.Dataset], nn.Module]] = {
        called: partial(built, name, options) for called, (name, options) in MODELS.items()
    }
    print(data)
    print(ll.compare(data, "density", models, epochs=SWEEPS, seeds=SEEDS, jobs=1, progress=False))


if __name__ == "__main__":
    main()
