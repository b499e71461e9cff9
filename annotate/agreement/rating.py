"""How each person uses a rating scale: how high they rate, and how much of the scale they use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from annotate.agreement.alpha import numbers_of
from annotate.agreement.contributions import answer_pairs
from annotate.agreement.figure import OVER_ITEMS
from annotate.labels import Labels
from annotate.statistics import LEVEL, Estimate, Reals, undefined

_OFFSET = "mean of own rating less the mean of the others' ratings of the same item"
_SCALE = "standard deviation of own ratings over that of the others' ratings of the same items"
_T = "Student's t over items"


@dataclass(frozen=True)
class RatingScale:
    """How one person rates, beside those who rated the same items."""

    annotator: str
    offset: Estimate
    """Own rating less the others' mean on the same item: above 0 for who rates high."""
    scale: Estimate
    """Spread of own ratings over that of the others: below 1 for who stays in the middle."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {
            "annotator": self.annotator,
            "offset": self.offset.to_dict() | {"definition": _OFFSET},
            "scale": self.scale.to_dict() | {"definition": _SCALE},
        }


def rating_scales(labels: Labels, *, confidence: float = LEVEL) -> list[RatingScale]:
    """Offset and scale of everybody with an answer, over items that somebody else rated too.

    Closed forms over items: the offset's interval is Student's t, the scale's the same on the
    logarithm, linearised. Nobody is flagged by them: an offset may be the items' or the person's.

    Raises:
        InputError: ratings that are not numbers.
        ValueError: labels of several guideline versions; take them apart or pool them.
    """
    if len(labels.versions) > 1:
        raise ValueError(f"answered under {', '.join(labels.versions)}: take them apart or pool")
    rating = numbers_of(labels, "interval")[labels.label]
    pairs = answer_pairs(labels.item)
    mine = np.concatenate([pairs.first, pairs.second])
    theirs = rating[np.concatenate([pairs.second, pairs.first])]
    answers = len(labels)
    others = np.bincount(mine, minlength=answers)
    mean = np.bincount(mine, theirs, answers) / np.maximum(others, 1)
    square = np.bincount(mine, theirs**2, answers) / np.maximum(others, 1)
    scales = []
    for person in np.unique(labels.annotator):
        rows = np.flatnonzero((labels.annotator == person) & (others > 0))
        offset = _offset(rating[rows] - mean[rows], confidence)
        scale = _scale(rating[rows], mean[rows], square[rows], confidence)
        scales.append(RatingScale(labels.annotators[person], offset, scale))
    return scales


def _offset(differences: Reals, confidence: float) -> Estimate:
    n = len(differences)
    if n == 0:
        return undefined("nobody else rated the same items", 0, OVER_ITEMS)
    value = float(differences.mean())
    if n < 2:
        reason = "one item only"
        return Estimate(value, None, None, n, "none", OVER_ITEMS, None, confidence, reason)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * error
    return Estimate(value, value - half, value + half, n, _T, OVER_ITEMS, None, confidence)


def _scale(own: Reals, mean: Reals, square: Reals, confidence: float) -> Estimate:
    """`mean` and `square` are the others' on each item, of their ratings and of their squares."""
    n = len(own)
    mine = own.var() if n else 0.0
    centre = mean.mean() if n else 0.0
    spread = square - 2 * centre * mean + centre**2  # the others' squared distance from the centre
    theirs = spread.mean() if n else 0.0
    if n < 3 or mine <= 0 or theirs <= 1e-12:
        reason = "fewer than three items" if n < 3 else "ratings without spread"
        return undefined(reason, n, OVER_ITEMS)
    ratio = math.sqrt(mine / theirs)
    # Each item's influence on log √(mine / theirs).
    influence = ((own - own.mean()) ** 2 / mine - spread / theirs) / 2
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * float(influence.std()) / math.sqrt(n)
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    return Estimate(ratio, low, high, n, f"{_T}, on the logarithm", OVER_ITEMS, None, confidence)
