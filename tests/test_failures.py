"""`failures`: what the new model loses or ties, never on held-out prompts, ready to be pushed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from loop_runs import new_project, prompt_row

from align.cli import main
from align.failures import failures, find_failures
from align.split import sides_taken
from annotate.errors import InputError
from annotate.records import SCHEMAS, table_from_rows
from annotate.runs import Project, Run, RunPlan


def score(prompt: str, outcome: float | None, **more: Any) -> dict[str, Any]:
    """A comparison of the new model's completion of `prompt` with the old one's."""
    own = {"prompt_id": prompt, "output_id": f"o-{prompt}-new", "model": "r1-train-1"}
    versus = {"versus_output": f"o-{prompt}-old", "versus_model": "r0-train-0"}
    return {**own, **versus, "outcome": outcome, "judged_by": "scorer:s", **more}


def evaluated(
    project: Project, scores: list[dict[str, Any]], held_out: tuple[str, ...] = (), same: str = ""
) -> Run:
    """An `evaluate` run; the completions of the prompt `same` are identical."""
    names = dict.fromkeys(row["prompt_id"] for row in scores)
    prompts = [prompt_row(n, f"ask {n}", "eval" if n in held_out else "train") for n in names]
    outputs = [
        {
            "output_id": f"o-{name}-{who}",
            "prompt_id": name,
            "model": model,
            "completion": "the same" if name == same else f"{who} {name}",
        }
        for name in names
        for who, model in (("new", "r1-train-1"), ("old", "r0-train-0"))
    ]
    with project.draft(RunPlan("evaluate", 1, (), {"scores": scores}, 0)) as draft:
        draft.write("prompts", table_from_rows("prompts", prompts))
        draft.write("outputs", table_from_rows("outputs", outputs))
        draft.write("scores", table_from_rows("scores", scores))
    return draft.run


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_lost_tied_and_thin_are_failures_and_sure_wins_are_not(project: Project) -> None:
    run = evaluated(
        project,
        [
            score("won", 1.0),
            score("lost", 0.0),
            score("tied", 0.5),
            score("open", None),
            score("one vote", 1.0, votes=1),
            score("two votes", 1.0, votes=2),
        ],
    )
    found = failures(project, run)
    rows = {row["prompt_id"]: row for row in found.read("failures").to_pylist()}
    assert {name: row["why"] for name, row in rows.items()} == {
        "lost": "lost",
        "tied": "tied",
        "open": "thin evidence",
        "one vote": "thin evidence",
    }
    assert rows["lost"]["prompt_text"] == "ask lost"
    assert rows["lost"]["completion"] == "new lost"
    assert rows["lost"]["versus_completion"] == "old lost"
    assert found.metrics["why"] == {"lost": 1, "thin evidence": 2, "tied": 1}


def test_they_are_the_next_rounds_outputs(project: Project) -> None:
    run = evaluated(project, [score("a", 0.0), score("b", 1.0)])
    found = failures(project, run)
    assert found.round == 2
    assert found.read("prompts")["prompt_id"].to_pylist() == ["a"]
    assert found.read("outputs")["output_id"].to_pylist() == ["o-a-new", "o-a-old"]
    assert found.read("prompts").schema.equals(SCHEMAS["prompts"])


def test_held_out_prompts_are_never_taken(project: Project) -> None:
    run = evaluated(project, [score("a", 0.0), score("measured", 0.0)], held_out=("measured",))
    found = failures(project, run)
    assert found.read("failures")["prompt_id"].to_pylist() == ["a"]
    taken = sides_taken(found)
    assert len(taken.held_out) == 1
    only = evaluated(project, [score("m", 0.0)], held_out=("m",))
    with pytest.raises(InputError, match="only held-out prompts, whose failures stay out"):
        failures(project, only)


def test_identical_completions_are_left_out(project: Project) -> None:
    run = evaluated(project, [score("a", 0.0), score("same", 0.5)], same="same")
    found = failures(project, run)
    assert found.read("failures")["prompt_id"].to_pylist() == ["a"]
    assert found.metrics["identical_left_out"] == 1


def test_the_worst_come_first_and_limit_takes_them(project: Project) -> None:
    run = evaluated(
        project,
        [
            score("tied", 0.5, score=1.0, versus_score=1.0),
            score("barely", 0.0, score=1.0, versus_score=2.0),
            score("badly", 0.0, score=-3.0, versus_score=4.0),
            score("open", None),
        ],
    )
    order = failures(project, run).read("failures")["prompt_id"].to_pylist()
    assert order == ["badly", "barely", "open", "tied"]
    two = failures(project, run, limit=2)
    assert two.read("failures")["prompt_id"].to_pylist() == ["badly", "barely"]
    assert two.metrics["over_limit"] == 2
    assert failures(project, run, limit=2).id == two.id


def test_no_failure_is_said(project: Project) -> None:
    with pytest.raises(InputError, match="no failure on 1 fresh prompts"):
        failures(project, evaluated(project, [score("won", 1.0)]))
    assert project.unfinished() == []


def test_no_scores_give_no_failures() -> None:
    empty = {name: SCHEMAS[name].empty_table() for name in ("scores", "prompts", "outputs")}
    found = find_failures(empty["scores"], empty["prompts"], empty["outputs"])
    assert isinstance(found, pa.Table)
    assert found.num_rows == 0


def test_the_command_says_how_many_and_what_is_next(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(project, [score("a", 0.0), score("b", 0.5), score("c", 1.0)])
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(main, ["failures"])
    assert done.exit_code == 0, done.output
    assert "2 failures (1 lost, 1 tied) on 3 prompts" in done.output
    assert "next handloom push r2-failures-" in done.output
