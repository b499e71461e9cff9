"""Train to the end, from the last checkpoint if there is one, and save what came of it."""

from __future__ import annotations

import math
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_callback import TrainerState

from align.adapters import holds_adapters, save_model
from align.arguments import argument_layers
from align.conduct import largest_divisor, require_held_out
from align.health.watch import HealthWatch
from align.model_ref import MODEL_FOLDER
from align.processes import is_main, wait_for_all, world_size
from align.recipe import FeedbackRecipe, KtoRecipe, Recipe
from align.training.checkpoints import (
    CHECKPOINTS,
    Checkpoints,
    keep_models,
    newest_whole,
    remove_torn,
)
from align.training.failures import SMALLER_BATCHES, resources_reported, settings_reported
from align.training.order import EpochOrder
from align.training.progress import LOG, Bar, LogFile, write_log
from align.training.trackers import set_up_trackers
from align.training.watching import watching
from annotate.errors import Interrupted, TrainingError
from annotate.runs import Draft

RECIPE = "recipe.yaml"
"""The whole recipe, in the run."""


def trainer_arguments(recipe: Recipe, draft: Draft, *, evaluates: bool) -> dict[str, Any]:
    """Arguments of a trainer's configuration: ours, what the device wants, then the recipe's.

    Raises:
        InputError: the wanted batch cannot be shared out, nothing is held out though early stopping
            needs it, or a tracker is not installed.
    """
    require_held_out(recipe, evaluates)
    chosen: dict[str, Any] = {}
    for layer in argument_layers(recipe, evaluates=evaluates, processes=world_size()).values():
        chosen |= layer
    set_up_trackers(recipe.report_to, draft)
    return {
        **chosen,
        "output_dir": str(draft.path / CHECKPOINTS),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "report_to": list(recipe.report_to) or "none",
        "run_name": draft.plan.run_id,
        "project": draft.project.root.name,
        "disable_tqdm": True,
    }


