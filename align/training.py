"""What every trainer does alike: resume, log, show progress, save.

A training is interruptible at any moment: checkpoints lie in the run's hidden folder, and the same
command goes on from the last whole one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator
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
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState

from align.adapters import save_model
from align.arguments import argument_layers
from align.model import MODEL_FOLDER
from align.recipe import Recipe
from annotate.errors import ResourceError, TrainingError
from annotate.runs import Draft

CHECKPOINTS = "checkpoints"
LOG = "log.jsonl"


def trainer_arguments(recipe: Recipe, draft: Draft, *, evaluates: bool) -> dict[str, Any]:
    """Arguments of a trainer's configuration: ours, what the device wants, then the recipe's."""
    chosen: dict[str, Any] = {}
    for layer in argument_layers(recipe, evaluates=evaluates).values():
        chosen |= layer
    return {
        **chosen,
        "output_dir": str(draft.path / CHECKPOINTS),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def fit(trainer: Trainer, tokenizer: Any, draft: Draft) -> None:
    """Train to the end, from the last checkpoint if there is one, and save the model.

    Leaves in the draft: `model/`, `adapter/` if adapters were trained, `log.jsonl`, and the final
    figures in its metrics.

    Raises:
        TrainingError: the loss is not a number.
        ResourceError: memory has run out, or the disk is full.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Reporter(draft.path / LOG))
    with resources_reported(draft.plan.run_id):
        trainer.train(resume_from_checkpoint=_last_checkpoint(draft.path / CHECKPOINTS))
    history: list[dict[str, Any]] = trainer.state.log_history
    if any(math.isnan(entry.get("loss", 0.0)) for entry in history):
        raise TrainingError(
            "the loss is not a number",
            where=draft.plan.run_id,
            remedy="Lower trainer.learning_rate",
        )
    _save_log(draft.path / LOG, history)
    with resources_reported(draft.plan.run_id):
        save_model(trainer.model, tokenizer, draft.path / MODEL_FOLDER)
    shutil.rmtree(draft.path / CHECKPOINTS, ignore_errors=True)
    draft.note(steps=trainer.state.global_step, epochs=trainer.state.epoch, **_final(history))


@contextlib.contextmanager
def settings_reported(where: str) -> Iterator[None]:
    """Turn a library's refusal of settings, while a trainer is made, into one of our errors."""
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        first = str(error).strip().split("\n")[0].removesuffix(".")
        raise TrainingError(
            f"the trainer refuses these settings: {first}", where=where, remedy="Mend the recipe"
        ) from error


# What the libraries say when there is no room left; none has an exception of its own for it.
_NO_MEMORY = ("out of memory", "can't allocate memory")
_NO_SPACE = ("No space left", "inline_container", "PytorchStreamWriter")


@contextlib.contextmanager
def resources_reported(where: str) -> Iterator[None]:
    """Turn a library's failure for want of memory or disk into one of ours."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        said = str(error)
        if any(words in said for words in _NO_MEMORY):
            raise ResourceError(
                "memory has run out",
                where=where,
                remedy="Lower trainer.per_device_train_batch_size and raise "
                "trainer.gradient_accumulation_steps as much",
            ) from None
        if any(words in said for words in _NO_SPACE):
            raise ResourceError(
                "the disk is full",
                where=where,
                remedy="Free some space and run the same command again: it resumes",
            ) from None
        raise


def _final(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of every logged figure."""
    last: dict[str, Any] = {}
    for entry in history:
        last.update(entry)
    skipped = ("step", "epoch", "total_flos", "learning_rate")
    speed = ("runtime", "_per_second")
    return {
        name: value
        for name, value in last.items()
        if name not in skipped and not name.endswith(speed)
    }


def _last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; one that was cut off half-way is removed.

    The trainer writes its state after model and optimizer, so a checkpoint with a readable state
    is whole.
    """
    steps = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in reversed(steps):
        with contextlib.suppress(OSError, ValueError, TypeError):
            TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _save_log(path: Path, history: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in history), encoding="utf-8")


class _Reporter(TrainerCallback):
    """A progress bar on stderr, and the log on disk while training runs."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task: TaskID | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show how far an interrupted training had come."""
        self.progress.start()
        self.task = self.progress.add_task(
            "training", total=state.max_steps, completed=state.global_step, loss=""
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        if self.task is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Keep the log readable while training runs."""
        _save_log(self.log, state.log_history)
        if self.task is not None and logs is not None and "loss" in logs:
            self.progress.update(self.task, loss=f"loss {float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the bar as it stands."""
        self.progress.stop()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers, TRL and datasets from talking over our own progress."""
    import datasets
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    bars = os.environ.get("TQDM_DISABLE", "")
    # TRL asks this before it draws a bar for the reference's log-probabilities.
    os.environ["TQDM_DISABLE"] = "1"
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # TRL's own use of names that transformers is about to rename.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        os.environ["TQDM_DISABLE"] = bars
        transformers_logging.set_verbosity(before)
        datasets.enable_progress_bars()
