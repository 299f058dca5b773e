"""The page of one run: what was trained on what, how it went, what it can do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leadline.core import Audio, Classes, DataError, LeadlineError, Signature, has_verb
from leadline.core.telling import told_of
from leadline.data import Dataset, Split
from leadline.laws import verify
from leadline.measures import TASKS, MeasureError, Reading
from leadline.measures.answers import answers, codes, draw, members_of
from leadline.reports import figures
from leadline.reports.boxes import percent
from leadline.reports.filters import filters_block
from leadline.reports.of_network import network_block
from leadline.reports.parts import (
    Block,
    Section,
    attempt,
    figure_block,
    number,
    readings_table,
    samples_block,
    table_block,
)
from leadline.reports.sounds import MOST_CLIPS, clips
from leadline.reports.topics import parts_section
from leadline.training import Run

__all__ = ["sections_of"]

Plan = Callable[[], Block | Sequence[Block]]
_SHOWN, _EXTREME, _PAIRS, _STEPS, _MAPPED = 64, 16, 8, 9, 1000


@dataclass
class _Scene:
    """A run, its data, and what several figures share."""

    run: Run
    data: Dataset | None
    missing: str = ""

    def has(self, *verbs: str) -> bool:
        """Return whether the model has all the verbs."""
        return all(has_verb(self.run.model, verb) for verb in verbs)

    @property
    def given(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: If they are not at hand.
        """
        if self.data is None:
            raise DataError(self.missing or "the data are not at hand")
        return self.data

    @cached_property
    def test(self) -> Split:
        """Return test samples in memory, at most as many as a map shows."""
        return self.given.test.head(_MAPPED)

    @cached_property
    def x(self) -> Tensor:
        """Return the raw test samples."""
        x = self.test.x
        return x if isinstance(x, Tensor) else x[torch.arange(len(x))]

    @cached_property
    def readings(self) -> dict[str, Reading | str]:
        """Return what each task that fits the model measured, or why it could not."""
        found: dict[str, Reading | str] = {}
        for name, task in TASKS.items():
            if not task.fits(self.run.model) or (task.labelled and self.run.labels is None):
                continue
            try:
                with told_of(name):
                    found[name] = task.measure(self.run.model, self.given)
            except LeadlineError as error:
                found[name] = str(error)
            except Exception as error:  # noqa: BLE001 - a report never fails for one of its figures
                found[name] = f"{type(error).__name__}: {error}"
        return found

    @cached_property
    def _controls(self) -> dict[str, dict[str, Reading]]:
        return {}

    def controls(self, task: str) -> dict[str, Reading]:
        """Return the lines of a task that need no training."""
        if task not in self._controls:
            self._controls[task] = TASKS[task].controls(self.given)
        return self._controls[task]

    def members(self, task: str) -> dict[str, Reading]:
        """Return what a task measures of each model that this one is made of."""
        fit = {name: one for name, one in members_of(self.run.model).items() if TASKS[task].fits(one)}
        return {name: TASKS[task].measure(one, self.given) for name, one in fit.items()}

    def reading(self, task: str) -> Reading:
        """Return what a task measured.

        Raises:
            MeasureError: If it could not be measured; the message says why.
        """
        found = self.readings.get(task, "not measured")
        if isinstance(found, str):
            raise MeasureError(found)
        return found


def sections_of(run: Run, data: Dataset | None, missing: str = "") -> list[Section]:
    """Return the sections of the page of a run; `missing` says why there are no data."""
    scene = _Scene(run, data, missing)
    parts = (
        _learning,
        _network,
        _parts,
        _measured,
        _predictions,
        _drawn,
        _scores,
        _codes,
        _decoded,
        _filters,
        _laws,
    )
    return [section for section in (part(scene) for part in parts) if section is not None]


