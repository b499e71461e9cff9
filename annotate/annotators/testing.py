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
from scipy.stats import false_discovery_control

from annotate.annotators.panel import Panel, Reals
from annotate.annotators.questions import Answered, Question, answer, minority, questions
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
    "agreement": ("gives another answer than most on the same items",),
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
        "differs from the others more and more",
        "differs from the others less and less",
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
    """A question of one panel: where it stands, person by person."""

    panel: int
    question: Question
    answered: Answered
    tested: Any
    """Who has enough labels, shape (people,)."""
    aside: Any
    """Who was found and set aside, shape (people,)."""


def run_tests(panels: Sequence[Panel]) -> list[Finding]:
    """All tests of a report, most surprising first, those without a p-value last.

    Cost: of order answers × log answers, and the exact tails (see `tails.upper_and_lower`), times
    the rounds in which somebody is newly found.
    """
    asked = [
        _Asked(at, question, answer(question, panel.people), _tested(panel), _nobody(panel))
        for at, panel in enumerate(panels)
        for question in questions(panel)
    ]
    trends = [_trends(at, panel) for at, panel in enumerate(panels)]
    fixed = [test for of_panel in trends for test in of_panel]
    while _set_aside(asked, fixed):
        pass
    return _controlled([*_tests_of(asked, panels), *fixed])


def _tested(panel: Panel) -> Any:
    return panel.votes >= MIN_LABELS


def _nobody(panel: Panel) -> Any:
    return np.zeros(panel.people, dtype=bool)


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
        again = answer(one.question.without(np.flatnonzero(one.aside)), len(p))
        one.answered = _merged(one.answered, again, one.aside)
        changed = True
    return changed


def _merged(old: Answered, new: Answered, aside: Any) -> Answered:
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
    methods = {None: "exact binomial", "consistency": "exact hypergeometric"}
    tests = []
    for one in asked:
        key = None if one.question.group is None else one.question.name
        method = methods.get(key, "exact, within items")
        names = panels[one.panel].labels.annotators
        for person in np.flatnonzero(panels[one.panel].votes):
            told = _reason(one.question.reason, one.tested[person], one.answered.p[person])
            tests.append(
                Finding(
                    names[person], one.question.name, one.panel,
                    None if told else float(one.answered.p[person]), None,
                    int(one.answered.n[person]),
                    _known(one.answered.observed[person]), _known(one.answered.expected[person]),
                    method, told,
                )
            )  # fmt: skip
    return tests


def _trends(at: int, panel: Panel) -> list[Finding]:
    """The trend of each person's answers over time, and of all people's agreement."""
    tests = []
    for question in questions(panel):
        if question.name not in DRIFTS:
            continue
        z, n = trend(question.trials(), question.time, panel.people)
        p = two_sided_normal(z)
        for person in np.flatnonzero(panel.votes):
            told = question.reason or ("" if n[person] else "when people answered is not known")
            told = _reason(told, bool(_tested(panel)[person]), p[person])
            name = panel.labels.annotators[person]
            tests.append(_trend(name, f"{question.name} over time", at, z[person], n[person], told))
    return [*tests, _panel_trend(at, panel)]


def _trend(name: str, test: str, at: int, z: float, n: int, told: str) -> Finding:
    p = None if told else float(two_sided_normal(np.array([z]))[0])
    observed, expected = (None, None) if told else (float(z), 0.0)
    return Finding(
        name, test, at, p, None, int(n), observed, expected, "score test of a trend", told
    )


def _panel_trend(at: int, panel: Panel) -> Finding:
    """Whether items answered later are disputed more: a permutation test of ranks.

    Each item counts once, with the share of its answers that are in the minority (half of two that
    differ) and the mean time of its answers. z compares the sum of share × rank of time with its
    permutation variance (Hájek and Šidák 1967, theorem II.3.1.c).
    """
    labels = panel.labels
    fewer, answers = minority(panel)
    usable = answers > 1
    if labels.time is not None:
        usable &= labels.time != np.iinfo(np.int64).min
    items, item = np.unique(labels.item[usable], return_inverse=True)
    if labels.time is None or len(items) < MIN_LABELS:
        few = "when people answered is not known" if labels.time is None else "too few items"
        return _trend(PANEL, "panel over time", at, np.nan, len(items), few)
    n = np.bincount(item)
    when = labels.time[usable] - labels.time[usable].min()
    order = np.argsort(np.bincount(item, when) / n, kind="stable")
    rank = np.empty(len(items))
    rank[order] = np.arange(len(items))
    split = np.where(answers[usable] == 2, _halves(panel)[usable], fewer[usable])
    share = np.bincount(item, split) / n
    rank, share = rank - rank.mean(), share - share.mean()
    variance = (rank**2).sum() * (share**2).sum() / (len(items) - 1)
    if variance <= 0:
        reason = "every item is disputed alike"
        return _trend(PANEL, "panel over time", at, np.nan, len(items), reason)
    z = float((rank * share).sum() / np.sqrt(variance))
    return _trend(PANEL, "panel over time", at, z, len(items), "")


def _halves(panel: Panel) -> Reals:
    """Half for each answer to an item whose answers differ, shape (answers,)."""
    labels = panel.labels
    mean = np.bincount(labels.item, labels.label) / np.maximum(np.bincount(labels.item), 1)
    return np.asarray(np.where(mean[labels.item] != labels.label, 0.5, 0.0))


def _reason(none: str, enough: bool, p: float) -> str:
    if none:
        return none
    if not enough:
        return f"fewer than {MIN_LABELS} labels"
    return "nothing could have come out otherwise" if np.isnan(p) else ""


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _controlled(tests: list[Finding]) -> list[Finding]:
    """The tests with their q, most surprising first."""
    q = _corrected(np.array([np.nan if test.p is None else test.p for test in tests]))
    done = [replace(test, q=_known(value)) for test, value in zip(tests, q, strict=True)]
    return sorted(done, key=lambda test: (test.p is None, test.p or 0.0))
