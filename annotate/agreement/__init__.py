"""How far annotators agree, for every kind of answer: pure functions of columns.

Every measure is `measure(data, *, seed=0, resamples=2000) -> Figure`: its value, where it would lie
on other items judged by this panel and with other people like these, and where it is undefined the
reason. Answers may be missing anywhere.
"""

from annotate.agreement.alpha import (
    LEVELS,
    Level,
    alpha_by_distance,
    coincidences,
    krippendorff_alpha,
)
from annotate.agreement.concordance import kendall_w
from annotate.agreement.figure import Figure, Interval
from annotate.agreement.gwet import gwet_ac1, gwet_ac2
from annotate.agreement.kappa import KappaTable, PairKappa, confusion, kappa_table, pairwise_kappas
from annotate.agreement.multilabel import jaccard_alpha, label_alphas, masi_alpha
from annotate.agreement.pairwise import (
    TIE,
    no_tie_agreement,
    no_tie_alpha,
    strength_alpha,
    three_way_alpha,
    tie_rate,
    without_ties,
)
from annotate.agreement.patterns import Patterns, patterns
from annotate.agreement.ranking import implied_alpha, implied_pairs, kendall_tau, top_choice
from annotate.agreement.rating import RatingScale, rating_scales
from annotate.agreement.raw import raw_agreement
from annotate.agreement.spans import character_alpha, exact_f1, overlap_f1
from annotate.agreement.texts import exact_match, word_overlap

__all__ = [
    "LEVELS",
    "TIE",
    "Figure",
    "Interval",
    "KappaTable",
    "Level",
    "PairKappa",
    "Patterns",
    "RatingScale",
    "alpha_by_distance",
    "character_alpha",
    "coincidences",
    "confusion",
    "exact_f1",
    "exact_match",
    "gwet_ac1",
    "gwet_ac2",
    "implied_alpha",
    "implied_pairs",
    "jaccard_alpha",
    "kappa_table",
    "kendall_tau",
    "kendall_w",
    "krippendorff_alpha",
    "label_alphas",
    "masi_alpha",
    "no_tie_agreement",
    "no_tie_alpha",
    "overlap_f1",
    "pairwise_kappas",
    "patterns",
    "rating_scales",
    "raw_agreement",
    "strength_alpha",
    "three_way_alpha",
    "tie_rate",
    "top_choice",
    "without_ties",
    "word_overlap",
]