def _learning(scene: _Scene) -> Section:
    def curves() -> Block:
        if len(scene.run.metrics) == 1:
            last = scene.run.metrics[0]
            told = ", ".join(
                f"{k} {number(v)}" for k, v in last.items() if isinstance(v, float) and k != "epoch"
            )
            return Block(
                "Learning curves", caption=f"One record, hence no curve: step {last.get('step', 1)}, {told}."
            )
        return figure_block(
            "Learning curves",
            "Dotted lines part the stages of a training.",
            figures.learning_curves(scene.run.metrics),
        )

    return Section("How it learned", "", attempt("Learning curves", curves))


def _parts(scene: _Scene) -> Section | None:
    return parts_section(scene.run.model, scene.run.domain, scene.data)


def _measured(scene: _Scene) -> Section:
    blocks: list[Block] = []
    for name, found in scene.readings.items():
        title = name.capitalize()
        if isinstance(found, str):
            blocks.append(Block(title, failed=found))
        else:
            blocks.append(readings_table(title, TASKS[name].question, found))
            blocks += attempt(f"{title}: beside it", lambda n=name, r=found: _controls(scene, n, r))  # type: ignore[misc]
    lead = (
        "Measured on the test split, by which nothing was chosen. A comparison sorts by the figure in bold."
    )
    return Section("What it measures", lead, tuple(blocks))


def _controls(scene: _Scene, task: str, own: Reading) -> Block:
    """Return the headline of the model beside its members, if any, and the lines that need no training."""
    members = scene.members(task)
    others = members | scene.controls(task)
    rows = [
        (name, number(reading.value.value), _interval(reading), reading.value.kind)
        for name, reading in {scene.run.name: own, **others}.items()
    ]
    beside = "its members alone and lines" if members else "lines"
    better = "more is better" if own.higher_is_better else "less is better"
    return Block(
        caption=f"{own.headline.replace('_', ' ')} beside {beside} that need no training; {better}.",
        columns=("", own.headline.replace("_", " "), "95 % interval", "kind"), rows=tuple(rows),
        strong=(scene.run.name,),
    )  # fmt: skip


def _interval(reading: Reading) -> str:
    ends = reading.value.interval
    return "" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def _predictions(scene: _Scene) -> Section | None:
    if not scene.has("predict") or scene.run.labels is None:
        return None
    plans: dict[str, Plan]
    if isinstance(scene.run.labels, Classes):
        plans = {
            "Confusion": lambda: _confusion(scene),
            "Calibration": lambda: _calibration(scene),
            **({"Clips": lambda: _clips(scene)} if isinstance(scene.run.domain, Audio) else {}),
            "Surest mistakes": lambda: _mistakes(scene),
            "Each class": lambda: _each(scene, "per_class"),
        }
    else:
        plans = {
            "Predicted against true": lambda: _regression(scene),
            "Each target": lambda: _each(scene, "per_target"),
        }
    return Section("predict", "Classes or targets of the test split.", tuple(_all(plans)))


def _all(plans: Mapping[str, Plan]) -> Iterator[Block]:
    for title, plan in plans.items():
        yield from attempt(title, plan)


def _names(scene: _Scene) -> tuple[str, ...]:
    return () if scene.run.labels is None else scene.run.labels.names


def _confusion(scene: _Scene) -> Block:
    counts = scene.reading("classification").details["confusion"]
    return figure_block(
        "Confusion",
        "Test samples by true and predicted class; numbers are counts.",
        figures.confusion(counts, _names(scene)),
    )


def _calibration(scene: _Scene) -> Block:
    table = scene.reading("classification").details["reliability"]
    return figure_block(
        "Calibration",
        "Below the dotted line the model is surer than it is right.",
        figures.calibration(table),
    )


def _regression(scene: _Scene) -> Block:
    told = scene.reading("classification").details
    drawn = figures.predicted_against_true(told["predicted"], told["targets"], _names(scene))
    caption = "Each point is a test sample; the dotted line is a perfect prediction."
    return figure_block("Predicted against true", caption, drawn)


def _each(scene: _Scene, key: str) -> Block:
    title = "Each class" if key == "per_class" else "Each target"
    return table_block(title, "", scene.reading("classification").details[key])


