"""Every method that learns from preferences: what it learns, counts, keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loop_runs import new_project
from preference_runs import NO, YES, built, pair, recipe, thumbs
from tiny_model import write_tiny_model

from align.cli import main
from align.failures import failures, newest_evaluation
from align.model_ref import newest_model, resolve_model
from align.reward_scores import load_reward_model, reward_scores
from align.rounds import rounds
from align.train import train
from annotate.errors import InputError, TrainingError
from annotate.records import text_message
from annotate.runs import Project, Run, verify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def held_out(run: Run, figure: str) -> list[float]:
    """A figure of the held-out rows, evaluation by evaluation."""
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [entry[f"eval_{figure}"] for entry in log if f"eval_{figure}" in entry]


SIMPO = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0}


@pytest.mark.parametrize(
    ("method", "given", "margin"),
    [
        ("reward", {}, "margin"),
        pytest.param("kto", {}, "rewards/margins", marks=pytest.mark.slow),
        ("orpo", {}, "rewards/margins"),
        ("cpo", {}, "rewards/margins"),
        pytest.param("cpo", SIMPO, "rewards/margins", marks=pytest.mark.slow),
    ],
    ids=["reward", "kto", "orpo", "cpo", "simpo"],
)
def test_a_method_learns_what_people_preferred(
    method: str, given: dict[str, Any], margin: str, project: Project, tiny: Path
) -> None:
    build = built(project)
    run = train(project, recipe(project, tiny, method, **given))
    losses, margins = held_out(run, "loss"), held_out(run, margin)
    assert losses[-1] < losses[0]
    assert margins[-1] > max(margins[0], 0)
    accuracy = "accuracy" if method == "reward" else "rewards/accuracies"
    if method != "kto":
        assert held_out(run, accuracy)[-1] == 1.0
        assert (run.metrics["pairs"], run.metrics["eval_pairs"]) == (12, 4)
    else:
        assert (run.metrics["desirable"], run.metrics["undesirable"]) == (12, 12)
        assert (run.metrics["rows"], run.metrics["eval_rows"]) == (24, 8)
    assert (run.metrics["too_long"], run.metrics["cut"]) == (0, 0)
    assert run.parents == [build]
    assert verify(project) == []


@pytest.mark.parametrize("method", ["dpo", "reward", "orpo"])
def test_held_out_figures_are_means_over_rows(method: str, project: Project, tiny: Path) -> None:
    """Four rows in batches of three and one: the last is no half of the figure."""
    built(project)
    found = [
        train(
            project,
            recipe(project, tiny, method, num_train_epochs=1, per_device_eval_batch_size=rows),
        ).metrics
        for rows in (3, 1)
    ]
    names = ["accuracy", "margin"] if method == "reward" else ["rewards/accuracies", "logps/chosen"]
    for name in ("eval_loss", *(f"eval_{name}" for name in names)):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-3), name


def test_a_reward_model_scores_conversations(project: Project, tiny: Path) -> None:
    built(project)
    run = train(project, recipe(project, tiny, "reward"))
    loaded = load_reward_model(resolve_model(project, run.id))
    asked = [[text_message("user", f"may I ask number {n}?")] for n in (3, 50)]
    conversations = [
        [*turns, text_message("assistant", answer)] for turns in asked for answer in (YES, NO)
    ]
    together = reward_scores(loaded, conversations)
    assert together.shape == (4,)
    assert together[0] > together[1]
    assert together[2] > together[3]
    # Padding and company change nothing.
    alone = [reward_scores(loaded, [one])[0] for one in conversations]
    assert together == pytest.approx(alone, abs=1e-5)
    assert reward_scores(loaded, []).shape == (0,)
    # It is never taken for a model that completes prompts.
    assert run.metrics["makes"] == "reward-model"
    assert newest_model(project).name == "base"
    with pytest.raises(TrainingError, match="scores completions and writes none"):
        train(project, recipe(project, run.id, "dpo"))
    with pytest.raises(TrainingError, match="it is no reward model"):
        load_reward_model(resolve_model(project, str(tiny)))


def test_a_reward_model_is_evaluated_on_held_out_pairs(
    project: Project, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two pairs of one prompt weigh as much as one.
    rows = [pair(number, prompt_id=f"p-{number // 2}") for number in range(16)]
    built(project, [row | {"split": "eval" if n > 11 else "train"} for n, row in enumerate(rows)])
    run = train(project, recipe(project, tiny, "reward"))
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(main, ["evaluate", run.id])
    assert done.exit_code == 0, done.output
    assert "right on 1.000 [" in done.output
    assert "of held-out pairs, n=2, over prompts" in done.output
    evaluation = project.latest("evaluate")
    assert (evaluation.metrics["pairs"], evaluation.metrics["held_out"]) == (4, 2)
    scores = evaluation.read("scores").to_pylist()
    assert [row["outcome"] for row in scores] == [1.0] * 4
    assert all(row["score"] > row["versus_score"] for row in scores)
    assert CliRunner().invoke(main, ["evaluate", run.id]).output == done.output
    refused = CliRunner().invoke(main, ["evaluate", run.id, "--against", "base"])
    assert refused.exit_code == 1
    assert "which writes no completions to compare" in refused.output
    # The loop still waits for a model, and for its evaluation.
    assert {"train", "evaluate"} <= set(rounds(project)[-1].missing)
    with pytest.raises(InputError, match="writes nothing that could fail"):
        failures(project, newest_evaluation(project))


@pytest.mark.slow
def test_a_reward_model_of_which_nothing_is_held_out_has_no_accuracy(
    project: Project, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(project, [pair(number, split="train") for number in range(4)])
    run = train(project, recipe(project, tiny, "reward", num_train_epochs=1))
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(main, ["evaluate", run.id])
    assert done.exit_code == 1
    assert "no pair behind it is held out" in done.output


@pytest.mark.slow
def test_a_reward_model_is_trained_on_by_adapters(project: Project, tiny: Path) -> None:
    built(project)
    extra = "lora: {r: 8, alpha: 32}\n"
    run = train(project, recipe(project, tiny, "reward", extra, learning_rate=2e-2))
    assert run.metrics["eval_accuracy"] == 1.0
    loaded = load_reward_model(resolve_model(project, run.id))
    asked = [text_message("user", "may I ask number 3?")]
    yes, no = reward_scores(loaded, [[*asked, text_message("assistant", a)] for a in (YES, NO)])
    assert yes > no


def test_kto_learns_from_thumbs(project: Project, tiny: Path) -> None:
    build = thumbs(project)
    run = train(project, recipe(project, tiny, "kto", desirable_weight="from-data"))
    # Two in three are good; those held out are 3, 7, 11 and 15, of which 7 is bad.
    trained = [number for number in range(16) if number % 4 != 3]
    bad = sum(number % 3 == 1 for number in trained)
    assert (run.metrics["desirable"], run.metrics["undesirable"]) == (12 - bad, bad)
    assert run.metrics["desirable_weight"] == pytest.approx(bad / (12 - bad))
    assert held_out(run, "loss")[-1] < held_out(run, "loss")[0]
    assert held_out(run, "rewards/margins")[-1] > 0
    assert run.parents == [build]


@pytest.mark.parametrize(("up", "kind"), [((0, 1, 2), "good"), ((), "bad")])
def test_kto_refuses_thumbs_of_one_kind(
    up: tuple[int, ...], kind: str, project: Project, tiny: Path
) -> None:
    thumbs(project, up=up)
    with pytest.raises(InputError, match=f"every one of the 12 rows to train on is {kind}"):
        train(project, recipe(project, tiny, "kto"))
    assert project.unfinished() == []


# The prompt "may I ask number 9?" is 21 tokens with its marks, 23 from number 10 on; the shortest
# pair's longer completion ends at 34.
LENGTHS = [("reward", 20), ("dpo", 8), ("kto", 8), ("orpo", 8), ("cpo", 8)]


@pytest.mark.parametrize(("method", "length"), LENGTHS)
def test_rows_that_are_all_too_long_are_refused(
    method: str, length: int, project: Project, tiny: Path
) -> None:
    built(project)
    path = recipe(project, tiny, method)
    path.write_text(path.read_text().replace("max_length: 128", f"max_length: {length}"))
    with pytest.raises(InputError, match="rows to train on are longer than max_length") as caught:
        train(project, path)
    assert "Set max_length up to" in caught.value.remedy
    assert project.unfinished() == []


def test_long_rows_are_left_out_or_cut_and_counted(project: Project, tiny: Path) -> None:
    long_prompt = [text_message("user", "may I ask? " * 20)]
    long_answer = [text_message("assistant", "yes, gladly. " * 12)]
    rows = [pair(number) for number in range(8)]
    rows[0]["prompt"], rows[1]["chosen"], rows[3]["prompt"] = long_prompt, long_answer, long_prompt
    built(project, rows)
    few = {"num_train_epochs": 1}
    dpo = train(project, recipe(project, tiny, "dpo", **few))
    # Of eight pairs, two held out: prompts 0 and 3 leave no room, completion 1 is cut.
    assert [dpo.metrics[name] for name in ("pairs", "eval_pairs", "too_long", "cut")] == [
        5,
        1,
        2,
        1,
    ]
    reward = train(project, recipe(project, tiny, "reward", **few))
    assert [reward.metrics[name] for name in ("pairs", "eval_pairs", "too_long", "cut")] == [
        *(4, 1),
        *(3, 0),
    ]


@pytest.mark.parametrize("method", ["reward", "kto", "orpo", "cpo"])
def test_equal_completions_are_refused_with_the_row(
    method: str, project: Project, tiny: Path
) -> None:
    rows = [pair(number) for number in range(6)]
    rows[4]["rejected"] = rows[4]["chosen"]
    built(project, rows)
    with pytest.raises(InputError, match="t-04: chosen equals rejected"):
        train(project, recipe(project, tiny, method))


@pytest.mark.slow
def test_a_margin_that_nobody_gave_is_none(project: Project, tiny: Path) -> None:
    rows = [pair(number, margin=None if number < 3 else 0.5) for number in range(8)]
    built(project, rows)
    run = train(project, recipe(project, tiny, "reward", "margin: true\n", num_train_epochs=1))
    assert run.metrics["without_margin"] == 3


def test_no_pairs_and_no_thumbs_is_one_clear_line(project: Project, tiny: Path) -> None:
    built(project, [])
    with pytest.raises(InputError, match="its kto set and its preference set has no row"):
        train(project, recipe(project, tiny, "kto"))


@pytest.mark.slow
def test_a_control_token_in_a_text_does_not_end_a_turn(project: Project, tiny: Path) -> None:
    rows = [pair(number) for number in range(8)]
    for row in rows:
        row["chosen"] = [text_message("assistant", "yes<|end|><|user|>and now?")]
    built(project, rows)
    run = train(project, recipe(project, tiny, "dpo", num_train_epochs=1))
    written = [pair(number) for number in range(8)]
    for row in written:
        row["chosen"] = [text_message("assistant", "yes< |end|>< |user|>and now?")]
    again = train(
        project,
        recipe(project, tiny, "dpo", num_train_epochs=1),
        data=built(project, written).id,
    )
    assert held_out(run, "loss") == held_out(again, "loss")
