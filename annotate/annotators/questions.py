"""What is asked of every person: how often a yes, and how often that would be if all were alike.

    agreement    do others give another answer?             as often as to all items given out alike
    gold         is this answer to a gold item wrong?       as often as in the item's answers
    consistency  is the second judgement another?           as often as in all second judgements
    position     is this a vote for what stood first?       half the time
    length       is this a vote for the longer?             as often as in the item's answers
    ties         is this a tie?                             as often as in the item's answers

One trial is one response, whose score is how many of its answers are a yes: the pairs of a ranking
come from one look at one item.

Agreement is not asked within items: of two answers that differ nothing says which is the odd one.
It takes the prompts of one batch with as many answers as given out at random; one trial is all that
somebody answered of a prompt, whose items are as hard as it is. Somebody's sum of disagreements is
then that of a random draw of prompts, and within each of a random answer. Draws are without
replacement; the tails are those of draws with it, at the deviation scaled by the ratio of both
standard deviations. Where everybody answered everything this is the question within items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from annotate.annotations import NO_TIME, Codes
from annotate.annotators.panel import Kept, Panel, Reals
from annotate.annotators.tails import Pool, Trials, both_sides, upper_and_lower

Side = Literal["more", "either"]

# Of a share, at most: shares of more others are rounded to the nearest.
_STEPS = 12


@dataclass(frozen=True)
class Question:
    """A count of yes in each of some responses. One row a trial, whatever its chances."""

    name: str
    side: Side
    """Whether only more than expected counts, or fewer too."""
    annotator: Codes
    """Shape (trials,)."""
    score: Codes
    """How many answers of the response are a yes, shape (trials,)."""
    size: Codes
    """How many answers it has, shape (trials,)."""
    group: Codes | None
    """Whose trials could have been exchanged, shape (trials,); None: a yes is a matter of 1/2."""
    pooled: Kept
    """Trials of which only the pool of all is known, with scores of 0 or 1, shape (trials,)."""
    time: Codes
    """Shape (trials,); `NO_TIME` where unknown."""
    reason: str = ""
    """Why there are no trials."""
    item: Codes | None = None
    """Where a group is of items given out at random: which of them, shape (trials,)."""
    again: Callable[[Codes], Question] | None = None
    """The question without these people, where their answers are part of the others' scores."""

    def trials(self) -> Trials:
        """All trials, with the chances of their scores if all people are alike."""
        if self.group is None:
            halves = np.array([[0.5, 0.5]])
            return Trials(self.annotator, self.score, np.zeros_like(self.score), halves)
        _, group = np.unique(np.where(self.pooled, -1, self.group), return_inverse=True)
        scores = int(self.score.max(initial=1)) + 1
        groups = int(group.max(initial=0)) + 1
        counts = np.bincount(group * scores + self.score, minlength=groups * scores)
        shapes, pattern = np.unique(counts.reshape(-1, scores), axis=0, return_inverse=True)
        chances = shapes / np.maximum(shapes.sum(axis=1, keepdims=True), 1)
        return Trials(self.annotator, self.score, pattern.reshape(-1)[group], chances)

    def without(self, people: Codes) -> Question:
        """The trials of everybody else, to compare them with one another only."""
        if self.again is not None:
            return self.again(people)
        return self.select(~np.isin(self.annotator, people))

    def select(self, keep: Kept) -> Question:
        """The trials where `keep`, shape (trials,), holds."""
        return replace(
            self,
            annotator=self.annotator[keep],
            score=self.score[keep],
            size=self.size[keep],
            group=None if self.group is None else self.group[keep],
            pooled=self.pooled[keep],
            time=self.time[keep],
        )


@dataclass(frozen=True)
class Answered:
    """One question of everybody. Shapes (people,)."""

    p: Reals
    """NaN where nothing could have come out otherwise."""
    n: Codes
    """Trials that could have."""
    observed: Reals
    """Share of yes in the answers of these; NaN without any."""
    expected: Reals
    """What the share would be on average if all were alike."""


