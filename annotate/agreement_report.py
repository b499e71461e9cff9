"""The agreement figures of one question together, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotate.agreement import (
    Level,
    PairKappa,
    krippendorff_alpha,
    pairwise_kappas,
    raw_agreement,
)
from annotate.labels import Labels
from annotate.statistics import RESAMPLES, Estimate

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
    alpha: Estimate
    raw: Estimate
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


def text_of(reports: Mapping[str, AgreementReport]) -> Iterable[str]:
    """Several questions' reports as lines of text."""
    for question, report in reports.items():
        yield f"{question}:"
        yield from (f"  {line}" for line in report.lines())
