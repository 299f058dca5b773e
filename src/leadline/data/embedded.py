"""Data sets that scikit-learn carries: digits, iris, wine, breast-cancer."""

import importlib

import torch

from leadline.core import Images
from leadline.data.dataset import Split
from leadline.data.found import Ask, Found, Part, numbered, vectors_of

__all__ = ["EMBEDDED", "read_embedded"]

EMBEDDED = {
    "breast-cancer": "load_breast_cancer",
    "digits": "load_digits",
    "iris": "load_iris",
    "wine": "load_wine",
}
DIGITS = Images(1, 8, 8, levels=17)


def read_embedded(name: str, ask: Ask) -> Found:
    """Return the embedded data set `name`: pictures of digits, or rows of measurements."""
    bunch = getattr(importlib.import_module("sklearn.datasets"), EMBEDDED[name])()
    classes = tuple(str(item) for item in bunch.target_names)
    y = torch.from_numpy(bunch.target).long()
    if name == "digits":
        x = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)  # (n, 1, 8, 8)
        return Found(name, {"train": Part(Split(x, y), numbered(name))}, lambda train: DIGITS, classes)
    x = torch.from_numpy(bunch.data).to(torch.float32)
    columns = tuple(str(item) for item in bunch.feature_names)
    return Found(name, {"train": Part(Split(x, y), numbered(name))}, vectors_of(columns), classes)
