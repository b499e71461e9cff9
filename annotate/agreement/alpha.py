"""How far annotators agree: Krippendorff's alpha, Cohen's kappa, raw agreement.

Pure functions of `Labels`. Answers may be missing anywhere. Every figure is an `Estimate` whose
interval resamples items, so it speaks of more items judged by this panel, not of other people.

Sources: alpha after Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), whose
coincidences are here summed item by item; kappa after Cohen (1960), unweighted.

Cost: alpha and raw agreement depend on an item only through how often it got each label, so items
collapse to their distinct patterns and a resample is one multinomial draw over these. Three million
answers in three classes take about two seconds with 2,000 resamples. With many distinct patterns
(continuous ratings) the cost is resamples × items. All pairwise kappas are one sparse product, of
cost Σ (answers of an item)².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from annotate.annotations import Codes
from annotate.errors import InputError
from annotate.labels import Labels
from annotate.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Reals,
    bootstrap,
    undefined,
    wilson,
)

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = get_args(Level)
OVER = "items, this panel of annotators"
# Bootstrapping a kappa takes about a millisecond; a panel of 500 has 124,750 pairs.
INTERVALS = 1000


@dataclass(frozen=True)
class Patterns:
    """Items with two answers or more, those with equal counts of labels collapsed into one."""

    counts: sp.csr_array
    """How often each label occurs in an item of the pattern, shape (patterns, classes)."""
    multiplicity: Codes
    """How many items show the pattern, shape (patterns,)."""

    @property
    def sizes(self) -> Reals:
        """Answers in an item of each pattern, shape (patterns,)."""
        return np.asarray(self.counts.sum(axis=1), dtype=np.float64)


def patterns(labels: Labels) -> Patterns:
    """Collapse pairable items, those that two annotators or more answered."""
    answers = np.bincount(labels.item, minlength=len(labels.items))
    # An item's signature is the sum, modulo 2^64, of one random number a label: equal counts give
    # equal sums, and two different counts collide with probability below 2^-60.
    numbers = np.random.default_rng(0).integers(0, 2**64, size=len(labels.classes), dtype=np.uint64)
    signature = np.zeros(len(labels.items), dtype=np.uint64)
    np.add.at(signature, labels.item, numbers[labels.label])
    rows = np.flatnonzero(answers >= 2)
    _, first, multiplicity = np.unique(signature[rows], return_index=True, return_counts=True)
    place = np.full(len(labels.items), -1, dtype=np.int64)
    place[rows[first]] = np.arange(len(first))
    shown = place[labels.item] >= 0
    counts = sp.coo_array(
        (np.ones(int(shown.sum())), (place[labels.item[shown]], labels.label[shown])),
        shape=(len(first), len(labels.classes)),
    )
    return Patterns(counts.tocsr(), multiplicity)


def krippendorff_alpha(
    labels: Labels,
    level: Level = "nominal",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Estimate:
    """Krippendorff's alpha; n counts pairable items.

    Undefined, with the reason, for one annotator, without an item that two answered, and where
    every answer is the same: then no disagreement can be expected and 1 − 0/0 has no value.

    Raises:
        InputError: ordinal or interval labels that are not numbers.
    """
    values = _values(labels, level)
    found = patterns(labels)
    n = int(found.multiplicity.sum())
    reason = _nothing_to_compare(labels, n)
    if not reason and len(np.unique(found.counts.nonzero()[1])) == 1:
        reason = "every answer is the same"
    if reason:
        return undefined(reason, n, OVER)
    sizes = found.sizes
    counts = found.counts
    squares = np.asarray(counts.power(2).sum(axis=1), dtype=np.float64)

    def alpha(weights: Reals) -> Reals:
        """1 − observed/expected disagreement, shape (resamples,), over δ² = (v_c − v_k)²."""
        marginals = np.asarray((counts.T @ weights.T).T)  # (resamples, classes)
        total = marginals.sum(axis=1)
        if level == "nominal":
            observed = weights @ ((sizes**2 - squares) / (sizes - 1))
            expected = total**2 - (marginals**2).sum(axis=1)
        else:
            scale = (
                _mid_ranks(marginals)
                if level == "ordinal"
                else np.broadcast_to(values, marginals.shape)
            )
            scale = scale - ((scale * marginals).sum(axis=1) / total)[:, None]
            first = np.asarray((counts @ scale.T).T)  # Σ v of each item, (resamples, patterns)
            second = np.asarray((counts @ (scale**2).T).T)
            observed = (weights * 2 * (sizes * second - first**2) / (sizes - 1)).sum(axis=1)
            expected = 2 * total * ((scale**2) * marginals).sum(axis=1)
        return _ratio_to_one(observed * (total - 1), expected)

    return bootstrap(
        alpha, found.multiplicity, over=OVER, seed=seed, resamples=resamples, level=confidence
    )


def _values(labels: Labels, level: Level) -> Reals:
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


def _nothing_to_compare(labels: Labels, pairable: int) -> str:
    if len(np.unique(labels.annotator)) < 2:
        return "only one annotator" if len(labels) else "no answers"
    return "" if pairable else "no item has two answers"


def _mid_ranks(marginals: Reals) -> Reals:
    """Each class's mid-rank among all answers: ordinal alpha is interval alpha on these.

    Krippendorff's ordinal δ_ck = Σ_{g=c..k} n_g − (n_c + n_k)/2 is the difference of mid-ranks.
    """
    return np.asarray(np.cumsum(marginals, axis=1) - marginals / 2, dtype=np.float64)


def _ratio_to_one(observed: Reals, expected: Reals) -> Reals:
    """1 − observed/expected, NaN where nothing is expected (a resample without variation)."""
    some = expected > 1e-9
    ratio = np.divide(observed, expected, out=np.full_like(expected, np.nan), where=some)
    return np.asarray(1 - ratio, dtype=np.float64)


def raw_agreement(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Estimate:
    """The share of pairs of answers to one item that agree; n counts pairable items.

    Where all pairs agree, or none does, the interval is Wilson's over items.
    """
    found = patterns(labels)
    n = int(found.multiplicity.sum())
    reason = _nothing_to_compare(labels, n)
    if reason:
        return undefined(reason, n, OVER)
    sizes = found.sizes
    pairs = sizes * (sizes - 1)
    agreeing = np.asarray(found.counts.power(2).sum(axis=1), dtype=np.float64) - sizes
    if np.all(agreeing == pairs) or not agreeing.any():
        return wilson(float(n if agreeing.any() else 0), n, over=OVER, level=confidence)

    def share(weights: Reals) -> Reals:
        return np.asarray((weights @ agreeing) / (weights @ pairs), dtype=np.float64)

    return bootstrap(
        share, found.multiplicity, over=OVER, seed=seed, resamples=resamples, level=confidence
    )


@dataclass(frozen=True)
class PairKappa:
    """Cohen's kappa of two annotators, and the share of common items on which they agree."""

    first: str
    second: str
    kappa: Estimate
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {
            "annotators": [self.first, self.second],
            "kappa": self.kappa.to_dict(),
            "agreement": self.agreement,
        }


