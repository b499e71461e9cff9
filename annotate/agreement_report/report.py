"""One question's agreement figures together, and all questions' as one thing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from annotate.agreement import (
    Figure,
    Level,
    PairKappa,
    RatingScale,
    label_alphas,
    pairwise_kappas,
    rating_scales,
)
from annotate.agreement_report.kinds import ALPHA, RAW, Kind, headline_level, kind_of, measures
from annotate.agreement_report.length import NOT_A_COMPARISON, no_baseline
from annotate.agreement_report.text import markdown_lines, terminal_lines
from annotate.annotations import MultiLabels
from annotate.errors import InputError
from annotate.labels import Labels
from annotate.question_labels import Answers
from annotate.statistics import RESAMPLES

# Labels up to which the confusion is counted; it grows with their square.
CONFUSABLE = 100
# Pairs of annotators, those with most items in common, whose kappa has an interval: a resampled
# kappa takes some milliseconds, and forty annotators are 780 pairs.
KAPPA_INTERVALS = 100


@dataclass(frozen=True)
class AgreementReport:
    """How far annotators agree on one question, under one guideline version unless asked."""

    kind: Kind
    level: str
    """Of the headline alpha: nominal, ordinal, interval; empty where it has none."""
    guidelines: list[str]
    """task@version behind the answers; several only where they were mixed on request."""
    items: int
    """Items with an answer; a figure's `n_pairable` counts those with two or more."""
    answers: int
    annotators: int
    classes: dict[str, int]
    """How often each label was given; empty for rankings, texts and spans."""
    figures: dict[str, Figure]
    """By name, the kind's headline first."""
    baseline: dict[str, Figure]
    """How often the longer text wins, with and without ties."""
    per_label: dict[str, Figure] = field(default_factory=dict)
    """Of a multi-label question: alpha of each label, given or not."""
    people: list[RatingScale] = field(default_factory=list)
    """Of a rating: where each person's ratings lie among the others'."""
    confusion: list[list[int]] = field(default_factory=list)
    """Of a label: how often one annotator said the row's class and another the column's, over
    all ordered pairs of annotators and items."""
    kappas: list[PairKappa] = field(default_factory=list)

    @property
    def alpha(self) -> Figure | None:
        """The kind's first alpha; texts have none."""
        alphas = (of for name, of in self.figures.items() if name.startswith(ALPHA))
        return next(alphas, None)

    @property
    def raw(self) -> Figure | None:
        """The share of pairs of answers that are equal, where the kind has it."""
        return self.figures.get(RAW)

    def summary(self) -> dict[str, Any]:
        """The headline and the counts: what a run's manifest, its card and `rounds` show."""
        told = {
            "kind": self.kind,
            "level": self.level,
            "guideline": ", ".join(self.guidelines),
            "items": self.items,
            "answers": self.answers,
            "annotators": self.annotators,
            "classes": self.classes,
        }
        named = {"alpha": self.alpha, "raw": self.raw}
        return told | {name: _short(figure) for name, figure in named.items() if figure}

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return self.summary() | {
            "figures": _dicts(self.figures),
            "baseline": _dicts(self.baseline),
            "per_label": _dicts(self.per_label),
            "people": [person.to_dict() for person in self.people],
            "confusion": self.confusion,
            "kappas": [pair.to_dict() for pair in self.kappas],
        }


