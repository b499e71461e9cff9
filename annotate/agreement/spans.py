"""Agreement on marked stretches of text: character by character, and span by span.

Characters are counted in stretches that no span begins or ends in, so that a long text costs as
many rows as it has edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from annotate.agreement.alpha import nominal
from annotate.agreement.contributions import (
    Contributions,
    Pairs,
    answer_pairs,
    contributions_of_pairs,
)
from annotate.agreement.figure import Figure
from annotate.agreement.patterns import contributions, patterns
from annotate.agreement.raw import share
from annotate.agreement.reasons import nothing_to_compare, undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.agreement.whole_answers import Answers, answers_of
from annotate.annotations import NO_SPAN, UNKNOWN_LENGTH, Codes, Spans
from annotate.labels import Labels
from annotate.statistics import RESAMPLES, Reals

_NOTHING = "nobody marked anything in an item that two answered"


@dataclass(frozen=True)
class _Marks:
    """The spans themselves, without rows that say that there is none, each once an answer."""

    answer: Codes
    item: Codes
    start: Codes
    end: Codes
    label: Codes

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def rows(self) -> tuple[Codes, Codes, Codes, Codes]:
        return self.item, self.label, self.start, self.end


def character_alpha(spans: Spans, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Nominal alpha of characters, each with the classes that somebody marked it with, or none."""
    definition = (
        "Character alpha: Krippendorff's nominal alpha with every character a unit, whose label is "
        "the classes it was marked with, or none"
    )
    answers, marks = _marks(spans)
    n = _answered_twice(answers)
    reason = nothing_to_compare(spans, n) or ("" if len(marks) else "nobody marked anything")
    if not reason and (spans.length[answers.item] == UNKNOWN_LENGTH).any():
        reason = "how long the texts are is not known: give them a column length"
    if reason:
        return undefined_figure(spans, reason, definition, pairable=n)
    labels, length, item = _stretches(spans, answers, marks)
    found = patterns(labels)
    features, alpha = nominal(len(labels.classes))
    parts = _by_item(
        contributions(labels, found, features), length, item, answers, len(spans.items)
    )
    return measured(
        spans, parts, alpha, definition, Resampling(seed, resamples), pairable=n,
        otherwise="every character has the same label",
    )  # fmt: skip