def fit(trainer: Trainer, recipe: Recipe, draft: Draft) -> None:
    """Train to the end, from the last checkpoint if there is one, and save the model.

    Leaves in the draft: `model/`, `adapter/` if adapters were trained, `log.jsonl`, `recipe.yaml`,
    and in its metrics the final figures; those of the held-out rows are the saved model's.

    Raises:
        TrainingError: a library refuses the recipe's settings, or the loss is not a number.
        ResourceError: memory has run out, or the disk is full.
        Interrupted: by Ctrl-C.
    """
    where, folder = draft.plan.run_id, draft.path / CHECKPOINTS
    bar = _add_callbacks(trainer, recipe, draft)
    try:
        # trackio talks on stdout, which is the command's own.
        with (
            redirect_stdout(sys.stderr),
            resources_reported(where, _less_memory(recipe)),
            settings_reported(where),
        ):
            _train(trainer, folder, may_halve=_found_here(recipe))
    except KeyboardInterrupt:
        raise _interrupted(trainer, folder, where) from None
    finally:
        bar.close()
    history: list[dict[str, Any]] = trainer.state.log_history
    if not all(math.isfinite(entry.get("loss", 0.0)) for entry in history):
        raise TrainingError(
            "the loss is not a number", where=where, remedy="Lower trainer.learning_rate"
        )
    with resources_reported(where):
        _save(trainer, recipe, draft)
    draft.write_text(RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    draft.note(**_conditions(trainer), **_final(trainer.state))


def _add_callbacks(trainer: Trainer, recipe: Recipe, draft: Draft) -> Bar:
    bar = Bar()
    trainer.remove_callback(PrinterCallback)
    if recipe.early_stopping is not None:
        wanted = recipe.early_stopping
        trainer.add_callback(EarlyStoppingCallback(wanted.patience, wanted.min_improvement))
    ours: list[TrainerCallback] = [EpochOrder(), _StopsAtNaN(), Checkpoints()]
    if is_main():
        ours += [LogFile(draft.path / LOG), bar, HealthWatch(draft.plan.run_id)]
    for callback in (*ours, *watching()):
        trainer.add_callback(callback)
    return bar


def _train(trainer: Trainer, folder: Path, *, may_halve: bool) -> None:
    """Train from the newest whole checkpoint; with smaller batches where memory does not do."""
    if is_main():
        remove_torn(folder)
    while True:
        start = newest_whole(folder)
        if start is not None and _has_ended(start):
            _restore(trainer, start)
            return
        if start is not None:
            _count_on(trainer, start)
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except torch.OutOfMemoryError:
            if not (may_halve and trainer.state.global_step == 0 and _halve_batches(trainer)):
                raise
        else:
            return


def _found_here(recipe: Recipe) -> bool:
    """Whether rows a device are ours to choose, which change nothing but memory; several processes
    would have to agree on it."""
    given = "per_device_train_batch_size" in recipe.trainer
    ours = recipe.batch_size is not None and not given and world_size() == 1
    return ours and not _batches_count(recipe)


def _batches_count(recipe: Recipe) -> bool:
    """Whether the rows of a batch matter beyond memory: KTO compares them, and a trainer that
    writes fixes at its start how what is written for a step is shared out."""
    return isinstance(recipe, FeedbackRecipe | KtoRecipe)


def _less_memory(recipe: Recipe) -> str:
    """What to set where memory has run out."""
    if isinstance(recipe, KtoRecipe):
        return "Set trainer.per_device_train_batch_size lower, but to 2 or more, or lora: {}"
    if isinstance(recipe, FeedbackRecipe):
        return (
            "Set trainer.per_device_train_batch_size lower, beside batch_size, or let completions "
            "be shorter"
        )
    return SMALLER_BATCHES


def _halve_batches(trainer: Trainer) -> bool:
    """Compute half as many rows together, and as many in a step as before; False at one row."""
    arguments = trainer.args
    together = arguments.per_device_train_batch_size
    if together == 1:
        return False
    rows = together * arguments.gradient_accumulation_steps
    arguments.per_device_train_batch_size = largest_divisor(rows, together // 2)
    arguments.gradient_accumulation_steps = rows // arguments.per_device_train_batch_size
    trainer._train_batch_size = arguments.train_batch_size
    torch.cuda.empty_cache()
    set_seed(arguments.seed)  # the attempt drew dropout masks
    return True


def _has_ended(checkpoint: Path) -> bool:
    """Whether it was taken after the last step: training again would take one more."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    control: dict[str, Any] = state.stateful_callbacks.get("TrainerControl", {})
    stopped = bool(control.get("args", {}).get("should_training_stop"))
    return stopped or state.global_step >= state.max_steps


def _count_on(trainer: Trainer, checkpoint: Path) -> None:
    """Let TRL go on counting tokens where it was; it keeps the count nowhere but in the log."""
    history = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).log_history
    seen = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    if seen and hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = int(seen[-1])


def _restore(trainer: Trainer, checkpoint: Path) -> None:
    """The model and figures of a training that had only to be saved."""
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    trainer._load_from_checkpoint(trainer.state.best_model_checkpoint or str(checkpoint))


def _interrupted(trainer: Trainer, folder: Path, where: str) -> Interrupted:
    start = newest_whole(folder)
    step = int(start.name.split("-")[1]) if start else 0
    return Interrupted(
        f"interrupted at step {trainer.state.global_step:,} of {trainer.state.max_steps:,}",
        where=where,
        remedy=f"The same command goes on from step {step:,}",
    )


def _save(trainer: Trainer, recipe: Recipe, draft: Draft) -> None:
    """Write model and log, and drop the checkpoints or keep them as models."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded:
        # Every process has a part of the weights.
        trainer.save_model(str(draft.path / MODEL_FOLDER))
    if is_main():
        if not sharded:
            save_model(trainer.model, trainer.processing_class, draft.path / MODEL_FOLDER)
        write_log(draft.path / LOG, trainer.state.log_history)
    wait_for_all()
    if is_main():
        if recipe.keep_checkpoints:
            _keep(trainer, draft)
        shutil.rmtree(draft.path / CHECKPOINTS, ignore_errors=True)


def _keep(trainer: Any, draft: Draft) -> None:
    """Leave the checkpoints in the run as models, and their names in its metrics."""
    kept = keep_models(draft.path / CHECKPOINTS, draft.path)
    for folder in kept:
        if holds_adapters(folder):
            # What tells a converter which model they belong to; the trainer writes none.
            trainer.model.config.save_pretrained(str(folder))
    draft.note(checkpoints=[folder.name for folder in kept])


def _conditions(trainer: Trainer) -> dict[str, Any]:
    """What it was computed on, and how."""
    arguments = trainer.args
    together = arguments.train_batch_size * arguments.gradient_accumulation_steps
    on_gpu = arguments.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else arguments.device.type,
        "processes": arguments.world_size,
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "batch_size": together * arguments.world_size,
    }


def _final(state: TrainerState) -> dict[str, Any]:
    """The last value of every logged figure; of the held-out ones that of the saved model."""
    last: dict[str, Any] = {}
    history: list[dict[str, Any]] = state.log_history
    for entry in history:
        last.update(entry)
    if state.best_global_step and state.best_model_checkpoint:
        at_best = [entry for entry in history if entry["step"] == state.best_global_step]
        for entry in at_best:
            last.update({k: v for k, v in entry.items() if k.startswith("eval_")})
        last |= {"best_step": state.best_global_step, "best": state.best_metric}
    last["train_loss"] = _mean_loss(history)
    skipped = ("step", "epoch", "total_flos", "learning_rate")
    speed = ("runtime", "_per_second")
    figures = {
        name: value
        for name, value in last.items()
        if name not in skipped and not name.endswith(speed)
    }
    return {"steps": state.global_step, "epochs": state.epoch, **figures}


def _mean_loss(history: list[dict[str, Any]]) -> float | None:
    """Of all steps, an interruption or not; the trainer's own covers those since it resumed."""
    logged = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    before = [0, *(step for step, _ in logged)]
    total = sum(loss * (step - last) for (step, loss), last in zip(logged, before, strict=False))
    return total / logged[-1][0] if logged else None


class _StopsAtNaN(TrainerCallback):
    """Spares the rest of a training whose weights are lost."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Stop when the loss is not a number."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            control.should_training_stop = True