def _clips(scene: _Scene) -> Block:
    """Return test clips, as even over the classes as they come, with what each is and is said to be."""
    y, names, domain = scene.test.y, _names(scene), scene.run.domain
    if y is None or not isinstance(domain, Audio):
        raise MeasureError("the test split has no labels")
    order = [rows[turn] for turn in range(2) for rows in _by_class(y, len(names)) if turn < len(rows)]
    chosen = torch.tensor(order[:MOST_CLIPS], dtype=torch.long)
    said = answers(scene.run.model, "predict", Split(scene.x[chosen])).exp()
    titles = [
        f"{names[int(y[i])]}: said {names[int(p.argmax())]} ({percent(float(p.max()))})"
        for i, p in zip(chosen.tolist(), said, strict=True)
    ]
    caption = (
        "Test clips of each class with what the model says of them; below the waveform log-mel energies."
    )
    return figure_block("Clips", caption, clips(domain, scene.x[chosen], titles))


def _by_class(y: Tensor, classes: int) -> list[list[int]]:
    """Return the numbers of the samples of each class."""
    return [(y == number).nonzero().flatten().tolist() for number in range(classes)]


def _mistakes(scene: _Scene) -> Block:
    p = answers(scene.run.model, "predict", Split(scene.x)).exp()
    y = scene.test.y
    if y is None:
        raise MeasureError("the test split has no labels")
    sure, guess = p.max(1)
    wrong = ((guess != y) & (y >= 0)).nonzero().flatten()
    if not len(wrong):
        return Block(
            "Surest mistakes", caption=f"None of the {len(y)} test samples shown to it was predicted wrongly."
        )
    order = wrong[sure[wrong].argsort(descending=True)][:_EXTREME]
    names = _names(scene)
    told = "; ".join(
        f"{names[int(guess[i])]} (is {names[int(y[i])]}, {percent(float(sure[i]))})" for i in order
    )
    return samples_block(
        "Surest mistakes", f"In reading order it says: {told}.", scene.run.domain, scene.x[order]
    )


def _drawn(scene: _Scene) -> Section | None:
    if not scene.has("sample"):
        return None
    domain = scene.run.domain

    def samples() -> Block:
        x = draw(scene.run.model, _SHOWN, "report")
        return samples_block("Samples", "Drawn with a fixed seed, not chosen.", domain, x)

    def real() -> Block:
        return samples_block("Data", "Test samples, for comparison.", domain, scene.x[:_SHOWN])

    def nearest() -> Block:
        told = scene.reading("generation").details
        pairs = torch.stack([told["nearest_samples"], told["nearest_train"]], 1).flatten(0, 1)
        caption = "Pairs: a sample, and the training sample nearest to it. Copies would look alike."
        return samples_block("Nearest to the training data", caption, domain, pairs)

    plans = {"Samples": samples, "Data": real, "Nearest to the training data": nearest}
    return Section("sample", "What it makes up.", tuple(_all(plans)))


def _scores(scene: _Scene) -> Section | None:
    if not scene.has("log_prob"):
        return None
    domain = scene.run.domain

    def spread() -> Block:
        groups = {}
        for name in ("train", "test"):
            groups[name] = answers(scene.run.model, "log_prob", getattr(scene.given, name).head(_MAPPED))
        if scene.has("sample"):
            groups["samples"] = answers(
                scene.run.model, "log_prob", Split(draw(scene.run.model, 256, "report scores"))
            )
        caption = (
            "Train far right of test: it learned by heart. Samples apart from test: it misses something."
        )
        return figure_block("Likelihoods", caption, figures.score_histogram(groups, "nats"))

    def extremes() -> list[Block]:
        rows = answers(scene.run.model, "log_prob", Split(scene.x)).double()
        order = torch.where(rows.isnan(), -torch.inf, rows).argsort(descending=True)
        most, least = order[:_EXTREME], order.flip(0)[:_EXTREME]
        return [
            samples_block("Most likely test inputs", _from_to(rows[most]), domain, scene.x[most]),
            samples_block("Least likely test inputs", _from_to(rows[least]), domain, scene.x[least]),
        ]

    return Section(
        "log_prob",
        "How likely it finds what it has not seen.",
        tuple(_all({"Likelihoods": spread, "Most and least likely": extremes})),
    )


