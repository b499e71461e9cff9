"""Cohen's kappa (1960) of every two annotators, unweighted, and their confusion matrices.

Cost: all kappas are three sparse products, Σ (answers of an item)²; 500 people who gave 400,000
answers have 123,783 of them in a third of a second. Intervals cost a millisecond each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from annotate.agreement.alpha import ratio_to_one
from annotate.agreement.figure import OVER_ITEMS
from annotate.agreement.resampling import too_few
from annotate.annotations import Codes
from annotate.labels import Labels
from annotate.statistics import (
    FEWEST_UNITS,
    LEVEL,
    RESAMPLES,
    Estimate,
    Reals,
    bootstrap,
    undefined,
)

DEFINITION = "Cohen's kappa: two people's agreement above chance on the items both answered (1960)"
# Bootstrapping a kappa takes about a millisecond; a panel of 500 has 124,750 pairs.
INTERVALS = 1000
# Classes beyond which no kappa is resampled: a pair's confusion grows with their square.
MOST_CLASSES = 1000


@dataclass(frozen=True)
class KappaTable:
    """Every two annotators with an item in common, in columns, most common items first."""

    first: Codes
    """Index of an annotator, shape (pairs,)."""
    second: Codes
    """Index of another, larger than `first`, shape (pairs,)."""
    n: Codes
    """Items that both answered, shape (pairs,)."""
    agreement: Reals
    """The share of these on which they agree, shape (pairs,)."""
    kappa: Reals
    """NaN where both gave all common items one and the same label, shape (pairs,)."""

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True)
class PairKappa:
    """Cohen's kappa of two annotators, and the share of common items on which they agree."""

    first: str
    second: str
    kappa: Estimate
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {
            "annotators": [self.first, self.second],
            "kappa": self.kappa.to_dict(),
            "agreement": self.agreement,
        }


def kappa_table(labels: Labels) -> KappaTable:
    """Kappa and agreement of all pairs, without intervals.

    Raises:
        ValueError: labels of several guideline versions; take them apart or pool them.
    """
    _one_version(labels)
    people = len(labels.annotators)
    common, agreeing, given = _together(labels)
    common = sp.triu(common, k=1).tocoo()
    first, second = (coordinate.astype(np.int64) for coordinate in common.coords)
    n = common.data
    order = np.lexsort([second, first, -n])
    first, second, n = first[order], second[order], n[order]
    chance = _at(_both_said(given, people), first, second)
    agreement = _at(agreeing, first, second) / n
    kappa = ratio_to_one(1 - agreement, 1 - chance / n**2)
    return KappaTable(first, second, n.astype(np.int64), agreement, kappa)


def _both_said(given: sp.csr_array, people: int) -> sp.csr_array:
    """Of every two people: how often each gave a label there, multiplied and summed over labels.

    Args:
        given: as `_together` has it, shape (classes * people, people).
    """
    cells = given.tocoo()
    row, other = (coordinate.astype(np.int64) for coordinate in cells.coords)
    label, person = row // people, row % people
    turned = sp.csr_array((cells.data, (label * people + other, person)), shape=given.shape)
    both = given.multiply(turned).tocoo()
    row, other = both.coords
    return sp.csr_array((both.data, (row % people, other)), shape=(people, people))


def _together(labels: Labels) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array]:
    """Of every two people: items in common, answers alike, and what one of them said there.

    The last counts how often one person gave a label among the items that the other answered too,
    shape (classes * people, people). Some items after the others, so that the products read what is
    in the processor's cache.
    """
    people, classes = len(labels.annotators), len(labels.classes)
    order = np.argsort(labels.item, kind="stable")
    most = min(_ITEMS, max(len(labels.items), 1))
    edges = np.searchsorted(labels.item[order], np.arange(most, len(labels.items), most))
    common, agreeing = (sp.csr_array((people, people)) for _ in range(2))
    given = sp.csr_array((classes * people, people))
    for number, rows in enumerate(np.split(order, edges)):
        item = labels.item[rows] - number * most
        label, annotator = labels.label[rows], labels.annotator[rows]
        ones = np.ones(len(rows))
        answered = sp.csr_array((ones, (item, annotator)), shape=(most, people))
        same = _rows_that_occur(item * classes + label, annotator, most * classes, people)
        said = sp.csr_array(
            (ones, (item, label * people + annotator)), shape=(most, people * classes)
        )
        common = sp.csr_array(common + answered.T @ answered)
        agreeing = sp.csr_array(agreeing + same.T @ same)
        given = sp.csr_array(given + said.T @ answered)
    return common, agreeing, given


