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
from annotate.agreement.figure import Figure, Interval
from annotate.agreement.gwet import gwet_ac1, gwet_ac2
from annotate.agreement.kappa import (
    KappaTable,
    PairKappa,
    confusion,
    kappa_table,
    pairwise_kappas,
)
from annotate.agreement.patterns import Patterns, patterns
from annotate.agreement.raw import raw_agreement

__all__ = [
    "LEVELS",
    "Figure",
    "Interval",
    "KappaTable",
    "Level",
    "PairKappa",
    "Patterns",
    "alpha_by_distance",
    "coincidences",
    "confusion",
    "gwet_ac1",
    "gwet_ac2",
    "kappa_table",
    "krippendorff_alpha",
    "pairwise_kappas",
    "patterns",
    "raw_agreement",
]
