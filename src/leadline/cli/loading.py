"""From what stands on the command line to data, runs, raw samples and answers."""

import inspect
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leadline.cli.evidence import evidence_of
from leadline.cli.output import note
from leadline.cli.values import assigned, options_after
from leadline.core import DataError, Domain, Images, OptionError, require_verb
from leadline.core.randomness import generator_for
from leadline.data import Dataset, load
from leadline.data.load import SOURCES
from leadline.measures.answers import device_of, evaluating
from leadline.training import Run, open_run

__all__ = ["answered", "codes_in", "decoded", "drawn", "load_options", "loaded"]

_BATCH = 256
_MOST_TOLD = 3


def load_options() -> dict[str, inspect.Parameter]:
    """Return every option of `load`, those of one kind of source included."""
    own: dict[str, inspect.Parameter] = {}
    for source in SOURCES:
        parameters = inspect.signature(source.read).parameters
        own.update({name: parameters[name] for name in source.options})
    steps = inspect.Parameter(
        "convert", inspect.Parameter.KEYWORD_ONLY, default=(), annotation=tuple[str, ...]
    )
    return options_after(load, ("name_or_path", "options")) | own | {"convert": steps}


def loaded(source: str, pairs: Sequence[str] | None, *, skip_bad: bool = False, tell: bool = True) -> Dataset:
    """Return the data set of a name or path, with the options of the command line.

    Args:
        source: The name or path.
        pairs: NAME=VALUE of the options.
        skip_bad: Whether bad samples are left out.
        tell: Whether what is odd about the data is told on stderr, its first lines.
    """
    options = assigned(pairs, load_options(), "option of the data", "--data")
    if skip_bad:
        options["skip_bad"] = True
    data = load(source, **options)
    if tell:
        _tell(data, source)
    return data


def _tell(data: Dataset, source: str) -> None:
    """Tell what is odd about data, which is no progress: `--quiet` does not silence it."""
    if data.skipped:
        note(f"note: {data.skipped} bad samples were left out")
    for line in data.problems[:_MOST_TOLD]:
        note(f"note: {line}")
    if len(data.problems) > _MOST_TOLD:
        note(f"note: {len(data.problems) - _MOST_TOLD} more: leadline data {shlex.quote(source)}")


def answered(
    path: Path,
    verb: str,
    files: Sequence[str],
    pairs: Sequence[str] | None,
    views: dict[str, Any] | None = None,
    side: int | None = None,
) -> tuple[Run, Tensor, list[str]]:
    """Return the run, what its model's `verb` says of the samples in files, and what each is called.

    Args:
        path: Directory of the run.
        verb: The verb.
        files: Where the samples are.
        pairs: NAME=VALUE of the verb's options.
        views: Arguments of `Crops`, through which pictures are then seen; None for the model as it is.
        side: Shorter side at which pictures are read; None for the run's own.

    Raises:
        VerbError: If the model lacks the verb.
        OptionError: If samples of this run cannot be read at another size.
        DataError: If the files do not hold samples of the run's domain.
    """
    from leadline.data.samples import samples_for

    run = open_run(path)
    if views is not None:
        from leadline.models.supervised.crops import Crops

        run.model = Crops(run.model, **views)
    more = _verb_options(run.model, run.name, verb, pairs)
    domain, options = (run.domain, run.data_options) if side is None else _at(run, side)
    x, names = samples_for(domain, files, source=run.data_source, options=options)
    return run, _told(run, verb, x, more), names


def _at(run: Run, side: int) -> tuple[Domain, dict[str, Any]]:
    """Return domain and options of the run's pictures with shorter sides of `side` pixels.

    Raises:
        OptionError: If samples of this run cannot be read at another size.
    """
    domain, steps = run.domain, run.data_options.get("convert")
    if not isinstance(domain, Images) or steps:
        kind = f"pictures converted by {', '.join(steps)}" if steps else str(domain)
        raise OptionError(f"--picture-size applies to runs on Images as they are, {run.name} learned {kind}")
    scale = side / min(domain.height, domain.width)
    height, width = round(domain.height * scale), round(domain.width * scale)
    return replace(domain, height=height, width=width), {**run.data_options, "size": side}


