"""`rounds`: what exists, what is missing, and the next command, at each stage of the loop."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loop_runs import generated, judged, new_project, trained
from test_failures import evaluated, score

from align.build import build
from align.cli import main
from align.failures import failures
from align.rounds import lines, rounds, training_result, training_text
from annotate.runs import Project, Run, RunPlan

PROMPTS = {f"prompt {n}": ["good", "bad"] for n in range(5)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_an_empty_project_begins_with_round_1(project: Project) -> None:
    (state,) = rounds(project)
    assert state.round == 1
    assert state.missing == ["outputs", "push", "pull", "judge", "build", "train", "evaluate"]
    assert state.next_command == "handloom generate base"


def test_each_step_leads_to_the_next(project: Project) -> None:
    m0 = trained(project, "base", 0, (), seed=0)
    assert [state.round for state in rounds(project)] == [0, 1]
    assert rounds(project)[-1].next_command == f"handloom generate {m0.id}"
    source = generated(project, PROMPTS, parents=(m0,))
    assert rounds(project)[-1].next_command == f"handloom push {source.id}"
    judge_run = judged(project, source, {text: [3, 3] for text in PROMPTS})
    state = rounds(project)[-1]
    assert state.next_command == f"handloom build {judge_run.id}"
    assert state.missing == ["build", "train", "evaluate"]
    assert state.agreement["vote"]["value"] is not None
    built = build(project, [judge_run])
    state = rounds(project)[-1]
    assert state.next_command == f"handloom train dpo-support-desk --data {built.id}"
    assert state.pairs == {"pairs": 5, "kept": 5, "dropped": {}, "quarantined": 0}
    m1 = trained(project, m0.id, 1, (built, m0), seed=1)
    assert rounds(project)[-1].next_command == f"handloom evaluate {m1.id}"
    evaluation = evaluated(project, [score("a", 0.0)])
    state = rounds(project)[-1]
    assert state.next_command == f"handloom failures {evaluation.id}"
    assert state.missing == []
    found = failures(project, evaluation)
    before, last = rounds(project)[1:]
    assert before.next_command == ""
    assert last.runs == {"failures": [found.id]}
    assert last.next_command == f"handloom push {found.id}"


def test_win_rates_are_those_of_the_newest_evaluation(project: Project) -> None:
    rate = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 50}
    for value in (0.5, 0.7):
        one = {"versus": "r0-train-0", "roles": ["previous"], "judged_by": {"people": 50}}
        with project.draft(RunPlan("evaluate", 1, (), {"value": value}, 0)) as draft:
            draft.note(comparisons=[one | {"win_rate": rate | {"value": value}, "wins": 1}])
    (state,) = rounds(project)
    assert state.win_rates[0]["win_rate"]["value"] == 0.7
    assert "  win rate 0.700 [0.600, 0.800] against r0-train-0 (previous)" in lines([state])


def test_what_was_interrupted_is_listed(project: Project) -> None:
    plan = RunPlan("generate", 2, (), {}, 0)
    with pytest.raises(KeyboardInterrupt), project.draft(plan) as draft:
        draft.write_text("shard", "half")
        raise KeyboardInterrupt
    (state,) = rounds(project)
    assert (state.round, state.unfinished) == (2, [plan.run_id])
    assert f"  {plan.run_id}: unfinished" in lines([state])


def test_the_command_prints_text_or_json(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    generated(project, PROMPTS)
    monkeypatch.chdir(project.root)
    text = CliRunner().invoke(main, ["rounds"])
    assert text.output.startswith("round 1\n  generate  r1-generate-")
    assert "next handloom push r1-generate-" in text.output
    document = json.loads(CliRunner().invoke(main, ["rounds", "--json"]).output)
    assert document[0]["missing"] == ["push", "pull", "judge", "build", "train", "evaluate"]


def test_a_sweeps_trials_stand_beside_the_loop(project: Project) -> None:
    source = generated(project, PROMPTS)
    built = build(project, [judged(project, source, {text: [3, 3] for text in PROMPTS})])
    for extra, makes in (({"sweep": "r1-sweep-0/0"}, "model"), ({}, "encoder-decoder")):
        plan = RunPlan("train", 1, (built,), {"model": "base", **extra}, 0)
        with project.draft(plan) as draft:
            draft.note(method="dpo", makes=makes)
    with project.draft(RunPlan("evaluate", 1, (draft.run,), {}, 0)) as measured:
        measured.note(model=draft.run.id, comparisons=[])
    state = rounds(project)[-1]
    assert state.missing == ["train", "evaluate"]
    assert len(state.runs["train"]) == 2
    assert state.next_command == f"handloom train dpo-lora --model MODEL --data {built.id}"


def training(project: Project, sweep: str | None = None, **noted: Any) -> Run:
    """A `train` run with these metrics."""
    settings = {"noted": repr(noted)} | ({"sweep": sweep} if sweep else {})
    with project.draft(RunPlan("train", 1, (), settings, 0)) as draft:
        draft.note(recipe="my", started_from="base", steps=10, **noted)
    return draft.run


@pytest.mark.parametrize(
    ("noted", "described", "result"),
    [
        (
            {"method": "dpo", "train_loss": 0.68, "eval_rewards/accuracies": 4 / 9}
            | {"eval_loss": 0.7, "eval_pairs": 9},
            "dpo my, 10 steps from base, held-out rewards/accuracies 0.444 [0.189, 0.733] of 9 "
            "pairs",
            "mean training loss 0.680, held-out rewards/accuracies 0.444 [0.189, 0.733] of 9 pairs",
        ),
        (
            {"method": "reward", "makes": "reward-model", "train_loss": 0.69, "eval_pairs": 0},
            "reward model my, 10 steps from base",
            "mean training loss 0.690, nothing held out",
        ),
        (
            {"method": "rloo", "train_loss": 1e-9, "eval_prompts": 5, "eval_reward": 0.25}
            | {"eval_reward_error": 0.125},
            "rloo my, 10 steps from base, held-out reward 0.250 (standard error 0.125) of "
            "5 prompts",
            "held-out reward 0.250 (standard error 0.125) of 5 prompts",
        ),
        (
            {"method": "sft", "train_loss": None, "eval_rows": 1},
            "sft my, 10 steps from base",
            "no loss logged, 1 row held out and not evaluated",
        ),
        (
            {"method": "pretrain", "train_loss": 2.0}
            | {"perplexity": {"value": 7.0, "low": 6.0, "high": 8.0, "n": 30}},
            "pretrain my, 10 steps from base, held-out perplexity 7.000 [6.000, 8.000] of 30 "
            "documents",
            "mean training loss 2.000, held-out perplexity 7.000 [6.000, 8.000] of 30 documents",
        ),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else "",
)
def test_a_training_is_told_by_its_methods_own_figure(
    project: Project, noted: dict[str, Any], described: str, result: str
) -> None:
    run = training(project, **noted)
    assert training_text(run) == described
    assert training_result(run) == result


def test_trainings_are_told_apart(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training(project, "r1-sweep-0/3", method="sft")
    bare = trained(project, "base", 1, (), seed=0)  # of an earlier release
    text = "sft my, 10 steps from base, trial 3 of r1-sweep-0"
    shown = lines(rounds(project))
    assert f"  train     {run.id}  {text}" in shown
    assert f"  train     {bare.id}  dpo from base" in shown
    monkeypatch.chdir(project.root)
    listed = CliRunner().invoke(main, ["runs"]).output.splitlines()
    assert listed[0].endswith(text)
