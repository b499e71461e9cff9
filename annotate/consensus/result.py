"""What an aggregation of labels holds of every item and every annotator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.annotations import Codes
from annotate.labels import Labels

Reals = NDArray[np.float64]
Foresight = Callable[[Codes, Codes], Reals]
"""Maps items and annotators, shape (n,) each, to the chance of each class, shape (n, classes)."""


@dataclass(frozen=True)
class Consensus:
    """What an aggregation holds of every item and every annotator."""

    method: str
    probability: Reals
    """Of each class, shape (items, classes); rows of unanswered items are NaN."""
    accuracy: Reals
    """Chance that an annotator's answer is the true class, shape (annotators,); NaN if unknown."""
    reliability: Reals
    """`accuracy` above chance: 0 for a guesser, 1 for one never wrong, shape (annotators,)."""
    objective: list[float]
    """Penalised log-likelihood, or its bound, after each iteration."""
    converged: bool
    foresee: Foresight | None = field(default=None, repr=False, compare=False)
    """What an annotator would answer; None where the method says nothing about it."""

    @property
    def margin(self) -> Reals:
        """The first class's probability less the second's, shape (items,)."""
        if self.probability.shape[1] < 2:
            return np.asarray(self.probability.sum(axis=1), dtype=np.float64)
        ranked = np.sort(self.probability, axis=1)
        return np.asarray(ranked[:, -1] - ranked[:, -2], dtype=np.float64)

    @property
    def best(self) -> NDArray[np.int64]:
        """The most probable class, shape (items,); -1 where two are equally so, or none known."""
        first = np.argmax(self.probability, axis=1)
        return np.where(self.margin > 1e-9, first, -1)

    def of_annotators(self, labels: Labels) -> dict[str, dict[str, Any]]:
        """Of each annotator: votes, accuracy, reliability; null where they cannot be known."""
        votes = np.bincount(labels.annotator, minlength=len(labels.annotators))
        return {
            name: {
                "votes": int(votes[person]),
                "accuracy": _known(self.accuracy[person]),
                "reliability": _known(self.reliability[person]),
            }
            for person, name in enumerate(labels.annotators)
        }


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def above_chance(accuracy: Reals, classes: int) -> Reals:
    """Accuracy on a scale from 0, guessing among so many classes or worse, to 1, never wrong."""
    if classes < 2:
        return np.ones_like(accuracy)
    chance = 1 / classes
    return np.asarray(np.maximum(0.0, (accuracy - chance) / (1 - chance)), dtype=np.float64)


def symmetric_share(lead: Reals, side: Reals | float = 1.0) -> Reals:
    """(1 + side × lead) / 2, such that a side and its opposite add up to exactly 1.

    Args:
        lead: 0 to 1.
        side: 1 or -1 (or 0: a half).
    """
    larger = 0.5 + lead / 2
    # 1 - larger is exact in floating point, so that the smaller is the larger's exact complement.
    return np.where(np.asarray(side) >= 0, np.where(np.asarray(side) == 0, 0.5, larger), 1 - larger)
