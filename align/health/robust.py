"""Level, noise and trend of a short, noisy curve, by medians: one odd value moves none of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.stats import theilslopes

Reals = NDArray[np.float64]

# The median absolute deviation of a normal sample times this is its standard deviation.
_NORMAL = 1.4826
# Points a trend is computed from; its cost grows with their square.
_TREND_POINTS = 200


@dataclass(frozen=True)
class Trend:
    """How much a curve changes from its first point to its last, along a straight line.

    `low` to `high` is the 95 % interval of the slope (Theil 1950; Sen 1968, section 3) times the
    distance.
    """

    change: float
    low: float
    high: float

    @property
    def rises(self) -> bool:
        """Whether it can be told from a flat one, upwards."""
        return self.low > 0

    @property
    def falls(self) -> bool:
        """Whether it can be told from a flat one, downwards."""
        return self.high < 0


def running_median(values: Reals, window: int = 5) -> Reals:
    """The median of each value and its neighbours; the ends are repeated. Shape (n,) both."""
    return np.asarray(median_filter(values, size=window, mode="nearest"), dtype=np.float64)


def spread(values: Reals) -> float:
    """The standard deviation, by the median absolute deviation; 0 of fewer than two values."""
    if len(values) < 2:
        return 0.0
    return float(_NORMAL * np.median(np.abs(values - np.median(values))))


def noise(values: Reals) -> float:
    """The standard deviation about a smooth curve, from the differences between neighbours.

    A difference of two values has twice the variance of one (von Neumann et al. 1941). That of the
    noisier half: at DPO's first steps all losses are ln 2.
    """
    steps = np.diff(values)
    middle = len(steps) // 2
    return max(spread(steps[:middle]), spread(steps[middle:])) / float(np.sqrt(2))


def trend(steps: NDArray[np.int64], values: Reals) -> Trend:
    """The Theil–Sen line through at least six points; of many, through medians of neighbours."""
    size = -(-len(values) // _TREND_POINTS)
    if size > 1:
        cuts = range(0, len(values), size)
        steps = np.array([int(np.median(steps[at : at + size])) for at in cuts])
        values = np.array([float(np.median(values[at : at + size])) for at in cuts])
    place = (steps - steps[0]) / max(1, int(steps[-1] - steps[0]))
    slope, _, low, high = theilslopes(values, place, alpha=0.95)
    return Trend(float(slope), float(low), float(high))


def at_start(values: Reals) -> float:
    """The level at which a curve starts: the median of its first three values."""
    return float(np.median(values[:3]))


def at_end(values: Reals) -> float:
    """The level at which a curve ends: the median of its last eighth, three values at least."""
    return float(np.median(values[-max(3, len(values) // 8) :]))
