"""What items add to the sums that a measure is a function of, and what each answer takes away.

Every measure here is a function of sums over items: of counts, of pairs that agree, of squared
differences. An item's contribution to these sums is its *share*; what the sums lose when one answer
to the item is taken away is that answer's *loss*. Shares and losses that are equal are kept once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from annotate.annotations import Codes
from annotate.statistics import Reals


@dataclass(frozen=True)
class Contributions:
    """Shares of items and losses of answers."""

    shares: sp.csr_array
    """Distinct shares, shape (shares, sums)."""
    share: Codes
    """Each item's share, shape (items,); -1 for an item that adds nothing."""
    losses: sp.csr_array
    """Distinct losses, shape (losses, sums)."""
    loss: Codes
    """Each answer's loss, shape (answers,); -1 where taking it away changes nothing."""
    item: Codes
    """Of each answer, shape (answers,)."""
    annotator: Codes
    """Of each answer, shape (answers,)."""

    @property
    def total(self) -> Reals:
        """The sums over all items, shape (sums,)."""
        counts = np.bincount(self.share[self.share >= 0], minlength=self.shares.shape[0])
        return np.asarray(counts @ self.shares, dtype=np.float64)


@dataclass(frozen=True)
class Pairs:
    """Every two answers to one item, each pair once."""

    first: Codes
    """Index of an answer, shape (pairs,)."""
    second: Codes
    """Index of another answer to the same item, shape (pairs,)."""


def answer_pairs(item: Codes) -> Pairs:
    """All pairs of answers to one item; `item` is each answer's, shape (answers,).

    Costs one row a pair: Σ m (m − 1)/2 over items with m answers.
    """
    order = np.argsort(item, kind="stable")
    _, start, size = np.unique(item[order], return_index=True, return_counts=True)
    # In the order of items, an answer is paired with the `later` answers that follow it.
    later = np.repeat(start + size, size) - np.arange(len(item)) - 1
    first = np.repeat(np.arange(len(item)), later)
    step = np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later) + 1
    return Pairs(order[first], order[first + step])


def contributions_of_pairs(
    item: Codes, annotator: Codes, pairs: Pairs, values: Reals, items: int
) -> Contributions:
    """Shares and losses of a measure that sums `values`, shape (pairs, sums), over pairs.

    Args:
        item: of each answer, shape (answers,).
        annotator: of each answer, shape (answers,).
        pairs: of these answers.
        values: what each pair adds; a pair that adds nothing does not make its item count.
        items: how many there are.
    """
    counts = np.any(values != 0, axis=1)
    first, second, values = pairs.first[counts], pairs.second[counts], values[counts]
    losses = grouped(first, values, len(item)) + grouped(second, values, len(item))
    return contributions_of_items(item, annotator, grouped(item[first], values, items), losses)


def contributions_of_items(
    item: Codes, annotator: Codes, shares: Reals, losses: Reals
) -> Contributions:
    """From each item's share, shape (items, sums), and each answer's loss, (answers, sums)."""
    share, distinct_shares = _distinct(shares)
    loss, distinct_losses = _distinct(losses)
    return Contributions(distinct_shares, share, distinct_losses, loss, item, annotator)


def grouped(group: Codes, values: Reals, groups: int) -> Reals:
    """The sums of `values`, shape (rows, sums), by group, shape (groups, sums)."""
    columns = [added(group, column, groups) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((groups, 0))


def added(group: Codes, values: Reals, groups: int) -> Reals:
    """The sums of `values`, shape (rows,), by group, shape (groups,)."""
    sums = np.bincount(group, weights=values, minlength=groups)
    return np.asarray(sums, dtype=np.float64)


def _distinct(rows: Reals) -> tuple[Codes, sp.csr_array]:
    """The index of each row among the distinct ones, -1 for rows of zeros, and the distinct."""
    found, place = np.unique(rows, axis=0, return_inverse=True)
    some = np.any(found != 0, axis=1)
    return numbered(place.reshape(-1), some), sp.csr_array(found[some])


def numbered(place: Codes, keep: NDArray[np.bool_]) -> Codes:
    """`place` among the rows that are kept, -1 for those that are not."""
    return np.where(keep, np.cumsum(keep) - 1, -1)[place] if len(keep) else place
