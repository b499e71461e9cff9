"""`handloom tune-filters`: settings tried on votes and scored on others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from desk_votes import desk_project

from align.cli import main
from align.tune.grid import Grid, Setting
from align.tune.trials import FOLDS, _deals, _used, most_votes, run_trials, truth_of
from align.tune.tuned import Crossed, tuned
from align.tune.voted import Voted, voted
from annotate.errors import InputError
from annotate.runs import Project
from annotate.support_desk import answers, prompts, score

SMALL = "overlaps: ['1', '2', '2+1', '3']\nmethods: [majority]\nfilters:\n  - []\n"
SMALL += "  - [{rule: agreement, at_least: 1.0}]\n  - [{rule: margin, at_least: 0.66}]\n"


def run(folder: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["-C", str(folder), *words])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 pairs with three votes each, and a small grid."""
    folder = tmp_path_factory.mktemp("desk") / "project"
    desk_project(folder, pairs=100, votes=3)
    (folder / "grid.yaml").write_text(SMALL)
    return folder


@pytest.fixture(scope="module")
def data(desk: Path) -> Voted:
    project = Project(desk)
    return voted(project, [project.latest("judge")], model="text", seed=0)


def test_the_choice_its_runners_up_and_the_curve(desk: Path) -> None:
    words = ("tune-filters", "--grid", str(desk / "grid.yaml"), "--seeds", "2")
    status, said = run(desk, *words)
    assert status == 0, said
    assert "strictness against accuracy" in said
    assert "next handloom build --recipe build-tuned" in said
    found = json.loads(run(desk, *words, "--json")[1])
    names = [each["setting"] for each in found["settings"]]
    assert len(names) == len(set(names)) == 2 + 3 * 3
    values = [each["accuracy_at_equal_votes"]["value"] for each in found["settings"]]
    scored = [value for value in values if value is not None]
    assert scored == sorted(scored, reverse=True)
    assert found["choice"] == names[0]
    for each in found["settings"]:
        behind = each["behind_the_choice"]
        if behind["value"] is not None:
            lead = values[0] - each["accuracy_at_equal_votes"]["value"]
            assert behind["value"] == pytest.approx(lead)
    # The recipe says what was found and is one that `build` takes.
    recipe = desk / "recipes" / "build-tuned.yaml"
    text = recipe.read_text()
    assert text.startswith("# Written by `handloom tune-filters`, run r1-tune-")
    assert "# Runners-up" in text
    rules = [each["rule"] for each in yaml.safe_load(text)["filters"]]
    assert rules[0] == "min_votes"
    assert rules[-4:] == ["ties", "both_bad", "flags", "identical"]
    assert run(desk, "build", "--recipe", "build-tuned")[0] == 0


def test_one_seed_one_result(desk: Path) -> None:
    words = ("tune-filters", "--grid", str(desk / "grid.yaml"), "--seeds", "2", "--json")
    first = run(desk, *words)[1]
    assert run(desk, *words, "--again")[1] == first
    assert run(desk, *words, "--seed", "1")[1] != first


def test_a_recipe_of_ones_own_is_not_overwritten(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=60, votes=3)
    (tmp_path / "p" / "recipes").mkdir()
    (tmp_path / "p" / "recipes" / "build-tuned.yaml").write_text("filters: []\n")
    status, said = run(tmp_path / "p", "tune-filters")
    assert status == 1
    assert "would be overwritten" in said


def test_no_vote_is_both_learnt_from_and_a_truth(data: Voted) -> None:
    truth = truth_of(data)
    assert truth.row is not None
    # Three votes, no ties: always a majority.
    assert len(truth.row) == data.pairs == 100
    assert set(truth.label.tolist()) == {-1.0, 1.0}
    pool = np.arange(data.pairs)
    held = []
    for deal in _deals(data, pool, truth, number=0, seed=0):
        tested = truth.row[deal.test]
        held += tested.tolist()
        for overlap in ("1", "2", "2+1", "3"):
            used = _used(data, deal, overlap, budget=None)
            assert not set(data.pair[used].tolist()) & set(tested.tolist())
            assert not set(data.prompt[data.pair[used]]) & set(data.prompt[tested])
    # Over the folds every pair is held out once.
    assert sorted(held) == truth.row.tolist()


