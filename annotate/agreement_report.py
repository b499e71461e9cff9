"""The agreement figures of one question together, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annotate.agreement import (
    Figure,
    Level,
    PairKappa,
    krippendorff_alpha,
    pairwise_kappas,
    raw_agreement,
)
from annotate.label_table import read_label_table
from annotate.labels import Labels
from annotate.statistics import RESAMPLES

# Pairs of annotators in the text; the JSON has all.
_SHOWN = 15


@dataclass(frozen=True)
class AgreementReport:
    """How far annotators agree on one question."""

    level: Level
    items: int
    """Items with an answer; `alpha.n` counts those with two or more."""
    answers: int
    annotators: int
    classes: dict[str, int]
    """How often each label was given."""
    alpha: Figure
    raw: Figure
    kappas: list[PairKappa]

    def to_dict(self) -> dict[str, Any]:
        """All figures, JSON-able."""
        return self.summary() | {"kappas": [pair.to_dict() for pair in self.kappas]}

    def summary(self) -> dict[str, Any]:
        """The figures without the pairs of annotators."""
        return {
            "level": self.level,
            "items": self.items,
            "answers": self.answers,
            "annotators": self.annotators,
            "classes": self.classes,
            "alpha": self.alpha.to_dict(),
            "raw": self.raw.to_dict(),
        }

    def lines(self) -> list[str]:
        """The report as text, one figure a line."""
        lines = [
            f"{self.answers:,} answers to {self.items:,} items by {self.annotators:,} annotators",
            f"Krippendorff's alpha ({self.level})  {self.alpha}",
            f"raw agreement                   {self.raw}",
        ]
        if self.kappas:
            lines.append("Cohen's kappa")
        for pair in self.kappas[:_SHOWN]:
            lines.append(f"  {pair.first} – {pair.second}  {pair.kappa}")
        if len(self.kappas) > _SHOWN:
            lines.append(f"  … {len(self.kappas) - _SHOWN:,} more pairs with `--json`")
        return lines


def agreement_report(
    labels: Labels, level: Level = "nominal", *, seed: int = 0, resamples: int = RESAMPLES
) -> AgreementReport:
    """All figures of one question, with 95 % intervals over items.

    Raises:
        InputError: ordinal or interval labels that are not numbers.
    """
    given = np.bincount(labels.label, minlength=len(labels.classes))
    return AgreementReport(
        level=level,
        items=len(np.unique(labels.item)),
        answers=len(labels),
        annotators=len(np.unique(labels.annotator)),
        classes={name: int(count) for name, count in zip(labels.classes, given, strict=True)},
        alpha=krippendorff_alpha(labels, level, seed=seed, resamples=resamples),
        raw=raw_agreement(labels, seed=seed, resamples=resamples),
        kappas=pairwise_kappas(labels, seed=seed, resamples=resamples),
    )


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
        """The reports as text, and what was set aside."""
        lines = [self.source]
        for name, report in self.questions.items():
            lines += [f"{name}:", *(f"  {line}" for line in report.lines())]
        return lines + set_aside(self.quarantine, self.merged)


def agreement_of_table(path: Path, level: Level = "nominal", *, seed: int = 0) -> Measured:
    """Agreement on a file with the columns item, annotator, label.

    Raises:
        InputError: the file cannot be used, or the level needs numbers that the labels are not.
    """
    table = read_label_table(path)
    report = agreement_report(table.labels, level, seed=seed)
    return Measured(str(path), {"label": report}, table.quarantine.to_pylist(), table.merged)


def set_aside(quarantine: list[dict[str, Any]], merged: int) -> list[str]:
    """What became of a file's other rows, in words; empty where all were used."""
    lines = [f"{merged:,} repeated rows counted once"] if merged else []
    if quarantine:
        lines.append(f"{len(quarantine):,} rows set aside:")
        lines += [f"  line {row['line']}: {row['reason']}" for row in quarantine[:_SHOWN]]
    if len(quarantine) > _SHOWN:
        lines.append(f"  … {len(quarantine) - _SHOWN:,} more with `--json`")
    return lines