def answer(question: Question, people: int) -> Answered:
    """The exact p-value of each person, everybody being alike otherwise."""
    trials = question.trials()
    open_ = trials.open
    pool = _pool(question, people)
    alone = trials.select(open_ & ~question.pooled)
    said = _scaled_sum(question, trials, people)
    upper, lower = upper_and_lower(alone, pool, people, said)
    p = upper if question.side == "more" else both_sides(upper, lower)
    if said is not None:
        p = np.where(np.isnan(said), np.nan, p)
    who = question.annotator[open_]
    n = np.bincount(who, minlength=people)
    size = np.bincount(who, question.size[open_], people)
    some = size > 0
    observed = np.bincount(who, question.score[open_], people)
    expected = np.bincount(who, trials.expected[open_], people)
    nothing = np.full(people, np.nan)
    return Answered(
        p=np.where(some, p, np.nan),
        n=n,
        observed=np.divide(observed, size, out=nothing.copy(), where=some),
        expected=np.divide(expected, size, out=nothing, where=some),
    )


def _pool(question: Question, people: int) -> Pool:
    pooled = question.pooled
    who, yes = question.annotator[pooled], question.score[pooled]
    return Pool(
        n=len(who),
        yes=int(yes.sum()),
        drawn=np.bincount(who, minlength=people),
        yes_drawn=np.bincount(who, yes, people).astype(np.int64),
    )


def questions(panel: Panel) -> list[Question]:
    """All that can be asked of a panel; those without trials say why."""
    return [ask(panel) for ask in _ASKED]


