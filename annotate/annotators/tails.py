"""Exact tails of a count of chances that differ, and a trend of such a count over time.

Whether somebody stands out is asked given everything about an item but who answered what. If nobody
differs, an answer of an item is any one of its answers with the same chance: with 1 of 3 answers a
tie, each of the three people gave it with chance 1/3, whatever the item's difficulty. Their ties
over many items are then a sum of independent trials whose chances are known: its distribution is
the Poisson binomial, computed exactly from its characteristic function (Hong 2013, Computational
Statistics & Data Analysis 59, equation 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import hypergeom

from annotate.annotations import NO_TIME, Codes

Reals = NDArray[np.float64]

# Cells of one block of characteristic functions: 32 MB.
_BLOCK = 2_000_000
# What Fourier transforms of such sizes lose; a smaller tail is not told apart from it.
SMALLEST = 1e-13
# A person's log odds against what is expected, at most: e^8 is three thousand to one.
_BOUND = 8.0
_STEPS = 30
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Trials:
    """Counts that people made, and how each could have come out. One row a trial."""

    person: Codes
    """Shape (trials,)."""
    score: Codes
    """What came of it, 0 or more, shape (trials,)."""
    pattern: Codes
    """Which row of `chances` holds for it, shape (trials,)."""
    chances: Reals
    """Of the scores 0, 1, …, shape (patterns, scores)."""

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which trials could have come out otherwise, shape (trials,)."""
        return np.asarray(self.chances.max(axis=1) < 1, dtype=bool)[self.pattern]

    @property
    def expected(self) -> Reals:
        """The mean score of each trial, shape (trials,)."""
        mean = self.chances @ np.arange(self.chances.shape[1])
        return np.asarray(mean[self.pattern], dtype=np.float64)

    def select(self, keep: NDArray[np.bool_]) -> Trials:
        """The trials where `keep`, shape (trials,), holds."""
        return Trials(self.person[keep], self.score[keep], self.pattern[keep], self.chances)


@dataclass(frozen=True)
class Pool:
    """Yes or no, of which only the pool is known: a draw without replacement for each person."""

    n: int
    yes: int
    drawn: Codes
    """By each person, shape (people,)."""
    yes_drawn: Codes
    """By each person, shape (people,)."""

    def mass(self, block: Codes, length: int) -> Reals:
        """Hypergeometric chances of 0, 1, … yes of these people, shape (block, length)."""
        drawn = self.drawn[block, None]
        mass = hypergeom.pmf(np.arange(length), self.n, self.yes, drawn)
        return np.asarray(np.nan_to_num(mass), dtype=np.float64)


def upper_and_lower(
    trials: Trials, pool: Pool, people: int, said: Reals | None = None
) -> tuple[Reals, Reals]:
    """P(S ≥ s) and P(S ≤ s) of each person's sum of scores, exact up to `SMALLEST`.

    S is the sum over the person's trials and their draw from the pool, s what it was, or `said`,
    which need not be whole. Shapes (people,).

    Cost: people × the largest sum there can be × patterns.
    """
    patterns, scores = trials.chances.shape
    cells = trials.person * patterns + trials.pattern
    counts = np.bincount(cells, minlength=people * patterns).reshape(people, patterns)
    possible = np.where(trials.chances > 0, np.arange(scores), 0).max(axis=1, initial=0)
    most = counts @ possible + pool.drawn
    summed = said
    if summed is None:
        summed = np.bincount(trials.person, trials.score, people) + pool.yes_drawn.astype(float)
    upper, lower = np.ones(people), np.ones(people)
    order = np.argsort(most)[::-1]
    start = 0
    while start < people:
        length = int(most[order[start]]) + 1
        block = order[start : start + max(1, _BLOCK // length)]
        start += len(block)
        mass = _mass(counts[block], trials.chances, length, pool, block)
        at = np.arange(length)
        upper[block] = (mass * (at >= summed[block, None] - _ROUNDING)).sum(axis=1)
        lower[block] = (mass * (at <= summed[block, None] + _ROUNDING)).sum(axis=1)
    return np.clip(upper, SMALLEST, 1.0), np.clip(lower, SMALLEST, 1.0)


def _mass(counts: Codes, chances: Reals, length: int, pool: Pool, block: Codes) -> Reals:
    """Chances of the sums 0, 1, … length − 1, shape (block, length)."""
    at = np.arange(length // 2 + 1)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(chances.shape[1]), at) / length)
    each = chances @ turns
    each = np.where(np.abs(each) < 1e-300, 1e-300, each)
    characteristic = np.exp(counts.astype(np.float64) @ np.log(each))
    if pool.n:
        characteristic = characteristic * np.fft.rfft(pool.mass(block, length), axis=1)
    mass = np.maximum(np.fft.irfft(characteristic, n=length, axis=1), 0.0)
    return np.asarray(mass / mass.sum(axis=1, keepdims=True), dtype=np.float64)


def both_sides(upper: Reals, lower: Reals) -> Reals:
    """Two-sided: twice the smaller tail, at most 1."""
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, lower)), dtype=np.float64)


