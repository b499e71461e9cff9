"""Whether a whole panel's agreement drifts: are prompts that were answered later disputed more?"""

from __future__ import annotations

import numpy as np

from annotate.annotations import NO_TIME
from annotate.annotators.panel import Panel
from annotate.annotators.questions import minority

MIN_ITEMS = 20
"""With fewer there is no test."""


def panel_trend(panel: Panel) -> tuple[float, int, str]:
    """z of a permutation test of ranks, how many prompts it rests on, and why there is no z.

    Each prompt counts once, whose items are as hard as it is; an item where prompts are not known.
    It counts with the share of its answers that are in the minority (half of two that differ) and
    the mean time of its answers. z compares the sum of share × rank of time with its permutation
    variance (Hájek and Šidák 1967, theorem II.3.1.c).
    """
    labels = panel.labels
    if labels.time is None:
        return np.nan, 0, "when people answered is not known"
    fewer, answers = minority(panel)
    usable = (answers > 1) & (labels.time != NO_TIME)
    items, item = np.unique(panel.prompts[usable], return_inverse=True)
    if len(items) < MIN_ITEMS:
        return np.nan, len(items), "too few items that several people answered at a known time"
    n = np.bincount(item)
    when = labels.time[usable] - labels.time[usable].min()
    order = np.argsort(np.bincount(item, when) / n, kind="stable")
    rank = np.empty(len(items))
    rank[order] = np.arange(len(items))
    mean = np.bincount(labels.item, labels.label) / np.maximum(np.bincount(labels.item), 1)
    halves = np.where(mean[labels.item] != labels.label, 0.5, 0.0)
    split = np.where(answers == 2, halves, fewer)[usable]
    share = np.bincount(item, split) / n
    rank, share = rank - rank.mean(), share - share.mean()
    variance = (rank**2).sum() * (share**2).sum() / (len(items) - 1)
    if variance <= 0:
        return np.nan, len(items), "every item is disputed alike"
    return float((rank * share).sum() / np.sqrt(variance)), len(items), ""
