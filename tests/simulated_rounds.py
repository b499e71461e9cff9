"""SIMULATED rounds of comparisons, as panels: nobody differs, unless a test plants something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from annotate.annotators import Gold, Panel, Repeats
from annotate.labels import Labels

B, TIE, A = 0, 1, 2


def simulated_round(
    rng: np.random.Generator, *, people: int = 12, items: int = 200, overlap: int = 3
) -> Panel:
    """Items differ in difficulty, people in nothing; everything beside the votes is there too."""
    order = np.argsort(rng.random((items, people)), axis=1)[:, :overlap]
    item, person = np.repeat(np.arange(items), overlap), order.reshape(-1)
    truth, easy = rng.choice([B, A], items), rng.uniform(0.55, 0.95, items)
    tied = rng.uniform(0, 0.3, items)
    right = rng.random(len(item)) < easy[item]
    label = np.where(right, truth[item], A - truth[item])
    label = np.where(rng.random(len(item)) < tied[item], TIE, label)
    first = rng.choice([B, A], items)
    longer = np.where(rng.random(items) < 0.62, truth, A - truth)
    labels = Labels(
        item, person, label, [f"i{at}" for at in range(items)],
        [f"sim-{at:02}" for at in range(people)], ["b", "tie", "a"],
        time=rng.permutation(len(item)).astype(np.int64),
    )  # fmt: skip
    return Panel(
        labels, question="vote", symmetric=True,
        first=_toward(label, first[item]), longer=_toward(label, longer[item]),
        repeats=_repeats(rng, people), gold=_gold(rng, people),
    )  # fmt: skip


def answering(panel: Panel, person: int, label: NDArray[np.int64]) -> Panel:
    """The same round with one person's answers replaced, shape (their answers,)."""
    theirs = panel.labels.annotator == person
    assert panel.first is not None
    assert panel.longer is not None
    side = {
        name: np.where(old == 1, panel.labels.label, A - panel.labels.label)
        for name, old in (("first", panel.first), ("longer", panel.longer))
    }
    new = panel.labels.label.copy()
    new[theirs] = label
    known = {name: np.where(panel.labels.label == TIE, A, at) for name, at in side.items()}
    sides = {name: _toward(new, at) for name, at in known.items()}
    return replace(panel, labels=replace(panel.labels, label=new), **sides)


def _toward(label: NDArray[np.int64], side: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(label == TIE, np.nan, (label == side).astype(np.float64))


def _repeats(rng: np.random.Generator, people: int, each: int = 10) -> Repeats:
    n = people * each
    same, swapped = rng.random(n) < 0.8, rng.random(n) < 0.5
    return Repeats(np.repeat(np.arange(people), each), np.arange(n), same, swapped)


def _gold(rng: np.random.Generator, people: int, items: int = 15) -> Gold:
    item = np.tile(np.arange(items), people)
    right = rng.random(len(item)) < rng.uniform(0.6, 1, items)[item]
    return Gold(np.repeat(np.arange(people), items), item, right)


def simulated_prompts(
    rng: np.random.Generator, *, people: int = 12, prompts: int = 60, each: int = 4
) -> Panel:
    """Prompts of several items, each as hard as its prompt, all answered by the same three."""
    who = np.argsort(rng.random((prompts, people)), axis=1)[:, :3]
    item = np.repeat(np.arange(prompts * each), 3)
    person = np.repeat(who, each, axis=0).reshape(-1)
    truth, hard = rng.integers(0, 2, prompts * each), rng.uniform(0, 0.5, prompts)
    label = np.where(rng.random(len(item)) < hard[item // each], 1 - truth[item], truth[item])
    names = [f"i{at}" for at in range(prompts * each)]
    labels = Labels(
        item, person, label, names, [f"sim-{at:02}" for at in range(people)], ["no", "yes"],
        prompt=np.repeat(np.arange(prompts), each),
        time=rng.permutation(prompts)[item // each] * 10 + rng.integers(0, 10, len(item)),
    )  # fmt: skip
    return Panel(labels, question="label")


def simulated_rankings(
    rng: np.random.Generator, *, people: int = 8, prompts: int = 60, options: int = 4
) -> Panel:
    """Rankings as the comparisons that they imply, three people each; some prompts are harder."""
    first, second = np.triu_indices(options, 1)
    pairs = len(first)
    who = np.argsort(rng.random((prompts, people)), axis=1)[:, :3]
    quality, noise = rng.normal(size=(prompts, 1, options)), rng.uniform(0.2, 2, (prompts, 1, 1))
    seen = quality + noise * rng.normal(size=(prompts, 3, options))
    label = np.where(seen[:, :, first] > seen[:, :, second], A, B).reshape(-1)
    prompt = np.repeat(np.arange(prompts), 3 * pairs)
    item = prompt * pairs + np.tile(np.arange(pairs), 3 * prompts)
    person = np.repeat(who.reshape(-1), pairs)
    labels = Labels(
        item, person, label, [f"i{at}" for at in range(prompts * pairs)],
        [f"sim-{at:02}" for at in range(people)], ["b", "tie", "a"],
        prompt=np.repeat(np.arange(prompts), pairs),
        time=np.repeat(rng.permutation(prompts * 3), pairs),
    )  # fmt: skip
    response = np.repeat(np.arange(prompts * 3), pairs)
    return Panel(labels, question="vote", symmetric=True, response=response, shown=prompt)