def exact_f1(spans: Spans, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """2 × equal spans / all spans, summed over pairs of answers to an item."""
    definition = (
        "Exact span F1: over pairs of answers to an item, 2 × spans that both marked with the same "
        "first and last character and class / spans of both"
    )
    answers, marks = _marks(spans)
    _, cell = np.unique(np.stack(marks.rows, axis=1), axis=0, return_inverse=True)
    order = np.lexsort([marks.answer, cell.reshape(-1)])
    met = answer_pairs(cell.reshape(-1)[order])
    one, two = (marks.answer[order][side] for side in (met.first, met.second))
    matched = np.full(len(one), 2.0)
    return _f1(spans, answers, marks, (one, two, matched), definition, Resampling(seed, resamples))


def overlap_f1(spans: Spans, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Spans that meet one of the other's with their class / all spans, summed over pairs."""
    definition = (
        "Overlap span F1: over pairs of answers to an item, the share of both's spans that have a "
        "character in common with a span of the same class of the other"
    )
    answers, marks = _marks(spans)
    order = np.lexsort([marks.answer, marks.label, marks.item])
    met = answer_pairs((marks.item * (len(spans.classes) + 1) + marks.label)[order])
    one, two = order[met.first], order[met.second]
    overlapping = (marks.start[one] < marks.end[two]) & (marks.start[two] < marks.end[one])
    meet = overlapping & (marks.answer[one] != marks.answer[two])
    one, two = one[meet], two[meet]
    # A span counts once however many of the other's it meets.
    here = np.unique(np.stack([one, marks.answer[two]], axis=1), axis=0)
    there = np.unique(np.stack([two, marks.answer[one]], axis=1), axis=0)
    sides = np.concatenate([marks.answer[here[:, 0]], there[:, 1]])
    others = np.concatenate([here[:, 1], marks.answer[there[:, 0]]])
    cells = (sides, others, np.ones(len(sides)))
    return _f1(spans, answers, marks, cells, definition, Resampling(seed, resamples))


def _marks(spans: Spans) -> tuple[Answers, _Marks]:
    answers = answers_of(spans.item, spans.annotator)
    marked = (spans.label != NO_SPAN) & (spans.end > spans.start)
    columns = (answers.of_row, spans.item, spans.start, spans.end, spans.label)
    distinct = np.unique(np.stack([column[marked] for column in columns], axis=1), axis=0)
    return answers, _Marks(*distinct.T)


def _answered_twice(answers: Answers) -> int:
    return int((np.bincount(answers.item) >= 2).sum()) if len(answers) else 0


def _f1(
    spans: Spans,
    answers: Answers,
    marks: _Marks,
    matched: tuple[Codes, Codes, Reals],
    definition: str,
    how: Resampling,
) -> Figure:
    """The F1 of `matched`: two answers, the one with the smaller index first, and a count."""
    n = _answered_twice(answers)
    pairs = answer_pairs(answers.item)
    one, two, count = matched
    people = max(len(answers), 1)
    keys = np.concatenate([pairs.first * people + pairs.second, one * people + two])
    key, place = np.unique(keys, return_inverse=True)
    pairs = Pairs(key // people, key % people)
    counts = np.concatenate([np.zeros(len(keys) - len(count)), count])
    own = np.bincount(marks.answer, minlength=len(answers))
    both = (own[pairs.first] + own[pairs.second]).astype(np.float64)
    values = np.stack([np.bincount(place, counts, len(key)), both], axis=1)
    parts = contributions_of_pairs(answers.item, answers.annotator, pairs, values, len(spans.items))
    reason = nothing_to_compare(spans, n) or ("" if (parts.share >= 0).any() else _NOTHING)
    if reason:
        return undefined_figure(spans, reason, definition, pairable=n)
    return measured(spans, parts, share, definition, how, pairable=n, least=0)


def _stretches(spans: Spans, answers: Answers, marks: _Marks) -> tuple[Labels, Reals, Codes]:
    """Stretches as items labelled by answers, their lengths, and the item of each."""
    wide = int(max(spans.length.max(initial=0), marks.end.max(initial=0))) + 1
    answered = np.unique(answers.item)
    edges = [answered * wide, answered * wide + spans.length[answered]]
    edges += [marks.item * wide + marks.start, marks.item * wide + marks.end]
    cut = np.unique(np.concatenate(edges))
    item = cut // wide
    # The last cut of an item ends its text; the stretch from there has no characters.
    length = np.where(np.append(item[1:] == item[:-1], False), np.append(np.diff(cut), 0), 0)
    first = np.searchsorted(item, answers.item)
    answer, stretch = _ranges(first, np.searchsorted(item, answers.item, "right"))
    begin = np.searchsorted(cut, marks.item * wide + marks.start)
    mark, covered = _ranges(begin, np.searchsorted(cut, marks.item * wide + marks.end))
    signature = _signatures(marks, mark, covered, len(spans.classes), len(cut))
    cell = marks.answer[mark] * len(cut) + covered
    _, at, code = np.unique(signature, return_index=True, return_inverse=True)
    label = np.zeros(len(answer), dtype=np.int64)
    label[np.searchsorted(answer * len(cut) + stretch, cell)] = code + 1
    classes = ["", *(str(number) for number in range(1, len(at) + 1))]
    people = [str(number) for number in range(len(answers))]
    labels = Labels(
        stretch, answer, label, [str(number) for number in range(len(cut))], people, classes
    )
    return labels, length.astype(np.float64), item


def _signatures(
    marks: _Marks, mark: Codes, covered: Codes, classes: int, stretches: int
) -> NDArray[np.uint64]:
    """For each covered stretch of an answer, a number that equal sets of classes share."""
    numbers = np.random.default_rng(0).integers(1, 2**64, size=classes, dtype=np.uint64)
    cell = marks.answer[mark] * stretches + covered
    once = np.unique(np.stack([cell, marks.label[mark]], axis=1), axis=0)
    cells, place = np.unique(once[:, 0], return_inverse=True)
    total = np.zeros(len(cells), dtype=np.uint64)
    np.add.at(total, place, numbers[once[:, 1]])
    return total[np.searchsorted(cells, cell)]


def _ranges(first: Codes, end: Codes) -> tuple[Codes, Codes]:
    """Which range each number belongs to, and the numbers of all ranges [first, end)."""
    size = np.maximum(end - first, 0)
    owner = np.repeat(np.arange(len(first)), size)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size) + first[owner]


def _by_item(
    parts: Contributions, length: Reals, item: Codes, answers: Answers, items: int
) -> Contributions:
    """Contributions of stretches, a time each character, summed over items and answers."""
    of_stretch = np.flatnonzero((parts.share >= 0) & (length > 0))
    shares = sp.csr_array(
        (length[of_stretch], (item[of_stretch], parts.share[of_stretch])),
        shape=(items, parts.shares.shape[0]),
    )
    rows = np.flatnonzero((parts.loss >= 0) & (length[parts.item] > 0))
    losses = sp.csr_array(
        (length[parts.item[rows]], (parts.annotator[rows], parts.loss[rows])),
        shape=(len(answers), parts.losses.shape[0]),
    )
    counting = np.bincount(item[of_stretch], minlength=items) > 0
    return Contributions(
        sp.csr_array(shares @ parts.shares),
        np.where(counting, np.arange(items), -1),
        sp.csr_array(losses @ parts.losses),
        np.where(counting[answers.item], np.arange(len(answers)), -1),
        answers.item,
        answers.annotator,
    )
