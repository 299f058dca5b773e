"""What a model of words or of parts is made of: topics as ranked words, components as pictures."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from leadline.core import Bits, Counts, Domain, Images, has_verb
from leadline.data import Dataset
from leadline.measures.coherence import coherence
from leadline.reports.parts import Block, Section, attempt, figure_block, number, samples_block

__all__ = ["parts_section", "topics_figure"]

_JUDGED, _IDLE = 100, 1e-3
_WORDS, _MOST_SHOWN, _ACROSS, _LEVELS = 10, 40, 4, 256


def topics_figure(topics: Sequence[Sequence[tuple[str, float]]], titles: Sequence[str]) -> Figure:
    """Return the words of each topic as bars of their probability, the most probable on top."""
    across = min(_ACROSS, len(topics))
    down = math.ceil(len(topics) / across)
    figure = Figure(figsize=(2.3 * across, 2.1 * down + 0.2), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis in axes[len(topics) :]:
        axis.set_axis_off()
    for axis, topic, title in zip(axes, topics, titles, strict=False):
        words, weights = [word for word, _ in topic], [weight for _, weight in topic]
        axis.barh(range(len(words)), weights, color="#1b6ca8", height=0.7)
        axis.set_yticks(range(len(words)), words, fontsize=7)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=8, loc="left")
        axis.tick_params(axis="x", labelsize=6)
        axis.locator_params(axis="x", nbins=3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def parts_section(model: nn.Module, domain: Domain, data: Dataset | None) -> Section | None:
    """Return topics of words, or the means of components; None if the model has neither."""
    speaker: Any = model
    if has_verb(model, "top_words") and isinstance(domain, Counts):
        lead = "Each topic is a distribution over words: its most probable ones, the largest topics first."
        return Section("Topics", lead, attempt("Topics", lambda: list(_ranked(speaker, data, "Topics"))))
    if has_verb(model, "top_words") and isinstance(domain, Bits) and domain.names:
        lead = "What each component or cause turns on, most surely first, with the probability."
        return Section(
            "Components", lead, attempt("Components", lambda: list(_ranked(speaker, data, "Components")))
        )
    means = getattr(model, "means", None) if domain.planes is not None else None
    if isinstance(means, torch.Tensor) and tuple(means.shape[1:]) == domain.shape:
        lead = "The mean of each component, or what each cause turns on."
        return Section("Components", lead, attempt("Components", lambda: _pictures(means, domain)))
    return None


def _ranked(model: Any, data: Dataset | None, title: str) -> Iterator[Block]:
    """Give topics or components as bars, by their share of the test documents, with their coherence."""
    topics = model.top_words(_WORDS)
    order, titles = list(range(len(topics))), [f"number {k + 1}" for k in range(len(topics))]
    caption = ""
    if data is not None:
        share = model.encode(data.test.head(500).x).mean(0)
        order = share.argsort(descending=True).tolist()
        told = coherence([[word for word, _ in topic] for topic in topics], data)
        titles = [f"{k + 1}: {float(share[k]):.0%}, NPMI {float(told[k]):.2f}" for k in range(len(topics))]
        caption = (
            "Titles: number, share of the test documents, coherence (1: the words always occur together in "
            f"training documents, 0: by chance, -1: never). Mean coherence {number(float(told.mean()))}."
        )
        idle = int((share < _IDLE).sum())
        if idle:
            caption += f" {idle} of {len(topics)} are in less than {_IDLE:.1%} of the test documents."
        if has_verb(model, "perplexity"):
            caption += _perplexity(model, data)
    order = order[:_MOST_SHOWN]
    yield figure_block(title, caption, topics_figure([topics[k] for k in order], [titles[k] for k in order]))


def _perplexity(model: Any, data: Dataset) -> str:
    """Return a sentence on how well held-out words are predicted."""
    x = data.test.head(_JUDGED).x
    told, bound = model.perplexity(x), model.perplexity(x, samples=None)
    error = "" if told.stderr is None else f", standard error {float(f'{told.stderr:.2g}'):g} over documents"
    return (
        f" Perplexity per token of {len(x)} test documents: {told.value:.5g}{error} ({told.protocol}); "
        f"at most {bound.value:.5g} by the {bound.protocol}."
    )


def _pictures(means: torch.Tensor, domain: Domain) -> Block:
    """Return the means as pictures of 256 levels."""
    top = max((domain.cardinalities or (2,))[0] - 1, 1)
    c, h, w = domain.planes or (1, 1, 1)
    x = (means[:_MOST_SHOWN].detach().cpu().float() / top * (_LEVELS - 1)).round().clamp(0, _LEVELS - 1)
    shown = Images(c, h, w, _LEVELS)
    return samples_block("Components", "In the model's own order.", shown, x.to(torch.uint8))
