"""Estimates and their intervals: against closed forms, and against what they claim to cover."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from annotate.statistics import (
    Estimate,
    bootstrap,
    bootstrap_mean,
    cluster_means,
    paired_difference,
    undefined,
    wilson,
    win_rate,
)


def test_an_estimate_reads_as_value_interval_and_n() -> None:
    estimate = Estimate(0.8641, 0.8427, 0.8869, 999, "percentile bootstrap", "items", seed=0)
    assert str(estimate) == "0.864 [0.843, 0.887], n=999"
    assert str(undefined("only one annotator", 3, "items")) == "undefined (only one annotator), n=3"
    assert str(Estimate(-0.0001, -0.0002, 0.5, 12_000, "", "")) == "0.000 [0.000, 0.500], n=12,000"
    assert json.loads(json.dumps(estimate.to_dict()))["seed"] == 0


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    ours = wilson(successes, n)
    theirs = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == successes / n


def test_wilson_without_trials_says_why_and_refuses_nonsense() -> None:
    assert wilson(0, 0).reason == "no data"
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)


def test_bootstrap_of_a_mean_is_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=4000)
    estimate = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.01)


def test_patterns_are_resampled_as_if_they_were_single_units() -> None:
    # 30 ones and 70 zeros: the number of ones in a resample is binomial(100, 0.3).
    share = bootstrap(lambda w: w[:, 1] / w.sum(axis=1), [70, 30], over="items", resamples=20_000)
    low, high = (binomtest(30, 100).statistic + z * np.sqrt(0.21 / 100) for z in (-1.96, 1.96))
    assert share.n == 100
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.012)


def test_intervals_cover_what_they_claim() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        won = rng.choice([0, 0.5, 1], p=[0.2, 0.2, 0.6], size=100)
        estimate = win_rate(won, resamples=400)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 0.7 <= estimate.high
    assert 180 <= hits <= 199  # 95 % of 200 is 190, its standard deviation 3.1


def test_the_seed_fixes_the_interval_and_is_recorded() -> None:
    values = np.arange(50.0)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3).low != bootstrap_mean(values, seed=4).low
    assert bootstrap_mean(values, seed=3).seed == 3


def test_without_variation_there_is_no_bootstrap_interval() -> None:
    estimate = bootstrap_mean([2.0, 2.0])
    assert (estimate.value, estimate.low, estimate.high) == (2.0, None, None)
    assert estimate.reason == "every resample gives this value"


def test_a_statistic_that_most_resamples_leave_undefined_has_no_interval() -> None:
    # Defined where the odd unit is drawn exactly once: binomial(10, 0.1) is 1 in 39 % of cases.
    def odd(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] == 1, 1.0, np.nan)

    estimate = bootstrap(odd, [1, 9], over="items")
    assert estimate.value == 1.0
    assert estimate.low is None
    assert "resamples define it" in estimate.reason


def test_no_data_and_nan_are_said_not_computed() -> None:
    assert bootstrap_mean([]).reason == "no data"
    assert win_rate([]).reason == "no data"
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_mean([1.0, float("nan")])


def test_a_tie_is_half_a_win() -> None:
    assert win_rate([1, 0.5, 0.5, 0]).value == 0.5
    with pytest.raises(ValueError, match=r"0, 0\.5 or 1"):
        win_rate([0.7])


def test_a_prompt_weighs_the_same_however_often_it_was_compared() -> None:
    estimate = win_rate([1, 1, 1, 1, 0], ["p", "p", "p", "p", "q"])
    assert (estimate.value, estimate.n) == (0.5, 2)


def test_comparisons_of_one_prompt_are_not_independent() -> None:
    rng = np.random.default_rng(5)
    won = rng.integers(0, 2, size=40).astype(float)
    alone, repeated = win_rate(won), win_rate(np.repeat(won, 25), np.repeat(np.arange(40), 25))
    assert (repeated.low, repeated.high) == (alone.low, alone.high)


def test_winning_every_prompt_still_leaves_doubt() -> None:
    estimate = win_rate([1.0] * 20)
    assert (estimate.value, estimate.high, estimate.method) == (1.0, 1.0, "Wilson")
    assert estimate.low == pytest.approx(0.839, abs=1e-3)  # 1 / (1 + 1.96² / 20)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, size=200)
    estimate = paired_difference(base + 1 + rng.normal(0, 0.1, size=200), base)
    assert estimate.value == pytest.approx(1, abs=0.05)
    assert estimate.low is not None
    assert estimate.low > 0.95
    with pytest.raises(ValueError, match="differ in shape"):
        paired_difference([1.0], [1.0, 2.0])


def test_cluster_means_keep_the_order_of_appearance() -> None:
    assert cluster_means([1, 2, 6], ["b", "a", "b"]).tolist() == [3.5, 2.0]
    with pytest.raises(ValueError, match="3 values in 2 clusters"):
        cluster_means([1, 2, 6], ["b", "a"])
