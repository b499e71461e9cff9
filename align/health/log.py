"""A training's log as curves: what transformers and TRL wrote, one JSON object a logging step.

An unfinished or failed training is read from its hidden folder; its last line may be cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.health.robust import Reals
from annotate.errors import ProjectError
from annotate.runs import Project

LOG_FILE = "log.jsonl"

# Entries of this key sum a training up; they are no point of any curve.
_SUMMARY = "train_runtime"
_NOT_MEASURED = ("step", "epoch")
# What is larger is drawn and compared as this, so that no difference overflows.
_LARGEST = 1e150
# A sweep writes a trial's recipe and trains at once; loading what that takes lasts some seconds.
_TRIAL_STARTS = 120.0
# Opened by whoever writes a run (`annotate.runs`).
_LOCK = ".lock"


@dataclass(frozen=True)
class Curve:
    """The finite values of one logged figure, by step."""

    name: str
    steps: NDArray[np.int64]
    values: Reals

    def __len__(self) -> int:
        return len(self.values)

    def __neg__(self) -> Curve:
        """The same upside down."""
        return Curve(self.name, self.steps, -self.values)

    def part(self, start: int, end: int | None = None) -> Curve:
        """Its points from one index to before another."""
        return Curve(self.name, self.steps[start:end], self.values[start:end])


@dataclass(frozen=True)
class TrainingLog:
    """What a training logged."""

    curves: Mapping[str, Curve]
    not_finite: tuple[tuple[int, str, float], ...] = ()
    """(step, figure, value) of each value that is infinite or not a number, in the log's order."""
    unreadable: int = 0
    """Lines that are no JSON object with a step."""

    def curve(self, *names: str) -> Curve:
        """The first of these figures that was logged; an empty curve under the first name."""
        for name in names:
            if name in self.curves:
                return self.curves[name]
        return Curve(names[0], np.array([], np.int64), np.array([], np.float64))

    @property
    def reinforced(self) -> bool:
        """Whether it learnt from rewards of its own completions: its loss then tells nothing."""
        return any(name in self.curves for name in REWARD)

    @property
    def objective(self) -> Curve:
        """What training drives down: the loss, or the reward upside down."""
        return -self.curve(*REWARD) if self.reinforced else self.curve("loss")


REWARD = ("reward", "objective/scores")
"""RLOO's and GRPO's mean reward of the completions sampled, and online DPO's."""


def log_of_entries(entries: Iterable[object]) -> TrainingLog:
    """The curves of log entries, such as `TrainerState.log_history`."""
    points: dict[str, dict[int, float]] = {}
    odd: list[tuple[int, str, float]] = []
    unreadable = 0
    for entry in entries:
        step = _step(entry)
        if step is None or not isinstance(entry, dict):
            unreadable += 1
            continue
        if _SUMMARY in entry:
            continue
        for name, value in entry.items():
            number = _number(value)
            if number is None or name in _NOT_MEASURED:
                continue
            if math.isfinite(number):
                points.setdefault(name, {})[step] = max(-_LARGEST, min(_LARGEST, number))
            else:
                odd.append((step, str(name), number))
    curves = {name: _curve(name, by_step) for name, by_step in points.items()}
    return TrainingLog(curves, tuple(odd), unreadable)


def read_log(path: Path) -> TrainingLog:
    """The log in a file.

    Raises:
        ProjectError: there is none, or it cannot be read.
    """
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:
        raise ProjectError(
            f"its log cannot be read ({error.strerror})",
            where=path.parent.name,
            remedy="Only a training that has logged something has one",
        ) from None
    entries = [_parsed(line) for line in lines if line.strip()]
    # A training may be writing the last line just now.
    if entries and entries[-1] is None:
        entries.pop()
    return log_of_entries(entries)


def log_path(project: Project, run_id: str) -> Path:
    """Where the log of a training lies: in its run, or in the hidden folder of an unfinished one.

    Args:
        run_id: of a finished or unfinished run, or how it begins.

    Raises:
        ProjectError: there is no such run, or there are several.
    """
    hidden = [name for name in project.unfinished() if name.startswith(run_id)]
    finished = [run.id for run in project.run_folders() if run.id.startswith(run_id)]
    if len(hidden) == 1 and not finished:
        return project.runs_dir / f".{hidden[0]}.partial" / LOG_FILE
    return project.resolve(run_id).path / LOG_FILE


def newest_training(project: Project) -> str:
    """The id of the newest training, finished or not, that has logged something.

    Of a finished one the time of its end counts, of another that of its last log entry. A sweep's
    trials are left out: they have to be named.

    Raises:
        ProjectError: there is none.
    """
    found = [
        (datetime.fromisoformat(run.manifest["finished"]).timestamp(), run.id)
        for run in project.all_runs()
        if run.step == "train" and not run.manifest["settings"].get("sweep")
    ]
    for name in project.unfinished():
        folder = project.runs_dir / f".{name}.partial"
        logged = _written(folder / LOG_FILE)
        if "-train-" in name and logged is not None and not _is_trial(project, folder):
            found.append((logged, name))
    if not found:
        raise ProjectError(
            "there is no train run yet, a sweep's trials apart", remedy="`handloom train --help`"
        )
    return max(found)[1]


def _is_trial(project: Project, folder: Path) -> bool:
    """Whether an unfinished training is a sweep's: it was begun, or gone on with, right after the
    recipe of a trial was written. Nothing else tells before its manifest does."""
    begun = _written(folder / _LOCK)
    recipes = project.runs_dir.glob("*-sweep-*/recipes/*-trial-*.yaml")
    hidden = project.runs_dir.glob(".*-sweep-*.partial/recipes/*-trial-*.yaml")
    written = [_written(path) for path in (*recipes, *hidden)]
    return begun is not None and any(
        at is not None and 0 <= begun - at < _TRIAL_STARTS for at in written
    )


def _written(path: Path) -> float | None:
    """When a file with something in it, or a lock, was last written; None where there is none."""
    try:
        status = path.stat()
    except OSError:  # a run that ends just now takes its hidden folder's name along
        return None
    return status.st_mtime if status.st_size or path.name == _LOCK else None


def _curve(name: str, by_step: Mapping[int, float]) -> Curve:
    steps = np.array(sorted(by_step), dtype=np.int64)
    return Curve(name, steps, np.array([by_step[step] for step in steps.tolist()], dtype=float))


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _step(entry: object) -> int | None:
    step = entry.get("step") if isinstance(entry, dict) else None
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53:
        return step
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than three hundred digits
        return math.inf if value > 0 else -math.inf