def _rows_that_occur(row: Codes, column: Codes, rows: int, columns: int) -> sp.csr_array:
    """1 at each row and column; rows without any left out where they are most."""
    if rows > 8 * len(row):
        _, row = np.unique(row, return_inverse=True)
        rows = len(row)
    return sp.csr_array((np.ones(len(row)), (row, column)), shape=(rows, columns))


def pairwise_kappas(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
    intervals: int = INTERVALS,
) -> list[PairKappa]:
    """Cohen's kappa of every two annotators with an item in common, most common items first.

    The first `intervals` pairs have a bootstrap interval; the others say that they have none, as
    all do beyond a thousand classes. Kappa
    is undefined where both gave all common items one and the same label.

    Raises:
        ValueError: labels of several guideline versions; take them apart or pool them.
    """
    table = kappa_table(labels)
    of_person = _by_annotator(labels) if len(table) else []
    kappas = []
    for place in range(len(table)):
        one, two = int(table.first[place]), int(table.second[place])
        few = int(table.n[place]) < FEWEST_UNITS
        wanted = place < intervals and len(labels.classes) <= MOST_CLASSES
        if wanted and not few and not np.isnan(table.kappa[place]):
            cells = _confusion(of_person[one], of_person[two], len(labels.classes))
            kappa = _bootstrapped(cells, seed, resamples, confidence)
        else:
            kappa = _plain(
                float(table.kappa[place]), int(table.n[place]), len(labels.classes), confidence
            )
        names = labels.annotators[one], labels.annotators[two]
        kappas.append(PairKappa(*names, kappa, float(table.agreement[place])))
    return kappas


def confusion(labels: Labels, first: str, second: str) -> Codes:
    """How often one annotator said a class where the other said another, (classes, classes).

    Rows are the first's labels, columns the second's; only items that both answered count.

    Raises:
        ValueError: labels of several guideline versions; take them apart or pool them.
    """
    _one_version(labels)
    people = [labels.annotator == labels.annotators.index(name) for name in (first, second)]
    one, two = ((labels.item[of], labels.label[of]) for of in people)
    return _confusion(one, two, len(labels.classes)).astype(np.int64)


def _one_version(labels: Labels) -> None:
    if len(labels.versions) > 1:
        raise ValueError(f"answered under {', '.join(labels.versions)}: take them apart or pool")


def _at(matrix: sp.csr_array, row: Codes, column: Codes) -> Reals:
    """Single cells of a sparse matrix."""
    if not len(row):
        return np.zeros(0)
    if matrix.shape[0] * matrix.shape[1] <= _DENSE:
        return np.asarray(matrix.toarray()[row, column], dtype=np.float64)
    return np.asarray(matrix[row, column], dtype=np.float64).reshape(-1)


# Items whose answers are counted at once.
_ITEMS = 2**17
# Cells of a matrix that may be written out: 200 MB.
_DENSE = 25_000_000


def _by_annotator(labels: Labels) -> list[tuple[Codes, Codes]]:
    """Each annotator's items and labels."""
    order = np.argsort(labels.annotator, kind="stable")
    edges = np.searchsorted(labels.annotator[order], np.arange(1, len(labels.annotators)))
    items, said = (np.split(column[order], edges) for column in (labels.item, labels.label))
    return list(zip(items, said, strict=True))


def _confusion(one: tuple[Codes, Codes], two: tuple[Codes, Codes], classes: int) -> Codes:
    _, here, there = np.intersect1d(one[0], two[0], assume_unique=True, return_indices=True)
    cells = one[1][here] * classes + two[1][there]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _bootstrapped(table: Codes, seed: int, resamples: int, confidence: float) -> Estimate:
    """Kappa of a pair's confusion matrix, its items resampled."""
    row, column = table.nonzero()
    n = int(table.sum())
    classes = np.eye(len(table))

    def kappa(weights: Reals) -> Reals:
        chance = ((weights @ classes[row]) * (weights @ classes[column])).sum(axis=1) / n**2
        return ratio_to_one(1 - weights @ (row == column) / n, np.asarray(1 - chance))

    count = table[row, column]
    return bootstrap(
        kappa, count, over=OVER_ITEMS, seed=seed, resamples=resamples, level=confidence
    )


def _plain(value: float, n: int, classes: int, confidence: float) -> Estimate:
    if np.isnan(value):
        return undefined("both gave every item the same label", n, OVER_ITEMS)
    reason = "made for the pairs with most items in common only"
    if classes > MOST_CLASSES:
        reason = f"{classes:,} classes, more than {MOST_CLASSES:,}"
    if n < FEWEST_UNITS:
        reason = too_few(n)
    return Estimate(value, None, None, n, "none", OVER_ITEMS, None, confidence, reason)
