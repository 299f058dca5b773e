"""What became of a law: obeyed, broken with a witness, or not applicable with a reason."""

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from torch import Tensor

__all__ = ["Broken", "Law", "NotApplicable", "Verdict", "Verification", "demand"]

Verdict = Literal["obeyed", "broken", "not applicable"]
_ORDER: tuple[Verdict, ...] = ("broken", "obeyed", "not applicable")


class NotApplicable(Exception):  # noqa: N818 - an answer of a law, not an error
    """A law has nothing to say about a model; the message says why."""


class Broken(Exception):  # noqa: N818 - an answer of a law, not an error
    """A law is broken; the message says how, `witness` shows it."""

    def __init__(self, detail: str, **witness: Any) -> None:
        super().__init__(detail)
        self.witness = witness


def demand(claim: object, detail: str, **witness: Any) -> None:
    """Check that `claim` is true.

    Raises:
        Broken: If it is not, with `detail` and `witness`.
    """
    if not bool(claim):
        raise Broken(detail, **witness)


@dataclass(frozen=True)
class Law:
    """The answer of one law.

    Args:
        name: The law, as a sentence.
        verdict: "obeyed", "broken" or "not applicable".
        detail: What was measured, or why the law does not apply.
        witness: The tensors and numbers that show a broken law, else None.
    """

    name: str
    verdict: Verdict
    detail: str
    witness: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain values."""
        witness = {key: _plain(value) for key, value in (self.witness or {}).items()}
        return {"name": self.name, "verdict": self.verdict, "detail": self.detail, "witness": witness or None}


@dataclass(frozen=True)
class Verification:
    """Which laws a model obeys.

    Args:
        model: Name of the model's class.
        domain: The domain it was verified on.
        laws: The answers, one a law.
    """

    model: str
    domain: str
    laws: tuple[Law, ...]

    @property
    def obeyed(self) -> list[Law]:
        """Return the laws that hold."""
        return self._of("obeyed")

    @property
    def broken(self) -> list[Law]:
        """Return the laws that do not hold, each with a witness."""
        return self._of("broken")

    @property
    def not_applicable(self) -> list[Law]:
        """Return the laws that have nothing to say about the model, each with the reason."""
        return self._of("not applicable")

    @property
    def table(self) -> pd.DataFrame:
        """Return a row a law (law, verdict, detail), broken ones first."""
        rows = [(law.name, law.verdict, law.detail) for verdict in _ORDER for law in self._of(verdict)]
        return pd.DataFrame(rows, columns=["law", "verdict", "detail"])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "model": self.model,
            "domain": self.domain,
            "laws": [law.to_json() for law in self.laws],
        }

    def _of(self, verdict: Verdict) -> list[Law]:
        return [law for law in self.laws if law.verdict == verdict]

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self._of(verdict))} {verdict}" for verdict in _ORDER)
        judged = [*self.broken, *self.obeyed]
        width = max((len(law.name) for law in judged), default=0)
        lines = [f"  {law.name:<{width}}  {law.verdict:<6}  {law.detail}" for law in judged]
        # Laws that do not apply for the same reason share a line.
        reasons = dict.fromkeys(law.detail for law in self.not_applicable)
        names = {why: [law.name for law in self.not_applicable if law.detail == why] for why in reasons}
        lines += [f"  not applicable: {', '.join(laws)} ({why})" for why, laws in names.items()]
        return "\n".join([f"{self.model} on {self.domain}: {counts}", *lines])


def _plain(value: Any) -> Any:
    """Return tensors as nested lists."""
    return value.detach().cpu().tolist() if isinstance(value, Tensor) else value
