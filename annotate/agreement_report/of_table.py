"""Agreement on anybody's file of answers: `handloom agreement --table FILE --kind KIND`.

The file has the columns item, annotator, label and, if they are known, time, guideline and prompt.
What a label looks like depends on the kind of question:

    label        any word or number            urgent
    rating       a number                      4
    pairwise     a, b or tie, or a whole       a        (the first is better)
                 number from -3 to 3           2        (the first is better, by two steps)
    multi-label  labels separated by |         spam|rude      | alone: none of them
    ranking      > between, = where tied       x>z=y    (x is best)
    text         any text                      Paris
    span         stretches as first character  3-9:error|12-15:style   | alone: none; "3-9" names
                 and the one after the last    no class; counted from 0

Where texts were marked, the column length says how many characters an item's text has: without it
nothing is known of those that nobody marked. A cell of another form is set aside with its line and
reason, like a row that lacks a column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from annotate.agreement import Level
from annotate.agreement_report.length import COMPARISONS, NO_TEXTS, no_baseline
from annotate.agreement_report.report import Measured, agreement_report, by_version, require_names
from annotate.annotations import (
    NO_SPAN,
    UNKNOWN_LENGTH,
    Codes,
    MultiLabels,
    Rankings,
    Spans,
    Texts,
)
from annotate.errors import InputError
from annotate.label_table import LabelTable, read_label_table
from annotate.labels import EXACT, Labels, factorize
from annotate.question_labels import Answers
from annotate.votes import CLASSES

TableKind = Literal["label", "rating", "pairwise", "multi-label", "ranking", "text", "span"]

_SPAN = re.compile(r"(\d{1,15})-(\d{1,15})(?::(.+))?")
_SIDES = {"b": -1, "tie": 0, "a": 1}
_OF_ALL = ("items", "annotators", "prompt", "guidelines")
_OPEN: frozenset[TableKind] = frozenset({"label", "rating"})
"""Kinds whose classes are those that somebody gave."""


def agreement_of_table(
    path: Path,
    level: Level | None = None,
    *,
    kind: TableKind = "label",
    mix_guidelines: bool = False,
    without: Sequence[str] = (),
    seed: int = 0,
) -> Measured:
    """Agreement on a file with the columns item, annotator, label.

    Args:
        path: a CSV or Parquet file.
        level: of labels of the kind "label": names (the default), ranks or quantities.
        kind: what a label is; see above.
        mix_guidelines: take all versions of one task's guideline together, each annotator's latest
            answer counting, instead of one report each.
        without: annotators whose answers are left out.
        seed: of the intervals.

    Raises:
        InputError: the file cannot be used, the level needs numbers that the labels are not, the
            kind has levels of its own, or nobody of a name in `without` answered.
    """
    if level is not None and kind != "label":
        raise InputError(f"--level goes with --kind label; {kind} has levels of its own")
    table = read_label_table(
        path, check=_CHECKS.get(kind), numbers=kind != "text", lengths=kind == "span"
    )
    require_names(without, table.labels.annotators)
    reports = {}
    for question, answers in _asked(table, kind, without).items():
        parts = by_version(answers, mixed=mix_guidelines)
        for names, part in parts.items():
            if kind in _OPEN and isinstance(part, Labels):
                # What another version or somebody left out said was no choice here.
                part = part.of_given_classes()
            told = ", ".join(name or "no guideline" for name in names)
            reports[f"{question} ({told})" if len(parts) > 1 else question] = agreement_report(
                part,
                level,
                kind="strength" if question == "strength" else kind,
                guidelines=names,
                baseline=no_baseline(part, NO_TEXTS) if kind in COMPARISONS else None,
                seed=seed,
            )
    return Measured(str(path), reports, table.quarantine.to_pylist(), table.merged)


def _asked(table: LabelTable, kind: TableKind, without: Sequence[str]) -> dict[str, Answers]:
    labels = table.labels.without(without)
    return _spans(labels, table.lengths) if kind == "span" else _QUESTIONS[kind](labels)


def read_judgeable(path: Path, kind: TableKind | None = None) -> LabelTable:
    """The labels of a file whose true classes can be asked for: names, or sides of comparisons.

    Args:
        path: as for `read_label_table`.
        kind: what a label is; names if None.

    Raises:
        InputError: the file cannot be used, or its kind has no classes that are right or wrong.
    """
    if kind not in (None, "label", "pairwise"):
        raise InputError(
            f"of --kind {kind} nobody's labels are right or wrong as a whole: a label one step off "
            "would count like any other",
            remedy=f"`handloom agreement --table {path} --kind {kind}` measures how far people "
            "agree; where your labels are names, --kind label",
        )
    table = read_label_table(path, check=_CHECKS.get(kind) if kind else None)
    return replace(table, labels=_signed(table.labels)[0]) if kind == "pairwise" else table


def taken_as_names(labels: Labels, kind: TableKind | None) -> str:
    """A warning where labels look like ratings or rankings and nobody said what they are."""
    names = labels.classes
    if kind is not None or len(names) < 3:
        return ""
    if all(not _no_number(name) for name in names):
        looks = "rating"
    elif all(">" in name for name in names):
        looks = "ranking"
    else:
        return ""
    return (
        f"labels are taken as names, equal or not; they look like --kind {looks}, which `handloom "
        "agreement` measures (--kind label: they are names)"
    )


def _no_number(cell: str) -> str:
    try:
        number = float(cell)
    except ValueError:
        return f'"{cell}" is no number'
    if not math.isfinite(number):
        return f'"{cell}" is no finite number'
    return "" if abs(number) < EXACT else f'"{cell}" is too large to be told from its neighbours'


def _no_comparison(cell: str) -> str:
    if cell.lower() in _SIDES:
        return ""
    value = math.nan if _no_number(cell) else float(cell)
    if value in range(-3, 4):
        return ""
    return f'"{cell}" is neither a, b nor tie, nor a whole number from -3 to 3'


def _no_set(cell: str) -> str:
    names = [name.strip() for name in cell.split("|")]
    if cell.strip() == "|":
        return ""
    if not all(names):
        return f'"{cell}" has an empty label between its |'
    return f'"{cell}" names a label twice' if len(set(names)) < len(names) else ""


def _no_ranking(cell: str) -> str:
    names = [name for names in _ranks(cell) for name in names]
    if not all(names):
        return f'"{cell}" has an empty place between its > and ='
    if len(set(names)) < len(names):
        return f'"{cell}" ranks an option twice'
    return "" if len(names) > 1 else f'"{cell}" ranks one option; write the best first, as in x>y=z'


def _ranks(cell: str) -> list[list[str]]:
    """The options of each rank, the best first."""
    return [[name.strip() for name in rank.split("=")] for rank in cell.split(">")]


def _no_spans(cell: str) -> str:
    if cell.strip() == "|":
        return ""
    for part in cell.split("|"):
        found = _SPAN.fullmatch(part.strip())
        if found is None:
            return f'"{cell}" has a span that is not like 3-9:error'
        if int(found[1]) >= int(found[2]):
            return f'"{cell}" has a span that ends before it begins'
    return ""


_CHECKS: Mapping[TableKind, Callable[[str], str]] = {
    "span": _no_spans,
    "rating": _no_number,
    "pairwise": _no_comparison,
    "multi-label": _no_set,
    "ranking": _no_ranking,
}


def _comparisons(labels: Labels) -> dict[str, Answers]:
    """The votes, and the strengths where every answer has one."""
    votes, signed = _signed(labels)
    if any(name.lower() in _SIDES for name in labels.classes):
        return {"vote": votes}
    values, place = np.unique(signed, return_inverse=True)
    strengths = replace(labels, label=place[labels.label], classes=[str(v) for v in values])
    return {"vote": votes, "strength": strengths}


def _signed(labels: Labels) -> tuple[Labels, Codes]:
    """Votes for a, b or neither, and the strength of each class of the labels."""
    words = [name.lower() in _SIDES for name in labels.classes]
    signed = np.array(
        [
            _SIDES[name.lower()] if word else int(float(name))
            for name, word in zip(labels.classes, words, strict=True)
        ],
        dtype=np.int64,
    )
    votes = replace(labels, label=np.sign(signed)[labels.label] + 1, classes=list(CLASSES))
    return votes, signed


def _sets(labels: Labels) -> dict[str, Answers]:
    named = [[part.strip() for part in cell.split("|") if part.strip()] for cell in labels.classes]
    classes = sorted({name for names in named for name in names})
    place = {name: code for code, name in enumerate(classes)}
    held = np.zeros((len(named), len(classes)), dtype=np.int64)
    for row, names in enumerate(named):
        held[row, [place[name] for name in names]] = 1
    member = sp.csr_array(held)[labels.label]
    return {"labels": MultiLabels(**_who(labels), member=member, classes=classes)}


def _orders(labels: Labels) -> dict[str, Answers]:
    """One row an answer and option; an option is one of its item's."""
    ranks = [
        [(name, rank) for rank, names in enumerate(_ranks(cell), 1) for name in names]
        for cell in labels.classes
    ]
    answer, cell = _expanded(labels, np.array([len(order) for order in ranks], dtype=np.int64))
    code, names = factorize([name for order in ranks for name, _ in order])
    rank = np.array([rank for order in ranks for _, rank in order], dtype=np.int64)
    key = labels.item[answer] * len(names) + code[cell]
    item_option, option = np.unique(key, return_inverse=True)
    options = [names[at % len(names)] for at in item_option]
    who = _who(labels, answer)
    return {"ranking": Rankings(**who, option=option, rank=rank[cell], options=options)}


