"""Votes counted, every one alike: the plain baseline."""

from __future__ import annotations

import numpy as np
from scipy.special import betainc

from annotate.consensus.result import Consensus, Reals, above_chance
from annotate.errors import InputError
from annotate.labels import Labels

# Cells of the items' probabilities: 1.6 GB.
_MAX_CELLS = 200_000_000


def vote_counts(labels: Labels) -> Reals:
    """How often each item got each class, shape (items, classes).

    Raises:
        InputError: too many items and classes to write out.
    """
    items, classes = len(labels.items), len(labels.classes)
    if items * classes > _MAX_CELLS:
        raise InputError(
            f"{classes:,} classes are too many for the probabilities of {items:,} items",
            where="label",
            remedy="Labels should be names that repeat; free text has no class to find",
        )
    cells = np.bincount(labels.item * classes + labels.label, minlength=items * classes)
    return cells.reshape(items, classes).astype(np.float64)


def majority(labels: Labels) -> Consensus:
    """Every answer weighs the same; `probability` is the share of votes.

    An annotator's accuracy is how often their answer is the majority of all answers, their own
    included; items without a majority do not count.
    """
    counts = vote_counts(labels)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    people = len(labels.annotators)
    consensus = Consensus("majority", shares, np.empty(0), np.empty(0), [], True)
    best = consensus.best[labels.item]
    judged = np.bincount(labels.annotator[best >= 0], minlength=people)
    right = np.bincount(labels.annotator[best == labels.label], minlength=people)
    accuracy = np.divide(right, judged, out=np.full(people, np.nan), where=judged > 0)
    reliability = above_chance(accuracy, len(labels.classes))
    return Consensus("majority", shares, accuracy, reliability, [], True)


def pair_posterior_of_votes(wins: Reals, losses: Reals, ties: Reals) -> Reals:
    """The posterior that most people prefer a, from the votes alone, a tie counting half to each.

    P(θ > 1/2) for θ ~ Beta(1 + a, 1 + b), the uniform prior updated by exchangeable votes: 0.5
    without votes, 0.75 after 1-0, 0.6875 after 2-1, 0.9375 after 3-0. Shapes (pairs,).
    """
    return np.asarray(1 - betainc(1 + wins + ties / 2, 1 + losses + ties / 2, 0.5))
