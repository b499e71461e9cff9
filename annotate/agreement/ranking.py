"""Agreement of rankings: Kendall's tau-b, the first choice, and the pairs that a ranking implies.

Ties and missing options are allowed. Cost: one row for every pair of answers and pair of options.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from annotate.agreement.alpha import krippendorff_alpha
from annotate.agreement.contributions import Pairs, answer_pairs, contributions_of_pairs
from annotate.agreement.figure import OVER_ITEMS, Figure
from annotate.agreement.raw import share
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.agreement.whole_answers import Answers, answers_of
from annotate.annotations import Codes, Rankings
from annotate.labels import Labels
from annotate.statistics import RESAMPLES, Reals

# As votes are: in the order that reversing every pair mirrors.
CLASSES = ["b", "tie", "a"]


def kendall_tau(rankings: Rankings, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Mean tau-b over all pairs of rankings of one item, on the options that both ranked.

    A pair counts for nothing where one of the two ties everything the other ranked.
    """
    definition = "Mean Kendall's tau-b of two people's rankings of an item (Kendall 1945)"
    answers = answers_of(rankings.item, rankings.annotator)
    pairs, tau = _taus(rankings, answers)
    values = np.stack([tau, np.ones(len(tau))], axis=1)
    everything = "somebody ties all options wherever two rank the same ones"
    how = Resampling(seed, resamples)
    return _over_pairs(rankings, answers, pairs, values, definition, everything, how)


def top_choice(rankings: Rankings, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """How often two people put the same option first.

    Where several are tied for the first place, one of them is taken at random: the value is the
    chance that both take the same.
    """
    definition = "Top-1 agreement: the chance that two people put the same option of an item first"
    answers = answers_of(rankings.item, rankings.annotator)
    best = np.full(len(answers), np.iinfo(np.int64).max)
    np.minimum.at(best, answers.of_row, rankings.rank)
    first = np.flatnonzero(rankings.rank == best[answers.of_row])
    tied = np.bincount(answers.of_row[first], minlength=len(answers))
    pairs = answer_pairs(answers.item)
    cell = rankings.item[first] * (len(rankings.options) + 1) + rankings.option[first]
    order = np.lexsort([answers.of_row[first], cell])
    met = answer_pairs(cell[order])
    one, two = (answers.of_row[first[order]][side] for side in (met.first, met.second))
    keys = np.concatenate([pairs.first * len(answers) + pairs.second, one * len(answers) + two])
    chance = np.concatenate([np.zeros(len(pairs.first)), 1 / (tied[one] * tied[two])])
    # Answers are sorted by item, so that the keys of all pairs come out in their own order.
    key, place = np.unique(keys, return_inverse=True)
    values = np.stack([np.bincount(place, chance, len(key)), np.ones(len(key))], axis=1)
    pairs = Pairs(key // max(len(answers), 1), key % max(len(answers), 1))
    how = Resampling(seed, resamples)
    return _over_pairs(rankings, answers, pairs, values, definition, "", how)


def implied_alpha(rankings: Rankings, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Nominal alpha on the pairs that rankings imply; `n_pairable` counts pairs of options."""
    pairs = implied_pairs(rankings)
    figure = krippendorff_alpha(pairs, seed=seed, resamples=resamples)
    if rankings.prompt is None:  # then the clusters are the items that were ranked
        figure = replace(figure, over_items=replace(figure.over_items, over=OVER_ITEMS))
    return replace(figure, definition=f"On the implied pairs. {figure.definition}")


def implied_pairs(rankings: Rankings) -> Labels:
    """Each answer's verdict on each pair of options that it ranked: a where the first is better.

    Pairs of one ranked item share a prompt: they depend on each other.
    """
    answers = answers_of(rankings.item, rankings.annotator)
    first, second = _option_pairs(rankings, answers)
    options = len(rankings.options)
    key = (rankings.item[first] * options + rankings.option[first]) * options
    cell, item = np.unique(key + rankings.option[second], return_inverse=True)
    of_item = cell // max(options, 1) ** 2
    names = [
        f"{rankings.items[at]}: {rankings.options[one]} {rankings.options[two]}"
        for at, one, two in zip(
            of_item, cell // max(options, 1) % max(options, 1), cell % max(options, 1), strict=True
        )
    ]
    return Labels(
        item,
        rankings.annotator[first],
        np.sign(rankings.rank[second] - rankings.rank[first]) + 1,
        names,
        rankings.annotators,
        CLASSES,
        prompt=of_item if rankings.prompt is None else rankings.prompt[of_item],
        time=None if rankings.time is None else rankings.time[first],
        guideline=None if rankings.guideline is None else rankings.guideline[first],
        guidelines=rankings.guidelines,
    )


def _option_pairs(rankings: Rankings, answers: Answers) -> tuple[Codes, Codes]:
    """Rows of every two options of one answer, the one with the smaller code first."""
    version = rankings.guideline if rankings.guideline is not None else np.zeros_like(rankings.item)
    order = np.lexsort([rankings.option, version, answers.of_row])
    one_answer = answers.of_row[order] * (int(version.max(initial=0)) + 1) + version[order]
    pairs = answer_pairs(one_answer)
    return order[pairs.first], order[pairs.second]


def _taus(rankings: Rankings, answers: Answers) -> tuple[Pairs, Reals]:
    """Pairs of answers with a tau-b, and that."""
    first, second = _option_pairs(rankings, answers)
    sign = np.sign(rankings.rank[second] - rankings.rank[first]).astype(np.float64)
    answer = answers.of_row[first]
    options = len(rankings.options)
    cell = (rankings.item[first] * options + rankings.option[first]) * options
    order = np.lexsort([answer, cell + rankings.option[second]])
    met = answer_pairs((cell + rankings.option[second])[order])
    one, two = order[met.first], order[met.second]
    key, place = np.unique(answer[one] * len(answers) + answer[two], return_inverse=True)
    together = np.bincount(place, sign[one] * sign[two], len(key))
    untied = np.bincount(place, sign[one] ** 2, len(key)) * np.bincount(
        place, sign[two] ** 2, len(key)
    )
    some = untied > 0
    pairs = Pairs(key[some] // max(len(answers), 1), key[some] % max(len(answers), 1))
    return pairs, together[some] / np.sqrt(untied[some])


def _over_pairs(
    rankings: Rankings,
    answers: Answers,
    pairs: Pairs,
    values: Reals,
    definition: str,
    otherwise: str,
    how: Resampling,
) -> Figure:
    """A mean over pairs of answers: the first of two sums over the second."""
    items = len(rankings.items)
    parts = contributions_of_pairs(answers.item, answers.annotator, pairs, values, items)
    n = int((parts.share >= 0).sum())
    several = len(answers.item) > len(np.unique(answers.item))
    reason = nothing_to_compare(rankings, int(several)) or ("" if n else otherwise)
    if reason:
        return undefined_figure(rankings, reason, definition)
    return measured(rankings, parts, share, definition, how, pairable=n, least=-1)
