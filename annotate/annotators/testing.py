"""Who stands out, with all tests of one report controlled together.

Every question of every person with enough labels is a test, and so is every trend over time. All
p-values go into one Benjamini–Hochberg procedure (1995, Journal of the Royal Statistical Society B
57): where nothing differs, at most `LEVEL` of reports flag anybody; where something does, at most
that share of flags is wrong.

Who answers everything "tie" makes those beside them look as if they avoided ties. So who was found
to stand out is set aside, the others are compared with one another again, and so on until nobody
new stands out. Where nobody differs this changes nothing: there is no first one to set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from annotate.annotators.panel import Panel, Reals
from annotate.annotators.panel_trend import panel_trend
from annotate.annotators.questions import Answered, Question, answer, questions
from annotate.annotators.tails import trend, two_sided_normal

LEVEL = 0.05
MIN_LABELS = 20
"""Nobody with fewer labels is tested."""
DRIFTS = ("agreement", "position", "ties")
"""Questions whose trend over time is tested too."""
PANEL = "(the panel)"
"""Stands for everybody together."""

# Of those newly found, the share that is set aside before the others are compared again.
_AT_A_TIME = 0.2

MEANING: dict[str, tuple[str, ...]] = {
    "agreement": ("disagrees with the others more than they with each other",),
    "gold": ("is wrong on gold items on which others are right",),
    "consistency": ("contradicts themselves on what they judged twice, more than others do",),
    "position": ("prefers what stands first", "prefers what does not stand first"),
    "length": (
        "votes for the longer more than others on the same items",
        "votes for the longer less than others on the same items",
    ),
    "ties": (
        "says tie more than others on the same items",
        "says tie less than others on the same items",
    ),
    "agreement over time": (
        "disagrees with the others more and more",
        "disagrees with the others less and less",
    ),
    "position over time": (
        "votes more and more for what stands first",
        "votes less and less for what stands first",
    ),
    "ties over time": ("says tie more and more", "says tie less and less"),
    "panel over time": ("people agree less and less", "people agree more and more"),
}
"""What standing out means, above what is expected and, where that counts too, below it."""


@dataclass(frozen=True)
class Finding:
    """One question of one person: what was found, and how surprising it is."""

    annotator: str
    test: str
    """A key of `MEANING`."""
    panel: int
    """Which of the report's panels it is about."""
    p: float | None
    """None where nothing could have shown a difference; `reason` then says why."""
    q: float | None
    """p after Benjamini–Hochberg over all tests of the report."""
    n: int
    """Responses that it rests on."""
    observed: float | None
    """The share found; of a trend, z: below 0 for falling."""
    expected: float | None
    """That share if all were alike; of a trend, 0."""
    method: str
    reason: str = ""

    @property
    def flagged(self) -> bool:
        """Whether this stands out."""
        return self.q is not None and self.q <= LEVEL

    @property
    def meaning(self) -> str:
        """What standing out means here, in the direction found."""
        if self.observed is None or self.expected is None:
            return MEANING[self.test][0]
        return MEANING[self.test][0 if self.observed > self.expected else -1]

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {**vars(self), "flagged": self.flagged, "meaning": self.meaning}

    def __str__(self) -> str:
        """As in "ada: says tie more … (88% where 21% is expected; exact, p = 1e-9, …)"."""
        if self.test.endswith("over time"):
            found = f"z = {self.observed:z.1f}"
        else:
            found = f"{self.observed:.0%} where {self.expected:.0%} is expected"
        numbers = f"p = {self.p:.2g}, q = {self.q:.2g}, n = {self.n:,}"
        return f"{self.annotator}: {self.meaning} ({found}; {self.method}, {numbers})"


@dataclass
class _Asked:
    """A question of one panel: where it stands, person by person. Arrays are of shape (people,)."""

    panel: int
    question: Question
    over_time: bool
    """Whether its trend is what is asked."""
    answered: Answered
    tested: NDArray[np.bool_]
    """Who has enough labels."""
    aside: NDArray[np.bool_]
    """Who was found and set aside."""

    @property
    def test(self) -> str:
        """A key of `MEANING`."""
        return self.question.name + (" over time" if self.over_time else "")

    @property
    def method(self) -> str:
        """How p was made."""
        if self.over_time:
            return "score test of a trend"
        if self.question.group is None:
            return "exact binomial"
        if self.question.item is not None:
            return "items as a random draw"
        return "exact hypergeometric" if self.question.pooled.any() else "exact, within items"

    def reason(self, person: int) -> str:
        """Why there is no p-value of this person; empty where there is."""
        if self.question.reason:
            return self.question.reason
        if not self.tested[person]:
            return f"fewer than {MIN_LABELS} labels"
        if self.over_time and not self.answered.n[person]:
            return "when people answered is not known"
        unknown = np.isnan(self.answered.p[person])
        return "nothing could have come out otherwise" if unknown else ""


