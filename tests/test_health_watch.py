"""What is said of a training while it runs, and which training `handloom health` takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from loop_runs import new_project

from align.cli import main
from align.health import newest_training
from align.health.watch import HealthWatch
from annotate.errors import ProjectError
from annotate.runs import Project, RunPlan


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


class Watch(HealthWatch):
    """Keeps what it says, with the points that it had seen by then."""

    def __init__(self, state: SimpleNamespace) -> None:
        super().__init__("r1-train-0")
        self.state = state
        self.said: list[tuple[int, str]] = []

    def _print(self, said: str) -> None:
        self.said.append((len(self.state.log_history), said))


def watched(name: str, values: list[float], *, rank: int = 0) -> list[tuple[int, str]]:
    """(points so far, line) of all that is said while a figure is logged, its end included."""
    state = SimpleNamespace(is_world_process_zero=rank == 0, log_history=[])
    watch = Watch(state)
    for step, value in enumerate(values, start=1):
        state.log_history.append({"step": step, name: value})
        watch.on_log(None, state, None, state.log_history[-1])
    watch.on_train_end(None, state, None)
    return watch.said


def growing(n: int, seed: int, noise: float) -> list[float]:
    rng = np.random.default_rng(seed)
    level = 0.8 * (1 - np.exp(-np.arange(n) / (n / 4)))
    return [float(value) for value in level + noise * rng.standard_normal(n)]


def test_a_dip_of_a_few_points_is_not_said() -> None:
    margins = [0.1 * step for step in range(1, 12)]
    assert watched("rewards/margins", [*margins, 0.0, 0.03, 0.0, *margins[5:]]) == []


def test_a_noisy_margin_that_grows_is_hardly_ever_called_collapsed() -> None:
    calls = [watched("rewards/margins", growing(30, seed, 0.3)) for seed in range(20)]
    live = [line for said in calls for points, line in said if points < 30]
    assert len(live) <= 1


def test_what_lasts_is_said_once_and_as_of_now() -> None:
    margins = [0.1 * step for step in range(1, 12)] + [0.0] * 20
    ((points, line),) = watched("rewards/margins", margins)
    assert 12 < points < 24
    assert line.startswith("margin collapse: rewards/margins was ")
    assert " now. " in line
    assert "at the end" not in line
    assert watched("rewards/margins", margins, rank=1) == []


def test_what_no_longer_holds_is_taken_back_at_the_end() -> None:
    margins = [0.1 * step for step in range(1, 12)]
    first, last = watched("rewards/margins", [*margins, *[0.0] * 12, *margins, *[1.2] * 9])
    assert first[1].startswith("margin collapse: ")
    assert last == (43, "no longer found at the end of the training: margin collapse")


def test_what_holds_only_at_the_end_is_said_then() -> None:
    margins = [0.1 * step for step in range(1, 12)]
    ((points, line),) = watched("rewards/margins", [*margins, 0.0, 0.0, 0.0])
    assert points == 14
    assert "at the end" in line


def test_no_number_is_said_at_once() -> None:
    ((points, line), *_) = watched("loss", [2.0, 1.0, float("nan"), 1.0, 1.0])
    assert points == 3
    assert line.startswith("not a number: loss is nan at step 3")


def finished(project: Project, seed: int, **settings: str) -> str:
    plan = RunPlan("train", 1, settings=settings, seed=seed)
    with project.draft(plan) as draft:
        draft.write_text("log.jsonl", json.dumps({"step": 1, "loss": 1.0}) + "\n")
    return plan.run_id


def unfinished(project: Project, seed: int, *, age: float, began: float | None = None) -> str:
    """A training that failed, its last entry `age` seconds ago."""
    run_id = RunPlan("train", 1, seed=seed).run_id
    with pytest.raises(RuntimeError), project.draft(RunPlan("train", 1, seed=seed)) as draft:
        draft.write_text("log.jsonl", json.dumps({"step": 1, "loss": 1.0}) + "\n")
        raise RuntimeError
    aged(draft.path / "log.jsonl", age)
    aged(draft.path / ".lock", age if began is None else began)
    return run_id


def aged(path: Path, age: float) -> None:
    at = path.stat().st_mtime - age
    os.utime(path, (at, at))


def test_the_newest_training_may_be_unfinished_and_is_no_trial(project: Project) -> None:
    with pytest.raises(ProjectError, match="no train run yet"):
        newest_training(project)
    failed = unfinished(project, 1, age=60)
    assert newest_training(project) == failed
    done = finished(project, 2)
    assert newest_training(project) == done
    finished(project, 3, sweep="r1-sweep-0/1")
    assert newest_training(project) == done
    running = unfinished(project, 4, age=-60)
    assert newest_training(project) == running
    result = CliRunner().invoke(main, ["-C", str(project.root), "health"])
    assert f"{running}: nothing wrong found" in result.output


@pytest.mark.parametrize("sweep", ["r1-sweep-0", ".r1-sweep-0.partial"])
def test_an_unfinished_trial_is_told_by_when_its_recipe_was_written(
    project: Project, sweep: str
) -> None:
    recipe = project.runs_dir / sweep / "recipes" / "sft-trial-003.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("method: sft\n")
    before = unfinished(project, 1, age=30, began=500)
    unfinished(project, 2, age=-60, began=-5)
    assert newest_training(project) == before
    later = unfinished(project, 3, age=-800, began=-700)
    assert newest_training(project) == later
