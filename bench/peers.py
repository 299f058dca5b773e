"""Peers that need a hand before they can be imported, and our networks as theirs."""

from typing import Any

import numpy as np
import torch

from leadline.data.networks import Network
from leadline.inference.factors import FactorGraph


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


def in_pyagrum(network: Network, graph: FactorGraph) -> Any:
    """Return a network in pyAgrum, with our numbers to the last bit (its own reader rounds to float32)."""
    import pyagrum

    peer = pyagrum.BayesNet()
    for v, values in enumerate(network.values):
        peer.add(pyagrum.LabelizedVariable(f"v{v}", "", [f"s{i}" for i in range(len(values))]))
    for v, parents in enumerate(network.parents):
        for p in parents:
            peer.addArc(f"v{p}", f"v{v}")
    for v, (parents, factor) in enumerate(zip(network.parents, graph.factors, strict=True)):
        names, cpt = [f"v{u}" for u in (*parents, v)], peer.cpt(f"v{v}")
        axes = [names.index(name) for name in reversed(cpt.names)]
        cpt[:] = np.ascontiguousarray(factor.table.transpose(axes))
    return peer
