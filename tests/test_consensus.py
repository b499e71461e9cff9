"""Consensus: simulated truth, crowd-kit's EM, and what must hold for any votes."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotate.consensus import (
    aggregate,
    dawid_skene,
    majority,
    pair_posterior,
    pair_posterior_of_votes,
)
from annotate.errors import InputError
from annotate.labels import Labels, encode
from annotate.votes import CLASSES

Codes = NDArray[np.int64]


def simulated(
    items: int, votes: int, classes: int, *, people: int = 40, careless: float = 0.3, seed: int = 0
) -> tuple[Codes, Labels, NDArray[np.float64]]:
    """True classes, answers, and each annotator's accuracy: 85 %, if careless just over chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, items)
    accuracy = np.where(rng.random(people) < careless, 1 / classes + 0.05, 0.85)
    item = np.repeat(np.arange(items), votes)
    who = np.argsort(rng.random((items, people)), axis=1)[:, :votes].ravel()
    wrong = (truth[item] + rng.integers(1, classes, len(item))) % classes
    label = np.where(rng.random(len(item)) < accuracy[who], truth[item], wrong)
    names = [[str(at) for at in range(n)] for n in (items, people, classes)]
    return truth, Labels(item, who, label, *names), accuracy


answers = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(0, 4)), st.sampled_from(CLASSES), min_size=1
)


def of_pairs(votes: dict[tuple[int, int], str]) -> Labels:
    items, people = zip(*votes, strict=True)
    return encode([*map(str, items)], [*map(str, people)], [*votes.values()], CLASSES)


@pytest.mark.parametrize("votes", [2, 3, 5])
def test_dawid_skene_finds_the_truth_and_the_careless_better_than_majority(votes: int) -> None:
    truth, labels, accuracy = simulated(2000, votes, 3)
    found = dawid_skene(labels)
    right = found.best == truth
    assert found.converged
    assert right.mean() > (majority(labels).best == truth).mean() + 0.03
    assert np.corrcoef(found.accuracy, accuracy)[0, 1] > 0.9
    sure = found.probability.max(axis=1) >= 0.95
    assert sure.mean() > 0.2
    assert right[sure].mean() > 0.95
    # Calibrated: what it claims on average is what it gets.
    assert found.probability.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.02)


def test_a_single_vote_an_item_is_believed_as_a_person_is_however_rare_its_class() -> None:
    votes = ["good"] * 95 + ["bad"] * 5
    items, people = [f"q{at:03}" for at in range(100)], [f"w{at % 7}" for at in range(100)]
    found = dawid_skene(encode(items, people, votes))
    assert found.best.tolist() == [1] * 95 + [0] * 5
    assert found.probability.max(axis=1) == pytest.approx(0.8, abs=0.15)


def test_without_a_prior_it_is_crowd_kits() -> None:
    _, labels, _ = simulated(250, 9, 3, people=10, careless=0.0)
    ours = dawid_skene(labels, prior_votes=0, prior_items=0, tolerance=-1, max_iterations=60)
    frame = pd.DataFrame({"task": labels.item, "worker": labels.annotator, "label": labels.label})
    # The starts differ; after so many iterations both stand at the maximum.
    theirs = DawidSkene(n_iter=60, tol=-1).fit(frame)
    table = theirs.probas_.sort_index()[[0, 1, 2]].to_numpy()
    assert np.abs(ours.probability - table).max() < 1e-9


@settings(deadline=None, max_examples=50)
@given(answers, st.sampled_from([0.0, 1.0, 10.0]), st.booleans())
def test_em_never_loses_likelihood(
    votes: dict[tuple[int, int], str], prior: float, symmetric: bool
) -> None:
    found = dawid_skene(of_pairs(votes), prior_votes=prior, symmetric=symmetric)
    assert all(np.diff(found.objective) >= -1e-9)
    assert np.allclose(found.probability.sum(axis=1), 1)


