"""What the hidden units of a model look for, as pictures of their weights or as a map of columns."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from leadline.core import Domain, Images, ShapeError
from leadline.reports.drawing import figure_of, image, styled
from leadline.reports.parts import Block, figure_block
from leadline.reports.pictures import page_image

__all__ = ["filters_block"]

_MOST, _MOST_COLUMNS = 64, 64
_ACROSS, _TILE, _WHITE = 8, 48, 255
_TITLE = "Filters"


def filters_block(domain: Domain, filters: Tensor) -> Block:
    """Return the filters (H, d) with the largest weights: a picture each, or a row of a map each.

    Raises:
        ShapeError: If a filter has not as many weights as a sample has dimensions.
    """
    if filters.dim() != 2 or filters.shape[1] != domain.dims:
        raise ShapeError(f"filters must be (units, {domain.dims}), got {tuple(filters.shape)}")
    rows = filters.detach().float().cpu()
    kept = rows[rows.norm(dim=1).argsort(descending=True)][:_MOST]
    told = f"{len(kept)} of {len(rows)} units, those with the largest weights first"
    if domain.planes is not None and domain.planes[0] in (1, 3):
        size = kept.abs().amax(1, keepdim=True).clamp(min=1e-12)
        grey = ((1 + kept / size) * 127.5).round().to(torch.uint8)
        caption = f"{told}. Bright is positive, dark negative, grey zero; each has its own scale."
        x = grey.view(-1, *domain.planes)
        data, width = page_image(Images(*domain.planes), x, _ACROSS, _TILE, _WHITE)  # zero is grey
        return Block(_TITLE, caption, picture=image(data, f"{_TITLE}. {caption}", width), width=width)
    return figure_block(_TITLE, f"{told}. A row a unit, a column a dimension.", _map(kept[:, :_MOST_COLUMNS]))


@styled
def _map(rows: Tensor) -> Figure:
    """Return weights as a map of colours around zero."""
    figure, (axis,) = figure_of(6.4, 0.6 + min(4.0, 0.16 * len(rows) + 0.8))
    top = float(rows.abs().max()) or 1.0
    shown = axis.imshow(rows.numpy(), cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
    axis.set_xlabel("dimension")
    axis.set_ylabel("unit")
    axis.grid(visible=False)
    figure.colorbar(shown, ax=axis, label="weight")
    return figure
