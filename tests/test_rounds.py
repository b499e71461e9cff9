"""`rounds`: what exists, what is missing, and the next command, at each stage of the loop."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from loop_runs import generated, judged, new_project, trained
from test_failures import evaluated, score

from align.build import build
from align.cli import main
from align.failures import failures
from align.rounds import lines, rounds
from annotate.runs import Project, RunPlan

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
