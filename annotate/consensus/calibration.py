"""Posteriors that mean what they say: one temperature for a method's log-odds.

A calibrated posterior is 1 / (1 + exp(-z / T)) of the model's log-odds z (Platt's scaling without
an intercept, so that a and b stay alike). T comes from up to three sources, in this order:

1. **Difficulty.** Dawid–Skene takes all pairs to be equally hard, Bradley–Terry takes their
   differences to be normal. Three votes on a pair cannot tell which is right, because both can give
   every pattern of agreement the same frequency; where pairs do differ in difficulty, Dawid–Skene
   claims too much. T brings its posteriors as near as possible (in cross-entropy) to the mean of
   both models'.
2. **Held-out votes.** Each fifth of the votes is foreseen by a model that has not seen it. The
   held-out vote is noisy itself, so what is compared is not the winner but the model's chance of
   that vote, the annotator's unreliability included. Where the votes follow their foreseen odds
   less than they should (a slope under 1), the model has learnt noise, and T is divided by the
   slope. Votes alone never sharpen a posterior: agreement does not prove truth.
3. **Gold.** Where the better output is known, T is the most probable one under a normal prior on
   log T around the value so far; only this can sharpen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit

from annotate.annotations import Codes
from annotate.consensus.comparisons import Comparisons
from annotate.consensus.reliability_curve import ReliabilityCurve, reliability_curve
from annotate.consensus.result import Consensus, Reals, symmetric_share

FOLDS = 5
# Under so many foreseen votes that are no ties a slope says more about chance than about the model.
MIN_HELD_OUT = 200
# Of log T around what the votes gave: T within a factor of 1.35 of it, until gold says otherwise.
_GOLD_PRIOR_SD = 0.3
_RANGE = (0.2, 10.0)
# Log-odds beyond which float64 cannot tell a posterior from certainty.
_FARTHEST = 30.0

Fit = Callable[[Comparisons], Consensus]


@dataclass(frozen=True)
class HeldOut:
    """What a model foresaw of votes that it had not seen."""

    curve: ReliabilityCurve
    slope: float
    """Of the votes' log-odds on the foreseen ones; 1 where there are too few to tell."""


def calibrated(posterior: Reals, temperature: float) -> Reals:
    """Posteriors at a temperature; p and 1 - p stay each other's complement, exactly."""
    z = log_odds(posterior)
    lead = 2 * expit(np.abs(z) / temperature) - 1
    return symmetric_share(lead, np.sign(z))


def log_odds(posterior: Reals) -> Reals:
    """Finite log-odds that are exactly opposite for p and 1 - p; NaN stays NaN."""
    larger = np.maximum(posterior, 1 - posterior)
    side = np.where(posterior < 0.5, -1.0, 1.0)
    return np.asarray(side * np.minimum(logit(larger), _FARTHEST), dtype=np.float64)


def difficulty_temperature(equally_hard: Reals, graded: Reals) -> float:
    """T that brings the first model's posteriors nearest to the mean of both models'."""
    turned = equally_hard < 0.5
    flat, grade = (np.where(turned, 1 - each, each) for each in (equally_hard, graded))
    return _nearest(log_odds(flat), (flat + grade) / 2)


def _nearest(z: Reals, target: Reals, centre: float = 1.0, weight: float = 0.0) -> float:
    """T of least cross-entropy to `target`, with a normal prior on log T.

    Turned to z > 0 first, so that the mirror image of the same data has the same T to the last bit.
    """
    target = np.where(z < 0, 1 - target, target)[z != 0]
    z = np.abs(z)[z != 0]

    def loss(log_t: float) -> float:
        cooled = z / np.exp(log_t)
        entropy = -(target * log_expit(cooled) + (1 - target) * log_expit(-cooled)).sum()
        return float(entropy + weight * (log_t - np.log(centre)) ** 2 / 2)

    found = minimize_scalar(loss, bounds=(np.log(_RANGE[0]), np.log(_RANGE[1])), method="bounded")
    return float(np.exp(found.x))


def gold_temperature(posterior: Reals, truth: Reals, before: float) -> float:
    """The most probable T where it is known whether a is better.

    Args:
        posterior: before any temperature, shape (gold pairs,).
        truth: 1 or 0, 0.5 where neither is better.
        before: T so far, the centre of its prior.
    """
    return _nearest(log_odds(posterior), truth, before, 1 / _GOLD_PRIOR_SD**2)


def held_out(compared: Comparisons, fit: Fit) -> HeldOut:
    """Fit on four fifths of the votes and foresee the fifth, five times.

    All votes of one annotator on one prompt are in the same fifth, because those of one ranking say
    the same thing several times. Which fifth depends on the annotator's place among the prompt's,
    not on what was said. Only votes on pairs that keep a vote are foreseen.
    """
    item = compared.votes.item
    fold = _folds(compared.prompt[item], compared.votes.annotator)
    stated, outcome = [], []
    for at in range(FOLDS):
        train = compared.of_votes(fold != at)
        left = np.bincount(train.votes.item, minlength=len(compared.prompt)) > 0
        test = (fold == at) & left[item]
        foresee = fit(train).foresee if test.any() else None
        if foresee is None:
            continue
        chance = foresee(item[test], compared.votes.annotator[test])
        lead = chance[:, 2] - chance[:, 0]
        stated.append(symmetric_share(np.abs(lead), np.sign(lead)))
        outcome.append(compared.votes.label[test] / 2)
    said = np.concatenate([np.empty(0), *stated])
    was = np.concatenate([np.empty(0), *outcome])
    return HeldOut(reliability_curve(said, was, "held-out votes"), _slope(said, was))


def _folds(prompt: Codes, annotator: Codes) -> Codes:
    """The fifth of each vote, shape (votes,)."""
    people = int(annotator.max(initial=0)) + 1
    asked, place = np.unique(prompt * people + annotator, return_inverse=True)
    prompt_asked = asked // people
    rank = np.arange(len(asked)) - np.searchsorted(prompt_asked, prompt_asked)
    return np.asarray(((prompt_asked + rank) % FOLDS)[place.reshape(-1)], dtype=np.int64)


def _slope(stated: Reals, outcome: Reals) -> float:
    """The logistic slope of outcomes on stated log-odds; 1 where there are too few."""
    decided = outcome != 0.5
    if decided.sum() < MIN_HELD_OUT:
        return 1.0
    return 1 / _nearest(log_odds(stated[decided]), outcome[decided])
