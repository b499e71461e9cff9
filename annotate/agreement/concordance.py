"""Kendall's coefficient of concordance W, corrected for ties: one figure for many rankings."""

from __future__ import annotations

import numpy as np

from annotate.agreement.contributions import Contributions, added, contributions_of_items
from annotate.agreement.figure import Figure
from annotate.agreement.raw import share
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.agreement.whole_answers import Answers, answers_of
from annotate.annotations import Codes, Rankings
from annotate.statistics import RESAMPLES, Reals


def kendall_w(rankings: Rankings, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Mean of Kendall's W over items, corrected for ties.

    Only those who ranked all of an item's options count. Of m people who rank at random W is 1/m.
    """
    definition = (
        "Mean of Kendall's W of an item's complete rankings, corrected for ties (Kendall and "
        "Babington Smith 1939); 1/m for m people who rank at random"
    )
    answers = answers_of(rankings.item, rankings.annotator)
    parts = _concordance(rankings, answers)
    n = int((parts.share >= 0).sum())
    reason = nothing_to_compare(rankings, n)
    if reason == "no item has two answers":
        reason = "no item has two complete rankings that prefer anything"
    if reason:
        return undefined_figure(rankings, reason, definition)
    how = Resampling(seed, resamples)
    return measured(rankings, parts, share, definition, how, pairable=n, least=0)


def _concordance(rankings: Rankings, answers: Answers) -> Contributions:
    """W of each item, and of each item without each of its answers."""
    items, options = len(rankings.items), len(rankings.options) + 1
    cell, place = np.unique(rankings.item * options + rankings.option, return_inverse=True)
    of_cell = cell // options
    wanted = np.bincount(of_cell, minlength=items)
    ranked = np.bincount(answers.of_row, minlength=len(answers))
    complete = ranked == wanted[answers.item]
    rank, ties = _mid_ranks(rankings, answers)
    rows = complete[answers.of_row]
    total = added(place[rows], rank[rows], len(cell))  # of each option
    people = np.bincount(answers.item[complete], minlength=items)
    tied = added(answers.item[complete], ties[complete], items)
    mean = added(of_cell, total, items) / np.maximum(wanted, 1)
    squares = added(of_cell, (total - mean[of_cell]) ** 2, items)
    whole = _w(squares, people, wanted, tied)
    at = answers.item
    # An answer's ranks have the mean (n + 1)/2, whoever ties what.
    centred = (total - mean[of_cell])[place] - (rank - (wanted[rankings.item] + 1) / 2)
    rest = added(answers.of_row, centred**2, len(answers))
    without = _w(rest, people[at] - 1, wanted[at], tied[at] - ties)
    counts = people[at] >= 2
    loss = np.where((complete & counts)[:, None], _mean_of(whole)[at] - _mean_of(without), 0)
    return contributions_of_items(answers.item, answers.annotator, _mean_of(whole), loss)


def _mean_of(values: Reals) -> Reals:
    """A value and one, or two zeros where there is no value: the sums of a mean."""
    known = ~np.isnan(values)
    return np.stack([np.where(known, values, 0), known], axis=1)


def _w(squares: Reals, people: Codes, options: Codes, ties: Reals) -> Reals:
    """Kendall's W; NaN for fewer than two people, and where all of them tie all options."""
    most = people**2 * (options**3 - options) - people * ties
    value = np.full(len(squares), np.nan)
    np.divide(12 * squares, most, out=value, where=(people >= 2) & (most > 1e-9))
    return value


def _mid_ranks(rankings: Rankings, answers: Answers) -> tuple[Reals, Reals]:
    """Each row's rank, 1 to n, ties at their mean; and Σ (t³ − t) of each answer."""
    order = np.lexsort([rankings.rank, answers.of_row])
    answer, rank = answers.of_row[order], rankings.rank[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (answer[1:] != answer[:-1]) | (rank[1:] != rank[:-1])
    group = np.cumsum(new) - 1
    size = np.bincount(group)
    start = np.searchsorted(answer, np.arange(len(answers)))
    place = np.flatnonzero(new)[group] - start[answer] + 1 + (size[group] - 1) / 2
    ranks = np.empty(len(order))
    ranks[order] = place
    ties = added(answer[new], (size**3 - size).astype(np.float64), len(answers))
    return ranks, ties
