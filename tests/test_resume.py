"""An interrupted training ends as an unbroken one: after Ctrl-C, after SIGKILL, at any step."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from killed import killed_at
from loop_runs import new_project
from tiny_model import write_tiny_model
from trainings import assert_same_training, interrupted_when, log_of, write_recipe

from align.cli import main
from align.train import train
from align.training import CHECKPOINTS
from annotate.runs import Project

# Where a step's checkpoint may be when the process dies: before its first file, or after any.
FILES = (
    "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
    "whole.json",
)  # fmt: skip
EACH_STEP = ", save_strategy: steps, save_steps: 1"
SAVED = f".*.partial/{CHECKPOINTS}/checkpoint-"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def projects(tmp_path: Path) -> tuple[Project, Project]:
    """One for the unbroken training, one for the other."""
    return new_project(tmp_path / "unbroken"), new_project(tmp_path / "broken")


def test_ctrl_c_says_in_a_line_where_the_same_command_goes_on(
    projects: tuple[Project, Project], tiny: Path
) -> None:
    """Interrupted twice, within the second epoch of five steps and before the first checkpoint of
    the next process; rows come grouped by length, which transformers orders anew at each start."""
    grouped = EACH_STEP + ", train_sampling_strategy: group_by_length, num_train_epochs: 2"
    unbroken = train(projects[0], write_recipe(projects[0], tiny, trainer=grouped))
    _, project = projects
    command = ["-C", str(project.root), "train", str(write_recipe(project, tiny, trainer=grouped))]
    with interrupted_when(project, f"{SAVED}7/whole.json"):
        result = CliRunner().invoke(main, command)
    assert result.exit_code == 130, result.output
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert f"{unbroken.id}: interrupted at step " in said
    assert "of 10. The same command goes on from step " in said
    assert project.all_runs() == []
    with interrupted_when(project, f"{SAVED}9/optimizer.pt"):
        assert CliRunner().invoke(main, command).exit_code == 130
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "training: goes on from step " in result.stderr
    (resumed,) = project.all_runs()
    assert resumed.id == unbroken.id
    assert_same_training(resumed, unbroken)
    assert [entry["step"] for entry in log_of(resumed)] == [e["step"] for e in log_of(unbroken)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_killed_at_a_random_step_it_ends_as_if_unbroken(
    projects: tuple[Project, Project], tiny: Path, method: str
) -> None:
    """Killed at a random file of a random step's checkpoint."""
    unbroken = train(projects[0], write_recipe(projects[0], tiny, method, trainer=EACH_STEP))
    _, project = projects
    path = write_recipe(project, tiny, method, trainer=EACH_STEP)
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    print("seed", seed)  # shown where it fails
    # Steps 3, 6 and 9 end epochs of pairs, and 9 is the last: no checkpoint is taken there.
    step, file = chance.choice([1, 2, 4, 7, 8]), chance.choice(FILES)
    before = project.all_runs()
    assert killed_at(project.root, f"{SAVED}{step}/{file}", "train", str(path))
    assert project.all_runs() == before
    assert_same_training(train(project, path), unbroken)


@pytest.mark.slow
def test_killed_after_it_stopped_early_it_takes_no_more_step(
    projects: tuple[Project, Project], tiny: Path
) -> None:
    options = {
        "trainer": ", num_train_epochs: 40, learning_rate: 0.6, lr_scheduler_type: constant",
        "extra": "early_stopping: {patience: 2}\n",
    }
    unbroken = train(projects[0], write_recipe(projects[0], tiny, **options))
    _, project = projects
    path = write_recipe(project, tiny, **options)
    assert killed_at(project.root, ".*.partial/model/*", "train", str(path))
    resumed = train(project, path)
    for figure in ("steps", "best_step", "best", "eval_loss", "train_loss"):
        assert resumed.metrics[figure] == pytest.approx(unbroken.metrics[figure], abs=1e-6)
