"""Agreement: published tables, two other implementations, cases worked by hand, PandaLM."""

from __future__ import annotations

import importlib
import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics.agreement import AnnotationTask
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from annotate.agreement import (
    LEVELS,
    Level,
    coincidences,
    confusion,
    gwet_ac1,
    gwet_ac2,
    kappa_table,
    krippendorff_alpha,
    no_tie_agreement,
    no_tie_alpha,
    pairwise_kappas,
    patterns,
    rating_scales,
    raw_agreement,
    strength_alpha,
    three_way_alpha,
    tie_rate,
)
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
    if all(pair.kappa.value is not None for pair in found):
        answers = [(who, at, said) for at, row in enumerate(table) for who, said in enumerate(row)]
        mean = np.mean([value(pair.kappa) for pair in found])
        assert mean == pytest.approx(AnnotationTask(data=answers).kappa(), abs=1e-9)


def test_kappas_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labels_of(["a b c b a b c", "a b b . a b a", "b . a c c . a", ". c . . a a b"])
    whole = kappa_table(labels)
    monkeypatch.setattr(importlib.import_module("annotate.agreement.kappa"), "_ITEMS", 3)
    np.testing.assert_equal(vars(kappa_table(labels)), vars(whole))


def test_kappa_by_hand() -> None:
    # 4 items, 3 agree; a is said 2 and 3 times: chance 2·3/16 + 2·1/16 = 1/2; (3/4 - 1/2)/(1/2).
    (pair,) = pairwise_kappas(labels_of(["a a b b", "a a b a"]))
    assert value(pair.kappa) == pytest.approx(0.5)


def test_kappas_cover_common_items_only_and_say_where_there_is_no_interval() -> None:
    labels = labels_of(["a b a b a b .", "a b b b a b .", "b . . . . . a", ". . . . . . b"])
    pairs = {(p.first[-1], p.second[-1]): p.kappa.n for p in pairwise_kappas(labels)}
    assert pairs == {("0", "1"): 6, ("0", "2"): 1, ("1", "2"): 1, ("2", "3"): 1}
    first, *others = pairwise_kappas(labels, intervals=1)
    assert first.kappa.low is not None
    assert all(pair.kappa.low is None and pair.kappa.reason for pair in others)


@pytest.mark.parametrize("far", [1e5, 1e9])
def test_a_rating_given_alone_and_far_away_does_not_blur_the_others(far: float) -> None:
    pairs = [(1, 2), (2, 2), (4, 5), (3, 5), (1, 1)]
    one, two = ([str(pair[side]) for pair in pairs] for side in (0, 1))
    labels = labels_of([" ".join([*one, f"{far:.0f}"]), " ".join([*two, "."])])
    expected = krippendorff.alpha(
        reliability_data=[[float(r) for r in row] for row in (one, two)],
        level_of_measurement="interval",
    )
    assert value(krippendorff_alpha(labels, "interval")) == pytest.approx(expected, abs=1e-9)


def test_as_many_classes_as_answers_are_no_matrix() -> None:
    """Every two of 24,000 classes would be 576 million numbers."""
    rng = np.random.default_rng(0)
    said = rng.random(24_000)
    item, who = np.repeat(np.arange(12_000), 2), np.tile([0, 1], 12_000)
    classes = [repr(float(number)) for number in np.sort(said)]
    names = [str(at) for at in range(12_000)]
    labels = Labels(item, who, np.argsort(np.argsort(said)), names, ["a", "b"], classes)
    tracemalloc.start()
    first, second = gwet_ac1(labels, resamples=2), gwet_ac2(labels, resamples=2)
    (pair,) = pairwise_kappas(labels)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1e9
    assert value(first) == pytest.approx(-1 / 23_999, rel=1e-3)
    assert abs(value(second)) < 0.05
    assert "24,000 classes, more than 1,000" in pair.kappa.reason


def test_items_collapse_to_their_counts() -> None:
    found = patterns(labels_of(["a b a .", "b a a b", ". . . a"]))
    # ab, ba and (b, a) count the same; aa is another.
    assert sorted(found.multiplicity.tolist()) == [1, 3]
    assert found.sizes.tolist() == [2.0, 2.0]


