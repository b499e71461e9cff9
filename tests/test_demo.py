"""The demonstration, in full: what `make demo ARGS=--no-serve` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from annotate.runs import Project, verify


@pytest.mark.slow
def test_two_rounds_beat_the_sft_model(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "align", "demo", "--no-serve", "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().split("\n")[-1])
    low, high = found["win_rate_ci95"]
    assert 0.6 < low < found["win_rate"] < high <= 1
    project = Project(folder)
    assert verify(project) == []
    judged = sum(project.latest("judge", round=n).metrics["pairs"] for n in (1, 2))
    quarantined = sum(project.latest("build", round=n).metrics["quarantined"] for n in (1, 2))
    assert found["pairs_kept"] + sum(found["pairs_dropped"].values()) + quarantined == judged
    assert not (folder / ".handloom" / "argilla" / "server.json").exists()
    assert "simulated" in done.stderr.lower()