def _from_to(rows: Tensor) -> str:
    return (
        f"Log-likelihood from {number(float(rows[0]))} to {number(float(rows[-1]))} nats, in reading order."
    )


def _codes(scene: _Scene) -> Section | None:
    if not scene.has("encode"):
        return None

    def code_map() -> Block:
        told = codes(scene.run.model, Split(scene.x))
        y, names = scene.test.y, None
        if isinstance(scene.run.labels, Classes):
            names = scene.run.labels.names
        elif y is not None:
            y = y[:, 0]
        size = f"{len(told)} test samples, {told.shape[1]} numbers a code"
        caption = f"{size}; colours are labels, which the map has not seen."
        return figure_block("Map of the codes", caption, figures.code_map(told, y, names))

    plans: dict[str, Plan] = {"Map of the codes": code_map}
    if isinstance(scene.run.labels, Classes):
        plans["Label efficiency"] = lambda: _label_efficiency(scene)
    return Section("encode", "What its codes hold.", tuple(_all(plans)))


def _label_efficiency(scene: _Scene) -> Block:
    curves = {scene.run.name: scene.reading("representation").details["curve"]}
    controls = scene.controls("representation")
    curves |= {name: reading.details["curve"] for name, reading in controls.items()}
    caption = (
        "A linear probe on the codes, as labels grow; the band is the interval over draws of the labels."
    )
    return figure_block("Label efficiency", caption, figures.label_efficiency(curves, tuple(controls)))


def _decoded(scene: _Scene) -> Section | None:
    if not scene.has("encode", "decode"):
        return None
    model, domain = scene.run.model, scene.run.domain

    def back() -> Block:
        x = scene.x[: 4 * _PAIRS]
        again = answers(model, "decode", Split(codes(model, Split(x)).float()))
        pairs = torch.stack([x, again.to(x.dtype)], 1).flatten(0, 1)
        caption = "Pairs: a test sample, then what is left of it after encode and decode."
        return samples_block("Reconstructions", caption, domain, pairs)

    def between() -> Block:
        z = codes(model, Split(scene.x[: 2 * _PAIRS])).float()
        start, end = z[0::2][:_PAIRS], z[1::2][:_PAIRS]
        start = start[: len(end)]
        path = torch.linspace(0, 1, _STEPS)[None, :, None]
        steps = (start[:, None] + path * (end - start)[:, None]).flatten(0, 1)  # (pairs * steps, d)
        made = answers(model, "decode", Split(steps))
        caption = "Each row goes in equal steps from the code of one test sample to that of another."
        return samples_block("Interpolation", caption, domain, made, columns=_STEPS)

    return Section(
        "decode",
        "From codes back to samples.",
        tuple(_all({"Reconstructions": back, "Interpolation": between})),
    )


def _filters(scene: _Scene) -> Section | None:
    filters = getattr(scene.run.model, "filters", None)
    if not callable(filters):
        return None
    blocks = attempt("Filters", lambda: filters_block(scene.run.domain, filters()))
    return Section("filters", "What its first hidden units look for.", blocks)


def _network(scene: _Scene) -> Section | None:
    model = scene.run.model
    if not callable(getattr(model, "diagram", None)):
        return None
    return Section("graph", "What depends on what.", attempt("Network", lambda: network_block(model)))


def _laws(scene: _Scene) -> Section:
    def table() -> Block:
        about = scene.data or Signature(scene.run.domain, scene.run.labels)
        found = verify(scene.run.model, about)
        groups = {"obeyed": found.obeyed, "broken": found.broken, "not applicable": found.not_applicable}
        counts = ", ".join(f"{len(laws)} {verdict}" for verdict, laws in groups.items()) + "."
        return table_block("Laws", counts, found.table, strong=tuple(law.name for law in found.broken))

    lead = "What a model with these verbs must obey, each tried out. A broken law is in bold."
    return Section("Is it correct?", lead, attempt("Laws", table))
