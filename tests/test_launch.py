"""Several processes train one model: to the same loss, one of them writing, and failing as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loop_runs import new_project
from preference_runs import built, pair
from tiny_model import write_tiny_model
from trainings import assert_same_training, write_recipe

from align.launch import _arguments, _reason
from align.processes import PeerGoneError, peers_reported
from align.train import train
from annotate.errors import Interrupted
from annotate.runs import Project, verify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def handloom(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "align", *arguments],
        cwd=project.root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_rows_a_device(path: Path) -> Path:
    """Let a recipe's batches be found, of rows that fill every step."""
    text = path.read_text()
    for rows in ("per_device_train_batch_size: 8, ", "per_device_train_batch_size: 4, "):
        text = text.replace(rows, "")
    path.write_text(text.replace("n: 40", "n: 42"))  # 40 to train on, whole steps
    return path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_two_processes_give_the_loss_of_one(tmp_path: Path, tiny: Path, method: str) -> None:
    """40 rows of unequal length, 8 a step: each process has 4 of them, and other tokens."""
    runs = []
    for number in (1, 2):
        project = new_project(tmp_path / str(number))
        if method == "dpo":
            built(project, [pair(row, split="eval" if row >= 16 else "train") for row in range(24)])
        path = write_recipe(
            project, tiny, method, extra="batch_size: 8\n", trainer=", max_steps: 6"
        )
        without_rows_a_device(path)
        if number == 1:
            runs.append(train(project, path))
            continue
        ended = handloom(project, "train", str(path), "--launch", "2")
        out, err = ended.communicate(timeout=300)
        assert ended.returncode == 0, err
        assert out.count("model after") == 1
        runs.append(project.all_runs()[-1])
        assert runs[1].metrics["processes"] == 2
        assert verify(project) == []
    # The same recipe and data are the same run; builds of pairs differ by when they were made.
    assert method == "dpo" or runs[0].id == runs[1].id
    assert_same_training(*runs, tolerance=1e-4)


@pytest.mark.slow
def test_a_process_that_dies_ends_all_in_one_line(tmp_path: Path, tiny: Path) -> None:
    project = new_project(tmp_path)
    many = ", num_train_epochs: 2000, save_strategy: steps, save_steps: 5"
    path = without_rows_a_device(write_recipe(project, tiny, extra="batch_size: 8\n", trainer=many))
    started = handloom(project, "train", str(path), "--launch", "2")
    while not list(project.runs_dir.glob(".*.partial/checkpoints/checkpoint-5/whole.json")):
        assert started.poll() is None, started.stderr.read() if started.stderr else ""
        time.sleep(0.05)
    os.kill(_worker(started.pid, rank=1), signal.SIGKILL)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 1
    (said,) = [line for line in err.splitlines() if "error" in line.lower()]
    assert said.startswith("error: process 1 was ended by SIGKILL, and all with it")
    assert "Traceback" not in err
    assert project.all_runs() == []


def _worker(launcher: int, rank: int) -> int:
    """The process with this rank among the launcher's children."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise AssertionError("no such process")


class Failure:
    """What torch's launcher keeps of a process that failed."""

    def __init__(self, exitcode: int, message: str, timestamp: int) -> None:
        self.exitcode, self.message, self.timestamp = exitcode, message, timestamp


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        ({0: (1, "peer gone: x", 1), 1: (-9, "Signal 9", 2)}, "process 1 was ended by SIGKILL"),
        ({0: (-15, "Signal 15", 1), 1: (1, "t-0: chosen equals rejected", 2)}, "t-0: chosen equ"),
        ({0: (1, "the disk is full", 2), 1: (1, "another", 1)}, "another"),
        ({0: (1, "peer gone: r0: another process has ended", 1)}, "r0: another process"),
        ({1: (1, "To enable traceback see: https", 1)}, "process 1 failed; what it said stands"),
    ],
)
def test_the_process_that_failed_by_itself_has_the_word(
    failures: dict[int, tuple[int, str, int]], said: str
) -> None:
    found = _reason({rank: Failure(*each) for rank, each in failures.items()})
    assert str(found).startswith(said)


def test_each_process_gets_every_option_a_zero_too() -> None:
    options = {"seed": 0, "data": None, "model": "base", "again": False, "unchecked": True}
    given = ["--seed=0", "--model=base", "--unchecked"]
    assert _arguments("dpo-lora", options) == ["train", "dpo-lora", *given]


def test_what_fails_between_processes_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PeerGoneError) as caught, peers_reported():
        raise RuntimeError("NCCL error: invalid usage.\nLast error: two ranks on one GPU")
    assert caught.value.what.endswith("or cannot be reached: NCCL error: invalid usage")


def test_an_interruption_of_all_is_one_interruption() -> None:
    assert isinstance(_reason({0: Failure(130, "r: interrupted at step 3 of 9", 1)}), Interrupted)
