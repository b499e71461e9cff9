"""What every rule is, and what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from align.health.log import Curve, TrainingLog

State = Literal["fine", "warning", "serious", "unknown", "not logged"]


@dataclass(frozen=True)
class Verdict:
    """What a rule finds in one training."""

    rule: str
    state: State
    said: str
    """What it saw, in words with figures; where it cannot tell, why."""
    n: int
    """How many points (of texts: completions) it looked at."""
    remedy: str = ""
    curves: tuple[str, ...] = ()
    """Names of the logged figures that show it, the telling one first."""
    since: int | None = None
    """The step from which on it holds."""

    @property
    def flagged(self) -> bool:
        """Whether something is wrong."""
        return self.state in ("warning", "serious")

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """A way for a training to go wrong: its fields are thresholds, a call looks at a log.

    To add one: write the class, and name it in `examine.RULES`.
    """

    name: ClassVar[str]
    looks_at: ClassVar[str]
    threshold: ClassVar[str]
    """In words, with the fields' names in braces."""
    reason: ClassVar[str]
    """Why the thresholds are what they are."""
    remedy: ClassVar[str]
    serious: ClassVar[bool] = False
    at_the_end: ClassVar[bool] = False
    """Whether it can be told only of a training that is over."""

    def __call__(self, log: TrainingLog) -> Verdict:
        """What it finds in a log."""
        raise NotImplementedError

    @property
    def demands(self) -> str:
        """The threshold in words and figures."""
        return self.threshold.format(**asdict(self))

    def fine(self, said: str, n: int, *curves: Curve) -> Verdict:
        """Nothing is wrong."""
        return Verdict(self.name, "fine", said, n, curves=_names(curves))

    def flag(self, said: str, n: int, *curves: Curve, since: int | None = None) -> Verdict:
        """Something is."""
        state: State = "serious" if self.serious else "warning"
        return Verdict(self.name, state, said, n, self.remedy, _names(curves), since)

    def unknown(self, why: str, n: int = 0, *curves: Curve) -> Verdict:
        """It cannot be told."""
        return Verdict(self.name, "unknown", why, n, curves=_names(curves))

    def too_short(self, curve: Curve, least: int) -> Verdict | None:
        """Why `curve` says too little, if it has fewer than `least` points."""
        if not len(curve):
            return Verdict(self.name, "not logged", f"{curve.name} was not logged", 0)
        if len(curve) < least:
            often = "eval_steps" if curve.name.startswith("eval_") else "logging_steps"
            why = f"{len(curve)} points of {curve.name}, fewer than {least}; lower trainer.{often}"
            return self.unknown(why, len(curve), curve)
        return None


def figure(value: float) -> str:
    """A logged value in four significant digits."""
    return f"{value:.4g}"


def _names(curves: tuple[Curve, ...]) -> tuple[str, ...]:
    return tuple(curve.name for curve in curves if len(curve))