def test_one_conversation_under_two_ids_is_one_prompt(tmp_path: Path) -> None:
    project, judged = desk_project(tmp_path / "p", pairs=60, votes=2, prompts_said=20)
    data = voted(project, [judged], model="text", seed=0)
    assert len(set(data.prompt.tolist())) == 20
    deal = next(_deals(data, np.arange(data.pairs), truth_of(data), number=0, seed=0))
    bought = set(data.prompt[deal.order].tolist())
    tested = {code for code in data.prompt.tolist() if code not in bought}
    # A quarter of the conversations is held out, with all their pairs.
    assert len(tested) == 5


def test_overlaps_buy_what_they_say(data: Voted) -> None:
    deal = next(_deals(data, np.arange(data.pairs), truth_of(data), number=3, seed=0))
    budget = len(deal.order)
    for overlap, each in (("1", {1}), ("2", {2}), ("3", {3}), ("2+1", {2, 3})):
        used = _used(data, deal, overlap, budget)
        votes = np.bincount(data.pair[used], minlength=data.pairs)
        assert set(votes[votes > 0].tolist()) <= each
        assert budget - 3 < used.sum() <= budget
    used = _used(data, deal, "2+1", None)
    for pair in deal.order[:20]:
        mine = np.flatnonzero(data.pair == pair)
        first = [data.sign[vote] for vote in mine if deal.rank[vote] < 2]
        assert used[mine].sum() == 2 + (first[0] != first[1])


