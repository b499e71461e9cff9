"""How often each person is right, by what the others make of their items.

Dawid and Skene's model (`annotate.consensus`) is fitted to all answers. Then, for each answer, the
item's true class is inferred from the other answers alone: its author's vote does not decide about
itself. What others hold is uncertain, so agreeing with it is less than being right; the accuracy
solves for that. With π the others' probabilities of an item's classes, who is right with chance a
names a class that has, in the mean over items,

    E[π(answer)] = a × Σ_k π_k²  +  (1 − a) × Σ_k π_k Σ_{l≠k} e_kl π_l

where e_kl is how the panel's errors on class k fall on other classes. This is linear in a.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse as sp

from annotate.annotators.panel import Panel, Reals
from annotate.annotators.rates import ratios
from annotate.consensus import aggregate
from annotate.errors import InputError
from annotate.statistics import Estimate, undefined

# What a panel's common habit weighs against a person's own answers, in votes on each class.
_HABIT_VOTES = 10.0
_TINY = 1e-12


@dataclass(frozen=True)
class Reliability:
    """Of every person."""

    accuracy: list[Estimate]
    """The chance of naming the true class."""
    reliability: list[Estimate]
    """The same above chance: 0 for a guesser, 1 for one never wrong."""


def reliability(panel: Panel) -> Reliability:
    """Accuracy and reliability of every person, each answer judged by the others' answers alone.

    Undefined, with the reason, where nobody else answered what a person answered, or where all
    answers are the same.

    Cost: that of Dawid–Skene, and a few passes over answers × classes.
    """
    if len(np.unique(panel.labels.label)) < 2:
        return _undefined(panel, "every answer is the same")
    if len(np.unique(panel.labels.annotator)) < 2:
        return _undefined(panel, "only one annotator")
    panel = _of_given_classes(panel)
    labels, people = panel.labels, panel.people
    classes = len(labels.classes)
    try:
        consensus = aggregate(labels, "dawid-skene", symmetric=panel.symmetric)
    except InputError as error:
        return _undefined(panel, error.what)
    confusion, habit, prior = _confusions(panel, consensus.probability)
    others = _by_the_others(panel, confusion, prior)
    answered = np.bincount(labels.item, minlength=len(labels.items))[labels.item] > 1
    given = others[np.arange(len(labels)), labels.label]
    right = (others**2).sum(axis=1)
    errors = habit * (1 - np.eye(classes))
    errors = errors / np.maximum(errors.sum(axis=1, keepdims=True), _TINY)
    wrong = ((others @ errors) * others).sum(axis=1)
    accuracy = ratios(
        labels.annotator[answered], (given - wrong)[answered], (right - wrong)[answered],
        panel.prompts[answered], people, reason="nobody else answered the same items",
    )  # fmt: skip
    return Reliability(accuracy, [_above_chance(each, classes) for each in accuracy])


def _of_given_classes(panel: Panel) -> Panel:
    """The panel without classes that nobody gave: a tie that nobody saw is no hidden truth."""
    labels = panel.labels
    given = np.bincount(labels.label, minlength=len(labels.classes)) > 0
    if panel.symmetric:
        given = given | given[::-1]
    place = np.cumsum(given) - 1
    names = [name for name, kept in zip(labels.classes, given, strict=True) if kept]
    return replace(panel, labels=replace(labels, label=place[labels.label], classes=names))


def _undefined(panel: Panel, reason: str) -> Reliability:
    over = "items like theirs"
    found = [undefined(reason, int(n), over) for n in panel.votes]
    return Reliability(found, found)


def _confusions(panel: Panel, probability: Reals) -> tuple[Reals, Reals, Reals]:
    """Confusion of each person (people, true, said), of the panel (true, said), class shares."""
    labels, people = panel.labels, panel.people
    classes = len(labels.classes)
    believed = np.nan_to_num(probability)
    said = sp.csr_array(
        (np.ones(len(labels)), (labels.annotator * classes + labels.label, labels.item)),
        shape=(people * classes, len(labels.items)),
    )
    counts = np.asarray(said @ believed).reshape(people, classes, classes).transpose(0, 2, 1)
    prior = believed.sum(axis=0)
    if panel.symmetric:
        counts = counts + counts[:, ::-1, ::-1]
        prior = prior + prior[::-1]
    habit = counts.sum(axis=0) + 1 / classes
    habit = habit / habit.sum(axis=1, keepdims=True)
    counts = counts + _HABIT_VOTES * habit
    return counts / counts.sum(axis=2, keepdims=True), habit, prior / prior.sum()


def _by_the_others(panel: Panel, confusion: Reals, prior: Reals) -> Reals:
    """The item's classes as all answers but this one have them, shape (answers, classes)."""
    labels = panel.labels
    own = np.log(np.maximum(confusion, _TINY))[labels.annotator, :, labels.label]
    joint = np.empty((len(labels.items), own.shape[1]))
    for true in range(own.shape[1]):
        joint[:, true] = np.bincount(labels.item, own[:, true], len(labels.items))
    joint += np.log(np.maximum(prior, _TINY))
    others = joint[labels.item] - own
    others = np.exp(others - others.max(axis=1, keepdims=True))
    return np.asarray(others / others.sum(axis=1, keepdims=True), dtype=np.float64)


def _above_chance(accuracy: Estimate, classes: int) -> Estimate:
    """The same estimate on the scale from guessing to never wrong."""

    def scaled(share: float | None) -> float | None:
        chance = 1 / classes
        return None if share is None else max(0.0, (share - chance) / (1 - chance))

    return Estimate(
        scaled(accuracy.value), scaled(accuracy.low), scaled(accuracy.high), accuracy.n,
        accuracy.method, accuracy.over, reason=accuracy.reason,
    )  # fmt: skip
