"""What is known of every annotator, who stands out, and what to do next: `handloom annotators`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotate.annotators.figures import FIGURES, figures
from annotate.annotators.panel import Panel
from annotate.annotators.testing import LEVEL, MIN_LABELS, PANEL, Finding, run_tests
from annotate.simulated_annotators import PREFIX
from annotate.statistics import Estimate

# Flags, reasons and set-aside rows shown as text; the JSON has all.
_SHOWN = 40
_NAMED = 5  # people named beside a reason
_HEADS = {
    "accuracy": "accuracy", "agreement": "agree", "ties": "ties", "first": "first",
    "longer": "longer", "repeated": "repeated", "swapped": "swapped", "gold": "gold",
    "too_fast": "too fast",
}  # fmt: skip


@dataclass(frozen=True)
class PersonFigures:
    """One person in one panel."""

    name: str
    labels: int
    figures: Mapping[str, Estimate]
    """By the names in `annotate.annotators.figures.FIGURES`."""
    paused_since: str = ""
    """ISO 8601; empty for who is not paused."""

    @property
    def simulated(self) -> bool:
        """Whether this is no person but a simulation of one."""
        return self.name.startswith(PREFIX)

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "annotator": self.name,
            "simulated": self.simulated,
            "labels": self.labels,
            "paused_since": self.paused_since or None,
            "figures": {name: self.figures[name].to_dict() for name in FIGURES},
        }


@dataclass(frozen=True)
class PanelFigures:
    """Everybody who answered one question under one version of the guideline."""

    question: str
    guideline: str
    """Empty where it is not known; several joined by a comma where pooled on request."""
    people: list[PersonFigures]

    @property
    def title(self) -> str:
        """As in "vote (preference@v1)"."""
        return f"{self.question} ({self.guideline})" if self.guideline else self.question

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        people = [person.to_dict() for person in self.people]
        return {"question": self.question, "guideline": self.guideline or None, "people": people}


@dataclass(frozen=True)
class AnnotatorReport:
    """All annotators of some runs, or of a table of labels."""

    source: str
    panels: list[PanelFigures]
    tests: list[Finding]
    """Most surprising first, those that could not be made last."""
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    merged: int = 0
    table: str = ""
    """The file it is about; empty for runs."""
    note: str = ""
    """What to know of how its labels were read."""

    @property
    def flags(self) -> list[Finding]:
        """The tests that stand out."""
        return [test for test in self.tests if test.flagged]

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "source": self.source,
            "note": self.note or None,
            "level": LEVEL,
            "min_labels": MIN_LABELS,
            "panels": [panel.to_dict() for panel in self.panels],
            "flags": [test.to_dict() for test in self.flags],
            "tests": [test.to_dict() for test in self.tests],
            "quarantine": self.quarantine,
            "merged": self.merged,
        }

    def lines(self) -> list[str]:
        """The report as text: a table a panel, the flags, and what to do next."""
        lines = [self.source, *([self.note] if self.note else [])]
        for panel in self.panels:
            lines += ["", panel.title, *_table(panel.people)]
        lines += ["", *self._verdict(), *self._set_aside(), "", f"next {self.next_command()}"]
        return lines

    def _set_aside(self) -> list[str]:
        lines = [f"{self.merged:,} repeated rows counted once"] if self.merged else []
        if self.quarantine:
            lines.append(f"{len(self.quarantine):,} rows set aside:")
            lines += [f"  line {row['line']}: {row['reason']}" for row in self.quarantine[:_SHOWN]]
        return lines

    def _verdict(self) -> list[str]:
        made = [test for test in self.tests if test.p is not None]
        few = {
            person.name for panel in self.panels for person in panel.people
        } - {test.annotator for test in made}  # fmt: skip
        how = f"(Benjamini–Hochberg over all of them, at {LEVEL:.0%})"
        if not made:
            lines = ["nobody could be tested"]
        elif self.flags:
            lines = [f"{len(self.flags)} of {len(made):,} tests stand out {how}:"]
        else:
            lines = [f"nobody stands out in {len(made):,} tests {how}"]
        several = len(self.panels) > 1
        for test in self.flags[:_SHOWN]:
            where = f" [{self.panels[test.panel].title}]" if several else ""
            lines.append(f"  {test}{where}")
        if len(self.flags) > _SHOWN:
            lines.append(f"  … {len(self.flags) - _SHOWN:,} more with `--json`")
        if few:
            names = ", ".join(sorted(few)[:10]) + (" …" if len(few) > 10 else "")
            lines.append(
                f"not tested: {names} (fewer than {MIN_LABELS} labels, or nobody to compare with)"
            )
        return lines

    def next_command(self) -> str:
        """What to type now: about who stands out most, else the next step of the loop."""
        if self.table:
            return f"handloom judge --table {self.table}"
        paused = {p.name for panel in self.panels for p in panel.people if p.paused_since}
        for test in self.flags:
            if test.annotator != PANEL and test.annotator not in paused:
                return (
                    f"handloom users pause {test.annotator}, when you have talked; their answers "
                    "stay, weighed by what they proved to be worth"
                )
        return "handloom judge"


def report(
    source: str,
    panels: Sequence[Panel],
    *,
    paused: Mapping[str, str] | None = None,
    quarantine: Sequence[dict[str, Any]] = (),
    merged: int = 0,
    table: str = "",
    note: str = "",
) -> AnnotatorReport:
    """Every figure of every annotator, and all tests, controlled together.

    Args:
        source: what it is about, in words: a run's id, a file.
        panels: one a question and version of the guideline.
        paused: name → since when.
        quarantine: rows of a file that could not be used.
        merged: rows of a file that repeated an earlier one.
        table: the file, if it is about one.
        note: what to know of how its labels were read.
    """
    return AnnotatorReport(
        source=source,
        panels=[_panel(each, paused or {}) for each in panels],
        tests=run_tests(panels),
        quarantine=list(quarantine),
        merged=merged,
        table=table,
        note=note,
    )


def _panel(panel: Panel, paused: Mapping[str, str]) -> PanelFigures:
    found, votes = figures(panel), panel.votes
    names = panel.labels.annotators
    people = [
        PersonFigures(
            names[at], int(votes[at]), {name: found[name][at] for name in FIGURES},
            paused.get(names[at], ""),
        )
        for at in np.flatnonzero(votes)
    ]  # fmt: skip
    people.sort(key=lambda person: (_lowest(person.figures["accuracy"]), person.name))
    return PanelFigures(panel.question, panel.guideline, people)


def _lowest(estimate: Estimate) -> float:
    return 2.0 if estimate.value is None else estimate.value


def _table(people: Sequence[PersonFigures]) -> list[str]:
    """Shares in percent with 95 % intervals; columns that nobody has are left out, with why.

    n stands beside what does not rest on all of the person's labels.
    """
    columns = [["annotator", *map(_called, people)]]
    columns.append(["labels", *(f"{person.labels:,}" for person in people)])
    columns += [
        [head, *(_percent(person.figures[name], person.labels) for person in people)]
        for name, head in _HEADS.items()
        if _known(people, name)
    ]
    if _known(people, "seconds"):
        columns.append(["seconds", *(_seconds(person.figures["seconds"]) for person in people)])
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])])
        for name, *cells in zip(*columns, strict=True)
    ]
    for name in FIGURES:
        if not _known(people, name) and name != "reliability":
            reasons = sorted({person.figures[name].reason for person in people})
            lines.append(f"no {_HEADS.get(name, name)}: {'; '.join(reasons)}")
    return [*lines, *_without_interval(people)]


def _without_interval(people: Sequence[PersonFigures]) -> list[str]:
    """Why figures that have a value lack an interval, or single people a value, by figure."""
    lacking: dict[str, list[str]] = {}
    for name in (*_HEADS, "seconds"):
        if not _known(people, name):
            continue
        for person in people:
            found = person.figures[name]
            if found.low is None:
                what = "no interval" if found.value is not None else "no figure"
                told = f"{_HEADS.get(name, name)}, {what}: {found.reason}"
                lacking.setdefault(told, []).append(person.name)
    return [
        f"{told} ({', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''})"
        for told, names in lacking.items()
    ]


def _known(people: Sequence[PersonFigures], name: str) -> bool:
    return any(person.figures[name].value is not None for person in people)


def _called(person: PersonFigures) -> str:
    notes = ["simulated"] if person.simulated else []
    notes += [f"paused since {person.paused_since[:10]}"] if person.paused_since else []
    return person.name + (f" ({', '.join(notes)})" if notes else "")


def _percent(estimate: Estimate, labels: int) -> str:
    """As in "86 [80, 90]"; with n where it rests on another number than the person's labels."""
    if estimate.value is None:
        return "-"
    n = f" n={estimate.n:,}" if estimate.n != labels else ""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.0f}{n}"
    return f"{100 * estimate.value:.0f} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]{n}"


def _seconds(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3g} n={estimate.n:,}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}] n={estimate.n:,}"