def test_settings_are_scored_as_by_hand(data: Voted) -> None:
    """One setting's accuracy, once more without the grid's machinery."""
    from align.tune.reward_model import fit

    settings = [Setting("3", "majority", ())]
    trials = run_trials(data, settings, seeds=1)
    truth = truth_of(data)
    sign = np.zeros(data.pairs)
    np.add.at(sign, data.pair, data.sign)
    right = np.empty(len(truth.label))
    for deal in _deals(data, np.arange(data.pairs), truth, number=0, seed=0):
        # One vote on every pair buys three on a third of them.
        bought = deal.order[: len(deal.order) // 3]
        model = fit(data.differences[bought], (sign[bought] > 0).astype(float))
        margin = model.margins(truth.differences[deal.test])
        right[deal.test] = np.sign(margin) == truth.label[deal.test]
    assert trials.right["votes"][0, 0].tolist() == right.tolist()
    found = tuned(data, trials, seed=0)
    assert found.choice.at_equal_votes.value == pytest.approx(right.mean())


def test_the_crossed_bootstrap_knows_both_spreads() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.standard_normal(300)
    by_prompt = Crossed(6, 300, 0).estimate(np.tile(prompts, (6, 1)))
    # Seeds that all say the same add nothing: the interval is that of 300 prompts.
    assert by_prompt.low is not None
    assert by_prompt.high is not None
    half = (by_prompt.high - by_prompt.low) / 2
    assert half == pytest.approx(1.96 * prompts.std() / np.sqrt(300), rel=0.1)
    seeds = rng.standard_normal((6, 1))
    both = Crossed(6, 300, 0).estimate(prompts + seeds)
    assert both.low is not None
    assert both.high is not None
    assert (both.high - both.low) / 2 > 3 * half


def test_a_grid_leaves_out_what_could_not_differ() -> None:
    names = [setting.name for setting in Grid().settings(3)]
    assert len(names) == len(set(names))
    assert "one vote, no filter" in names
    assert not [name for name in names if name.startswith("one vote") and "agreement" in name]
    assert not [name for name in names if "majority" in name and "posterior" in name]
    # Pairs of two votes cannot show what a third would do.
    assert not [name for name in Grid().settings(2) if name.overlap in ("3", "2+1")]


def test_a_wrong_grid_names_its_key(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("overlaps: [7]\n")
    status, said = run(desk, "tune-filters", "--grid", str(tmp_path / "grid.yaml"))
    assert status == 1
    assert "overlaps.0" in said


def test_one_person_alone_gives_no_truth(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=70, votes=1, people=1)
    status, said = run(tmp_path / "p", "tune-filters")
    assert (status, said.count("\n")) == (1, 1)
    assert "no pair has extra votes" in said


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=20, votes=3)
    status, said = run(tmp_path / "p", "tune-filters")
    assert status == 1
    assert "only 20 pairs have extra votes" in said


def test_extra_votes_on_some_pairs_are_truth_for_single_votes(tmp_path: Path) -> None:
    project, judged = desk_project(tmp_path / "p", pairs=90, votes=2)
    data = voted(project, [judged], model="text", seed=0)
    # Every second pair keeps one vote: half of the pairs then have two.
    single = data.pair % 2 == 1
    first = np.concatenate([[True], data.pair[1:] != data.pair[:-1]])
    keep = ~single | first
    import dataclasses

    import pyarrow as pa

    thin = dataclasses.replace(
        data, pair=data.pair[keep], sign=data.sign[keep], votes=data.votes.filter(pa.array(keep))
    )
    assert most_votes(thin) in (1, 2)
    trials = run_trials(thin, Grid().settings(1), seeds=1)
    assert trials.pool == 90
    assert 20 < len(trials.truth.label) <= 45
    assert trials.kept["votes"].shape == (len(trials.settings), 1, FOLDS)


def test_a_setting_that_keeps_nothing_has_a_reason(data: Voted) -> None:
    from align.filters import Agreement, Margin

    strict = Setting("2", "majority", (Agreement(at_least=1.0), Margin(at_least=1.0)))
    trials = run_trials(data, [Setting("2", "majority", ()), strict], seeds=1)
    last = tuned(data, trials, seed=0).tried[-1]
    assert last.at_equal_votes.value is None
    assert last.at_equal_votes.reason == "it keeps too few pairs"
    with pytest.raises(InputError, match="no setting keeps enough pairs"):
        tuned(data, run_trials(data, [strict], seeds=1), seed=0)


def gold_file(folder: Path, pairs: int) -> Path:
    """Support desk pairs and which of the two the rubric prefers, as gold items."""
    lines = []
    for at, messages in enumerate(prompts(pairs, seed=0, split="eval")):
        one, other = answers(messages, 2, seed=[9, at])
        better = "first" if score(messages, one) > score(messages, other) else "second"
        outputs = [{"model": "x", "text": one}, {"model": "x", "text": other}]
        known = {"answer": {"preference": better}}
        lines.append(json.dumps({"prompt": messages, "outputs": outputs, "metadata": known}))
    path = folder / "gold.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_gold_is_truth_where_every_pair_has_one_vote(tmp_path: Path) -> None:
    desk_project(tmp_path / "p", pairs=80, votes=1, flip=0.0)
    gold = gold_file(tmp_path, 60)
    words = ("tune-filters", "--gold", str(gold), "--seeds", "2")
    status, said = run(tmp_path / "p", *words)
    assert status == 0, said
    assert "truth: 60 gold pairs" in said
    found = json.loads(run(tmp_path / "p", *words, "--json")[1])
    assert found["counts"]["gold"] == 60
    assert found["votes_bought"] == 80  # everything that people voted on may be trained on
    # Votes without a mistake teach the rubric.
    assert found["settings"][0]["accuracy_at_equal_votes"]["value"] > 0.65
    # A changed file is another run.
    gold.write_text("\n".join(gold.read_text().split("\n")[:40]))
    assert "truth: 40 gold pairs" in run(tmp_path / "p", *words)[1]
    gold.write_text('{"prompt": "Why?", "outputs": [{"model": "x", "text": "So."}]}')
    assert run(tmp_path / "p", *words)[0] == 1


def test_gold_on_prompts_that_people_voted_on_is_no_truth(tmp_path: Path, data: Voted) -> None:
    from align.tune.gold import read_gold
    from annotate.records import flat_text

    gold = gold_file(tmp_path, 5)
    asked = [flat_text(turns) for turns in prompts(5, seed=0, split="eval")]
    assert len(read_gold(gold, asked[:2]).label) == 3
    with pytest.raises(InputError, match="no pair with a known winner"):
        read_gold(gold, asked)


def test_any_transformers_model_can_be_the_reward_models_body(desk: Path) -> None:
    project = Project(desk)
    data = voted(project, [project.latest("judge")], model="base", seed=0)
    assert "head on base's mean last hidden state" in data.model
    assert np.isfinite(data.differences).all()
    status, said = run(desk, "plan", "--votes", "50", "--model", "nowhere/at/all")
    assert (status, said.count("\n")) == (1, 1)
