"""What is known of a panel's answers to one question under one version of the guideline.

`Panel` is the labels with what stands beside each: which output was voted for by where it stood and
how long it is, how long the answer took, and what the same person said of the same thing before.
Everything but the labels may be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.annotations import Codes
from annotate.labels import Labels

Reals = NDArray[np.float64]
Kept = NDArray[np.bool_]

TIE = "tie"
"""The class, by name, that stands for no difference."""


@dataclass(frozen=True)
class Repeats:
    """What one person judged twice, without being told. One row a second response."""

    annotator: Codes
    """Index into the panel's annotators, shape (repeats,)."""
    prompt: Codes
    """What repeats have in common, any numbers, shape (repeats,)."""
    same: Kept
    """Whether it says what the first did, of most pairs if of several, shape (repeats,)."""
    swapped: Kept
    """Whether the order shown was the other way round, shape (repeats,)."""


@dataclass(frozen=True)
class Gold:
    """Items whose answer was known before. One row an answer."""

    annotator: Codes
    """Index into the panel's annotators, shape (answers,)."""
    item: Codes
    """Which gold item, any numbers, shape (answers,)."""
    right: Kept
    """Shape (answers,)."""


def _no_codes() -> Codes:
    return np.zeros(0, dtype=np.int64)


def _none() -> Kept:
    return np.zeros(0, dtype=bool)


def no_repeats() -> Repeats:
    """Nobody judged anything twice."""
    return Repeats(_no_codes(), _no_codes(), _none(), _none())


def no_gold() -> Gold:
    """No answer was known before."""
    return Gold(_no_codes(), _no_codes(), _none())


@dataclass(frozen=True)
class Panel:
    """The answers of everybody to one question."""

    labels: Labels
    question: str = "label"
    guideline: str = ""
    """The version answered under; several joined by a comma where they are pooled."""
    symmetric: bool = False
    """Whether reversing the classes mirrors the question, as for (b, tie, a)."""
    response: Codes | None = None
    """Which response each answer is part of, shape (answers,); every answer its own if None."""
    shown: Codes | None = None
    """What was shown to who gave the answer, shape (answers,); the labels' own item if None."""
    batch: Codes | None = None
    """Which batch each answer was given in, any numbers, shape (answers,); one batch if None."""
    first: Reals | None = None
    """1 where the vote is for what stood first, 0 for what stood later, NaN a tie or not known."""
    longer: Reals | None = None
    """1 where the vote is for the longer, 0 for the shorter, NaN a tie, as long, or not known."""
    seconds: Reals | None = None
    """That the response took, NaN not known, shape (answers,)."""
    reading: Reals | None = None
    """Seconds that reading what was shown takes, NaN not known, shape (answers,)."""
    repeats: Repeats = field(default_factory=no_repeats)
    gold: Gold = field(default_factory=no_gold)

    @property
    def people(self) -> int:
        """How many annotators the panel names, also those without an answer to this question."""
        return len(self.labels.annotators)

    @property
    def votes(self) -> Codes:
        """Labels of each annotator, shape (annotators,)."""
        return np.bincount(self.labels.annotator, minlength=self.people)

    @property
    def ties(self) -> Kept | None:
        """Which answers are ties, shape (answers,); None where no class is called so."""
        names = [name.strip().casefold() for name in self.labels.classes]
        return self.labels.label == names.index(TIE) if TIE in names else None

    @property
    def responses(self) -> Codes:
        """Which response each answer is part of, shape (answers,)."""
        return np.arange(len(self.labels)) if self.response is None else self.response

    @property
    def prompts(self) -> Codes:
        """The prompt of each answer, shape (answers,); items where prompts are not known."""
        prompt = self.labels.prompt
        return self.labels.item if prompt is None else prompt[self.labels.item]

    def without(self, people: Codes) -> Panel:
        """The labels of everybody else, and what stands beside them; neither repeats nor gold."""
        keep = ~np.isin(self.labels.annotator, people)

        def kept(column: NDArray[Any] | None) -> Any:
            return None if column is None else column[keep]

        return replace(
            self, labels=self.labels.select(keep), response=kept(self.response),
            shown=kept(self.shown), batch=kept(self.batch), first=kept(self.first),
            longer=kept(self.longer), seconds=kept(self.seconds), reading=kept(self.reading),
            repeats=no_repeats(), gold=no_gold(),
        )  # fmt: skip
