"""How far annotators agree, for every kind of answer."""

from annotate.agreement.alpha import (
    LEVELS,
    Level,
    PairKappa,
    Patterns,
    krippendorff_alpha,
    pairwise_kappas,
    patterns,
    raw_agreement,
)
from annotate.agreement.figure import Figure, Interval

__all__ = [
    "LEVELS",
    "Figure",
    "Interval",
    "Level",
    "PairKappa",
    "Patterns",
    "krippendorff_alpha",
    "pairwise_kappas",
    "patterns",
    "raw_agreement",
]
