"""Which items get the next labels: every item its first ones, then where a label tells most.

Choosing by what the labels so far leave open (uncertainty sampling, Lewis and Gale, SIGIR 1994; for
repeated labels, Sheng, Provost and Ipeirotis, KDD 2008) buys the same accuracy with fewer labels
where annotators differ and items differ in difficulty. How many fewer is a matter of measurement on
labels that the choice has not seen (`bench/queueing.py`): the posterior that chooses is the wrong
judge of what choosing saved, because it is surest where it is wrong with confidence.

Everything here is pure: counts and scores in, places of items out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Reals = NDArray[np.float64]

FIRST_LABELS = 1
"""Labels that every item gets before any is chosen by its score."""
MOST_LABELS = 5
"""Labels after which an item is left alone: what five people leave open is open."""
BUSIEST = 2
"""How many times an even share the most reliable may be given: people tire, and one person's view
must not become the truth."""


def entropy(probability: Reals) -> Reals:
    """How open each item is, in bits: the entropy of its class probabilities (Shannon, 1948).

    Args:
        probability: of each class, shape (items, classes); rows of unanswered items may be NaN.

    Returns:
        Shape (items,); of an unanswered item the most there can be, log2 of the classes.
    """
    surprise: Reals = -np.log2(np.where(probability > 0, probability, 1.0))
    bits = np.asarray((probability * surprise).sum(axis=1), dtype=np.float64)
    return np.where(np.isnan(bits), np.log2(max(probability.shape[1], 1)), bits)


def disagreement(differences: Reals) -> Reals:
    """How far reward models differ about each pair: the spread of their scaled score differences.

    Each model's differences are divided by their root mean square, because scores of two models
    are on two scales; the spread is the standard deviation over models (query by committee, Seung,
    Opper and Sompolinsky, COLT 1992, with real votes).

    Args:
        differences: first output's score less the second's, shape (pairs, models); NaN where a
            model did not score the pair.

    Returns:
        Shape (pairs,); NaN where fewer than two models scored a pair.
    """
    known = ~np.isnan(differences)
    count = known.sum(axis=1)
    filled = np.where(known, differences, 0.0)
    squares = (filled**2).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    scaled = filled / np.where(squares > 0, np.sqrt(squares), 1.0)
    mean = scaled.sum(axis=1) / np.maximum(count, 1)
    spread = np.where(known, (scaled - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(count >= 2, np.sqrt(spread / np.maximum(count, 1)), np.nan)


def choose(
    n: int,
    labels: Codes,
    scores: Reals | None,
    keys: NDArray[np.uint64],
    *,
    first: int = FIRST_LABELS,
    most: int = MOST_LABELS,
) -> Codes:
    """The items that get the next label, each at most once, the most wanted first.

    Items with fewer than `first` labels come first, those with the fewest before the others; then
    the highest score. An item with `most` labels, or whose score is NaN, is never chosen by score.
    One sort: O(items log items).

    Args:
        n: how many to choose; fewer come back where fewer are left.
        labels: each item has so far, shape (items,).
        scores: how much a label would tell, shape (items,); None chooses by labels alone.
        keys: a random number for each item, which decides between equals.
    """
    if scores is None:
        wanted, early, rank = labels < most, labels < most, np.zeros(len(labels))
    else:
        early = labels < first
        wanted = early | ((labels < most) & ~np.isnan(scores))
        rank = np.where(early, 0.0, -np.where(np.isnan(scores), 0.0, scores))
    order = np.lexsort((keys, rank, np.where(early, labels, 0), ~early))
    return order[wanted[order]][: max(n, 0)]


def hand_out(known: NDArray[np.bool_], room: Codes, reliability: Reals | None = None) -> Codes:
    """Who labels each item, the most wanted item first; -1 where nobody can.

    By reliability, the items that are most open go to those who are right most often, and what a
    label costs is the same: the cost-optimal assignment where answers differ in quality is of this
    kind (Karger, Oh and Shah 2014; Ho, Jabbari and Vaughan, ICML 2013). O(items × people).

    Args:
        known: who has labelled each item already, shape (items, people).
        room: labels that each person may still give, shape (people,).
        reliability: of each person, shape (people,), the best first and equals by turns; None: all
            by turns. NaN (nothing known) counts as the median of those known.
    """
    given = np.zeros(len(room), dtype=np.int64)
    worth = np.zeros(len(room)) if reliability is None else reliability.astype(np.float64)
    middle = np.median(worth[~np.isnan(worth)]) if (~np.isnan(worth)).any() else 0.0
    worth = np.where(np.isnan(worth), middle, worth)
    found = np.full(len(known), -1, dtype=np.int64)
    for item, labelled in enumerate(known):
        free = np.flatnonzero(~labelled & (given < room))
        if len(free):
            best = free[worth[free] == worth[free].max()]
            found[item] = best[np.argmin(given[best])]
            given[found[item]] += 1
    return found
