"""The log of a training, and what is seen of it on stderr while it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

LOG = "log.jsonl"
# Seconds between two lines where stderr is no terminal.
_LINE_EVERY = 30.0


class LogFile(TrainerCallback):
    """Keeps `log.jsonl` readable while training runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what came after the checkpoint that training goes on from."""
        write_log(self.path, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the newest line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(state.log_history[-1]) + "\n")


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write a log anew, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(e) + "\n" for e in history), encoding="utf-8")
    temporary.replace(path)


class Bar(TrainerCallback):
    """How far training has come, its loss and the time left: a bar on a terminal, else a line every
    half minute.
    """

    def __init__(self, console: Console | None = None, line_every: float = _LINE_EVERY) -> None:
        self.console = console or Console(stderr=True)
        self.line_every = line_every
        self.loss: float | None = None
        self.began = self.said = time.monotonic()
        self.first = 0
        self.task: TaskID | None = None
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self.console,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show how far an interrupted training had come."""
        self.began = self.said = time.monotonic()
        self.first = state.global_step
        if self.first:
            self.console.print(
                f"training: goes on from step {self.first:,} of {state.max_steps:,}",
                highlight=False,
            )
        if self.console.is_terminal:
            self.bar.start()
            self.task = self.bar.add_task(
                "training", total=state.max_steps, completed=state.global_step, loss=""
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar, or say a line if it is time."""
        if self.task is not None:
            self.bar.update(self.task, completed=state.global_step, loss=self._loss())
        elif time.monotonic() - self.said >= self.line_every:
            self.said = time.monotonic()
            line = f"training: step {state.global_step:,} of {state.max_steps:,}, {self._loss()}"
            self.console.print(f"{line.rstrip(', ')}, {self._left(state)} left", highlight=False)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Remember the loss."""
        if logs is not None and "loss" in logs:
            self.loss = float(logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the bar as it stands."""
        self.close()

    def close(self) -> None:
        """Stop drawing, so that the next line on stderr stands by itself."""
        self.bar.stop()

    def _loss(self) -> str:
        return "" if self.loss is None else f"loss {self.loss:.3f}"

    def _left(self, state: Any) -> str:
        """Time to go at the speed so far, as hours, minutes and seconds."""
        done = max(state.global_step - self.first, 1)
        seconds = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{rest:02}"
