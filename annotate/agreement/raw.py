"""Agreement as it is, without chance taken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from annotate.agreement.figure import Figure, Interval
from annotate.agreement.patterns import contributions, patterns
from annotate.agreement.reasons import distinct, nothing_to_compare, over_items, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.labels import Labels
from annotate.statistics import LEVEL, RESAMPLES, Reals, wilson

DEFINITION = "Raw agreement: the share of pairs of answers to one item that are equal"


def raw_agreement(
    labels: Labels,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = LEVEL,
) -> Figure:
    """The share of pairs of answers to one item that agree.

    Where all pairs agree, or none does, the interval over items is Wilson's.
    """
    found = patterns(labels)
    n = found.pairable
    reason = nothing_to_compare(labels, n)
    if reason:
        return undefined_figure(labels, reason, DEFINITION, pairable=n)

    def features(counts: sp.csr_array) -> sp.csr_array:
        sizes = np.asarray(counts.sum(axis=1), dtype=np.float64)
        squares = np.asarray(counts.power(2).sum(axis=1), dtype=np.float64)
        return sp.csr_array(np.stack([squares - sizes, sizes * (sizes - 1)], axis=1))

    parts = contributions(labels, found, features)
    how = Resampling(seed, resamples, confidence)
    figure = measured(labels, parts, share, DEFINITION, how, pairable=n, least=0)
    return at_the_ends(figure, labels, confidence)


def share(sums: Reals) -> Reals:
    """The first of two sums over the second; NaN where the second is 0."""
    part, whole = sums[:, 0], sums[:, 1]
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 1e-9)


def at_the_ends(figure: Figure, labels: Labels, confidence: float = LEVEL) -> Figure:
    """At 0 and 1 no resample varies; Wilson's interval still says something.

    It counts each item once, however many answered it, or each prompt where the data name them.
    """
    if figure.value not in (0.0, 1.0):
        return figure
    units = figure.n
    if labels.prompt is not None:
        units = min(units, distinct(labels.prompt[labels.item]))
    ends = wilson(figure.value * units, units, level=confidence)
    panel = Interval(ends.low, ends.high, over_items(labels), "Wilson", confidence)
    return replace(figure, over_items=panel, method="Wilson")
