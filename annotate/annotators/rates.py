"""Shares, accuracies and medians of every person at once, each as an `Estimate`.

The interval of a share is Wilson's (1927) on as many independent answers as the answers are worth:
n divided by the design effect (Kish 1965, section 8.2), which is what the share's variance between
prompts is of that of independent draws, corrected for few prompts by Student's t (Korn and Graubard
1998, Survey Methodology 24). So it stays within 0 and 1, and holds where every answer is a yes.
"""

from __future__ import annotations

import numpy as np
from scipy import special
from scipy.stats import binom

from annotate.annotations import Codes
from annotate.annotators.panel import Reals
from annotate.statistics import LEVEL, Estimate, undefined

OVER = "items like theirs"
# Prompts from which a variance between prompts is trusted to be smaller than that of draws.
_ENOUGH = 10


def shares(
    annotator: Codes, value: Reals, prompt: Codes, people: int, *, reason: str
) -> list[Estimate]:
    """The mean of each person's values.

    Args:
        annotator: of each value, shape (values,).
        value: from 0 to 1, shape (values,).
        prompt: what values have in common, any numbers, shape (values,).
        people: how many.
        reason: why who has no value has none.
    """
    n = np.bincount(annotator, minlength=people).astype(np.float64)
    mean = np.bincount(annotator, value, people) / np.maximum(n, 1)
    clusters, square = _between(annotator, value - mean[annotator], prompt, people)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = square / n**2 * clusters / (clusters - 1)
        worth = np.where(mean * (1 - mean) > 1e-12, mean * (1 - mean) / variance, clusters)
    worth = np.where(clusters >= _ENOUGH, worth, np.minimum(worth, n))
    normal = special.ndtri((1 + LEVEL) / 2)
    student = special.stdtrit(np.maximum(clusters - 1, 1), (1 + LEVEL) / 2)
    worth = worth * (normal / student) ** 2
    low, high = _wilson(mean, worth, normal)
    return [
        _estimate(float(mean[at]), float(low[at]), float(high[at]), int(n[at]), int(clusters[at]))
        if n[at]
        else undefined(reason, 0, OVER)
        for at in range(people)
    ]


def _between(annotator: Codes, residual: Reals, prompt: Codes, people: int) -> tuple[Reals, Reals]:
    """Each person's prompts, and the sum over these of squared summed residuals; (people,)."""
    _, names = np.unique(prompt, return_inverse=True)
    key = annotator * (int(names.max(initial=0)) + 1) + names
    _, first, cell = np.unique(key, return_index=True, return_inverse=True)
    of_cell = annotator[first]
    total = np.bincount(cell, residual, len(first))
    clusters = np.bincount(of_cell, minlength=people).astype(np.float64)
    return clusters, np.bincount(of_cell, total**2, people).astype(np.float64)


def _wilson(mean: Reals, n: Reals, z: float) -> tuple[Reals, Reals]:
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def _estimate(value: float, low: float, high: float, n: int, clusters: int) -> Estimate:
    method = "Wilson, for prompts"
    if clusters < 2:
        return Estimate(value, None, None, n, method, OVER, reason="one prompt only")
    if not np.isfinite(low) or not np.isfinite(high):
        return Estimate(value, None, None, n, method, OVER, reason="every prompt gives this value")
    return Estimate(value, low, high, n, method, OVER)


def ratios(
    annotator: Codes, above: Reals, below: Reals, prompt: Codes, people: int, *, reason: str
) -> list[Estimate]:
    """Σ above / Σ below of each person, cut to 0 and 1, with a linearised interval.

    The variance is that of above − ratio × below summed over prompts (Cochran 1977, section 6.4),
    the quantile Student's. Shapes as for `shares`; a person whose Σ below is nothing has `reason`.
    """
    n = np.bincount(annotator, minlength=people)
    top = np.bincount(annotator, above, people)
    bottom = np.bincount(annotator, below, people)
    defined = bottom > 1e-9
    ratio = np.divide(top, bottom, out=np.zeros(people), where=defined)
    residual = above - ratio[annotator] * below
    clusters, square = _between(annotator, residual, prompt, people)
    found = []
    for at in range(people):
        if not defined[at]:
            found.append(undefined(reason, int(n[at]), OVER))
            continue
        value, g = float(np.clip(ratio[at], 0, 1)), float(clusters[at])
        if g < 2:
            found.append(
                Estimate(value, None, None, int(n[at]), "none", OVER, reason="one prompt only")
            )
            continue
        half = special.stdtrit(g - 1, (1 + LEVEL) / 2) * np.sqrt(square[at] * g / (g - 1))
        # A ratio beyond 0 or 1 is cut; its interval keeps the width up to there and beyond.
        low = np.clip(min(ratio[at], value) - half / bottom[at], 0, 1)
        high = np.clip(max(ratio[at], value) + half / bottom[at], 0, 1)
        method = "linearised ratio, for prompts"
        found.append(Estimate(value, float(low), float(high), int(n[at]), method, OVER))
    return found


def medians(annotator: Codes, value: Reals, people: int, *, reason: str) -> list[Estimate]:
    """The median of each person's values, between two of them in order.

    The interval is exact for independent values of any distribution (the order statistics of the
    sign test); fewer than six values have none.
    """
    order = np.lexsort([value, annotator])
    starts = np.searchsorted(annotator[order], np.arange(people + 1))
    found = []
    for at in range(people):
        own = value[order[starts[at] : starts[at + 1]]]
        n = len(own)
        if not n:
            found.append(undefined(reason, 0, OVER))
            continue
        middle = float(np.median(own))
        # The largest k with P(fewer than k below the median) ≤ 2.5 %.
        k = int(binom.ppf((1 - LEVEL) / 2, n, 0.5))
        low, high = (None, None) if k < 1 else (float(own[k - 1]), float(own[n - k]))
        told = "fewer than six answers" if k < 1 else ""
        found.append(Estimate(middle, low, high, n, "order statistics", OVER, reason=told))
    return found
