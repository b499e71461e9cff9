"""Buying further votes: policies, noise, simulation and `handloom plan`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from desk_votes import desk_project
from hypothesis import given
from hypothesis import strategies as st

from align.cli import main
from align.tune.noise import Evidence, Noise, posterior
from align.tune.policies import BY_NAME, POLICIES, buy
from align.tune.reward_model import fit
from align.tune.simulation import VotesSoFar, expect
from align.tune.voted import voted
from annotate.errors import InputError
from annotate.judge import judge
from annotate.runs import Project

VOTES = np.array([[1, 1, -1], [1, -1, -1], [-1, -1, 1], [0, 1, 1], [0, 0, 1]], dtype=np.int8)


def test_policies_by_hand() -> None:
    one = buy(BY_NAME["one vote"], VOTES, 4)
    # Votes 1, 1, -1, 0: the tie was paid for and decides nothing.
    assert (one.pairs.tolist(), one.label.tolist(), one.votes) == ([0, 1, 2], [1, 1, -1], 4)
    two = buy(BY_NAME["two, kept where they agree"], VOTES, 9)
    # Eight votes reach four pairs; 1-(-1) and 0-1 differ.
    assert (two.pairs.tolist(), two.label.tolist(), two.votes) == ([0, 2], [1, -1], 8)
    three = buy(BY_NAME["three, majority"], VOTES, 12)
    assert (three.pairs.tolist(), three.label.tolist()) == ([0, 1, 2, 3], [1, -1, -1, 1])
    third = buy(BY_NAME["two, a third where they differ"], VOTES, 10)
    # Two votes for the first and third pair, three for the second and fourth.
    assert (third.pairs.tolist(), third.label.tolist()) == ([0, 1, 2, 3], [1, -1, -1, 1])
    assert third.votes == 10


@given(
    st.lists(st.tuples(*[st.sampled_from([-1, 0, 1])] * 3), min_size=12, max_size=40),
    st.integers(1, 30),
)
def test_nobody_pays_more_than_the_budget(rows: list[tuple[int, ...]], budget: int) -> None:
    votes = np.array(rows, dtype=np.int8)
    for policy in POLICIES:
        if len(votes) * policy.votes < budget + 3:
            continue
        bought = buy(policy, votes, budget)
        assert budget - 3 < bought.votes <= budget
        assert set(bought.label.tolist()) <= {-1, 1}
        # What is beyond the budget is never looked at.
        changed = votes.copy()
        changed[bought.reached :] *= -1
        assert buy(policy, changed, bought.votes).label.tolist() == bought.label.tolist()
        # Naming the outputs the other way round mirrors the labels.
        assert buy(policy, -votes, budget).label.tolist() == (-bought.label).tolist()


def test_too_few_pairs_for_the_budget_are_an_error() -> None:
    with pytest.raises(ValueError, match="5 pairs are too few for 30 votes"):
        buy(POLICIES[0], VOTES, 30)


def test_the_reward_model_finds_the_weights_and_says_how_well() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([1.5, -1.0, 0.5, 0.0])
    pairs = rng.standard_normal((4000, 4))
    label = (rng.random(4000) < 1 / (1 + np.exp(-pairs @ weights))).astype(float)
    model = fit(pairs, label)
    spread = model.spread(np.eye(4))
    # Fisher information of a logistic regression here is about n · 0.15 a weight: sd 0.04.
    assert np.all(np.abs(model.weights - weights) < 4 * spread)
    assert np.all((spread > 0.02) & (spread < 0.07))
    # Labels without any relation to features: the evidence shrinks the weights to nearly nothing.
    nothing = fit(pairs, rng.integers(0, 2, 4000).astype(float))
    assert np.abs(nothing.margins(pairs)).mean() < 0.1


@pytest.mark.parametrize("flip", [0.05, 0.3])
def test_noise_is_recovered(flip: float) -> None:
    """Pairs whose margin is known: what is left of disagreement at large margins is flips."""
    rng = np.random.default_rng(1)
    margin = 2 * rng.standard_normal(1500)
    votes = Noise(flip, 2.0, 0.5, 0.3).draw(2 * margin + 0.5 * rng.standard_normal(1500), 3, rng)
    counts = np.stack([(votes == sign).sum(axis=1) for sign in (1, -1, 0)], axis=1).astype(float)
    drawn = posterior(Evidence(margin, np.zeros(1500), counts), 60, rng)
    flips = [noise.flip for noise in drawn]
    assert np.quantile(flips, 0.01) - 0.02 < flip < np.quantile(flips, 0.99) + 0.02
    assert np.std(flips) < 0.05
    assert all(0.15 < noise.ties < 0.6 for noise in drawn)


def run(folder: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["-C", str(folder), *words])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk") / "project"
    desk_project(folder, pairs=80, votes=2)
    return folder


def test_plan_chooses_from_the_votes_so_far_and_says_what_it_cannot_tell(desk: Path) -> None:
    words = ("plan", "--votes", "100", "--votes", "200", "--draws", "4", "--json")
    status, said = run(desk, *words)
    assert status == 0, said
    found = json.loads(said)
    assert found["so_far"] == {"votes": 160, "pairs": 80, "repeated": 80, "annotators": 6}
    assert [budget["votes"] for budget in found["budgets"]] == [100, 200]
    for budget in found["budgets"]:
        names = [row["policy"] for row in budget["policies"]]
        assert sorted(names) == sorted(policy.name for policy in POLICIES)
        assert budget["choice"] == names[0]
        values = [row["accuracy"]["value"] for row in budget["policies"]]
        assert values == sorted(values, reverse=True)
        # A policy whose interval reaches below 0 is not told apart.
        unclear = [
            row["policy"] for row in budget["policies"][1:] if row["behind_the_choice"]["low"] <= 0
        ]
        assert budget["cannot_be_told_from"] == unclear
    assert 0 < found["noise"]["flip"]["value"] < 0.5
    assert run(desk, *words) == (0, said)  # by its seed alone
    assert run(desk, *words, "--seed", "1")[1] != said


def test_plan_as_text_says_what_to_do(desk: Path) -> None:
    status, said = run(desk, "plan", "--votes", "60", "--draws", "4")
    assert status == 0
    assert "160 votes of 6 people on 80 pairs" in said
    assert "to do it: overlap " in said


def test_one_person_alone_cannot_tell_how_noisy_a_vote_is(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=45, votes=1, people=1)
    status, said = run(tmp_path / "p", "plan", "--votes", "100")
    assert status == 1
    assert "none of the 45 pairs has votes of two people" in said
    assert "at least 20" in said


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=25, votes=2)
    status, said = run(tmp_path / "p", "plan", "--votes", "100")
    assert (status, said.count("\n")) == (1, 1)
    assert "25 pairs are too few for a reward model" in said


def test_nothing_is_planned_from_ties_alone() -> None:
    pairs = np.random.default_rng(0).standard_normal((50, 3))
    ties = np.tile([0.0, 0.0, 2.0], (50, 1))
    with pytest.raises(InputError, match="only 0 of 50 pairs have a winner"):
        expect(VotesSoFar(pairs, np.arange(50), ties), [100])


def test_people_who_always_agree_are_believed() -> None:
    """Two votes on each pair, always alike and always for the first output."""
    pairs = np.abs(np.random.default_rng(0).standard_normal((60, 3)))
    alike = np.tile([2.0, 0.0, 0.0], (60, 1))
    found = expect(VotesSoFar(pairs, np.arange(60), alike), [60], draws=4)
    assert np.isfinite(found.accuracy).all()
    # A second vote that always says the same buys nothing.
    mean = found.accuracy[0].mean(axis=0)
    assert mean[0] > mean.max() - 0.02
    assert np.mean([noise.flip for noise in found.noises]) < 0.1


def test_votes_that_two_runs_judged_count_once(desk: Path) -> None:
    project = Project(desk)
    judged = project.latest("judge")
    again = judge(project, judged.ancestor("pull"), method="majority", again=True)
    once, twice = (
        voted(project, runs, model="text", seed=0) for runs in ([judged], [judged, again])
    )
    assert twice.counts.tolist() == once.counts.tolist()
    assert set(twice.given.tolist()) == {2}


def test_a_run_of_another_step_is_refused(desk: Path) -> None:
    pull = next(path.name for path in (desk / "runs").iterdir() if "-pull-" in path.name)
    status, said = run(desk, "plan", pull, "--votes", "100")
    assert status == 1
    assert "not of judge" in said