def _spans(labels: Labels, lengths: Codes | None) -> dict[str, Answers]:
    """One row a span, and one for an answer without any."""
    cells = [
        [found.groups() for found in map(_SPAN.fullmatch, map(str.strip, cell.split("|"))) if found]
        for cell in labels.classes
    ]
    parts = [part for cell in cells for part in cell or [("0", "0", None)]]
    answer, part = _expanded(labels, np.array([len(cell) or 1 for cell in cells], dtype=np.int64))
    marks = np.array([end != "0" for _, end, _ in parts], dtype=bool)
    code, names = factorize([name or "" for _, _, name in parts])
    label = np.where(marks, code, NO_SPAN)
    start, end = (np.array([int(one[at]) for one in parts], dtype=np.int64) for at in (0, 1))
    who = _who(labels, answer)
    if lengths is None:
        lengths = np.full(len(labels.items), UNKNOWN_LENGTH)
    else:
        _require_within(labels, who["item"], end[part], lengths)
    spans = Spans(
        **who, start=start[part], end=end[part], label=label[part], length=lengths, classes=names
    )
    return {"span": spans}


def _require_within(labels: Labels, item: Codes, end: Codes, lengths: Codes) -> None:
    over = np.flatnonzero(end > lengths[item])
    if len(over):
        at = over[0]
        raise InputError(
            f"a span ends at {end[at]} in a text of {lengths[item[at]]} characters",
            where=f"item {labels.items[item[at]]}",
            remedy="Count characters from 0, the end being the one after the last",
        )


