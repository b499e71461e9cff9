"""`report_to`: what trackers stored is read back by their own means; nothing leaves the project."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from loop_runs import new_project
from tiny_model import write_tiny_model
from trainings import log_of, write_recipe

from align.train import train
from annotate.errors import InputError
from annotate.runs import Project

pytest.importorskip("tensorboard")
pytest.importorskip("trackio")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    # What one training sets for its trackers must not reach the next test.
    for name in list(os.environ):
        if name.startswith(("TRACKIO_", "TENSORBOARD_", "MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)
    return new_project(tmp_path)


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    project: Project, tiny: Path
) -> None:
    path = write_recipe(project, tiny, extra="report_to: [wandb]\n")
    with pytest.raises(InputError, match=r"wandb is not installed. `pip install wandb`"):
        train(project, path)
    assert project.all_runs() == []


def test_where_a_run_is_reported_makes_no_other_run(project: Project, tiny: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = train(project, write_recipe(project, tiny, trainer=", max_steps: 3"))
    extra = "report_to: tensorboard\n"
    path = write_recipe(project, tiny, trainer=", max_steps: 3", extra=extra)
    assert train(project, path).id == plain.id
    reported = train(project, path, again=True)
    stored = EventAccumulator(
        str(project.state_dir / "trackers" / "tensorboard" / reported.id)
    ).Reload()
    losses = [event.value for event in stored.Scalars("train/loss")]
    logged = [entry["loss"] for entry in log_of(reported) if "loss" in entry]
    assert losses == pytest.approx(logged, rel=1e-6)
    assert not list(project.root.glob("runs/**/events.out*"))


@pytest.mark.slow
def test_trackio_keeps_the_figures_within_the_project(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    """In a process of its own, as trackio reads where to write but once."""
    path = write_recipe(project, tiny, trainer=", max_steps: 3", extra="report_to: trackio\n")
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [sys.executable, "-m", "align", "train", str(path)],
        cwd=project.root,
        env={**os.environ, "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"},
        check=True,
        timeout=180,
    )
    (run,) = project.all_runs()
    (stored,) = (project.state_dir / "trackers" / "trackio").glob("*.db")
    with sqlite3.connect(stored) as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY step").fetchall()
    assert {name for name, _ in rows} == {run.id}
    assert sum("train/loss" in json.loads(metrics) for _, metrics in rows) == 3
    assert not list(home.rglob("*.db"))
