"""Gwet's AC1 and AC2: agreement above a chance that does not rise where one class is rare.

After Gwet, "Computing inter-rater reliability and its variance in the presence of high agreement"
(2008), and for any number of people, missing answers and weights his Handbook of Inter-Rater
Reliability (4th edition 2014, chapters 2 to 5). Items with one answer count for how often classes
are given, as they do there, but not for agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from annotate.agreement.alpha import column, numbers_of, others
from annotate.agreement.figure import Figure
from annotate.agreement.patterns import contributions, patterns
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.labels import Labels
from annotate.statistics import LEVEL, RESAMPLES, Reals

_CHANCE = "above the chance that labels given at random would agree, which is largest for even use"


@dataclass(frozen=True)
class _Weights:
    """How far two classes count as agreeing, never written out for all pairs of classes."""

    alike: Callable[[sp.csr_array], Reals]
    """Σ w_kl n_k n_l of each row of counts, an answer counting with itself, shape (rows,)."""
    total: float
    """Σ w_kl over all pairs of classes, a class with itself among them."""


def gwet_ac1(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Figure:
    """AC1: labels are equal or not. All of `labels.classes` count as possible."""
    definition = f"Gwet's AC1: mean agreement of an item's answers {_CHANCE} (2008)"
    weights = _Weights(lambda counts: _summed(counts.power(2)), len(labels.classes))
    return _coefficient(labels, weights, definition, Resampling(seed, resamples, confidence))


def gwet_ac2(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Figure:
    """AC2 with quadratic weights: 1 − (difference / range of the classes)².

    Raises:
        InputError: labels that are not numbers.
    """
    values = numbers_of(labels, "interval")
    definition = f"Gwet's AC2 (quadratic weights): mean agreement of an item's answers {_CHANCE}"
    how = Resampling(seed, resamples, confidence)
    return _coefficient(labels, _quadratic(values), f"{definition} (2014)", how)


def _quadratic(values: Reals) -> _Weights:
    """1 − (v_k − v_l)² / range², by Σ n_k n_l (v_k − v_l)² = 2 (Σ n) (Σ n v²) − 2 (Σ n v)²."""
    # In units of the range, around the middle: squares then keep their digits.
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    scaled = (values - (low + high) / 2) / max(high - low, 1e-300)

    def alike(counts: sp.csr_array) -> Reals:
        sizes, first, second = _summed(counts), counts @ scaled, counts @ scaled**2
        return np.asarray(sizes**2 - 2 * (sizes * second - first**2), dtype=np.float64)

    everything = sp.csr_array(np.ones((1, len(values))))
    return _Weights(alike, float(alike(everything)[0]))


def _summed(counts: sp.csr_array) -> Reals:
    """Of each row, shape (rows,)."""
    return np.asarray(counts.sum(axis=1), dtype=np.float64)


def _coefficient(labels: Labels, weights: _Weights, definition: str, how: Resampling) -> Figure:
    found = patterns(labels, least=1)
    n = found.pairable
    classes = len(labels.classes)
    definition = f"{definition}; {classes} possible classes"
    reason = nothing_to_compare(labels, n)
    if not reason and classes < 2:
        reason = "every answer is the same, and no other class is known"
    if reason:
        return undefined_figure(labels, reason, definition, pairable=n)

    def features(counts: sp.csr_array) -> sp.csr_array:
        """Agreement of the item, whether it has any, each class's share of it, and 1."""
        sizes = _summed(counts)
        alike = weights.alike(counts) - sizes
        agreement = np.where(sizes >= 2, alike / np.maximum(sizes * others(counts), 1), 0)
        shares = sp.diags_array(1 / np.maximum(sizes, 1)) @ counts
        some, several = (np.asarray(sizes >= least, dtype=np.float64) for least in (1, 2))
        both = [column(agreement), column(several), shares, column(some)]
        return sp.csr_array(sp.hstack(both))

    def coefficient(sums: Reals) -> Reals:
        given = sums[:, 2:-1] / np.maximum(sums[:, -1:], 1)
        even = weights.total / (classes * (classes - 1))
        chance = even * (given * (1 - given)).sum(axis=1)
        compared = sums[:, 1] > 0.5
        observed = np.divide(
            sums[:, 0], sums[:, 1], out=np.full_like(chance, np.nan), where=compared
        )
        above = np.abs(1 - chance) > 1e-12
        value: Reals = np.full_like(chance, np.nan)
        np.divide(observed - chance, 1 - chance, out=value, where=above)
        return value

    parts = contributions(labels, found, features)
    return measured(labels, parts, coefficient, definition, how, pairable=n)