def run_tests(panels: Sequence[Panel]) -> list[Finding]:
    """All tests of a report, most surprising first, those without a p-value last.

    Cost: of order answers × log answers, and the exact tails (see `tails.upper_and_lower`), times
    the rounds in which somebody is newly found.
    """
    asked = [
        _asked(at, panel, question, over_time)
        for at, panel in enumerate(panels)
        for question in questions(panel)
        for over_time in ((False, True) if question.name in DRIFTS else (False,))
    ]
    together = [_of_panel(at, panel) for at, panel in enumerate(panels)]
    while _set_aside(asked, together):
        pass
    return _controlled([*_tests_of(asked, panels), *together])


def _asked(at: int, panel: Panel, question: Question, over_time: bool) -> _Asked:
    found = _measured(question, panel.people, over_time)
    nobody = np.zeros(panel.people, dtype=bool)
    return _Asked(at, question, over_time, found, panel.votes >= MIN_LABELS, nobody)


def _measured(question: Question, people: int, over_time: bool) -> Answered:
    if not over_time:
        return answer(question, people)
    z, n = trend(question.trials(), question.time, people)
    return Answered(two_sided_normal(z), n, z, np.where(np.isnan(z), np.nan, 0.0))


def _set_aside(asked: Sequence[_Asked], fixed: Sequence[Finding]) -> bool:
    """Set aside the most surprising of those newly found, and compare the others again."""
    values = [np.where(one.tested, one.answered.p, np.nan) for one in asked]
    known = np.array([test.p for test in fixed if test.p is not None], dtype=np.float64)
    corrected = _corrected(np.concatenate([*values, known]))
    start, changed = 0, False
    for one, p in zip(asked, values, strict=True):
        q = corrected[start : start + len(p)]
        start += len(p)
        if one.question.group is None:  # a place is preferred whatever others do
            continue
        new = np.flatnonzero((q <= LEVEL) & ~one.aside)
        if not len(new):
            continue
        first = new[np.argsort(p[new], kind="stable")][: max(1, round(len(new) * _AT_A_TIME))]
        one.aside[first] = True
        others = one.question.without(np.flatnonzero(one.aside))
        again = _measured(others, len(p), one.over_time)
        one.answered = _merged(one.answered, again, one.aside)
        changed = True
    return changed


def _merged(old: Answered, new: Answered, aside: NDArray[np.bool_]) -> Answered:
    """What was found of those set aside, and of the others anew."""
    return Answered(
        p=np.where(aside, old.p, new.p),
        n=np.where(aside, old.n, new.n),
        observed=np.where(aside, old.observed, new.observed),
        expected=np.where(aside, old.expected, new.expected),
    )


def _corrected(p: Reals) -> Reals:
    """Benjamini–Hochberg's q of each p; NaN stays NaN and does not count."""
    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return q


def _tests_of(asked: Sequence[_Asked], panels: Sequence[Panel]) -> list[Finding]:
    tests = []
    for one in asked:
        names, found = panels[one.panel].labels.annotators, one.answered
        for person in np.flatnonzero(panels[one.panel].votes):
            told = one.reason(int(person))
            p = None if told else float(found.p[person])
            observed, expected = _known(found.observed[person]), _known(found.expected[person])
            n = int(found.n[person])
            tests.append(
                Finding(
                    names[person], one.test, one.panel, p, None, n, observed, expected,
                    one.method, told,
                )
            )  # fmt: skip
    return tests


def _of_panel(at: int, panel: Panel) -> Finding:
    """The trend of all people's agreement."""
    z, n, told = panel_trend(panel)
    p = None if told else float(two_sided_normal(np.array([z]))[0])
    observed, expected = (None, None) if told else (z, 0.0)
    method = "permutation test of ranks"
    return Finding(PANEL, "panel over time", at, p, None, n, observed, expected, method, told)


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _controlled(tests: list[Finding]) -> list[Finding]:
    """The tests with their q, most surprising first."""
    q = _corrected(np.array([np.nan if test.p is None else test.p for test in tests]))
    done = [replace(test, q=_known(value)) for test, value in zip(tests, q, strict=True)]
    return sorted(done, key=lambda test: (test.p is None, test.p or 0.0))
