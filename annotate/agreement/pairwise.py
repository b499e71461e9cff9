"""Comparisons of two outputs, with ties: what is lost, and what is gained, by leaving ties out.

Which output is called a is an accident of ids, so a class and its mirror are equally frequent but
for chance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from annotate.agreement.alpha import krippendorff_alpha
from annotate.agreement.figure import Figure
from annotate.agreement.patterns import contributions, patterns
from annotate.agreement.raw import at_the_ends, raw_agreement, share
from annotate.agreement.reasons import distinct, nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.labels import Labels
from annotate.statistics import RESAMPLES

TIE = "tie"
"""The class of a vote that prefers neither; of a strength it is "0"."""


def three_way_alpha(votes: Labels, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Nominal alpha on votes for a, for b and for neither."""
    return _called("three-way alpha", krippendorff_alpha(votes, seed=seed, resamples=resamples))


def strength_alpha(strengths: Labels, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Ordinal alpha on signed strengths, −3 to 3, a tie being 0.

    Raises:
        InputError: strengths that are not numbers.
    """
    figure = krippendorff_alpha(strengths, "ordinal", seed=seed, resamples=resamples)
    return _called("alpha on strength", figure)


def no_tie_alpha(
    votes: Labels, *, tie: str = TIE, seed: int = 0, resamples: int = RESAMPLES
) -> Figure:
    """Nominal alpha on the votes that prefer one; who called a tie is taken not to have answered.

    For strengths `tie` is "0", and those of one sign are taken to be the same.
    """
    figure = krippendorff_alpha(without_ties(votes, tie), seed=seed, resamples=resamples)
    return _called("alpha without ties", _all_ties(votes, tie, figure))


def no_tie_agreement(
    votes: Labels, *, tie: str = TIE, seed: int = 0, resamples: int = RESAMPLES
) -> Figure:
    """Raw agreement on the votes that prefer one, as studies of preferences report it."""
    figure = raw_agreement(without_ties(votes, tie), seed=seed, resamples=resamples)
    return _called("raw agreement without ties", _all_ties(votes, tie, figure))


def tie_rate(votes: Labels, *, tie: str = TIE, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """The share of answers that prefer neither; `n_pairable` counts all items with an answer.

    At 0 and 1 the interval over items is Wilson's, on items or prompts.
    """
    definition = "Tie rate: the share of answers that prefer neither"
    n = distinct(votes.item)
    reason = nothing_to_compare(votes, n)
    if reason and reason != "only one annotator":
        return undefined_figure(votes, reason, definition, pairable=n)
    ties = np.array([name == tie for name in votes.classes], dtype=np.float64)

    def features(counts: sp.csr_array) -> sp.csr_array:
        sizes = np.asarray(counts.sum(axis=1), dtype=np.float64)
        return sp.csr_array(np.stack([np.asarray(counts @ ties), sizes], axis=1))

    parts = contributions(votes, patterns(votes, least=1), features)
    how = Resampling(seed, resamples)
    figure = measured(votes, parts, share, definition, how, pairable=n, least=0)
    return at_the_ends(figure, votes)


def without_ties(votes: Labels, tie: str = TIE) -> Labels:
    """The answers that prefer one, by the sign of their strength where classes are numbers."""
    keep = np.array([name != tie for name in votes.classes], dtype=bool)
    rest = votes.select(keep[votes.label] if len(votes) else np.zeros(0, dtype=bool))
    values = rest.values
    if not len(values) or np.isnan(values).any():
        return rest
    return replace(rest, label=(values > 0).astype(np.int64)[rest.label], classes=["-1", "1"])


def _all_ties(votes: Labels, tie: str, figure: Figure) -> Figure:
    """The figure, with the true reason where nobody preferred anything."""
    if len(votes) and {votes.classes[code] for code in np.unique(votes.label)} == {tie}:
        return undefined_figure(votes, "every answer is a tie", figure.definition)
    return figure


def _called(name: str, figure: Figure) -> Figure:
    return replace(figure, definition=f"{name[0].upper()}{name[1:]}. {figure.definition}")