def agreement_report(
    answers: Answers,
    level: Level | None = None,
    *,
    kind: Kind | None = None,
    guidelines: Sequence[str] = (),
    baseline: dict[str, Figure] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AgreementReport:
    """All figures of one question, with 95 % intervals.

    Args:
        answers: to one question, under one version of the guideline or pooled.
        level: of a label question's labels; the other kinds have levels of their own.
        kind: of the question; by default by the form of the answers.
        guidelines: the versions answered under, where they are known.
        baseline: of `longer_wins`; without it, that this is no comparison.
        seed: of the intervals.
        resamples: of the intervals.

    Raises:
        InputError: ordinal or interval labels that are not numbers.
    """
    kind = kind or kind_of("", answers)
    under = ", ".join(version for version in guidelines if version) or None

    def versioned(figures: Mapping[str, Figure]) -> dict[str, Figure]:
        return {name: replace(figure, guideline=under) for name, figure in figures.items()}

    settings = {"seed": seed, "resamples": resamples}
    labels = answers if isinstance(answers, Labels) else None
    alphas = label_alphas(answers, **settings) if isinstance(answers, MultiLabels) else {}
    return AgreementReport(
        kind=kind,
        level=headline_level(kind, level),
        guidelines=[version for version in guidelines if version],
        items=len(np.unique(answers.item)),
        answers=len(np.unique(answers.item * len(answers.annotators) + answers.annotator)),
        annotators=len(np.unique(answers.annotator)),
        classes=_classes(answers),
        figures=versioned(
            {each.name: each.of(answers, **settings) for each in measures(kind, level)}
        ),
        baseline=versioned(baseline or no_baseline(answers, NOT_A_COMPARISON)),
        per_label=versioned(alphas),
        people=rating_scales(labels) if labels is not None and kind == "rating" else [],
        confusion=_confusion(labels) if labels is not None else [],
        kappas=_kappas(labels, kind, settings) if labels is not None else [],
    )


def by_version(answers: Answers, *, mixed: bool) -> Mapping[tuple[str, ...], Answers]:
    """The answers under each version of the guideline, by its name; ("",) where none is known.

    Where versions are to be mixed, those of each task together, by all their names.
    """
    if not mixed or answers.guideline is None:
        return {(name,): part for name, part in answers.by_version().items()}
    found: dict[tuple[str, ...], Answers] = {}
    for task in dict.fromkeys(map(task_of, answers.versions)):
        names = [name for name in answers.versions if task_of(name) == task]
        codes = [answers.guidelines.index(name) for name in names]
        found[tuple(names)] = answers.select(np.isin(answers.guideline, codes)).pooled()
    return found


def task_of(guideline: str) -> str:
    """The task that a version of a guideline belongs to: "rating" of "rating@v1"."""
    return guideline.rpartition("@")[0]


def require_names(names: Collection[str], annotators: Collection[str]) -> None:
    """Refuse to leave out somebody who is not there.

    Raises:
        InputError: nobody of one of these names answered.
    """
    for name in names:
        if name not in annotators:
            raise InputError("nobody of this name answered", where=name)


def require_questions(names: Collection[str], asked: Collection[str]) -> None:
    """Refuse to report a question that is not there.

    Raises:
        InputError: nobody answered a question of one of these names.
    """
    for name in names:
        if name not in asked:
            known = ", ".join(sorted(set(asked)))
            raise InputError(
                "nobody answered a question of this name", where=name, remedy=f"Answered: {known}"
            )


def _classes(answers: Answers) -> dict[str, int]:
    if isinstance(answers, Labels):
        given = np.bincount(answers.label, minlength=len(answers.classes))
    elif isinstance(answers, MultiLabels):
        given = np.asarray(answers.member.sum(axis=0))
    else:
        return {}
    return {name: int(count) for name, count in zip(answers.classes, given, strict=True)}


def _kappas(labels: Labels, kind: Kind, settings: dict[str, int]) -> list[PairKappa]:
    """Cohen's kappa of every two annotators, where classes are names: it weighs no distance."""
    if kind not in ("label", "pairwise"):
        return []
    return pairwise_kappas(labels, intervals=KAPPA_INTERVALS, **settings)


def _confusion(labels: Labels) -> list[list[int]]:
    """How often two annotators of one item said the row's and the column's class."""
    if len(labels.classes) > CONFUSABLE:
        return []
    counts = sp.coo_array(
        (np.ones(len(labels), dtype=np.int64), (labels.item, labels.label)),
        shape=(len(labels.items), len(labels.classes)),
    ).tocsr()
    together = np.asarray((counts.T @ counts).todense())
    together -= np.diag(np.bincount(labels.label, minlength=len(labels.classes)))
    rows: list[list[int]] = together.tolist()
    return rows


@dataclass(frozen=True)
class Measured:
    """What `handloom agreement` reports: every question of a run, or the labels of a file."""

    source: str
    """A run's id, or a file."""
    questions: Mapping[str, AgreementReport]
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the file that could not be used, with line and reason."""
    merged: int = 0
    """Rows of the file that repeated an earlier one."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "source": self.source,
            "questions": {name: report.to_dict() for name, report in self.questions.items()},
            "quarantine": self.quarantine,
            "merged": self.merged,
        }

    def lines(self) -> list[str]:
        """The reports as tables for a terminal, and what was set aside."""
        return terminal_lines(self)

    def markdown(self) -> list[str]:
        """The same as lines of Markdown."""
        return markdown_lines(self)


def _dicts(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: figure.to_dict() for name, figure in figures.items()}


def _short(figure: Figure) -> dict[str, Any]:
    """A figure for readers who show one interval, with the reason if it lacks that."""
    return figure.to_dict() | {"reason": figure.reason or figure.over_items.reason}
