"""Agreement of rankings, sets of labels, texts and spans: other implementations, sums by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics.agreement import AnnotationTask
from nltk.metrics.distance import jaccard_distance, masi_distance
from scipy.stats import kendalltau

from annotate.agreement import (
    Figure,
    character_alpha,
    exact_f1,
    exact_match,
    implied_alpha,
    implied_pairs,
    jaccard_alpha,
    kendall_tau,
    kendall_w,
    krippendorff_alpha,
    label_alphas,
    masi_alpha,
    overlap_f1,
    top_choice,
    word_overlap,
)
from annotate.annotations import NO_SPAN, MultiLabels, Rankings, Spans, Texts
from annotate.labels import encode


def value(figure: Figure) -> float:
    assert figure.value is not None, figure.reason
    return figure.value


def coded(names: Sequence[Any]) -> tuple[np.ndarray[Any, Any], list[str]]:
    distinct = sorted({str(name) for name in names})
    return np.array([distinct.index(str(name)) for name in names], dtype=np.int64), distinct


def rankings(answers: dict[tuple[str, str], dict[str, int]], **more: Any) -> Rankings:
    """From (item, annotator) to option and rank."""
    rows = [(i, a, o, r) for (i, a), ranks in answers.items() for o, r in ranks.items()]
    item, items = coded([row[0] for row in rows])
    annotator, people = coded([row[1] for row in rows])
    option, options = coded([row[2] for row in rows])
    rank = np.array([row[3] for row in rows], dtype=np.int64)
    return Rankings(
        item=item, annotator=annotator, items=items, annotators=people,
        option=option, rank=rank, options=options, **more,
    )  # fmt: skip


def sets(answers: dict[tuple[str, str], str], classes: str = "xyz") -> MultiLabels:
    """From (item, annotator) to the labels given, a letter each."""
    item, items = coded([key[0] for key in answers])
    annotator, people = coded([key[1] for key in answers])
    member = np.array([[float(name in given) for name in classes] for given in answers.values()])
    return MultiLabels(
        item=item, annotator=annotator, items=items, annotators=people,
        member=sp.csr_array(member.reshape(len(answers), len(classes))), classes=list(classes),
    )  # fmt: skip


def texts(answers: dict[tuple[str, str], str]) -> Texts:
    item, items = coded([key[0] for key in answers])
    annotator, people = coded([key[1] for key in answers])
    return Texts(
        item=item, annotator=annotator, items=items, annotators=people,
        text=np.array(list(answers.values()), dtype=object),
    )  # fmt: skip


def spans(answers: dict[tuple[str, str], list[tuple[int, int, str]]], length: int = 10) -> Spans:
    rows = [
        (item, who, *mark)
        for (item, who), marks in answers.items()
        for mark in (marks or [(0, 0, "")])
    ]
    classes = sorted({row[4] for row in rows} - {""}) or ["x"]
    item, items = coded([row[0] for row in rows])
    annotator, people = coded([row[1] for row in rows])
    label = [classes.index(row[4]) if row[4] else NO_SPAN for row in rows]
    return Spans(
        item=item, annotator=annotator, items=items, annotators=people,
        start=np.array([row[2] for row in rows]), end=np.array([row[3] for row in rows]),
        label=np.array(label), length=np.full(len(items), length), classes=classes,
    )  # fmt: skip


# Rankings.

ranked = st.dictionaries(
    st.tuples(st.sampled_from("qr"), st.sampled_from("abcd")),
    st.dictionaries(st.sampled_from("kmno"), st.integers(1, 4), min_size=1, max_size=4),
    min_size=1,
)


def pairs_of(answers: dict[tuple[str, str], Any]) -> list[tuple[Any, Any]]:
    return [
        (answers[one], answers[two])
        for one, two in itertools.combinations(answers, 2)
        if one[0] == two[0]
    ]


@settings(deadline=None, max_examples=50)
@given(ranked)
def test_tau_is_the_mean_of_scipys(answers: dict[tuple[str, str], dict[str, int]]) -> None:
    theirs = []
    for one, two in pairs_of(answers):
        common = sorted(set(one) & set(two))
        if len({one[o] for o in common}) > 1 and len({two[o] for o in common}) > 1:
            tau = kendalltau([one[o] for o in common], [two[o] for o in common], variant="b")
            theirs.append(tau.statistic)
    ours = kendall_tau(rankings(answers), resamples=20)
    if theirs:
        assert value(ours) == pytest.approx(np.mean(theirs), abs=1e-9)
    else:
        assert ours.value is None
        assert ours.reason


def w_by_definition(rows: list[dict[str, int]], options: list[str]) -> float | None:
    """12 S / (m² (n³ - n) - m Σ T) on mid-ranks."""
    ranks, ties = [], 0
    for row in rows:
        values = [row[option] for option in options]
        below = [sum(other < value for other in values) for value in values]
        same = [values.count(value) for value in values]
        ranks.append([b + (s + 1) / 2 for b, s in zip(below, same, strict=True)])
        ties += sum(values.count(v) ** 3 - values.count(v) for v in set(values))
    m, n = len(rows), len(options)
    most = m**2 * (n**3 - n) - m * ties
    if m < 2 or most == 0:
        return None
    return float(12 * np.square(np.sum(ranks, axis=0) - m * (n + 1) / 2).sum() / most)


@settings(deadline=None, max_examples=50)
@given(ranked)
def test_w_is_its_definition(answers: dict[tuple[str, str], dict[str, int]]) -> None:
    found = []
    for item in {key[0] for key in answers}:
        rows = [row for key, row in answers.items() if key[0] == item]
        options = sorted({option for row in rows for option in row})
        complete = [row for row in rows if set(row) == set(options)]
        if (w := w_by_definition(complete, options)) is not None:
            found.append(w)
    ours = kendall_w(rankings(answers), resamples=20)
    assert ours.n == len(found)
    if found:
        assert value(ours) == pytest.approx(np.mean(found), abs=1e-9)


def test_w_of_a_textbook_case_by_hand() -> None:
    # Ranks 1 2 3, 1 3 2, 2 1 3: sums 4, 6, 8, mean 6, S = 8; W = 12 · 8 / (9 · 24) = 4/9.
    answers = {
        ("q", "a"): {"k": 1, "m": 2, "n": 3},
        ("q", "b"): {"k": 1, "m": 3, "n": 2},
        ("q", "c"): {"k": 2, "m": 1, "n": 3},
    }
    assert value(kendall_w(rankings(answers))) == pytest.approx(4 / 9)
    # Of a and b 2 of 3 pairs agree, tau 1/3; a and c 1/3; b and c all but k-n disagree, -1/3.
    assert value(kendall_tau(rankings(answers))) == pytest.approx((1 / 3 + 1 / 3 - 1 / 3) / 3)
    assert value(top_choice(rankings(answers))) == pytest.approx(1 / 3)


def test_the_first_choice_is_shared_among_the_tied() -> None:
    # a puts k first, b ties k and m, c puts n first: a-b agree half the time, the others never.
    answers = {
        ("q", "a"): {"k": 1, "m": 2, "n": 3},
        ("q", "b"): {"k": 1, "m": 1, "n": 3},
        ("q", "c"): {"k": 5, "m": 4, "n": 2},
    }
    assert value(top_choice(rankings(answers))) == pytest.approx(0.5 / 3)


@settings(deadline=None, max_examples=40)
@given(ranked)
def test_top_choice_is_its_definition(answers: dict[tuple[str, str], dict[str, int]]) -> None:
    found = []
    for one, two in pairs_of(answers):
        tops = [{o for o, r in row.items() if r == min(row.values())} for row in (one, two)]
        found.append(len(tops[0] & tops[1]) / (len(tops[0]) * len(tops[1])))
    ours = top_choice(rankings(answers), resamples=20)
    if found and len({key[1] for key in answers}) > 1:
        assert value(ours) == pytest.approx(np.mean(found), abs=1e-9)


def test_implied_pairs_are_votes_that_share_their_item() -> None:
    answers = {("q", "a"): {"k": 1, "m": 1, "n": 2}, ("q", "b"): {"k": 2, "m": 1}}
    pairs = implied_pairs(rankings(answers))
    said = {
        (pairs.items[i], pairs.annotators[a]): pairs.classes[c]
        for i, a, c in zip(pairs.item, pairs.annotator, pairs.label, strict=True)
    }
    assert said == {
        ("q: k m", "a"): "tie",
        ("q: k n", "a"): "a",
        ("q: m n", "a"): "a",
        ("q: k m", "b"): "b",
    }
    assert pairs.prompt is not None
    assert set(pairs.prompt) == {0}
    assert value(implied_alpha(rankings(answers))) == value(krippendorff_alpha(pairs))


# Sets of labels.

labelled = st.dictionaries(
    st.tuples(st.sampled_from("qrst"), st.sampled_from("abc")),
    st.sampled_from(["x", "y", "z", "xy", "xz", "yz", "xyz"]),
    min_size=1,
)


@settings(deadline=None, max_examples=50)
@given(labelled)
def test_alpha_of_sets_is_nltks(answers: dict[tuple[str, str], str]) -> None:
    rows = [(who, item, frozenset(given)) for (item, who), given in answers.items()]
    for ours, distance in ((jaccard_alpha, jaccard_distance), (masi_alpha, masi_distance)):
        figure = ours(sets(answers), resamples=20)
        if figure.value is None:
            assert figure.reason
            continue
        theirs = AnnotationTask(data=rows, distance=distance).alpha()
        assert figure.value == pytest.approx(theirs, abs=1e-9)


def test_distances_of_sets_by_hand() -> None:
    # x and xy: Jaccard 1 - 1/2; MASI 1 - 1/2 · 2/3. Of the 12 ordered pairs of answers x, x, x, xy
    # 6 differ: expected d/2. Observed: of 4 ordered pairs in items 2 differ, d/2. Alpha is 0.
    answers = {("q", "a"): "x", ("q", "b"): "xy", ("r", "a"): "x", ("r", "b"): "x"}
    assert value(jaccard_alpha(sets(answers))) == pytest.approx(0)
    assert value(masi_alpha(sets(answers))) == pytest.approx(0)
    # xy, xy | x, y: observed (0 + 0 + 1 + 1)/4; expected over 12 ordered pairs: xy-xy 0 (2 of
    # them), xy-x and xy-y 8 of .5, x-y 2 of 1: 6/12. Alpha is 0 again; with MASI 8 · 2/3 + 2 = 22/3
    # over 12: 1 - .5 / (22/36) = 2/11.
    answers = {("q", "a"): "xy", ("q", "b"): "xy", ("r", "a"): "x", ("r", "b"): "y"}
    assert value(jaccard_alpha(sets(answers))) == pytest.approx(0)
    assert value(masi_alpha(sets(answers))) == pytest.approx(2 / 11)


def test_empty_sets_are_equal_sets() -> None:
    answers = {("q", "a"): "", ("q", "b"): "", ("r", "a"): "x", ("r", "b"): "x"}
    assert value(jaccard_alpha(sets(answers))) == 1.0
    alone = {("q", "a"): "", ("q", "b"): "x", ("r", "a"): "x", ("r", "b"): ""}
    # Every pair differs wholly: observed 1, expected 8 of 12.
    assert value(masi_alpha(sets(alone))) == pytest.approx(1 - 1 / (8 / 12))


@settings(deadline=None, max_examples=40)
@given(labelled)
def test_each_label_by_itself_is_nominal_alpha(answers: dict[tuple[str, str], str]) -> None:
    for name, figure in label_alphas(sets(answers), resamples=20).items():
        rows = [(item, who, str(name in given)) for (item, who), given in answers.items()]
        plain = krippendorff_alpha(encode(*zip(*rows, strict=True)), resamples=20)
        assert (figure.value is None) == (plain.value is None)
        assert figure.value == pytest.approx(plain.value, abs=1e-12)


# Texts.


def test_texts_by_hand() -> None:
    answers = {
        ("q", "a"): "Go  home, now",
        ("q", "b"): "go home now now",
        ("r", "a"): "Yes.",
        ("r", "b"): " yes.\n",
        ("s", "a"): "alone",
    }
    # q differs by its comma, r by case and blanks only.
    assert value(exact_match(texts(answers))) == 0.5
    # q: common go, home, now = 3 of 3 and 4 words, 6/7; r: 1.
    overlap = word_overlap(texts(answers))
    assert value(overlap) == pytest.approx((6 / 7 + 1) / 2)
    assert (overlap.n_items, overlap.n) == (3, 2)
    assert "word overlap" in overlap.definition


# Spans.


def marked_characters(spans_: list[tuple[int, int, str]], length: int) -> list[str]:
    return [
        "".join(sorted({label for start, end, label in spans_ if start <= at < end})) or "-"
        for at in range(length)
    ]


marks = st.lists(
    st.tuples(st.integers(0, 8), st.integers(1, 4), st.sampled_from("xy")).map(
        lambda mark: (mark[0], min(mark[0] + mark[1], 10), mark[2])
    ),
    max_size=3,
)
marked = st.dictionaries(
    st.tuples(st.sampled_from("qr"), st.sampled_from("abc")), marks, min_size=1
)


@settings(deadline=None, max_examples=50)
@given(marked)
def test_character_alpha_is_that_of_single_characters(answers: dict[Any, Any]) -> None:
    rows = [
        (f"{item} {at}", who, label)
        for (item, who), given in answers.items()
        for at, label in enumerate(marked_characters(given, 10))
    ]
    ours = character_alpha(spans(answers), resamples=20)
    plain = krippendorff_alpha(encode(*zip(*rows, strict=True)), resamples=20)
    assert (ours.value is None) == (plain.value is None)
    assert ours.value == pytest.approx(plain.value, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(marked)
def test_span_f1_is_its_definition(answers: dict[Any, Any]) -> None:
    exact = overlap = total = 0
    for one, two in pairs_of({key: set(own) for key, own in answers.items()}):
        exact += 2 * len(one & two)
        for own, other in ((one, two), (two, one)):
            overlap += sum(any(s < d and b < e and x == y for b, d, y in other) for s, e, x in own)
        total += len(one) + len(two)
    for ours, matched in ((exact_f1, exact), (overlap_f1, overlap)):
        figure = ours(spans(answers), resamples=20)
        if total == 0:
            assert figure.value is None
            assert figure.reason
        else:
            assert value(figure) == pytest.approx(matched / total, abs=1e-9)


def test_spans_by_hand() -> None:
    answers = {("q", "a"): [(0, 4, "x")], ("q", "b"): [(2, 4, "x"), (6, 8, "x")], ("r", "a"): []}
    data = spans(answers)
    assert (value(exact_f1(data)), value(overlap_f1(data))) == (0.0, pytest.approx(2 / 3))
    # 10 characters: 4 differ, so of 20 ordered pairs 8; 8 x and 12 none: expected 192 of 380.
    assert value(character_alpha(data)) == pytest.approx(1 - (8 / 20) / (192 / 380))


# What cannot be measured.


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (kendall_tau(rankings({("q", "a"): {"k": 1, "m": 2}})), "only one annotator"),
        (
            kendall_tau(rankings({("q", "a"): {"k": 1, "m": 1}, ("q", "b"): {"k": 1, "m": 2}})),
            "somebody ties all options wherever two rank the same ones",
        ),
        (
            kendall_w(rankings({("q", "a"): {"k": 1, "m": 1}, ("q", "b"): {"k": 1, "m": 1}})),
            "no item has two complete rankings that prefer anything",
        ),
        (
            implied_alpha(rankings({("q", "a"): {"k": 1, "m": 1}, ("q", "b"): {"k": 1, "m": 1}})),
            "every answer is the same",
        ),
        (top_choice(rankings({("q", "a"): {"k": 1}, ("r", "b"): {"k": 1}})), "no item has two"),
        (jaccard_alpha(sets({("q", "a"): "x", ("q", "b"): "x"})), "every answer is the same"),
        (masi_alpha(sets({("q", "a"): "x", ("r", "b"): "x"})), "no item has two answers"),
        (exact_match(texts({("q", "a"): "x"})), "only one annotator"),
        (word_overlap(texts({})), "no answers"),
        (exact_f1(spans({("q", "a"): [], ("q", "b"): []})), "nobody marked anything"),
        (character_alpha(spans({("q", "a"): [], ("q", "b"): []})), "nobody marked anything"),
        (
            character_alpha(spans({("q", "a"): [(0, 10, "x")], ("q", "b"): [(0, 10, "x")]})),
            "every character has the same label",
        ),
        (overlap_f1(spans({("q", "a"): [(0, 1, "x")]})), "only one annotator"),
    ],
)
def test_what_is_undefined_says_why(figure: Figure, reason: str) -> None:
    assert figure.value is None
    assert reason in figure.reason


def test_two_versions_are_no_single_figure() -> None:
    answers = {("q", "a"): {"k": 1, "m": 2}, ("q", "b"): {"k": 1, "m": 2}}
    data = rankings(answers, guideline=np.array([0, 0, 1, 1]), guidelines=["g@v1", "g@v2"])
    for measure in (kendall_tau, kendall_w, top_choice, implied_alpha):
        assert "g@v1, g@v2" in measure(data).reason
    assert value(kendall_tau(data.pooled())) == 1.0
