"""Estimates with their intervals: the one form in which this project states a measured number.

Resampling is over items or prompts, never over single answers: answers to one item depend on each
other. Items that look alike are resampled together, as one multinomial draw over the distinct
patterns, which is the same bootstrap and costs nothing for the hundred-thousandth unanimous item
(Efron and Tibshirani 1993, chapter 13, for the percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]
Statistic = Callable[[Reals], Reals]

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_UNITS = 6
"""Units (items or prompts) below which agreement has no interval. Of n independent values not even
the range from the smallest to the largest holds the median with 95 % confidence unless 2/2^n is at
most 5 %, so from six; a bootstrap cannot know more, and of two to five units it knows less."""
# Cells of one block of resampling weights: 32 MB, whatever the number of patterns.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A value, its interval, and what both rest on.

    `low` and `high` are None where no interval can be had, `value` too where the statistic is
    undefined; `reason` then says why.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    """How many units (items, prompts, trials) the value rests on."""
    method: str
    """How the interval was made: "percentile bootstrap", "Wilson"."""
    over: str
    """What the interval generalises over: "items, this panel of annotators"."""
    seed: int | None = None
    """Of the resampling; None where nothing is random."""
    level: float = LEVEL
    """The interval's confidence level."""
    reason: str = ""
    """Why there is no value, or no interval."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        """As in "0.864 [0.843, 0.887], n=999"."""
        if self.value is None:
            return f"undefined ({self.reason}), n={self.n:,}"
        # z: a small negative number is 0.000, not -0.000.
        if self.low is None or self.high is None:
            return f"{self.value:z.3f} (no interval: {self.reason}), n={self.n:,}"
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}], n={self.n:,}"


def undefined(reason: str, n: int, over: str) -> Estimate:
    """The estimate of a statistic that these data do not define."""
    return Estimate(None, None, None, n, method="none", over=over, reason=reason)


def bootstrap(
    statistic: Statistic,
    multiplicity: ArrayLike,
    *,
    over: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Estimate `statistic` with a percentile interval over resampled units.

    Args:
        statistic: maps weights, shape (resamples, patterns), to values, shape (resamples,). A
            row says how often each pattern occurs; NaN where the statistic is undefined for it.
        multiplicity: how many units show each pattern, shape (patterns,).
        over: what the units are.
        seed: of the resampling.
        resamples: how many; the cost is resamples × patterns draws.
        level: the interval's confidence level.

    Returns:
        The estimate. Without an interval where fewer than half the resamples define the statistic,
        or where all give one value: data without variation do not show how much there could be.
    """
    counts = np.asarray(multiplicity, dtype=np.int64)
    n = int(counts.sum())
    if n == 0:
        return undefined("no data", 0, over)
    value = float(statistic(counts[None, :].astype(np.float64))[0])
    if math.isnan(value):
        return undefined("undefined for these data", n, over)
    draws = _draws(statistic, counts, seed, resamples)
    defined = draws[~np.isnan(draws)]
    low: float | None = None
    high: float | None = None
    reason = ""
    if len(defined) * 2 < len(draws):
        reason = f"only {len(defined)} of {len(draws)} resamples define it"
    elif np.ptp(defined) < 1e-12:
        reason = "every resample gives this value"
    else:
        tail = (1 - level) / 2
        low, high = (float(edge) for edge in np.quantile(defined, [tail, 1 - tail]))
    return Estimate(value, low, high, n, "percentile bootstrap", over, seed, level, reason)


def _draws(statistic: Statistic, counts: NDArray[np.int64], seed: int, resamples: int) -> Reals:
    """The statistic of each resample, made in blocks of bounded memory."""
    rng = np.random.default_rng(seed)
    n = int(counts.sum())
    rows = max(1, min(resamples, _BLOCK // len(counts)))
    blocks = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        blocks.append(statistic(rng.multinomial(n, counts / n, size=size).astype(np.float64)))
    return np.concatenate(blocks)


def bootstrap_mean(
    values: ArrayLike,
    *,
    over: str = "items",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The mean of `values`, shape (n,), one a unit; NaN is refused with a ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("values hold NaN")
    distinct, multiplicity = np.unique(array, return_counts=True)

    def mean(weights: Reals) -> Reals:
        return np.asarray(weights @ distinct / weights.sum(axis=1), dtype=np.float64)

    return bootstrap(mean, multiplicity, over=over, seed=seed, resamples=resamples, level=level)


def win_rate(
    outcomes: ArrayLike,
    prompts: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The share of prompts won, a tie being half, with a bootstrap over prompts.

    Args:
        outcomes: 1 a win, 0.5 a tie, 0 a loss, shape (comparisons,).
        prompts: each comparison's prompt. A prompt weighs the same however often it was compared.
            Without it every comparison is a prompt of its own.
        seed: of the resampling.
        resamples: how many.
        level: the interval's confidence level.

    Returns:
        The estimate; n counts prompts. Where all prompts have one outcome the bootstrap sees no
        variation, and the interval is Wilson's.
    """
    array = np.asarray(outcomes, dtype=np.float64)
    if not np.isin(array, (0.0, 0.5, 1.0)).all():
        raise ValueError("an outcome is 0, 0.5 or 1")
    array = cluster_means(array, prompts)
    if len(array) > 0 and np.ptp(array) == 0:
        return wilson(float(array.sum()), len(array), over="prompts", level=level)
    return bootstrap_mean(array, over="prompts", seed=seed, resamples=resamples, level=level)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    over: str = "prompts",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The mean of first − second, measured on the same units, shape (n,) each.

    Units of one cluster (a prompt, a seed) are resampled together, each cluster weighing the same.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"paired values differ in shape: {one.shape} and {two.shape}")
    return bootstrap_mean(
        cluster_means(one - two, clusters), over=over, seed=seed, resamples=resamples, level=level
    )


def cluster_means(values: ArrayLike, clusters: Sequence[Hashable] | None) -> Reals:
    """The mean of each cluster's values, in order of first appearance; the values without any."""
    array = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return array
    if len(clusters) != len(array):
        raise ValueError(f"{len(array)} values in {len(clusters)} clusters")
    index: dict[Hashable, int] = {}
    code = np.array([index.setdefault(key, len(index)) for key in clusters], dtype=np.int64)
    return np.asarray(np.bincount(code, weights=array) / np.bincount(code), dtype=np.float64)


def wilson(successes: float, n: int, *, over: str = "items", level: float = LEVEL) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927), which holds at 0 and n too.

    `successes` may be fractional: a tie is half a win.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return undefined("no data", 0, over)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the ends the formula is exact up to rounding; the clip keeps a share a share.
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(share, low, high, n, "Wilson", over, level=level)