def test_coincidences_are_as_published() -> None:
    # Krippendorff 2011, section C: the coincidence matrix of his example.
    assert coincidences(labels_of(KRIPPENDORFF_2011)) == pytest.approx(
        np.array(
            [
                [7, 4 / 3, 1 / 3, 1 / 3, 0],
                [4 / 3, 10, 4 / 3, 1 / 3, 0],
                [1 / 3, 4 / 3, 8, 1 / 3, 0],
                [1 / 3, 1 / 3, 1 / 3, 4, 0],
                [0, 0, 0, 0, 3],
            ]
        )
    )


# Gwet 2008 and his handbook (2014): two abstractors, 100 patients, three diagnoses.
ABSTRACTORS = np.array([[13, 0, 0], [0, 20, 7], [0, 4, 56]])


def labels_of_table(table: np.ndarray[Any, Any]) -> Labels:
    """Two annotators' contingency table, item by item."""
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    answers = [
        (str(at), who, str(said))
        for at, cell in enumerate(cells)
        for who, said in zip("ab", cell, strict=True)
    ]
    return encode(*zip(*answers, strict=True))


def test_ac1_and_ac2_are_as_published() -> None:
    four = labels_of(KRIPPENDORFF_2011)  # Gwet uses the same table, unit 12 counting for chance
    assert value(gwet_ac1(four)) == pytest.approx(0.77544, abs=5e-6)
    assert value(gwet_ac2(four)) == pytest.approx(0.914, abs=5e-4)
    abstractors = labels_of_table(ABSTRACTORS)
    assert value(gwet_ac1(abstractors)) == pytest.approx(0.8493305, abs=5e-8)
    (pair,) = pairwise_kappas(abstractors, resamples=20)
    assert value(pair.kappa) == pytest.approx(0.7964094, abs=5e-8)
    # Alpha by its own definition; some programs give another interval, none another value.
    assert value(krippendorff_alpha(abstractors)) == pytest.approx(0.7972585, abs=5e-8)


def test_ac1_by_hand_where_kappa_is_a_paradox() -> None:
    # Of 125 both say yes 118 times, one of them 5 and 2: pa = .944. yes is given 243 of 250 times:
    # pe = 2 · .972 · .028 = .054432; AC1 = (.944 - .054432) / (1 - .054432) = .940776.
    labels = labels_of_table(np.array([[118, 5], [2, 0]]))
    assert value(gwet_ac1(labels)) == pytest.approx((0.944 - 0.054432) / (1 - 0.054432), abs=1e-12)
    (pair,) = pairwise_kappas(labels, resamples=20)
    assert value(pair.kappa) == pytest.approx(-0.0234, abs=5e-5)


def test_ac2_by_hand() -> None:
    # Ratings 1-1, 1-2, 3-3, and 2 alone. Weights: 1, 3/4 one apart, 0 two apart; their sum is 6.
    # pa = (1 + 3/4 + 1)/3 = 11/12. Shares: 1 is (1 + 1/2)/4, 2 is (1/2 + 1)/4, 3 is 1/4.
    # pe = 6/6 · (3/8 · 5/8 · 2 + 1/4 · 3/4) = 21/32; AC2 = (11/12 - 21/32) / (11/32).
    labels = labels_of(["1 1 3 2", "1 2 3 ."])
    assert value(gwet_ac2(labels)) == pytest.approx((11 / 12 - 21 / 32) / (11 / 32))


def gwet_by_definition(table: list[list[int | None]], weights: np.ndarray[Any, Any]) -> float:
    """Gwet 2014, equations of chapters 2 and 4, item by item."""
    names = sorted({x for row in table for x in row if x is not None})
    counts = np.array([[sum(x == name for x in row) for name in names] for row in table], float)
    counts = counts[counts.sum(axis=1) > 0]
    sizes = counts.sum(axis=1)
    alike = [
        sum(row[k] * (weights[k] @ row - 1) for k in range(len(names))) / (m * (m - 1))
        for row, m in zip(counts, sizes, strict=True)
        if m > 1
    ]
    shares = (counts / sizes[:, None]).mean(axis=0)
    q = len(names)
    chance = weights.sum() / (q * (q - 1)) * (shares * (1 - shares)).sum()
    return float((np.mean(alike) - chance) / (1 - chance))


