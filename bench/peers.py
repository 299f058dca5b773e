"""Peers that need a hand before they can be imported."""

from typing import Any

import torch


def torchvision_models() -> Any:
    """Return `torchvision.models`, whose nets are pure Python.

    A torchvision that was built for another torch cannot load its compiled operators, and then stops at
    their registration; declaring the names is enough, as no net here uses one.
    """
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", boxes)
    from torchvision import models

    return models
