"""Calibration and the choice of a method: on simulated votes with known truth, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bradley_terry import Answers, answers, compared, of_answers

from annotate.consensus.calibration import (
    calibrated,
    difficulty_temperature,
    gold_temperature,
    held_out,
)
from annotate.consensus.comparisons import Comparisons
from annotate.consensus.pairs import judge_pairs, method_of_pairs
from annotate.consensus.reliability_curve import ReliabilityCurve, reliability_curve
from annotate.consensus.result import Consensus
from annotate.judgements import reliability_lines
from annotate.labels import Labels

Reals = NDArray[np.float64]


def simulated(
    prompts: int, responses: int, *, bad: float = 0.25, votes: int = 3, seed: int = 0
) -> tuple[Comparisons, NDArray[np.bool_]]:
    """Votes on all pairs of each prompt's responses, and where a is truly better.

    Scores from N(0, 1.75²), Davidson's votes with ν = .15; of the bad half guess and half lie.
    """
    rng = np.random.default_rng(seed)
    people = 40
    reliability = np.exp(rng.normal(0, 0.3, people))
    spoilt = rng.permutation(people)[: round(people * bad)]
    reliability[spoilt] = np.where(np.arange(len(spoilt)) % 2, -1.0, 0.0)
    score = rng.normal(0, 1.75, (prompts, responses))
    one, other = np.triu_indices(responses, 1)
    prompt = np.repeat(np.arange(prompts), len(one))
    a, b = np.tile(one, prompts), np.tile(other, prompts)
    difference = score[prompt, a] - score[prompt, b]
    pair = np.repeat(np.arange(len(prompt)), votes)
    who = np.argsort(rng.random((len(prompt), people)), axis=1)[:, :votes].ravel()
    seen = reliability[who] * difference[pair]
    chances = np.stack([np.exp(-seen / 2), np.full(len(seen), 0.15), np.exp(seen / 2)])
    said = (rng.random(len(seen)) * chances.sum(axis=0) > np.cumsum(chances, axis=0)).sum(axis=0)
    labels = Labels(
        pair, who, said, [f"{at:06}" for at in range(len(prompt))],
        [f"w{at}" for at in range(people)], ["b", "tie", "a"],
    )  # fmt: skip
    data = Comparisons(labels, prompt, prompt * responses + a, prompt * responses + b)
    return data, difference > 0


def right_at(posterior: Reals, truth: NDArray[np.bool_], low: float, high: float) -> float:
    """How often the likelier side is the better one, of the pairs stated between both."""
    sure = np.maximum(posterior, 1 - posterior)
    here = (sure >= low) & (sure <= high)
    return float(((posterior > 0.5) == truth)[here].mean())


@pytest.mark.parametrize(("prompts", "responses"), [(5000, 2), (700, 4)])
def test_a_posterior_means_what_it_says(prompts: int, responses: int) -> None:
    data, truth = simulated(prompts, responses)
    found = judge_pairs(data)
    # .94 to .97 on average (bench/filters.py); of 900 pairs give or take .015.
    assert 0.925 < right_at(found.posterior, truth, 0.93, 0.97) < 0.985
    against_truth = reliability_curve(found.posterior, truth.astype(float), "truth")
    assert against_truth.error is not None
    assert against_truth.error < 0.03
    (calibration,) = found.calibration.values()
    assert 0.97 * len(data.votes) < calibration.held_out.n <= len(data.votes)
    assert calibration.held_out.error is not None
    assert calibration.held_out.error < 0.06


def test_a_ranking_counts_for_less_than_as_many_votes() -> None:
    """The ten votes that a ranking of five implies err together."""
    rng = np.random.default_rng(0)
    prompts, responses, people = 300, 5, 30
    score = rng.normal(0, 1.5, (prompts, responses))
    who = np.argsort(rng.random((prompts, people)), axis=1)[:, :3]
    # Whoever ranks by scores with Gumbel's noise votes on each pair as Bradley and Terry say.
    seen = score[:, None, :] + rng.gumbel(size=(prompts, 3, responses))
    one, other = np.triu_indices(responses, 1)
    ahead = np.moveaxis(seen[:, :, one] > seen[:, :, other], 1, 2)
    prompt, pairs = np.repeat(np.arange(prompts), len(one)), prompts * len(one)
    labels = Labels(
        np.repeat(np.arange(pairs), 3), np.repeat(who[:, None, :], len(one), axis=1).ravel(),
        np.where(ahead, 2, 0).ravel(), [f"{at:05}" for at in range(pairs)],
        [f"w{at}" for at in range(people)], ["b", "tie", "a"],
    )  # fmt: skip
    a, b = (prompt * responses + np.tile(side, prompts) for side in (one, other))
    found = judge_pairs(Comparisons(labels, prompt, a, b))
    assert found.calibration["bradley-terry"].temperature > 1.2
    truth = (score[:, one] > score[:, other]).ravel()
    against_truth = reliability_curve(found.posterior, truth.astype(float), "truth")
    assert against_truth.error is not None
    assert against_truth.error < 0.03
    assert 0.93 < right_at(found.posterior, truth, 0.93, 0.97) < 0.98


def test_dawid_skene_alone_would_claim_too_much() -> None:
    data, truth = simulated(4000, 2)
    found = judge_pairs(data)
    temperature = found.calibration["dawid-skene"].temperature
    assert 1.1 < temperature < 1.6
    claimed = calibrated(found.posterior, 1 / temperature)
    assert right_at(claimed, truth, 0.93, 0.97) < 0.93


def test_gold_decides_where_there_is_any() -> None:
    data, truth = simulated(1500, 2)
    gold = {pair: float(truth[pair]) for pair in range(0, 1500, 3)}
    found = judge_pairs(data, gold=gold)
    curve = found.calibration["dawid-skene"].gold
    assert curve is not None
    assert curve.n == 500
    assert curve.error is not None
    assert curve.error < 0.06
    # Gold that contradicts every posterior leaves little of them.
    wrong = judge_pairs(data, gold={pair: 1 - right for pair, right in gold.items()})
    assert np.abs(wrong.posterior - 0.5).max() < np.abs(found.posterior - 0.5).max() - 0.1


def test_a_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    true = rng.beta(0.6, 0.6, 4000)
    overconfident = calibrated(true, 0.5)  # doubled log-odds
    outcome = (rng.random(4000) < true).astype(float)
    assert gold_temperature(overconfident, outcome, 1.0) == pytest.approx(2, abs=0.15)
    assert difficulty_temperature(true, true) == pytest.approx(1, abs=1e-3)


def test_little_gold_leaves_the_temperature_near_what_it_was() -> None:
    assert gold_temperature(np.array([0.9]), np.array([0.0]), 1.3) == pytest.approx(1.3, rel=0.25)
    assert gold_temperature(np.empty(0), np.empty(0), 1.3) == pytest.approx(1.3, rel=1e-3)


@given(st.floats(0, 1), st.floats(0.2, 10))
def test_calibration_keeps_order_halves_and_complements(p: float, temperature: float) -> None:
    larger = max(p, 1 - p)
    both = calibrated(np.array([larger, 1 - larger]), temperature)
    assert both[0] == 1 - both[1]
    assert 0.5 <= both[0] <= 1
    assert calibrated(np.array([0.5]), temperature)[0] == 0.5


def test_prompts_with_three_outputs_are_weighed_together() -> None:
    rows = [("p", "o1", "o2", "ann", "a"), ("p", "o2", "o3", "ann", "a"),
            ("q", "o4", "o5", "ann", "b")]  # fmt: skip
    data = compared(rows)
    of_pair = dict(zip(data.votes.items, method_of_pairs(data, "auto"), strict=True))
    assert of_pair == {
        "p/o1/o2": "bradley-terry", "p/o2/o3": "bradley-terry", "q/o4/o5": "dawid-skene",
    }  # fmt: skip
    found = judge_pairs(data)
    assert set(found.calibration) == {"bradley-terry", "dawid-skene"}
    assert found.weight is not None
    assert np.isfinite(found.weight).all()
    assert judge_pairs(data, "majority").weight is None


@settings(deadline=None, max_examples=20)
@given(answers, st.sampled_from(["auto", "dawid-skene", "bradley-terry", "majority"]))
def test_swapping_a_and_b_mirrors_every_posterior_exactly(given: Answers, method: str) -> None:
    other = {"a": "b", "b": "a", "tie": "tie"}
    turned = {key: other[vote] for key, vote in given.items()}
    one, two = (judge_pairs(of_answers(each), method).posterior for each in (given, turned))
    if method == "majority":
        assert one == pytest.approx(1 - two)
    else:
        assert (one == 1 - two).all()


def test_a_vote_is_foreseen_by_a_model_that_has_not_seen_it() -> None:
    data, _ = simulated(20, 2, votes=5)
    seen: list[int] = []

    def fit(train: Comparisons) -> Consensus:
        seen.append(len(train.votes))
        nothing = np.empty(0)

        def foresee(item: Reals, annotator: Reals) -> Reals:
            rows = set(zip(train.votes.item, train.votes.annotator, strict=True))
            assert not rows & set(zip(item, annotator, strict=True))
            return np.tile([0.3, 0.0, 0.7], (len(item), 1))

        return Consensus("none", nothing, nothing, nothing, [], True, foresee)

    found = held_out(data, fit)
    assert seen == [80] * 5
    assert found.curve.n == 100
    assert found.slope == 1.0  # too few votes to tell


def test_the_curve_by_hand() -> None:
    stated = np.array([0.95, 0.95, 0.05, 0.6, 0.5])
    outcome = np.array([1.0, 0.0, 0.0, 0.5, 1.0])
    curve = reliability_curve(stated, outcome, "gold")
    low, middle, high = curve.bins
    # .05 for a is .95 for b, who won.
    assert (high.stated, high.observed.value, high.observed.n) == (pytest.approx(0.95), 2 / 3, 3)
    assert (middle.stated, middle.observed.value) == (0.6, 0.5)
    assert (low.stated, low.observed.value) == (0.5, 1.0)
    # (3 |.95 - 2/3| + |.6 - .5| + |.5 - 1|) / 5
    assert curve.error == pytest.approx((0.85 + 0.1 + 0.5) / 5)
    assert ReliabilityCurve.from_dict(curve.to_dict()) == curve
    assert curve.lines()[-1] == "expected calibration error 0.290, n=5"


def test_nothing_to_compare_with_is_said() -> None:
    curve = reliability_curve(np.empty(0), np.empty(0), "held-out votes")
    assert (curve.error, curve.lines()) == (None, ["no held-out votes to compare with"])


def test_a_curve_of_all_pairs_says_so_where_several_methods_judged() -> None:
    """Both methods' curves are of the same five votes; bradley-terry judged two pairs of three."""
    curve = reliability_curve(np.full(5, 0.9), np.ones(5), "held-out votes").to_dict()
    stored = {name: {"temperature": 1.0, "held_out": curve, "gold": None} for name in ("x", "y")}
    two = reliability_lines(stored, {"x": 2, "y": 1}, 3)
    told = "  fitted to and checked on the votes of all pairs, not of these alone"
    assert two[:2] == ["x: judged 2 pairs, log-odds divided by 1.00", told]
    assert two.count(told) == 2
    assert told not in reliability_lines({"x": stored["x"]}, {"x": 3}, 3)


def test_one_annotator_alone_and_everybody_tying_are_judged() -> None:
    alone = compared([(f"p{at}", "o1", "o2", "ann", "a") for at in range(30)])
    posterior = judge_pairs(alone).posterior
    assert ((posterior > 0.6) & (posterior < 0.95)).all()
    ties = compared(
        [(f"p{at}", "o1", "o2", f"w{who}", "tie") for at in range(9) for who in range(3)]
    )
    assert (judge_pairs(ties).posterior == 0.5).all()
