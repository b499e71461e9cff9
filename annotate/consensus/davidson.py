"""Davidson's model of a vote with ties, and its mean over an uncertain difference.

Davidson (1970, Journal of the American Statistical Association 65, equation 2.5): with worths π
and a tie parameter ν,

    P(a) : P(tie) : P(b)  =  π_a : ν √(π_a π_b) : π_b  =  e^(x/2) : ν : e^(-x/2),

where x is the difference of the logarithms. An annotator of reliability r perceives x = r d of a
true difference d: 0 for one who guesses, negative for one who votes against what they see.

The log-probability is concave in d, in r and in log ν each, so that Newton's steps ascend.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

# Eleven nodes give the mean of log-cosh over a standard normal to 1e-5 at r = 4.
_NODES, _RAW_WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_WEIGHTS = _RAW_WEIGHTS / _RAW_WEIGHTS.sum()
# Votes whose nodes are in memory at once: 20 MB a column.
_BLOCK = 200_000


class Curve(NamedTuple):
    """log Z(x) for Z = 2 cosh(x/2) + ν, its slopes in x, and P(tie), in x's shape."""

    value: Reals
    slope: Reals
    bend: Reals
    tie: Reals


def log_normaliser(x: Reals, tie: float) -> Curve:
    """log(2 cosh(x/2) + ν), first and second derivative in x, and ν / Z; without overflow."""
    small = np.exp(-np.abs(x) / 2)
    scaled = 1 + small * small + tie * small  # Z e^(-|x|/2)
    slope = np.sign(x) * (1 - small * small) / (2 * scaled)
    bend = (1 + small * small) / (4 * scaled) - slope * slope
    return Curve(np.abs(x) / 2 + np.log(scaled), slope, bend, tie * small / scaled)


def probabilities(x: Reals, tie: float) -> Reals:
    """P(b), P(tie), P(a) at the perceived difference x; the last axis has the three."""
    log_z = log_normaliser(x, tie).value
    with_tie = np.full_like(x, np.log(tie) if tie > 0 else -np.inf)
    return np.exp(np.stack([-x / 2, with_tie, x / 2], axis=-1) - log_z[..., None])


def mean_probabilities(mean: Reals, sd: Reals, reliability: Reals, tie: float) -> Reals:
    """P(b), P(tie), P(a) when d ~ N(mean, sd²), shape (votes, 3)."""
    d = mean[:, None] + sd[:, None] * _NODES
    return np.asarray(
        np.einsum("vnc,n->vc", probabilities(reliability[:, None] * d, tie), _WEIGHTS),
        dtype=np.float64,
    )


class Expected(NamedTuple):
    """Means over the difference d of one vote's log-probability and its slopes, shape (votes,)."""

    value: Reals
    by_difference: Reals
    by_difference_twice: Reals
    by_reliability: Reals
    by_reliability_twice: Reals
    by_log_tie: Reals
    by_log_tie_twice: Reals


def expected_vote(sign: Reals, mean: Reals, sd: Reals, reliability: Reals, tie: float) -> Expected:
    """The mean log-probability of votes when d ~ N(mean, sd²), by Gauss–Hermite quadrature.

    Turning every vote and every difference round changes no value, and the sign of
    `by_difference`, to the last bit.

    Args:
        sign: 1 a vote for a, -1 for b, 0 a tie, shape (votes,), as the next three.
        mean: of each vote's difference.
        sd: its standard deviation.
        reliability: of the vote's annotator.
        tie: Davidson's ν, over 0.
    """
    parts = [
        _expected(sign[at:to], mean[at:to], sd[at:to], reliability[at:to], tie)
        for at, to in ((at, at + _BLOCK) for at in range(0, max(len(sign), 1), _BLOCK))
    ]
    return Expected(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _expected(sign: Reals, mean: Reals, sd: Reals, reliability: Reals, tie: float) -> Expected:
    # Computed with a as the option ahead, so that the mirror image takes the same steps.
    turned = np.where(mean < 0, -1.0, 1.0)
    ahead, half = np.abs(mean), turned * sign / 2
    d = ahead[:, None] + sd[:, None] * _NODES
    curve = log_normaliser(reliability[:, None] * d, tie)
    tied = np.where(sign == 0, 1.0, 0.0)
    # Between equals the slopes at d and -d cancel; rounding must not decide for one of them.
    slope = np.where(mean == 0, 0.0, curve.slope @ _WEIGHTS)
    p_tie = curve.tie @ _WEIGHTS
    return Expected(
        value=half * reliability * ahead + tied * np.log(tie) - curve.value @ _WEIGHTS,
        by_difference=turned * reliability * (half - slope),
        by_difference_twice=-reliability * reliability * (curve.bend @ _WEIGHTS),
        by_reliability=half * ahead - (d * curve.slope) @ _WEIGHTS,
        by_reliability_twice=-(d * d * curve.bend) @ _WEIGHTS,
        by_log_tie=tied - p_tie,
        by_log_tie_twice=(curve.tie * curve.tie) @ _WEIGHTS - p_tie,
    )