@settings(deadline=None, max_examples=60)
@given(answer_tables)
def test_ac1_and_ac2_are_their_definitions(table: list[list[int | None]]) -> None:
    rows = [" ".join("." if x is None else str(x) for x in row) for row in zip(*table, strict=True)]
    names = sorted({x for row in table for x in row if x is not None})
    if not names:
        return
    labels = labels_of(rows)
    pairable = any(sum(x is not None for x in row) > 1 for row in table)
    apart = np.subtract.outer(names, names) ** 2
    for ours, weights in (
        (gwet_ac1, np.eye(len(names))),
        (gwet_ac2, 1 - apart / max(apart.max(), 1)),
    ):
        figure = ours(labels, resamples=20)
        if len(names) < 2 or not pairable:
            assert figure.value is None
            assert figure.reason
        else:
            assert value(figure) == pytest.approx(gwet_by_definition(table, weights), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(answer_tables)
def test_kappas_with_missing_answers_are_statsmodels(table: list[list[int | None]]) -> None:
    rows = [" ".join("." if x is None else str(x) for x in row) for row in zip(*table, strict=True)]
    if all(set(row.split()) == {"."} for row in rows):
        return
    labels = labels_of(rows)
    found = kappa_table(labels)
    for first, second, n, agreement, kappa in zip(
        found.first, found.second, found.n, found.agreement, found.kappa, strict=True
    ):
        names = labels.annotators[first], labels.annotators[second]
        cells = confusion(labels, *names)
        assert (cells.sum(), np.trace(cells) / n) == (n, pytest.approx(agreement))
        if np.isnan(kappa):
            assert np.count_nonzero(cells) == 1
        else:
            assert kappa == pytest.approx(cohens_kappa(cells).kappa, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=20))
def test_alpha_of_complete_tables_is_fleiss_kappa_corrected(table: list[list[int]]) -> None:
    # For complete tables 1 - alpha = (1 - kappa) (1 - 1/n) with n answers (Krippendorff 2011).
    counts = np.array([[row.count(label) for label in range(3)] for row in table])
    rows = [" ".join(map(str, row)) for row in zip(*table, strict=True)]
    figure = krippendorff_alpha(labels_of(rows), resamples=20)
    if len({label for row in table for label in row}) > 1:
        expected = 1 - (1 - fleiss_kappa(counts)) * (1 - 1 / counts.sum())
        assert value(figure) == pytest.approx(expected, abs=1e-9)


def test_ties_are_left_out_or_counted() -> None:
    votes = labels_of(["a a tie b tie", "a b tie tie ."])
    # Pairs aa, ab, tt, bt: of 8 answers 3 a, 2 b, 3 ties; observed 2 of 4, expected 42 of 56.
    assert value(three_way_alpha(votes)) == pytest.approx(1 - (2 / 4) / (42 / 56))
    # Without ties aa and ab remain: observed 1/2, expected 6 of 12.
    assert value(no_tie_alpha(votes)) == pytest.approx(0)
    assert value(no_tie_agreement(votes)) == pytest.approx(0.5)
    assert (value(tie_rate(votes)), tie_rate(votes).n) == (pytest.approx(4 / 9), 5)
    everyone = labels_of(["tie tie", "tie tie"])
    assert no_tie_alpha(everyone).reason == "every answer is a tie"
    assert three_way_alpha(everyone).reason == "every answer is the same"
    assert value(tie_rate(everyone)) == 1.0


def test_strengths_are_ordinal_and_without_ties_a_sign() -> None:
    strengths = labels_of(["-3 1 2 0", "-1 3 -2 1"])
    assert strength_alpha(strengths).value == krippendorff_alpha(strengths, "ordinal").value
    signs = labels_of(["a b b .", "a b a b"])
    assert value(no_tie_alpha(strengths, tie="0")) == value(krippendorff_alpha(signs))


