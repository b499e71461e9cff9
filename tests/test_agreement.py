"""Agreement: published tables, two other implementations, cases worked by hand, PandaLM."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from annotate.agreement import (
    LEVELS,
    Level,
    krippendorff_alpha,
    pairwise_kappas,
    patterns,
    raw_agreement,
)
from annotate.agreement_report import agreement_of_table, agreement_report
from annotate.consensus import majority
from annotate.errors import InputError
from annotate.labels import Labels, encode

# Krippendorff 2011, section C: four observers, twelve units, five categories, missing answers.
KRIPPENDORFF_2011 = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]


def labels_of(rows: list[str]) -> Labels:
    """One row an annotator, one column an item, "." a missing answer."""
    answers = [
        (f"item {at}", f"annotator {who}", label)
        for who, row in enumerate(rows)
        for at, label in enumerate(row.split())
        if label != "."
    ]
    return encode(*zip(*answers, strict=True))


def value(estimate: Any) -> float:
    assert estimate.value is not None, estimate.reason
    return float(estimate.value)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_as_published(level: Level, published: float) -> None:
    alpha = krippendorff_alpha(labels_of(KRIPPENDORFF_2011), level)
    assert value(alpha) == pytest.approx(published, abs=5e-4)
    assert alpha.n == 11  # the twelfth unit has one answer and cannot be compared


def test_alpha_by_hand() -> None:
    # Items aa, ab, bb. Observed: of 6 ordered pairs 2 disagree. Expected from 3 a, 3 b: of 30
    # ordered pairs 18 disagree. 1 - (2/6) / (18/30) = 4/9.
    assert value(krippendorff_alpha(labels_of(["a a b", "a b b"]))) == pytest.approx(4 / 9)


answer_tables = st.integers(2, 5).flatmap(
    lambda people: st.lists(
        st.lists(st.sampled_from([None, 0, 1, 2, 7]), min_size=people, max_size=people),
        min_size=2,
        max_size=12,
    )
)


@settings(deadline=None, max_examples=60)
@given(answer_tables, st.sampled_from(LEVELS))
def test_alpha_is_the_krippendorff_packages(table: list[list[int | None]], level: Level) -> None:
    rows = [" ".join("." if x is None else str(x) for x in row) for row in zip(*table, strict=True)]
    if all(set(row.split()) == {"."} for row in rows):
        return
    ours = krippendorff_alpha(labels_of(rows), level, resamples=20)
    pairable = [[x for x in item if x is not None] for item in table]
    answers = [x for item in pairable if len(item) > 1 for x in item]
    if len(set(answers)) < 2:
        assert ours.value is None
        assert ours.reason
        return
    matrix = np.array([[np.nan if x is None else x for x in row] for row in table]).T
    theirs = krippendorff.alpha(reliability_data=matrix, level_of_measurement=level)
    assert value(ours) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_the_interval_is_that_of_resampling_whole_items(level: Level) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, size=60)
    matrix = np.clip(truth + rng.integers(-1, 2, size=(3, 60)), 1, 5)
    ours = krippendorff_alpha(labels_of([" ".join(map(str, row)) for row in matrix]), level)
    draws = [
        krippendorff.alpha(matrix[:, rng.integers(0, 60, 60)], level_of_measurement=level)
        for _ in range(1000)
    ]
    assert (ours.low, ours.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["a b a"], "only one annotator"),
        (["a .", ". b"], "no item has two answers"),
        (["a a", "a a"], "every answer is the same"),
    ],
)
def test_an_undefined_alpha_says_why(rows: list[str], reason: str) -> None:
    alpha = krippendorff_alpha(labels_of(rows))
    assert (alpha.value, alpha.low, alpha.high, alpha.reason) == (None, None, None, reason)


def test_perfect_agreement_has_a_value_and_no_interval() -> None:
    alpha = krippendorff_alpha(labels_of(["a b", "a b"]))
    assert (alpha.value, alpha.low) == (1.0, None)


def test_words_have_no_order() -> None:
    with pytest.raises(InputError, match='ordinal needs numbers, and "bad" is none'):
        krippendorff_alpha(labels_of(["1 bad", "1 bad"]), "ordinal")


def test_raw_agreement_by_hand() -> None:
    # Items aab (1 of 3 pairs agrees), bb (1 of 1), a (none): 2 of 4.
    estimate = raw_agreement(labels_of(["a b a", "a b .", "b . ."]))
    assert (estimate.value, estimate.n) == (0.5, 2)
    everyone = raw_agreement(labels_of(["a b", "a b"]))
    assert (everyone.value, everyone.method, everyone.n) == (1.0, "Wilson", 2)
    assert raw_agreement(labels_of(["a b"])).reason == "only one annotator"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=20))
def test_kappa_is_scikit_learns(table: list[list[int]]) -> None:
    rows = list(zip(*table, strict=True))
    found = pairwise_kappas(labels_of([" ".join(map(str, row)) for row in rows]), resamples=10)
    assert len(found) == 3
    for pair in found:
        one, two = rows[int(pair.first[-1])], rows[int(pair.second[-1])]
        assert pair.agreement == pytest.approx(np.mean(np.equal(one, two)))
        if len({*one, *two}) == 1:
            assert pair.kappa.reason == "both gave every item the same label"
        else:
            assert value(pair.kappa) == pytest.approx(cohen_kappa_score(one, two), abs=1e-9)


def test_kappa_by_hand() -> None:
    # 4 items, 3 agree; a is said 2 and 3 times: chance 2·3/16 + 2·1/16 = 1/2; (3/4 - 1/2)/(1/2).
    (pair,) = pairwise_kappas(labels_of(["a a b b", "a a b a"]))
    assert value(pair.kappa) == pytest.approx(0.5)


def test_kappas_cover_common_items_only_and_say_where_there_is_no_interval() -> None:
    labels = labels_of(["a b a b .", "a b b b .", "b . . . a", ". . . . b"])
    pairs = {(p.first[-1], p.second[-1]): p.kappa.n for p in pairwise_kappas(labels)}
    assert pairs == {("0", "1"): 4, ("0", "2"): 1, ("1", "2"): 1, ("2", "3"): 1}
    first, *others = pairwise_kappas(labels, intervals=1)
    assert first.kappa.low is not None
    assert all(pair.kappa.low is None and pair.kappa.reason for pair in others)


def test_items_collapse_to_their_counts() -> None:
    found = patterns(labels_of(["a b a .", "b a a b", ". . . a"]))
    # ab, ba and (b, a) count the same; aa is another.
    assert sorted(found.multiplicity.tolist()) == [1, 3]
    assert found.sizes.tolist() == [2.0, 2.0]


def test_a_million_answers_take_seconds() -> None:
    rng = np.random.default_rng(0)
    n = 350_000
    truth = rng.integers(0, 3, size=n)
    label = np.where(rng.random((3, n)) < 0.8, truth, rng.integers(0, 3, size=(3, n)))
    names = [str(at) for at in range(n)]
    labels = Labels(
        np.tile(np.arange(n), 3), np.repeat(np.arange(3), n), label.ravel(),
        names, ["a", "b", "c"], ["0", "1", "2"],
    )  # fmt: skip
    report = agreement_report(labels)
    # Two answers agree with probability (1 - .2 · 2/3)² + 2 (.2/3)² = .76, by chance with 1/3.
    assert value(report.raw) == pytest.approx(0.76, abs=0.005)
    assert value(report.alpha) == pytest.approx((0.76 - 1 / 3) / (2 / 3), abs=0.005)
    assert report.alpha.high is not None
    assert report.alpha.low is not None
    assert report.alpha.high - report.alpha.low < 0.005


def test_the_report_is_json_and_text(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("item,annotator,label\nq,ann,1\nq,bob,1\nr,ann,2\nr,bob,1\nr,cat,\n")
    measured = agreement_of_table(path, "ordinal")
    told = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert told["questions"]["label"]["alpha"]["n"] == 2
    assert told["questions"]["label"]["classes"] == {"1": 3, "2": 1}
    assert told["quarantine"][0]["line"] == 6
    text = "\n".join(measured.lines())
    assert "Krippendorff's alpha (ordinal)" in text
    assert "line 6: no label" in text


def pandalm() -> list[dict[str, Any]]:
    folder = os.environ.get("HANDLOOM_DATA") or Path(__file__).parents[2] / "shared" / "data"
    path = Path(folder) / "pandalm" / "testset-v1.json"
    if not path.is_file():
        pytest.skip(f"PandaLM's test set is not at {path} (HANDLOOM_DATA names its folder)")
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def test_pandalms_three_people_agree_as_published() -> None:
    rows = pandalm()
    answers = [(str(r["idx"]), f"{k}", str(r[f"annotator{k}"])) for r in rows for k in (1, 2, 3)]
    labels = encode(*zip(*answers, strict=True))
    report = agreement_report(labels)
    kappas = {(pair.first, pair.second): value(pair.kappa) for pair in report.kappas}
    assert kappas == pytest.approx(
        {("1", "2"): 0.852, ("1", "3"): 0.879, ("2", "3"): 0.862}, abs=0.001
    )
    assert value(report.alpha) == pytest.approx(0.864, abs=5e-4)
    assert report.alpha.n == 999
    assert (report.alpha.low, report.alpha.high) == pytest.approx((0.843, 0.887), abs=0.002)
    # No pair of the 999 is split three ways, so that a majority always exists.
    assert Counter(majority(labels).best.tolist()) == {0: 105, 1: 422, 2: 472}
