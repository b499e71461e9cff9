"""The two intervals: against counting anew, and against what they claim to hold."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import t as student

from annotate.agreement import (
    Figure,
    character_alpha,
    exact_f1,
    gwet_ac1,
    gwet_ac2,
    kendall_tau,
    kendall_w,
    krippendorff_alpha,
    masi_alpha,
    overlap_f1,
    raw_agreement,
    tie_rate,
    top_choice,
    word_overlap,
)
from annotate.agreement.alpha import nominal
from annotate.agreement.patterns import contributions, patterns
from annotate.annotations import MultiLabels, Rankings, Spans, Texts
from annotate.labels import Labels

PEOPLE, ITEMS = 5, 30


def who_what(rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Items, annotators and names of answers, four fifths of all; and how careful each is."""
    given = rng.random((ITEMS, PEOPLE)) < 0.8
    item, annotator = np.nonzero(given)
    names = {"items": [f"i{n}" for n in range(ITEMS)], "annotators": list("abcde")}
    care = np.array([0.95, 0.9, 0.8, 0.5, 0.2])[annotator]
    return {"item": item, "annotator": annotator, **names}, rng.random(len(item)) < care


def some_labels(rng: np.random.Generator) -> Labels:
    who, careful = who_what(rng)
    truth = rng.integers(0, 4, size=ITEMS)[who["item"]]
    label = np.where(careful, truth, rng.integers(0, 4, size=len(truth)))
    return Labels(**who, label=label, classes=["0", "1", "2", "5"])


def some_sets(rng: np.random.Generator) -> MultiLabels:
    who, careful = who_what(rng)
    truth = rng.random((ITEMS, 3))[who["item"]] < 0.5
    member = np.where(careful[:, None], truth, rng.random(truth.shape) < 0.5)
    return MultiLabels(**who, member=sp.csr_array(member.astype(float)), classes=["x", "y", "z"])


def some_rankings(rng: np.random.Generator) -> Rankings:
    who, careful = who_what(rng)
    truth = rng.integers(1, 5, size=(ITEMS, 4))[who["item"]]
    rank = np.where(careful[:, None], truth, rng.integers(1, 5, size=truth.shape))
    rows = {name: np.repeat(who.pop(name), 4) for name in ("item", "annotator")}
    option = np.tile(np.arange(4), len(rank))
    return Rankings(**rows, **who, option=option, rank=rank.ravel(), options=list("kmno"))


def some_texts(rng: np.random.Generator) -> Texts:
    who, careful = who_what(rng)
    words = np.array(["go", "home", "now", "please", "or", "not"])
    truth = rng.integers(0, 6, size=(ITEMS, 5))[who["item"]]
    chosen = np.where(careful[:, None], truth, rng.integers(0, 6, size=truth.shape))
    text = np.array([" ".join(words[row]) for row in chosen], dtype=object)
    return Texts(**who, text=text)


def some_spans(rng: np.random.Generator) -> Spans:
    who, careful = who_what(rng)
    start = rng.integers(0, 20, size=ITEMS)[who["item"]]
    start = np.where(careful, start, rng.integers(0, 20, size=len(start)))
    return Spans(
        **who, start=start, end=start + 5, label=start % 2, length=np.full(ITEMS, 30),
        classes=["x", "y"],
    )  # fmt: skip


def ordinal(labels: Labels, **how: Any) -> Figure:
    return krippendorff_alpha(labels, "ordinal", **how)


def interval(labels: Labels, **how: Any) -> Figure:
    return krippendorff_alpha(labels, "interval", **how)


def zeros(labels: Labels, **how: Any) -> Figure:
    return tie_rate(labels, tie="0", **how)


MEASURES: list[tuple[Callable[..., Figure], Callable[[np.random.Generator], Any]]] = [
    *((measure, some_labels) for measure in (krippendorff_alpha, ordinal, interval)),
    *((measure, some_labels) for measure in (gwet_ac1, gwet_ac2, raw_agreement, zeros)),
    *((measure, some_rankings) for measure in (kendall_tau, kendall_w, top_choice)),
    (masi_alpha, some_sets),
    (word_overlap, some_texts),
    *((measure, some_spans) for measure in (character_alpha, exact_f1, overlap_f1)),
]


@pytest.mark.parametrize(("measure", "make"), MEASURES, ids=lambda of: of.__name__)
def test_leaving_people_and_answers_out_is_counting_anew(
    measure: Callable[..., Figure], make: Callable[[np.random.Generator], Any]
) -> None:
    data = make(np.random.default_rng(3))
    figure = measure(data, resamples=2000)
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    over = figure.over_annotators
    assert over.low is not None
    assert over.high is not None
    # The half-width, undone: t of Satterthwaite's degrees of freedom times the standard error.
    variance = ((figure.high - figure.low) / (2 * 1.96)) ** 2  # nearly normal
    people = [measure(data.without([name]), resamples=2).value for name in data.annotators]
    spread = np.asarray(people) - np.mean(people)
    between = (PEOPLE - 1) / PEOPLE * float((spread**2).sum())
    answers = sum(
        (measure(data.select(~one), resamples=2).value - figure.value) ** 2
        for one in each_answer(data)
    )
    total = variance + max(0.0, between - answers)
    freedom = (PEOPLE - 1) * max(1, total / between) ** 2
    half = max(figure.value - over.low, over.high - figure.value)  # one end may be cut off
    assert half == pytest.approx(student.ppf(0.975, freedom) * math.sqrt(total), rel=0.08)