def _expanded(labels: Labels, sizes: Codes) -> tuple[Codes, Codes]:
    """Each answer as often as its label has parts: the answer, and which of all labels' parts.

    Args:
        sizes: parts of each label, shape (classes,).
    """
    starts = np.cumsum(sizes) - sizes
    length = sizes[labels.label]
    answer = np.repeat(np.arange(len(labels)), length)
    within = np.arange(len(answer)) - np.repeat(np.cumsum(length) - length, length)
    return answer, starts[labels.label][answer] + within


def _texts(labels: Labels) -> dict[str, Answers]:
    text = np.array(labels.classes, dtype=object)[labels.label]
    return {"text": Texts(**_who(labels), text=text)}


def _who(labels: Labels, rows: Codes | None = None) -> dict[str, Any]:
    """Everything of the answers but their labels: of all, or of these, each as often as named."""
    told: dict[str, Any] = {name: getattr(labels, name) for name in _OF_ALL}
    for name in ("item", "annotator", "time", "guideline"):
        column = getattr(labels, name)
        told[name] = column if rows is None or column is None else column[rows]
    return told


_QUESTIONS: Mapping[TableKind, Callable[[Labels], dict[str, Answers]]] = {
    "label": lambda labels: {"label": labels},
    "rating": lambda labels: {"rating": labels},
    "pairwise": _comparisons,
    "multi-label": _sets,
    "ranking": _orders,
    "text": _texts,
}