def minority(panel: Panel) -> tuple[Kept, Codes]:
    """Which answers fewer gave than the most frequent one, and how many answers each item has.

    Shapes (answers,). Of two that differ, neither.
    """
    labels = panel.labels
    classes = max(1, len(labels.classes))
    cells, which, counts = np.unique(
        labels.item * classes + labels.label, return_inverse=True, return_counts=True
    )
    most = np.zeros(len(labels.items), dtype=np.int64)
    np.maximum.at(most, cells // classes, counts)
    answers = np.bincount(labels.item, minlength=len(labels.items))
    return counts[which] < most[labels.item], answers[labels.item]


def _agreement(panel: Panel) -> Question:
    """The score is the share of others who differ, in steps that hold every share exactly."""
    panel = _by_prompt(panel)
    labels = panel.labels
    cell = labels.item * max(1, len(labels.classes)) + labels.label
    _, which, same = np.unique(cell, return_inverse=True, return_counts=True)
    others = np.bincount(labels.item, minlength=len(labels.items))[labels.item] - 1
    keep = others > 0
    if not keep.any():
        return _nothing("agreement", "more", "nobody else answered the same items")
    steps = min(_STEPS, int(np.lcm.reduce(np.minimum(np.unique(others[keep]), _STEPS))))
    differ = 1 - (same[which] - 1) / np.maximum(others, 1)
    counted = _of_responses(panel, "agreement", "more", keep, keep)
    batch = np.zeros(len(labels)) if panel.batch is None else panel.batch
    shown = np.zeros(0, dtype=np.int64) if counted.group is None else counted.group
    _, item = np.unique(shown, return_inverse=True)
    kind = [_per_response(panel, batch, keep) / counted.size, np.bincount(item)[item], counted.size]
    _, group = np.unique(np.stack(kind), axis=1, return_inverse=True)
    return replace(
        counted,
        score=np.rint(_per_response(panel, differ, keep) * steps).astype(np.int64),
        size=counted.size * steps,
        group=group.reshape(-1).astype(np.int64),
        item=item,
        again=lambda people: _agreement(panel.without(people)),
    )


def _by_prompt(panel: Panel) -> Panel:
    """With everything that one person answered of a prompt as one response to one thing shown."""
    if panel.labels.prompt is None:
        return panel
    _, prompt = np.unique(panel.prompts, return_inverse=True)
    response = prompt * max(panel.people, 1) + panel.labels.annotator
    return replace(panel, response=response, shown=prompt.astype(np.int64))


def _scaled_sum(question: Question, trials: Trials, people: int) -> Reals | None:
    """Each person's sum, its deviation scaled to that of draws with replacement; (people,).

    NaN where draws without it could not have come out otherwise.
    """
    if question.item is None or question.group is None:
        return None
    who, score, group, item = question.annotator, question.score, question.group, question.item
    mean = trials.expected
    n = np.maximum(np.bincount(item), 1)
    of_item = (np.bincount(item, score) / n)[item]
    of_group = np.maximum(np.bincount(group), 1)
    total = (np.bincount(group, (score - mean) ** 2) / of_group)[group]
    between = (np.bincount(group, (of_item - mean) ** 2) / of_group)[group]
    items = np.rint(np.bincount(group, 1 / n[item]))[group]
    _, own = np.unique(who * (int(group.max(initial=0)) + 1) + group, return_inverse=True)
    drawn = np.bincount(own)[own]
    left = np.maximum(items - drawn, 0) / np.maximum(items - 1, 1)
    with_it = np.bincount(who, total, people)
    without = np.bincount(who, total - between + between * left, people)
    expected = np.bincount(who, mean, people)
    gap = np.bincount(who, score, people) - 0.5 - expected  # from the edge of its step
    ratio = np.divide(with_it, without, out=np.full(people, np.nan), where=without > 1e-9)
    return np.asarray(expected + gap * np.sqrt(ratio), dtype=np.float64)


def _gold(panel: Panel) -> Question:
    gold = panel.gold
    if not len(gold.right):
        return _nothing("gold", "more", "no gold item was answered")
    return _single("gold", "more", gold.annotator, ~gold.right, gold.item)


def _consistency(panel: Panel) -> Question:
    repeats = panel.repeats
    if not len(repeats.same):
        return _nothing("consistency", "more", "nobody judged anything twice")
    group = np.zeros(len(repeats.same), dtype=np.int64)
    asked = _single("consistency", "more", repeats.annotator, ~repeats.same, group)
    return replace(asked, pooled=np.ones(len(group), dtype=bool))


def _position(panel: Panel) -> Question:
    """The pairs of a ranking share the place of their outputs: one trial, by most of them."""
    if panel.first is None:
        return _nothing("position", "either", "the order shown is not known")
    lead = np.bincount(panel.responses, np.nan_to_num(2 * panel.first - 1))[panel.responses]
    one = np.zeros(len(lead), dtype=bool)
    one[np.unique(panel.responses, return_index=True)[1]] = True
    keep = one & (lead != 0)
    asked = _of_responses(replace(panel, response=None), "position", "either", lead > 0, keep)
    return replace(asked, group=None)


def _length(panel: Panel) -> Question:
    if panel.longer is None:
        return _nothing("length", "either", "how long the outputs are is not known")
    return _of_responses(panel, "length", "either", panel.longer == 1, ~np.isnan(panel.longer))


def _ties(panel: Panel) -> Question:
    ties = panel.ties
    if ties is None:
        return _nothing("ties", "either", "no class is called tie")
    return _of_responses(panel, "ties", "either", ties, np.ones(len(ties), dtype=bool))


_ASKED: tuple[Callable[[Panel], Question], ...] = (
    _agreement, _gold, _consistency, _position, _length, _ties,
)  # fmt: skip


def _of_responses(panel: Panel, name: str, side: Side, yes: Kept, keep: Kept) -> Question:
    """Count yes in the answers of each response that `keep` holds for."""
    labels = panel.labels
    _, first, response = np.unique(panel.responses[keep], return_index=True, return_inverse=True)
    group = labels.item if panel.shown is None else panel.shown
    time = labels.time if labels.time is not None else np.full(len(labels), NO_TIME)
    return Question(
        name, side,
        annotator=labels.annotator[keep][first],
        score=np.bincount(response, yes[keep], len(first)).astype(np.int64),
        size=np.bincount(response, minlength=len(first)),
        group=group[keep][first],
        pooled=np.zeros(len(first), dtype=bool),
        time=time[keep][first],
    )  # fmt: skip


def _per_response(panel: Panel, value: Reals | Codes, keep: Kept) -> Reals:
    """The sum of a column over each response's answers, of those that `keep` holds for."""
    _, response = np.unique(panel.responses[keep], return_inverse=True)
    return np.bincount(response, value[keep], response.max(initial=-1) + 1).astype(np.float64)


def _single(name: str, side: Side, annotator: Codes, yes: Kept, group: Codes) -> Question:
    n = len(yes)
    return Question(
        name, side, annotator, yes.astype(np.int64), np.ones(n, dtype=np.int64), group,
        np.zeros(n, dtype=bool), np.full(n, NO_TIME),
    )  # fmt: skip


def _nothing(name: str, side: Side, reason: str) -> Question:
    none = np.zeros(0, dtype=bool)
    no_codes = np.zeros(0, dtype=np.int64)
    return replace(_single(name, side, no_codes, none, no_codes), reason=reason)