def each_answer(data: Any) -> list[np.ndarray[Any, Any]]:
    key = data.item * PEOPLE + data.annotator
    return [key == one for one in np.unique(key)]


@pytest.mark.parametrize("least", [1, 2])
def test_what_a_person_takes_away_is_what_is_missing_without_them(least: int) -> None:
    rng = np.random.default_rng(8)
    given = rng.random((30, 4)) < 0.5  # many items with two answers, or one
    item, annotator = np.nonzero(given)
    label = rng.integers(0, 3, size=len(item))
    names = [str(at) for at in range(30)]
    labels = Labels(item, annotator, label, names, names[:4], names[:3])
    features, _ = nominal(3)
    parts = contributions(labels, patterns(labels, least=least), features)
    for person in range(4):
        rest = labels.without([str(person)])
        anew = contributions(rest, patterns(rest, least=least), features).total
        loss = parts.loss[(labels.annotator == person) & (parts.loss >= 0)]
        left = parts.total - parts.losses[loss].sum(axis=0)
        assert left == pytest.approx(anew)


def test_items_of_one_prompt_are_drawn_together() -> None:
    labels = some_labels(np.random.default_rng(5))
    alone = raw_agreement(labels)
    # Every item ten times, its copies of one prompt: there is no more to learn than from one each.
    copies = [labels.item + ITEMS * copy for copy in range(10)]
    many = Labels(
        np.concatenate(copies), np.tile(labels.annotator, 10), np.tile(labels.label, 10),
        [f"i{at}" for at in range(10 * ITEMS)], labels.annotators, labels.classes,
        prompt=np.tile(np.arange(ITEMS), 10),
    )  # fmt: skip
    together = raw_agreement(many)
    assert together.value == pytest.approx(alone.value)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.015)
    assert together.over_items.over == "prompts, this panel of annotators"
    assert together.over_annotators.low == pytest.approx(alone.over_annotators.low, abs=0.015)
    apart = raw_agreement(replace(many, prompt=None))
    assert apart.low is not None
    assert together.low is not None
    assert apart.low > together.low + 0.03


def test_where_people_do_not_differ_others_would_agree_as_these_do() -> None:
    rng = np.random.default_rng(7)
    items, people = 2000, 40
    truth = rng.integers(0, 2, size=items)
    who = np.argsort(rng.random((items, people)), axis=1)[:, :2]
    said = np.where(rng.random((items, 2)) < 0.8, truth[:, None], 1 - truth[:, None])
    labels = Labels(
        np.repeat(np.arange(items), 2), who.ravel(), said.ravel(),
        [str(at) for at in range(items)], [str(at) for at in range(people)], ["0", "1"],
    )  # fmt: skip
    figure = raw_agreement(labels)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.over_annotators.low is not None
    assert figure.over_annotators.high is not None
    wider = (figure.over_annotators.high - figure.over_annotators.low) / (figure.high - figure.low)
    # Every pair of answers is of two people: counted for both, chance alone would make it √3.
    assert 1.0 <= wider < 1.35


def test_a_share_is_a_share_also_with_other_annotators() -> None:
    # Two always agree, the third with them on two items only: much hangs on who is there.
    item, annotator = (axis.ravel() for axis in np.indices((20, 3)))
    label = np.where((annotator == 2) & (item > 1), 2 + item % 2, item % 2)
    names = [str(at) for at in range(20)]
    figure = raw_agreement(Labels(item, annotator, label, names, names[:3], names[:4]))
    assert figure.value == pytest.approx((2 + 18 / 3) / 20)
    assert (figure.over_annotators.low, figure.over_annotators.high) == (0, 1)


def test_few_annotators_have_no_interval_over_annotators() -> None:
    labels = some_labels(np.random.default_rng(6))
    two = raw_agreement(labels.without(["c", "d", "e"]))
    assert two.low is not None
    assert two.over_annotators.low is None
    assert "two annotators" in two.over_annotators.reason
    assert "no interval" in str(two)


def coverage(**options: int) -> dict[str, float]:
    """What bench/interval_coverage.py finds."""
    given = [text for name, number in options.items() for text in (f"--{name}", str(number))]
    ran = subprocess.run(
        [sys.executable, "bench/interval_coverage.py", *given],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_both_intervals_hold_what_they_promise() -> None:
    found = coverage(replications=100, resamples=300)
    # 95 % of 100, with a standard deviation of 2.2.
    assert 0.88 <= found["over_items"] <= 0.99
    assert 0.88 <= found["over_annotators"] <= 0.99
    # What the interval over items would be as one over annotators.
    assert found["over_items_of_others"] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [3, 10])
def test_ten_people_are_covered_93_to_97_times_in_100(overlap: int) -> None:
    found = coverage(people=10, overlap=overlap, replications=1000, resamples=1000)
    assert 0.93 <= found["over_items"] <= 0.97
    assert 0.93 <= found["over_annotators"] <= 0.97