def drawn(
    path: Path, count: int, seed: int, pairs: Sequence[str] | None, evidence: Sequence[str] | None = None
) -> tuple[Domain, Tensor]:
    """Return samples of the model of a run, or in a .bif or .uai file, a pure function of the seed.

    Raises:
        OptionError: If an option is unknown, or there is evidence and the model takes none.
        DataError: If there is no such file or run.
    """
    model, domain, name = _model_at(path)
    more = _verb_options(model, name, "sample", pairs)
    if evidence:
        if not callable(getattr(model, "observed", None)):
            raise OptionError(f"--evidence: {name} is no graphical model, and is not sampled given evidence")
        more["evidence"] = evidence_of(model, evidence, None)
    device = device_of(model)
    with evaluating(model):
        generator = generator_for(seed, "sample", device=device)
        parts = [
            model.sample(min(_BATCH, count - start), generator=generator, **more).cpu()  # type: ignore[operator]
            for start in range(0, count, _BATCH)
        ]
    return domain, torch.cat(parts)


def _model_at(path: Path) -> tuple[nn.Module, Domain, str]:
    """Return a model, what it is over and its name."""
    if path.is_file():
        from leadline.models.graphical.reading import read_model

        model = read_model(path)
        return model, model.domain, path.name
    if not path.exists():
        raise DataError(f"no file or run {path}")
    run = open_run(path)
    return run.model, run.domain, run.name


def decoded(path: Path, codes: Path, pairs: Sequence[str] | None) -> tuple[Run, Tensor]:
    """Return the run and what its model decodes the codes in a file to."""
    run = open_run(path)
    more = _verb_options(run.model, run.name, "decode", pairs)
    z = codes_in(codes)
    if callable(getattr(run.model, "encode", None)):
        blank = torch.zeros(1, *run.domain.shape, dtype=run.domain.dtype)
        size = _told(run, "encode", blank, {}).flatten(1).shape[1]
        if z.shape[1] != size:
            raise DataError(f"{codes}: {run.name} has codes of {size} numbers, these have {z.shape[1]}")
    return run, _told(run, "decode", z, more)


def codes_in(path: Path) -> Tensor:
    """Return the codes (n, D) in a file that `encode` wrote.

    Raises:
        DataError: If it holds none, or one that is not finite.
    """
    import numpy as np
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: no such file; leadline encode RUN FILES --out codes.npz writes one")
    try:
        if path.suffix in (".npy", ".npz"):
            held = np.load(path, allow_pickle=False)
            array = (
                held if isinstance(held, np.ndarray) else held["codes" if "codes" in held else held.files[0]]
            )
        else:
            array = pd.read_csv(path).select_dtypes("number").to_numpy()
        z = torch.from_numpy(np.asarray(array, dtype=np.float32))
    except (ValueError, OSError, KeyError, IndexError, EOFError) as error:
        raise DataError(f"{path}: holds no codes ({str(error).splitlines()[0]})") from error
    if z.dim() != 2 or z.numel() == 0:
        raise DataError(f"{path}: codes are a table (n, D), this has the shape {tuple(z.shape)}")
    if not bool(torch.isfinite(z).all()):
        row = int((~torch.isfinite(z)).any(1).nonzero()[0])
        raise DataError(f"{path}, row {row}: a number is missing or not finite")
    return z


def _told(run: Run, verb: str, rows: Tensor, options: dict[str, Any]) -> Tensor:
    """Return what the verb says of rows, batch by batch, on the CPU."""
    ask, device = getattr(run.model, verb), device_of(run.model)
    with evaluating(run.model):
        return torch.cat([ask(part.to(device), **options).cpu() for part in rows.split(_BATCH)])


def _verb_options(model: nn.Module, name: str, verb: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of the model's own verb that the command line gives.

    Raises:
        VerbError: If the model lacks the verb.
        OptionError: If an option is unknown.
    """
    require_verb(model, verb)
    known = options_after(getattr(model, verb), ("n", "x", "z", "generator"))
    if pairs and not known:
        raise OptionError(f"{verb} of {name} has no options")
    return assigned(pairs, known, f"option of {name}'s {verb}", "--set")
