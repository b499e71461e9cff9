"""How noisy the votes are, and how hard the pairs: what a simulation of further votes rests on.

Each pair has a margin m, the log-odds by which people prefer its first output:

    m = scale · (reward model's log-odds) + residual · z,      z ~ N(0, 1)

A vote is a, b or a tie as Davidson (1970, equation 2.2) has it, then mistaken with chance `flip`:

    P(a) : P(b) : P(tie) = exp(m/2) : exp(-m/2) : ties

Pairs with two votes or more tell how far votes agree; that their agreement grows with the reward
model's margin, or does not, tells mistakes that anybody makes anywhere (`flip`) from pairs that are
hard (a small m). The reward model's log-odds are those of a model that never saw the pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Reals = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
# Means and standard deviations of the weak priors on logit(2 flip), log scale, log residual and log
# ties: mistakes of 2 to 45 in 100, and margins from nearly nothing to beyond doubt.
_PRIOR_MEAN = np.array([-0.5, 0.7, 0.3, -1.0])
_PRIOR_SD = np.array([1.5, 1.0, 1.0, 1.5])
_PROPOSALS = 600
_MOST_PAIRS = 3000


@dataclass(frozen=True)
class Noise:
    """One set of parameters; see the module's formulas."""

    flip: float
    scale: float
    residual: float
    ties: float

    def draw(self, margins: Reals, votes: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """Votes on pairs of these margins: 1, -1 or 0 for a tie, shape (pairs, votes)."""
        chances = _chances(margins, self.flip, self.ties)
        u = rng.random((len(margins), votes))
        a, b = chances[0][:, None], chances[1][:, None]
        return (u < a).astype(np.int8) - ((u >= a) & (u < a + b)).astype(np.int8)


@dataclass(frozen=True)
class Evidence:
    """What votes say of noise."""

    margin: Reals
    """The reward model's log-odds for the first output, without the pair's own prompt; (pairs,)."""
    spread: Reals
    """Their standard deviation, shape (pairs,)."""
    counts: Reals
    """Votes for the first, for the second, for neither, shape (pairs, 3)."""


def posterior(evidence: Evidence, draws: int, rng: np.random.Generator) -> list[Noise]:
    """Draws of the parameters given the votes, by sampling-importance-resampling (Rubin 1988).

    The proposals are Student's t around the most probable parameters.
    """
    if len(evidence.margin) > _MOST_PAIRS:
        some = rng.choice(len(evidence.margin), _MOST_PAIRS, replace=False)
        evidence = Evidence(evidence.margin[some], evidence.spread[some], evidence.counts[some])
    has_ties = bool(evidence.counts[:, 2].any())

    def loss(point: Reals) -> float:
        return -_log_posterior(point, evidence, has_ties)

    found = minimize(loss, _PRIOR_MEAN, method="Nelder-Mead", options={"maxiter": 600})
    mode = found.x
    root = np.linalg.cholesky(_covariance(loss, mode))
    noise = rng.standard_normal((_PROPOSALS, 4))
    stretch = np.sqrt(4 / rng.chisquare(4, (_PROPOSALS, 1)))
    proposals = mode + (noise * stretch) @ root.T
    size = ((noise * stretch) ** 2).sum(axis=1)
    log_weight = np.array([-loss(point) for point in proposals]) + 4 * np.log1p(size / 4)
    weight = np.exp(log_weight - log_weight.max())
    chosen = rng.choice(_PROPOSALS, draws, p=weight / weight.sum())
    return [_noise(proposals[at], has_ties) for at in chosen]


def _noise(point: Reals, has_ties: bool) -> Noise:
    flip, scale, residual, ties = point
    return Noise(
        float(expit(flip) / 2),
        float(np.exp(scale)),
        float(np.exp(residual)),
        float(np.exp(ties)) if has_ties else 0.0,
    )


def _chances(margins: Reals, flip: float, ties: float) -> tuple[Reals, Reals, Reals]:
    """Of a vote for the first, for the second, and of a tie; each of the shape of `margins`."""
    half = np.exp(-np.abs(margins) / 2)
    total = 1 + half**2 + ties * half
    winner, tied = 1 / total, ties * half / total
    a = np.where(margins > 0, winner, 1 - winner - tied)
    b = 1 - tied - a
    return (1 - flip) * a + flip * b, (1 - flip) * b + flip * a, tied


def _log_posterior(point: Reals, evidence: Evidence, has_ties: bool) -> float:
    noise = _noise(point, has_ties)
    spread = np.hypot(noise.scale * evidence.spread, noise.residual)
    margins = noise.scale * evidence.margin[:, None] + spread[:, None] * _NODES
    chances = _chances(margins, noise.flip, noise.ties)
    log_chance = np.zeros_like(margins)
    for count, chance in zip(evidence.counts.T, chances, strict=True):
        log_chance += count[:, None] * np.log(np.maximum(chance, 1e-300))
    likelihood = np.log(np.maximum(np.exp(log_chance) @ _WEIGHTS, 1e-300)).sum()
    prior = (((point - _PRIOR_MEAN) / _PRIOR_SD) ** 2).sum() / 2
    return float(likelihood - prior)


def _covariance(loss: Callable[[Reals], float], mode: Reals) -> Reals:
    """Inverse of the numeric curvature at the mode; the prior's where it is not positive."""
    d, h = len(mode), 0.05
    steps = np.eye(d) * h
    curvature = np.empty((d, d))
    for i in range(d):
        for j in range(i + 1):
            corners = [
                loss(mode + x * steps[i] + y * steps[j]) * x * y for x in (1, -1) for y in (1, -1)
            ]
            curvature[i, j] = curvature[j, i] = sum(corners) / (4 * h * h)
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 1 / _PRIOR_SD.max() ** 2)
    return np.asarray((vectors / values) @ vectors.T)