def trend(trials: Trials, time: Codes, people: int) -> tuple[Reals, Codes]:
    """The trend of each person's scores over their time: z, and how many trials it rests on.

    The score test of β = 0 where a score s (0 to 1) has its chance × exp(s (α + β × rank of time)),
    with α fitted to the person: who is always worse than the others has no trend, and what others
    share (an item's difficulty, at any time) is in the chances. For yes or no it is the logistic
    regression on the logit of the chance. z is normal in large samples (Cox and Hinkley 1974,
    section 9.3); ranks are bounded, so that its tails are lighter in small ones. NaN where every
    trial came out as low, or as high, as it could. Shapes (people,).
    """
    useful = trials.open & (time != NO_TIME)
    trials, time = trials.select(useful), time[useful]
    person, score = trials.person, trials.score / (trials.chances.shape[1] - 1)
    n = np.bincount(person, minlength=people)
    total = np.bincount(person, score, people)
    level = np.zeros(people)
    for _ in range(_STEPS):
        mean, spread = _tilted(trials, level)
        slope = np.bincount(person, spread, people)
        gap = total - np.bincount(person, mean, people)
        step = np.divide(gap, slope, out=np.zeros(people), where=slope > 1e-12)
        level = np.clip(level + np.clip(step, -2, 2), -_BOUND, _BOUND)
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    mean, spread = _tilted(trials, level)
    place = _ranks(person, time)
    weight = np.bincount(person, spread, people)
    moment = np.bincount(person, spread * place, people)
    information = np.bincount(person, spread * place**2, people)
    information = information - np.divide(moment**2, weight, out=np.zeros(people), where=weight > 0)
    slope = np.bincount(person, (score - mean) * place, people)
    defined = (np.abs(level) < _BOUND) & (information > 1e-9)
    z = np.full(people, np.nan)
    z[defined] = slope[defined] / np.sqrt(information[defined])
    return z, n


def _tilted(trials: Trials, level: Reals) -> tuple[Reals, Reals]:
    """Mean and variance of each trial's score where scores are tilted by the person's level."""
    scores = np.linspace(0, 1, trials.chances.shape[1])
    mass = trials.chances[trials.pattern] * np.exp(np.outer(level, scores))[trials.person]
    mass = mass / mass.sum(axis=1, keepdims=True)
    mean: Reals = mass @ scores
    square: Reals = mass @ scores**2
    return mean, square - mean**2


def _ranks(person: Codes, time: Codes) -> Reals:
    """Each trial's rank among its person's by time, ties sharing one, from −1 to 1."""
    order = np.lexsort([time, person])
    who, when = person[order], time[order]
    new_person = np.append(True, who[1:] != who[:-1])[: len(who)]
    new_time = new_person | np.append(True, when[1:] != when[:-1])[: len(who)]
    starts = np.flatnonzero(new_person)
    sizes = np.diff(np.append(starts, len(who)))
    at = np.arange(len(who)) - np.repeat(starts, sizes)
    group = np.cumsum(new_time) - 1
    mean = np.bincount(group, at) / np.maximum(np.bincount(group), 1) if len(who) else at
    ranks = np.empty(len(who))
    ranks[order] = 2 * (mean[group] + 0.5) / np.repeat(sizes, sizes) - 1 if len(who) else at
    return ranks


def two_sided_normal(z: Reals) -> Reals:
    """2 × P(Z ≥ |z|); NaN stays NaN."""
    return np.asarray(2 * special.ndtr(-np.abs(z)), dtype=np.float64)
