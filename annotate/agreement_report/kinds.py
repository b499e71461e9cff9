"""Which agreement figures belong to which kind of question: the report's table of contents.

Each kind has its figures in order, the headline first. A figure is made by one function of
`annotate.agreement`; what is dropped or renumbered before that is said here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, get_args

from annotate.agreement import (
    LEVELS,
    Figure,
    Level,
    character_alpha,
    exact_f1,
    exact_match,
    gwet_ac1,
    gwet_ac2,
    implied_alpha,
    jaccard_alpha,
    kendall_tau,
    kendall_w,
    krippendorff_alpha,
    masi_alpha,
    no_tie_agreement,
    no_tie_alpha,
    overlap_f1,
    raw_agreement,
    tie_rate,
    top_choice,
    word_overlap,
)
from annotate.annotations import MultiLabels, Rankings, Spans, Texts
from annotate.labels import Labels
from annotate.question_labels import Answers, level_of

Kind: TypeAlias = Literal[
    "label", "pairwise", "strength", "rating", "ranking", "multi-label", "text", "span"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

ALPHA = "Krippendorff's alpha"
"""How the names of all alphas begin."""
RAW = "raw agreement"

_OF_QUESTION: dict[str, Kind] = {"vote": "pairwise", "strength": "strength"}
_OF_TYPE: dict[type, Kind] = {
    MultiLabels: "multi-label",
    Rankings: "ranking",
    Spans: "span",
    Texts: "text",
}
_LEVEL_OF_KIND: dict[Kind, Level] = {
    "label": "nominal",
    "pairwise": "nominal",
    "strength": "ordinal",
    "rating": "ordinal",
}


def kind_of(question: str, answers: Answers) -> Kind:
    """The kind of a question, by its name where that says it, else by the form of its answers."""
    if question in _OF_QUESTION:
        return _OF_QUESTION[question]
    if isinstance(answers, Labels):
        return "rating" if level_of(answers) == "ordinal" else "label"
    return _OF_TYPE[type(answers)]


@dataclass(frozen=True)
class Measure:
    """One line of a report."""

    name: str
    of: Callable[..., Figure]
    """Called with the answers, `seed` and `resamples`."""


def measures(kind: Kind, level: Level | None = None) -> list[Measure]:
    """The figures of a kind, its headline first.

    Args:
        kind: of the question.
        level: of the labels of the kind "label", where they are not names.
    """
    if kind == "label" and level not in (None, "nominal"):
        return [_alpha(level), *_OF_KIND["label"]]
    return _OF_KIND[kind]


def headline_level(kind: Kind, level: Level | None = None) -> str:
    """The level of the kind's first alpha; empty where it has none."""
    return level if level is not None else _LEVEL_OF_KIND.get(kind, "")


def _alpha(level: Level) -> Measure:
    return Measure(f"{ALPHA} ({level})", partial(krippendorff_alpha, level=level))


def _in_order(labels: Labels, **settings: int) -> Figure:
    """Ordinal alpha of votes, whose classes b, tie, a stand in that order."""
    return krippendorff_alpha(replace(labels, classes=["-1", "0", "1"]), "ordinal", **settings)


_NOMINAL, _ORDINAL, _INTERVAL = map(_alpha, LEVELS)
_RAW = Measure(RAW, raw_agreement)
_ZERO = "0"
"""What a strength's tie is called."""

_OF_KIND: dict[Kind, list[Measure]] = {
    "label": [_NOMINAL, Measure("AC1", gwet_ac1), _RAW],
    "pairwise": [
        _NOMINAL,
        Measure(_ORDINAL.name, _in_order),
        Measure("Krippendorff's alpha, no ties", no_tie_alpha),
        Measure("AC1", gwet_ac1),
        _RAW,
        Measure("raw agreement, no ties", no_tie_agreement),
        Measure("tie rate", tie_rate),
    ],
    "strength": [
        _ORDINAL,
        Measure("Krippendorff's alpha of the sign, no ties", partial(no_tie_alpha, tie=_ZERO)),
        _INTERVAL,
        Measure("AC2 (quadratic)", gwet_ac2),
        _RAW,
        Measure("raw agreement of the sign, no ties", partial(no_tie_agreement, tie=_ZERO)),
        Measure("tie rate", partial(tie_rate, tie=_ZERO)),
    ],
    "rating": [_ORDINAL, _INTERVAL, Measure("AC2 (quadratic)", gwet_ac2), _RAW],
    "ranking": [
        Measure("Kendall's tau-b", kendall_tau),
        Measure("Kendall's W", kendall_w),
        Measure("top-1 agreement", top_choice),
        Measure("Krippendorff's alpha, implied pairs", implied_alpha),
    ],
    "multi-label": [
        Measure("Krippendorff's alpha (MASI)", masi_alpha),
        Measure("Krippendorff's alpha (Jaccard)", jaccard_alpha),
    ],
    "text": [
        Measure("normalised exact match", exact_match),
        Measure("pairwise similarity (words)", word_overlap),
    ],
    "span": [
        Measure("Krippendorff's alpha (characters)", character_alpha),
        Measure("exact span F1", exact_f1),
        Measure("overlap span F1", overlap_f1),
    ],
}
