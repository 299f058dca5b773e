"""The commands that ask a graphical model: infer, draw."""

from pathlib import Path
from typing import Annotated, Any

import typer

from leadline.cli.flags import Json

__all__ = ["COMMANDS", "draw", "infer"]

_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}


def infer(  # noqa: PLR0913
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .bif or .uai file, or the directory of a run.")
    ],
    query: Annotated[
        str | None,
        typer.Option(
            help="Variables asked for, with commas between; all by default. With MAP the part that is shown "
            "of the likeliest state of all."
        ),
    ] = None,
    evidence: Annotated[
        list[str] | None, typer.Option(help="What is known, e.g. CVP=LOW,BP=HIGH; may be given again.")
    ] = None,
    evidence_file: Annotated[Path | None, typer.Option(help="A .evid file of the UAI competitions.")] = None,
    task: Annotated[
        str,
        typer.Option(help="MAR: distributions; MAP: the likeliest state; PR: the weight of the evidence."),
    ] = "MAR",
    method: Annotated[
        str,
        typer.Option(
            help="auto (exact where memory allows), exact, loopy, mean_field, mini_bucket, weighting, gibbs, "
            "tempered."
        ),
    ] = "auto",
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory of an exact answer, e.g. 4GB [half of free]; of one table of mini_bucket.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file for the answer in the UAI form: .MAR, .MAP or .PR.")
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="MAR: one distribution of all variables of --query together.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a Bayesian network or Markov random field, given evidence.

    Example:
      leadline infer alarm.bif --query HYPOVOLEMIA --evidence CVP=LOW,BP=HIGH
      leadline infer alarm.bif --query CVP,BP --joint
      leadline infer model.uai --evidence-file model.uai.evid --task PR
    """
    from leadline.cli.evidence import evidence_of, names_in
    from leadline.cli.output import note, show_document
    from leadline.core.errors import unknown_name

    kind = task.upper()
    if kind not in _TASKS:
        raise unknown_name("task", task, _TASKS)
    asked = _model_of(model)
    seen = evidence_of(asked, evidence, evidence_file)
    words = {"method": method.replace("-", "_"), "limit": _bytes(limit)}
    wanted = names_in(query)
    if joint:
        answer = _together(asked, seen, wanted, kind, words, out)
    else:
        answer = _TASKS[kind](asked, seen, wanted, words, out)
    if as_json:
        show_document(answer if isinstance(answer, dict) else answer.to_json())
    else:
        typer.echo(_shown(answer))
    if out is not None:
        note(f"wrote {out}")


def draw(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .bif or .uai file, or the directory of a run.")
    ],
    against: Annotated[
        Path | None, typer.Option(help="Another network, to draw the first one over: a file or a run.")
    ] = None,
    evidence: Annotated[
        list[str] | None, typer.Option(help="What is known, e.g. CVP=LOW,BP=HIGH; may be given again.")
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(
            help="Variables whose neighbourhood is drawn, with commas between; the rest is left out."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="A .png or .svg file.")] = Path("network.png"),
) -> None:
    """Draw the graph of a Bayesian network or Markov random field, or one network over another.

    Example:
      leadline draw alarm.bif --evidence CVP=LOW --out alarm.png
      leadline draw andes.bif --around SNode_4,GOAL_2 --out part.png
      leadline draw runs/learned --against alarm.bif --out difference.svg
    """
    from leadline.cli.evidence import evidence_of, names_in
    from leadline.cli.output import FIGURES, check_ending, write_figure
    from leadline.reports import draw as drawn

    check_ending(out, FIGURES)
    shown = _asked_of(model)
    seen = evidence_of(getattr(shown, "model", shown), evidence, None)
    other = None if against is None else _asked_of(against)
    write_figure(drawn(shown, other, seen, around=names_in(around)), out)


def _model_of(path: Path) -> Any:
    """Return the model in a file or of a run."""
    found = _asked_of(path)
    return getattr(found, "model", found)


def _asked_of(path: Path) -> Any:
    """Return the model in a file, or a run of one."""
    from leadline.core import DataError, VerbError

    if path.is_dir():
        from leadline.training import open_run

        run = open_run(path)
        if not callable(getattr(run.model, "marginals", None)):
            raise VerbError(f"{path} holds a {type(run.model).__name__}, which has no marginals to ask for")
        return run
    if not path.is_file():
        raise DataError(f"no file or run {path}")
    from leadline.models.graphical.reading import read_model

    return read_model(path)


def _bytes(text: str | None) -> float | None:
    """Return a size such as 500MB or 4GB in bytes, or None."""
    from leadline.core import OptionError

    if text is None:
        return None
    number = text.strip().rstrip("kKmMgGbB ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * _SIZES[unit if unit.endswith("b") or not unit else f"{unit}b"]
    except (ValueError, KeyError):
        raise OptionError(f"--limit {text}: give a size, e.g. 500MB or 4GB") from None
    if not 0 < size < float("inf"):
        raise OptionError(f"--limit {text}: must be above zero")
    return size


def _marginals(model: Any, seen: Any, names: list[str] | None, words: Any, out: Path | None) -> Any:
    """Answer MAR."""
    import numpy as np

    from leadline.cli.output import note
    from leadline.core import OptionError
    from leadline.data.uai import write_marginals

    if out is not None and names is not None:
        raise OptionError(f"--out {out}: a .MAR file holds every variable; leave --query out, or use --json")
    answer = model.marginals(seen, names, tell=note, **words)
    if out is not None:
        write_marginals([np.array(list(states.values())) for states in answer.states.values()], out)
    return answer


def _together(model: Any, seen: Any, names: list[str] | None, task: str, words: Any, out: Path | None) -> Any:
    """Answer MAR by one joint distribution."""
    from leadline.core import OptionError

    if task != "MAR" or names is None or out is not None or words["method"] not in ("auto", "exact"):
        raise OptionError(
            "--joint: give --query A,B with it, and neither --out, nor another task than MAR, nor a method "
            "that is not exact"
        )
    return model.joint(names, seen, limit=words["limit"])


def _likeliest(model: Any, seen: Any, names: list[str] | None, words: Any, out: Path | None) -> Any:
    """Answer MAP."""
    from leadline.data.uai import write_map

    answer = model.map(seen, **words)
    if out is not None:
        write_map([s for _, s in sorted(model.observed(answer.states).items())], out)
    if names is not None:
        model.observed(dict.fromkeys(names, 0))  # names that do not exist are told
        told = answer.to_json()
        return told | {"map": {name: told["map"][name] for name in names}}
    return answer


def _weight(model: Any, seen: Any, names: list[str] | None, words: Any, out: Path | None) -> dict[str, Any]:
    """Answer PR."""
    from math import log

    from leadline.core import OptionError
    from leadline.data.uai import write_partition

    if names is not None:
        raise OptionError("--query: PR asks for the weight of the evidence alone; leave --query out")
    found = model.log_partition(seen, **words)
    if out is not None:
        write_partition(found.value / log(10), out)
    scaled = found.scaled(1 / log(10), "")
    return {
        "kind": found.kind,
        "method": found.protocol,
        "log10_partition": scaled.value,
        "stderr": scaled.stderr,
        "interval": scaled.interval,
    }


def _shown(answer: Any) -> str:
    """Return an answer as lines of text."""
    if not isinstance(answer, dict):
        return str(answer)
    head = f"{answer['kind']}, by {answer['method']}"
    if "map" in answer:
        pairs = ", ".join(f"{name}={state}" for name, state in answer["map"].items())
        return f"{head}; log10 weight {answer['log10_weight']:.6g}\n{pairs}"
    between = "" if answer["interval"] is None else " in [{:.6g}, {:.6g}]".format(*answer["interval"])
    return f"{head}; log10 partition {answer['log10_partition']:.8g}{between}"


_TASKS = {"MAR": _marginals, "MAP": _likeliest, "PR": _weight}
COMMANDS = (infer, draw)
