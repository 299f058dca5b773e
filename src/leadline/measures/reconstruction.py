"""What decoding a code brings back, in the unit of the domain.

Symbols:
    n samples, d dimensions, k components.
"""

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from leadline.core import Bits, Categories, Counts, Domain, Images, Quantity, Tokens, Vectors
from leadline.data import Dataset, Split
from leadline.measures.answers import answers, device_of, evaluating, split_of
from leadline.measures.reading import MeasureError
from leadline.measures.regression import root_mean_square

__all__ = ["component_curve", "distortion", "reconstruction"]

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
MOST_RANK = 1024  # beyond it only the leading components are found
MOST_TRAIN = 5_000


def reconstruction(model: nn.Module, domain: Domain, part: Split) -> Quantity:
    """Return the error of `decode` of `encode` on a split; see `distortion` for its unit.

    Raises:
        MeasureError: If a decoded sample is not finite.
    """
    device, squares = device_of(model), []
    for x, _ in part.batches(256):
        z = answers(model, "encode", Split(x))
        with evaluating(model):
            back = model.decode(z.to(device)).cpu()  # type: ignore[operator]
        squares.append(distortion(domain, x, domain.checked(back)))
    rows = torch.cat(squares)
    if not bool(torch.isfinite(rows).all()):
        raise MeasureError(f"decode gave NaN or infinity for {int((~torch.isfinite(rows)).sum())} codes")
    return _summary(domain, rows)


def distortion(domain: Domain, x: Tensor, back: Tensor) -> Tensor:
    """Return the mean error of each sample (n,): squared, or the share of wrong values without order.

    Levels and counts are taken raw, real columns in units of their standard deviation.
    """
    if isinstance(domain, (Bits, Categories, Tokens)):
        return (x != back).flatten(1).double().mean(1)
    if isinstance(domain, (Images, Counts)):
        return (x.double() - back.double()).flatten(1).square().mean(1)
    return (domain.features(x) - domain.features(back)).double().square().mean(1)


def _summary(domain: Domain, rows: Tensor) -> Quantity:
    """Return the root mean square error, or the share of wrong values, with its interval."""
    if isinstance(domain, (Bits, Categories, Tokens)):
        share = root_mean_square(rows, "wrong").value ** 2
        return Quantity(share, "wrong", samples=len(rows), protocol="share of wrong values")
    unit = {"images": "levels", "counts": "counts"}.get(domain.kind, "sd")
    return root_mean_square(rows, unit)


def component_curve(data: Dataset) -> pd.DataFrame | None:
    """Return the test error of k principal components for k = 1, 2, 4, ...: what a line of that size reaches.

    For Images in levels (not rounded), for Vectors in standard deviations, for Bits the share of wrong
    bits; None for other domains.
    """
    domain = data.domain
    if not isinstance(domain, (Images, Vectors, Bits)):
        return None
    train = domain.features(split_of(data, "train").head(MOST_TRAIN).x).double()  # type: ignore[arg-type]
    test = domain.features(split_of(data, "test").head(MOST_TRAIN).x).double()  # type: ignore[arg-type]
    rank = min(train.shape)
    with np.errstate(invalid="ignore"):  # rows that are all alike have no variance to share out
        found = PCA(rank if rank <= MOST_RANK else max(SIZES), random_state=0).fit(train.numpy())
    mean = torch.from_numpy(found.mean_).to(train)
    basis = torch.from_numpy(found.components_).to(train)  # (k, f)
    sizes = [k for k in SIZES if k < basis.shape[0]] + [basis.shape[0]]
    errors = [_component_error(domain, test, (test - mean) @ basis[:k].T @ basis[:k] + mean) for k in sizes]
    return pd.DataFrame({"code_size": sizes, "error": errors})


def _component_error(domain: Domain, x: Tensor, back: Tensor) -> float:
    if isinstance(domain, Bits):
        return float(((back > 0) != (x > 0)).double().mean())
    unit = (domain.levels - 1) / 2 if isinstance(domain, Images) else 1.0
    return unit * float((x - back).square().mean().sqrt())