def test_offset_and_scale_by_hand() -> None:
    # b is a plus 2 throughout; c has half of a's spread about the same mean, 3.
    scales = rating_scales(labels_of(["1 3 5 3", "3 5 7 5", "2 3 4 3"]))
    # Others' means: of a 2.5 4 5.5 4, so -1.5 -1 -.5 -1; of b 1.5 3 4.5 3, of c 2 4 6 4.
    assert [value(one.offset) for one in scales] == pytest.approx([-1, 2, -1])
    # Variances: a and b 2, c 1/2. The others of a: b about 5 and c about 3, centre 4: 1 + 5/4.
    assert value(scales[0].scale) == pytest.approx(np.sqrt(2 / (1 + 5 / 4)))
    assert scales[0].offset.low == pytest.approx(
        -1 - 3.182446 * np.std([0.5, 0, -0.5, 0], ddof=1) / 2
    )
    alone = rating_scales(labels_of(["1 2", ". ."][:1]))
    assert alone[0].offset.reason == "nobody else rated the same items"
    flat = rating_scales(labels_of(["1 2 3", "2 2 2"]))
    assert flat[1].scale.reason == "ratings without spread"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["1 2 1"], "only one annotator"),
        (["1 .", ". 2"], "no item has two answers"),
        (["2 2", "2 2"], "the same"),
    ],
)
def test_every_measure_of_labels_says_why_it_is_undefined(rows: list[str], reason: str) -> None:
    labels = labels_of(rows)
    for measure in (krippendorff_alpha, gwet_ac1, gwet_ac2, strength_alpha, three_way_alpha):
        figure = measure(labels)
        assert figure.value is None
        assert reason in figure.reason
        assert (figure.over_annotators.low, figure.over_items.high) == (None, None)
        assert (figure.n_items, figure.n_annotators) == (len(set(labels.item)), len(rows))
        assert figure.definition
        json.dumps(figure.to_dict(), allow_nan=False)


def test_no_answers_are_no_figure() -> None:
    nothing = labels_of(["1 2", "1 1"]).without(["annotator 0", "annotator 1"])
    for measure in (krippendorff_alpha, raw_agreement, gwet_ac1, gwet_ac2, tie_rate, no_tie_alpha):
        assert measure(nothing).reason == "no answers"
    assert (pairwise_kappas(nothing), rating_scales(nothing)) == ([], [])


def test_one_figure_is_of_one_version_of_the_guideline() -> None:
    labels = encode(
        ["q", "q", "r", "r"] * 2, ["a", "b"] * 4, ["1", "2", "2", "2", "1", "1", "2", "2"],
        guideline=["g@v1"] * 4 + ["g@v2"] * 4,
    )  # fmt: skip
    for measure in (krippendorff_alpha, raw_agreement, gwet_ac1, gwet_ac2, tie_rate, no_tie_alpha):
        assert measure(labels).value is None
        assert "2 versions of the guideline (g@v1, g@v2)" in measure(labels).reason
    with pytest.raises(ValueError, match="take them apart or pool"):
        pairwise_kappas(labels)
    with pytest.raises(ValueError, match="take them apart or pool"):
        rating_scales(labels)
    by_version = {name: raw_agreement(part) for name, part in labels.by_version().items()}
    assert {name: (f.value, f.guideline) for name, f in by_version.items()} == {
        "g@v1": (0.5, "g@v1"),
        "g@v2": (1.0, "g@v2"),
    }
    assert (raw_agreement(labels.pooled()).value, raw_agreement(labels.pooled()).guideline) == (
        1.0,
        None,
    )


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
    raw, alpha = raw_agreement(labels), krippendorff_alpha(labels)
    # Two answers agree with probability (1 - .2 · 2/3)² + 2 (.2/3)² = .76, by chance with 1/3.
    assert value(raw) == pytest.approx(0.76, abs=0.005)
    assert value(alpha) == pytest.approx((0.76 - 1 / 3) / (2 / 3), abs=0.005)
    assert alpha.high is not None
    assert alpha.low is not None
    assert alpha.high - alpha.low < 0.005


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
    kappas = {(pair.first, pair.second): value(pair.kappa) for pair in pairwise_kappas(labels)}
    alpha = krippendorff_alpha(labels)
    assert kappas == pytest.approx(
        {("1", "2"): 0.852, ("1", "3"): 0.879, ("2", "3"): 0.862}, abs=0.001
    )
    assert value(alpha) == pytest.approx(0.864, abs=5e-4)
    assert alpha.n == 999
    assert (alpha.low, alpha.high) == pytest.approx((0.843, 0.887), abs=0.002)
    # No pair of the 999 is split three ways, so that a majority always exists.
    assert Counter(majority(labels).best.tolist()) == {0: 105, 1: 422, 2: 472}
