"""Who answered what, in columns: one frozen table a kind of question.

Agreement is measured on these. All are in long form with integer codes into lists of names, so that
a missing answer is simply absent, and all may say of each row when it was given and under which
version of the guideline, and of each item which prompt it belongs to.

    Labels (annotate.labels)   one class an answer: votes, strengths, ratings
    MultiLabels                a set of classes an answer
    Rankings                   a rank for each option of an item
    Texts                      a text an answer
    Spans                      stretches of an item's text, each with a class

An annotator answers an item once under one version of the guideline. Under two versions the same
person may have answered the same item twice: such answers are never taken together unasked, see
`by_version` and `pooled`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Kept = NDArray[np.bool_]

# Of an answer that nobody timed.
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Annotations:
    """The columns that every kind of answer has. Rows are answers, or parts of answers."""

    item: Codes
    """Index into `items`, shape (rows,)."""
    annotator: Codes
    """Index into `annotators`, shape (rows,)."""

    prompt: Codes | None = field(default=None, kw_only=True)
    """Which prompt each item belongs to, any non-negative numbers, shape (items,)."""
    time: Codes | None = field(default=None, kw_only=True)
    """Microseconds since 1970, UTC, shape (rows,); `NO_TIME` where unknown."""
    guideline: Codes | None = field(default=None, kw_only=True)
    """Index into `guidelines`, shape (rows,)."""
    guidelines: list[str] = field(default_factory=list, kw_only=True)
    """Versions of the guideline, oldest first, as in "preference@v1"."""

    def __len__(self) -> int:
        return len(self.item)

    @property
    def versions(self) -> list[str]:
        """The versions of the guideline that rows were answered under; none where not known."""
        if self.guideline is None:
            return []
        return [self.guidelines[code] for code in np.unique(self.guideline)]

    def select(self, keep: Kept) -> Self:
        """The rows where `keep`, shape (rows,), holds; all lists of names stay as they are."""
        return replace(self, **{name: getattr(self, name)[keep] for name in self._rows()})

    def _rows(self) -> list[str]:
        """The names of the fields with one entry a row."""
        return [
            known.name
            for known in fields(self)
            if known.metadata.get("row") or known.name in ("item", "annotator")
        ] + [name for name in ("time", "guideline") if getattr(self, name) is not None]

    def by_version(self) -> dict[str, Self]:
        """The rows of each version of the guideline; everything under "" where none is known."""
        if self.guideline is None:
            return {"": self}
        return {
            self.guidelines[code]: self.select(self.guideline == code)
            for code in np.unique(self.guideline)
        }

    def pooled(self) -> Self:
        """All versions of the guideline taken together, because somebody asked for it.

        Who answered an item under several versions counts with the latest by time, or by version
        where times are equal or unknown. What is returned no longer says which version it was.
        """
        if self.guideline is None or not len(self):
            return replace(self, guideline=None, guidelines=[])
        time = self.time if self.time is not None else np.zeros_like(self.item)
        answer = self.item * (int(self.annotator.max()) + 1) + self.annotator
        order = np.lexsort([self.guideline, time, answer])
        last = np.append(answer[order][1:] != answer[order][:-1], True)
        _, place = np.unique(answer, return_inverse=True)
        keep = self.guideline[order][last][place] == self.guideline
        return replace(self.select(keep), guideline=None, guidelines=[])

    def _without(self, names: list[str], gone: Collection[str]) -> Self:
        left = np.array([name not in gone for name in names], dtype=bool)
        return self.select(left[self.annotator]) if len(self) else self


@dataclass(frozen=True)
class _Named(Annotations):
    """Annotations whose items and annotators have names."""

    items: list[str]
    annotators: list[str]

    def without(self, annotators: Collection[str]) -> Self:
        """The rows of everybody else, as when these people were removed."""
        return self._without(self.annotators, annotators)


@dataclass(frozen=True)
class MultiLabels(_Named):
    """Sets of classes. One row an answer; the set may be empty."""

    member: sp.csr_array = field(metadata={"row": True})
    """1 where the row's set holds the class, shape (rows, classes)."""
    classes: list[str]


@dataclass(frozen=True)
class Rankings(_Named):
    """Ranks. One row an answer and option that it ranked."""

    option: Codes = field(metadata={"row": True})
    """Index into `options`, shape (rows,). Options of different items differ."""
    rank: Codes = field(metadata={"row": True})
    """Smaller is better, and equal where two are tied, shape (rows,)."""
    options: list[str]


@dataclass(frozen=True)
class Texts(_Named):
    """Free text. One row an answer."""

    text: NDArray[np.object_] = field(metadata={"row": True})
    """str, shape (rows,)."""


@dataclass(frozen=True)
class Spans(_Named):
    """Stretches of text. One row a span; an answer may have none.

    Spans of one answer with the same class may touch or overlap: they then cover what they cover
    together.
    """

    start: Codes = field(metadata={"row": True})
    """First character, shape (rows,)."""
    end: Codes = field(metadata={"row": True})
    """The character after the last, shape (rows,)."""
    label: Codes = field(metadata={"row": True})
    """Index into `classes`, shape (rows,); `NO_SPAN` in a row that says: an answer without any."""
    length: Codes
    """Characters of each item's text, shape (items,); `UNKNOWN_LENGTH` where nobody says."""
    classes: list[str]


UNKNOWN_LENGTH = -1
# The label of a row that stands for an answer without a span, with start and end 0.
NO_SPAN = -1
