"""Krippendorff's alpha: 1 − observed / expected disagreement, any answers missing.

After Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), whose coincidences are here
summed item by item: an item with m answers, n_c of them c, adds n_c n_k / (m − 1) to the pairs (c,
k). Ordinal alpha is interval alpha on mid-ranks, because his ordinal difference of c and k, Σ n_g
from c to k less (n_c + n_k)/2, is that of their mid-ranks.

Cost: items collapse to patterns. A hundred thousand items by four answers take a tenth of a second
with 2,000 resamples; with many distinct labels (continuous ratings) it is resamples × the pairs of
labels that occur together.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp

from annotate.agreement.contributions import answer_pairs
from annotate.agreement.figure import Figure
from annotate.agreement.patterns import Features, Patterns, contributions, patterns
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, Statistic, measured
from annotate.annotations import Codes
from annotate.errors import InputError
from annotate.labels import Labels
from annotate.statistics import LEVEL, RESAMPLES, Reals

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = get_args(Level)

DIFFERENCES: dict[Level, str] = {
    "nominal": "labels are equal or not",
    "ordinal": "labels differ by how many answers lie between them, squared",
    "interval": "labels differ by the square of their difference",
}
_SOURCE = "1 - observed / expected disagreement of two answers to an item"


def krippendorff_alpha(
    labels: Labels,
    level: Level = "nominal",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Figure:
    """Krippendorff's alpha; `n_pairable` counts items with two answers or more.

    Undefined, with the reason, for one annotator, without an item that two answered, and where
    every answer is the same: then no disagreement can be expected and 1 − 0/0 has no value.

    Raises:
        InputError: ordinal or interval labels that are not numbers.
    """
    values = numbers_of(labels, level)
    definition = f"Krippendorff's alpha ({level}): {_SOURCE}; {DIFFERENCES[level]} (2011)"
    found = patterns(labels)
    if level == "nominal":
        features, statistic = nominal(len(labels.classes))
    elif level == "interval":
        features, statistic = _interval(values, found)
    else:
        features, statistic = _ordinal(found)
    how = Resampling(seed, resamples, confidence)
    return alpha_of(labels, found, features, statistic, definition, how)


def alpha_by_distance(
    labels: Labels,
    distance: Reals,
    definition: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Figure:
    """Alpha with any distance between labels, shape (classes, classes), 0 on the diagonal."""
    features, statistic = _by_distance(np.asarray(distance, dtype=np.float64))
    how = Resampling(seed, resamples, confidence)
    return alpha_of(labels, patterns(labels), features, statistic, definition, how)


def alpha_of(
    labels: Labels,
    found: Patterns,
    features: Features,
    statistic: Statistic,
    definition: str,
    how: Resampling,
) -> Figure:
    """The figure of an alpha, or why there is none."""
    n = found.pairable
    reason = nothing_to_compare(labels, n)
    if not reason and len(found.classes) == 1:
        reason = "every answer is the same"
    if reason:
        return undefined_figure(labels, reason, definition, pairable=n)
    parts = contributions(labels, found, features)
    return measured(labels, parts, statistic, definition, how, pairable=n)


def coincidences(labels: Labels) -> Reals:
    """Krippendorff's coincidence matrix, shape (classes, classes); it sums to the answers."""
    found = patterns(labels)
    weight = found.multiplicity / np.maximum(found.sizes - 1, 1)
    together = (found.counts.T @ sp.diags_array(weight) @ found.counts).toarray()
    itself = np.asarray(found.counts.T @ weight)
    return np.asarray(together - np.diag(itself), dtype=np.float64)


def numbers_of(labels: Labels, level: Level) -> Reals:
    """The classes as numbers, shape (classes,); NaN only where the level needs none.

    Raises:
        InputError: the level needs numbers, and a class is none.
    """
    values = labels.values
    if level != "nominal" and np.isnan(values).any():
        word = next((name for name in labels.classes if not _is_number(name)), labels.classes[0])
        raise InputError(
            f'level {level} needs numbers, and "{word}" is none',
            where="label",
            remedy="Number the labels in their order, or use `--level nominal`",
        )
    return values


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def others(counts: sp.csr_array) -> Reals:
    """Answers to each row's item beside any one of them, at least 1, shape (rows,)."""
    return np.maximum(np.asarray(counts.sum(axis=1), dtype=np.float64) - 1, 1)


def column(values: Reals) -> sp.csr_array:
    """A column of numbers, shape (rows, 1)."""
    return sp.csr_array(np.asarray(values, dtype=np.float64)[:, None])


