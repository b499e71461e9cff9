"""When checkpoints are taken, and which of them are whole.

A checkpoint is whole when `whole.json` lies in it and every file has the size written there. It is
written last, after all processes are done and every file is on the disk; so a process that is
killed anywhere leaves the older checkpoint to go on from. The files are torch's and transformers'
own, which reads them with `weights_only`: nothing in them is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from align.processes import agreed, wait_for_all

CHECKPOINTS = "checkpoints"
"""Their folder in a run's hidden one."""

EVERY = 30.0
"""Seconds of work that an interruption may cost, where a checkpoint takes no longer than 1.5."""
# Otherwise so many times as long as one takes: a twentieth of the time goes into checkpoints.
_TIMES_ITS_COST = 20.0
_WHOLE = "whole.json"
_OF_THE_TRAINING = (_WHOLE, "trainer_state.json")
# How the names of what loads a model end; the rest is the optimizer's, the schedule's and so on.
_OF_A_MODEL = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from, None where there is none."""
    return next((path for path in reversed(_checkpoints(folder)) if is_whole(path)), None)


def remove_torn(folder: Path) -> None:
    """Remove what an interruption left of checkpoints that were being written or removed."""
    for path in _checkpoints(folder):
        if not is_whole(path):
            shutil.rmtree(path)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that belongs to it is there, as long as it was."""
    try:
        sizes: dict[str, int] = json.loads((checkpoint / _WHOLE).read_bytes())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def mark_whole(checkpoint: Path) -> None:
    """Put every file of a checkpoint on the disk, and then the note that says so.

    Raises:
        OSError: the disk is full.
    """
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != _WHOLE)
    for path in files:
        _fsync(path)
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    note = checkpoint / f"{_WHOLE}.tmp"
    note.write_text(json.dumps(sizes), encoding="utf-8")
    _fsync(note)
    note.replace(checkpoint / _WHOLE)
    _fsync(checkpoint)


def keep_models(folder: Path, into: Path) -> list[Path]:
    """Move the whole checkpoints of `folder` as models with their tokenizers, nothing else.

    Returns:
        Where they are, the oldest first. One whose weights lie there in the parts of several
        processes is no model that can be loaded, and left.
    """
    kept = []
    for path in filter(is_whole, _checkpoints(folder)):
        if not any(path.glob("*.safetensors")):
            continue
        for inside in list(path.iterdir()):
            if inside.is_dir():
                shutil.rmtree(inside)
            elif inside.suffix not in _OF_A_MODEL or inside.name in _OF_THE_TRAINING:
                inside.unlink()
        kept.append(path.rename(into / path.name))
    return kept


def _checkpoints(folder: Path) -> list[Path]:
    """By step, the oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints(TrainerCallback):
    """Takes a checkpoint every half minute, and marks it.

    Only where the log was just written and no evaluation is to come: figures are averaged from one
    line of the log to the next, and what was summed up in between is not in a checkpoint. So the
    log of an interrupted training is that of an unbroken one.
    """

    def __init__(self, every: float = EVERY) -> None:
        self.every = every
        self.cost = 0.0
        self.began = self.saved = time.monotonic()
        self.put_off = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count from here."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take one if it is time; at an epoch's end only after the evaluation there."""
        self.began = time.monotonic()
        if control.should_evaluate or control.should_save:
            control.should_log = True
        if float(state.epoch).is_integer() or state.global_step >= state.max_steps:
            self.put_off |= control.should_save
            control.should_save = False
        elif control.should_log and self._due():
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take one if it is time; the last is of use only where the best is looked for."""
        self.began = time.monotonic()
        control.should_log = True
        if state.global_step >= state.max_steps and not args.load_best_model_at_end:
            control.should_save = False
        elif self.put_off or self._due():
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation is no part of what a checkpoint costs."""
        self.began = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark it when every process has written its part."""
        wait_for_all()
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saved = time.monotonic()
        self.cost, self.put_off = self.saved - self.began, False

    def _due(self) -> bool:
        waited = time.monotonic() - self.saved
        return agreed(waited >= max(self.every, _TIMES_ITS_COST * self.cost))
