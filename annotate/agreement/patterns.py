"""Items with equal counts of labels are one: a pattern, with its multiplicity.

Measures on single labels depend on an item only through how often it got each label. A hundred
thousand items with four answers in five classes show at most 125 patterns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from annotate.agreement.contributions import Contributions, numbered
from annotate.annotations import Codes
from annotate.labels import Labels
from annotate.statistics import Reals

Features = Callable[[sp.csr_array], sp.csr_array]
"""Counts of labels, shape (rows, classes), to what each row adds to the sums, (rows, sums)."""

# Beyond so many cells distinct numbers are found by sorting, not by counting.
_COUNTABLE = 50_000_000


@dataclass(frozen=True)
class Patterns:
    """Items with enough answers, those with equal counts of labels collapsed into one."""

    counts: sp.csr_array
    """How often each label occurs in an item of the pattern, shape (patterns, classes)."""
    multiplicity: Codes
    """How many items show the pattern, shape (patterns,)."""
    of_item: Codes
    """Each item's pattern, shape (items,); -1 for an item with too few answers."""
    least: int
    """How many answers are enough."""

    @property
    def sizes(self) -> Reals:
        """Answers in an item of each pattern, shape (patterns,)."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.float64)

    @property
    def pairable(self) -> int:
        """How many items have two answers or more."""
        return int(self.multiplicity[self.sizes >= 2].sum())

    @property
    def classes(self) -> Codes:
        """The classes that occur in these items."""
        return np.unique(self.counts.nonzero()[1])


def patterns(labels: Labels, *, least: int = 2) -> Patterns:
    """Collapse the items that have at least `least` answers."""
    answers = np.bincount(labels.item, minlength=len(labels.items))
    # An item's signature is the sum, modulo 2^64, of one random number a label: equal counts give
    # equal sums, and two different counts collide with probability below 2^-60.
    numbers = np.random.default_rng(0).integers(0, 2**64, size=len(labels.classes), dtype=np.uint64)
    signature = np.zeros(len(labels.items), dtype=np.uint64)
    np.add.at(signature, labels.item, numbers[labels.label])
    rows = np.flatnonzero(answers >= least)
    _, first, pattern, multiplicity = np.unique(
        signature[rows], return_index=True, return_inverse=True, return_counts=True
    )
    of_item = np.full(len(labels.items), -1, dtype=np.int64)
    of_item[rows] = pattern
    shown_as = np.full(len(labels.items), -1, dtype=np.int64)
    shown_as[rows[first]] = np.arange(len(first))
    shown = shown_as[labels.item] >= 0
    counts = sp.coo_array(
        (np.ones(int(shown.sum())), (shown_as[labels.item[shown]], labels.label[shown])),
        shape=(len(first), len(labels.classes)),
    )
    return Patterns(counts.tocsr(), multiplicity, of_item, least)


def contributions(labels: Labels, found: Patterns, features: Features) -> Contributions:
    """Shares and losses of a measure whose sums are those of `features` over items.

    `features` is asked for items with `found.least` answers or more, and for empty rows, which add
    nothing.
    """
    classes = len(labels.classes)
    # Below 0 for the answers to items that show no pattern.
    start = np.where(found.of_item >= 0, found.of_item * classes, -classes)
    key = start[labels.item] + labels.label
    distinct, loss = _distinct(key, len(found.multiplicity) * classes, spare=classes)
    before = found.counts[distinct // classes] if len(distinct) else found.counts[:0]
    one = sp.csr_array(
        (np.ones(len(distinct)), (np.arange(len(distinct)), distinct % classes)),
        shape=(len(distinct), classes),
    )
    after = sp.csr_array(before - one)
    # An item that is left with too few answers adds nothing any more.
    enough = np.asarray(after.sum(axis=1)) >= found.least
    after = sp.csr_array(sp.diags_array(enough.astype(np.float64)) @ after)
    after.eliminate_zeros()
    losses = features(sp.csr_array(before)) - features(after)
    return Contributions(
        features(found.counts), found.of_item, sp.csr_array(losses), loss,
        labels.item, labels.annotator,
    )  # fmt: skip


def _distinct(key: Codes, cells: int, *, spare: int) -> tuple[Codes, Codes]:
    """The keys below `cells` that occur, and each entry's place among them; -1 for those below 0.

    Args:
        spare: no key is below its negative.
    """
    if cells > _COUNTABLE:
        distinct, place = np.unique(key, return_inverse=True)
        negative = int(np.searchsorted(distinct, 0))
        return distinct[negative:], np.asarray(place - negative).clip(min=-1)
    # A key below 0 counts from the end, as any index: its cells stay behind those of all others.
    occurs = np.zeros(cells + spare, dtype=bool)
    occurs[key] = True
    occurs[cells:] = False
    return np.flatnonzero(occurs), numbered(key, occurs)
