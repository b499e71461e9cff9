"""Answers that take several rows: which rows are one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotate.annotations import Codes


@dataclass(frozen=True)
class Answers:
    """Whole answers of which a table of rankings or spans holds the parts, a row each."""

    of_row: Codes
    """Each row's answer, shape (rows,)."""
    item: Codes
    """Of each answer, sorted, shape (answers,)."""
    annotator: Codes
    """Of each answer, shape (answers,)."""

    def __len__(self) -> int:
        return len(self.item)


def answers_of(item: Codes, annotator: Codes) -> Answers:
    """The answers that rows with these items and annotators make up."""
    people = int(annotator.max(initial=0)) + 1
    key, of_row = np.unique(item * people + annotator, return_inverse=True)
    return Answers(of_row, key // people, key % people)