def pairwise_kappas(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
    intervals: int = INTERVALS,
) -> list[PairKappa]:
    """Cohen's kappa of every two annotators with an item in common, most common items first.

    The first `intervals` pairs have a bootstrap interval; the others say that they have none. Kappa
    is undefined where both gave all common items one and the same label.
    """
    tables = _contingency(labels)
    order = np.argsort(-tables.n, kind="stable")
    starts = np.searchsorted(tables.pair, np.arange(len(tables.n) + 1))
    kappas = []
    for place, pair in enumerate(order):
        cells = slice(starts[pair], starts[pair + 1])
        kappa, agreement = _kappa(
            tables.row[cells], tables.column[cells], tables.count[cells],
            seed=seed, resamples=resamples if place < intervals else 0, confidence=confidence,
        )  # fmt: skip
        first, second = tables.first[pair], tables.second[pair]
        kappas.append(
            PairKappa(labels.annotators[first], labels.annotators[second], kappa, agreement)
        )
    return kappas


@dataclass(frozen=True)
class _Contingency:
    """Every pair's table of labels, as its non-empty cells sorted by pair."""

    first: Codes  # annotator, shape (pairs,)
    second: Codes
    n: Codes  # common items, shape (pairs,)
    pair: Codes  # shape (cells,)
    row: Codes  # the first annotator's label
    column: Codes  # the second's
    count: Codes


def _contingency(labels: Labels) -> _Contingency:
    """All tables at once: ZᵀZ of the indicator Z of (annotator, label) by item."""
    classes, people = len(labels.classes), len(labels.annotators)
    said = labels.annotator * classes + labels.label
    indicator = sp.csr_array(
        (np.ones(len(labels), dtype=np.int64), (labels.item, said)),
        shape=(len(labels.items), people * classes),
    )
    product = sp.coo_array(indicator.T @ indicator)
    rows = np.asarray(product.coords[0], dtype=np.int64)
    columns = np.asarray(product.coords[1], dtype=np.int64)
    first, second = rows // classes, columns // classes
    upper = first < second
    key, pair = np.unique((first * people + second)[upper], return_inverse=True)
    count = np.asarray(product.data, dtype=np.int64)[upper]
    order = np.argsort(pair, kind="stable")
    return _Contingency(
        first=key // max(people, 1),
        second=key % max(people, 1),
        n=np.bincount(pair, weights=count, minlength=len(key)).astype(np.int64),
        pair=pair[order],
        row=(rows % classes)[upper][order] if classes else rows,
        column=(columns % classes)[upper][order] if classes else columns,
        count=count[order],
    )


def _kappa(
    row: Codes, column: Codes, count: Codes, *, seed: int, resamples: int, confidence: float
) -> tuple[Estimate, float]:
    """Kappa of one pair from the cells of its table, and their raw agreement."""
    n = int(count.sum())
    same = row == column
    names, both = np.unique(np.concatenate([row, column]), return_inverse=True)
    one_hot = np.eye(len(names))
    by_row, by_column = one_hot[both[: len(row)]], one_hot[both[len(row) :]]

    def kappa(weights: Reals) -> Reals:
        chance = ((weights @ by_row) * (weights @ by_column)).sum(axis=1) / n**2
        return _ratio_to_one(1 - weights @ same / n, np.asarray(1 - chance))

    agreement = float(count[same].sum() / n)
    if len(names) == 1:
        return undefined("both gave every item the same label", n, OVER), agreement
    if resamples == 0:
        value = float(kappa(count[None, :].astype(np.float64))[0])
        reason = "made for the pairs with most items in common only"
        return Estimate(value, None, None, n, "none", OVER, None, confidence, reason), agreement
    estimate = bootstrap(kappa, count, over=OVER, seed=seed, resamples=resamples, level=confidence)
    return estimate, agreement