def swapped(votes: dict[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    other = {"a": "b", "b": "a", "tie": "tie"}
    return {who: other[vote] for who, vote in votes.items()}


@settings(deadline=None, max_examples=50)
@given(answers)
def test_swapping_a_and_b_mirrors_the_result(votes: dict[tuple[int, int], str]) -> None:
    one = dawid_skene(of_pairs(votes), symmetric=True)
    two = dawid_skene(of_pairs(swapped(votes)), symmetric=True)
    # To the last bit, so that no threshold falls between a pair and its mirror image.
    assert (pair_posterior(one.probability) == 1 - pair_posterior(two.probability)).all()
    assert (one.margin == two.margin).all()
    assert (one.reliability == two.reliability).all()


def test_a_handful_of_items_of_one_class_does_not_rule_out_the_others() -> None:
    votes = {(item, who): "a" for item in range(4) for who in range(2)} | {(4, 0): "a", (4, 1): "b"}
    found = dawid_skene(of_pairs(votes), symmetric=False)
    certain = dawid_skene(of_pairs(votes), symmetric=False, prior_items=0)
    assert found.probability[4, 0] > 2 * certain.probability[4, 0]
    assert found.probability[4, 0] > 0.05


@settings(deadline=None, max_examples=30)
@given(answers)
def test_more_votes_for_a_never_favour_b(votes: dict[tuple[int, int], str]) -> None:
    labels = of_pairs(votes)
    found = pair_posterior(dawid_skene(labels, symmetric=True).probability)
    shares = majority(labels).probability
    unanimous = np.flatnonzero(shares[:, 2] == 1)
    assert (found[unanimous] >= 0.5 - 1e-9).all()


def test_a_tie_is_half_to_each_side() -> None:
    assert pair_posterior(np.array([[0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])).tolist() == [0.5, 0.7]


def test_the_posterior_of_votes_by_hand() -> None:
    # Of n independent uniform numbers, P(θ > 1/2 | k of n) = P(binomial(n + 1, 1/2) <= k).
    wins, losses = np.array([0, 1, 2, 3, 0, 2.0]), np.array([0, 0, 1, 0, 3, 2.0])
    found = pair_posterior_of_votes(wins, losses, np.zeros(6))
    assert found == pytest.approx([0.5, 0.75, 11 / 16, 15 / 16, 1 / 16, 0.5])
    ties = pair_posterior_of_votes(np.array([1.0]), np.array([0.0]), np.array([4.0]))
    assert 0.5 < ties[0] < 0.75


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_posterior_of_votes_is_symmetric(wins: int, losses: int, ties: int) -> None:
    one, two = (np.array([float(n)]) for n in (wins, losses))
    tied = np.array([float(ties)])
    total = pair_posterior_of_votes(one, two, tied) + pair_posterior_of_votes(two, one, tied)
    assert total[0] == pytest.approx(1)


def test_majority_names_no_winner_of_a_split() -> None:
    votes = {(0, 0): "a", (0, 1): "b", (1, 0): "a", (1, 1): "a", (2, 0): "tie"}
    found = majority(of_pairs(votes))
    assert found.best.tolist() == [-1, 2, 1]
    assert found.margin.tolist() == [0, 1, 1]
    # Annotator 1 was with the majority of item 1; item 0 has none and says nothing.
    assert found.accuracy.tolist() == [1.0, 1.0]
    assert found.reliability.tolist() == [1.0, 1.0]


def test_reliability_is_accuracy_above_chance() -> None:
    _, labels, accuracy = simulated(3000, 5, 2, people=20)
    found = dawid_skene(labels)
    assert found.reliability == pytest.approx(np.maximum(0, 2 * found.accuracy - 1))
    assert np.abs(found.accuracy - accuracy).mean() < 0.03


def test_few_answers_leave_an_annotator_like_the_panel() -> None:
    truth, labels, _ = simulated(500, 4, 2, careless=0)
    # One more person, with a single answer, against everyone.
    item = int(np.argmax(np.bincount(labels.item)))
    labels = Labels(
        np.append(labels.item, item), np.append(labels.annotator, 40),
        np.append(labels.label, 1 - truth[item]), labels.items, [*labels.annotators, "new"],
        labels.classes,
    )  # fmt: skip
    found = dawid_skene(labels)
    assert found.accuracy[40] > 0.7
    assert dawid_skene(labels, prior_votes=0).accuracy[40] < found.accuracy[40]


def test_it_is_the_same_whatever_the_order_of_answers() -> None:
    _, labels, _ = simulated(200, 3, 3)
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = Labels(
        labels.item[order], labels.annotator[order], labels.label[order],
        labels.items, labels.annotators, labels.classes,
    )  # fmt: skip
    assert np.allclose(dawid_skene(labels).probability, dawid_skene(shuffled).probability)


def test_it_is_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels, _ = simulated(100, 3, 3)
    whole = dawid_skene(labels)
    monkeypatch.setattr(importlib.import_module("annotate.consensus.dawid_skene"), "_BLOCK", 7)
    blocks = dawid_skene(labels)
    np.testing.assert_allclose(blocks.probability, whole.probability, atol=1e-12)
    np.testing.assert_allclose(blocks.objective, whole.objective, rtol=1e-12)


def test_one_class_needs_no_model_and_too_many_are_refused() -> None:
    found = aggregate(encode(["q", "r"], ["ann", "bob"], ["x", "x"]), "dawid-skene")
    assert found.probability.tolist() == [[1.0], [1.0]]
    assert found.margin.tolist() == [1.0, 1.0]
    many = [str(at) + "x" for at in range(8000)]
    with pytest.raises(InputError, match="8,000 classes are too many"):
        dawid_skene(encode(many, ["ann"] * 8000, many))


def test_annotators_without_a_majority_to_match_are_unknown() -> None:
    labels = encode(["q", "q"], ["ann", "bob"], ["x", "y"])
    told = majority(labels).of_annotators(labels)
    assert told["ann"] == {"votes": 1, "accuracy": None, "reliability": None}
    assert all(
        not math.isnan(x["accuracy"]) for x in dawid_skene(labels).of_annotators(labels).values()
    )