def ratio_to_one(observed: Reals, expected: Reals) -> Reals:
    """1 − observed/expected, NaN where nothing is expected (a resample without variation)."""
    some = expected > 1e-9
    ratio = np.divide(observed, expected, out=np.full_like(expected, np.nan), where=some)
    return np.asarray(1 - ratio, dtype=np.float64)


def nominal(classes: int) -> tuple[Features, Statistic]:
    """Sums: disagreeing ordered pairs over m − 1, and how often each label was given."""

    def features(counts: sp.csr_array) -> sp.csr_array:
        sizes = np.asarray(counts.sum(axis=1), dtype=np.float64)
        squares = np.asarray(counts.power(2).sum(axis=1), dtype=np.float64)
        return sp.csr_array(sp.hstack([column((sizes**2 - squares) / others(counts)), counts]))

    def alpha(sums: Reals) -> Reals:
        given = sums[:, 1 : classes + 1]
        total = given.sum(axis=1)
        expected = total**2 - (given**2).sum(axis=1)
        return ratio_to_one(sums[:, 0] * (total - 1), expected)

    return features, alpha


def _interval(values: Reals, found: Patterns) -> tuple[Features, Statistic]:
    """Sums: squared differences of ordered pairs over m − 1, answers, their values and squares."""
    # Alpha is the same on any scale; on this one squares keep their digits. What was only given
    # alone plays no part, and may lie far away.
    counted = found.classes
    centred = np.zeros(len(values))
    if len(counted):
        often = np.asarray(found.multiplicity @ found.counts)[counted]
        centred[counted] = values[counted] - np.average(values[counted], weights=often)
    scaled = centred / max(np.abs(centred).max(initial=0.0), 1e-300)

    def features(counts: sp.csr_array) -> sp.csr_array:
        sizes = np.asarray(counts.sum(axis=1), dtype=np.float64)
        first, second = np.asarray(counts @ scaled), np.asarray(counts @ scaled**2)
        observed = 2 * (sizes * second - first**2) / others(counts)
        return sp.csr_array(np.stack([observed, sizes, first, second], axis=1))

    def alpha(sums: Reals) -> Reals:
        observed, total, first, second = sums.T
        return ratio_to_one(observed * (total - 1), 2 * (total * second - first**2))

    return features, alpha


def _ordinal(found: Patterns) -> tuple[Features, Statistic]:
    """Sums: how often each label was given, and coincidences of the pairs that occur together."""
    classes = found.counts.shape[1]
    pair = np.unique(_together(found.counts)[1])
    low, high = pair // max(classes, 1), pair % max(classes, 1)

    def features(counts: sp.csr_array) -> sp.csr_array:
        row, cell, times = _together(counts)
        place = np.searchsorted(pair, cell)
        both = sp.csr_array((times, (row, place)), shape=(counts.shape[0], len(pair)))
        return sp.csr_array(sp.hstack([counts, sp.diags_array(2 / others(counts)) @ both]))

    def alpha(sums: Reals) -> Reals:
        given = sums[:, :classes]
        total = given.sum(axis=1)
        rank = np.cumsum(given, axis=1) - given / 2
        rank -= ((rank * given).sum(axis=1) / np.maximum(total, 1))[:, None]
        apart = (rank[:, low] - rank[:, high]) ** 2
        observed = (sums[:, classes:] * apart).sum(axis=1)
        return ratio_to_one(observed * (total - 1), 2 * total * (rank**2 * given).sum(axis=1))

    return features, alpha


def _together(counts: sp.csr_array) -> tuple[Codes, Codes, Reals]:
    """Every two labels of one row: the row, low label × classes + high label, n_low n_high."""
    counts.sort_indices()
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    label, times = counts.indices.astype(np.int64), counts.data
    pairs = answer_pairs(row)
    cell = label[pairs.first] * counts.shape[1] + label[pairs.second]
    return row[pairs.first], cell, times[pairs.first] * times[pairs.second]


def _by_distance(distance: Reals) -> tuple[Features, Statistic]:
    """Sums: distances of ordered pairs over m − 1, and how often each label was given."""

    def features(counts: sp.csr_array) -> sp.csr_array:
        apart = np.asarray(counts.multiply(counts @ distance).sum(axis=1), dtype=np.float64)
        return sp.csr_array(sp.hstack([column(apart / others(counts)), counts]))

    def alpha(sums: Reals) -> Reals:
        given = sums[:, 1:]
        total = given.sum(axis=1)
        expected = ((given @ distance) * given).sum(axis=1)
        return ratio_to_one(sums[:, 0] * (total - 1), expected)

    return features, alpha
