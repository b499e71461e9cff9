"""What a recipe names, checked before anything is loaded: by files alone, nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

from align.adapters import are_rewards, holds_adapters, quantized_loading, require_start
from align.model_kind import model_kind, names_a_reward, require_kind
from align.model_ref import ModelRef, resolve_model
from align.recipe import FeedbackRecipe, Tuning
from align.resources.shapes import config_file
from align.train import METHODS
from annotate.errors import TrainingError
from annotate.runs import Project


def require_named(project: Project, recipe: Tuning, ref: ModelRef) -> None:
    """Refuse what the training would refuse, as far as files tell it.

    Args:
        ref: the model that it starts from.

    Raises:
        InputError: the chat template names no file.
        ProjectError: there is no such reward model.
        TrainingError: what is named as a reward model is none, or training cannot start from `ref`.
    """
    from align.chat_template import template_text

    if recipe.chat_template is not None:
        template_text(recipe.chat_template, project.root)
    _require_trainable(recipe, ref)
    if isinstance(recipe, FeedbackRecipe):
        for key in ("reward", "held_out_reward"):
            if named := getattr(recipe, key):
                _require_reward(key, resolve_model(project, named))


def not_here(recipe: Tuning) -> list[str]:
    """What the recipe wants of a machine that this one has not: it may be for another."""
    import torch

    said, there = [], torch.cuda.device_count()
    wanted = recipe.hardware
    if wanted is not None and wanted.device == "cuda" and there < wanted.count:
        gpus = "an NVIDIA GPU" if wanted.count == 1 else f"{wanted.count} NVIDIA GPUs"
        said.append(f"the recipe is for {gpus}, and it has {there or 'none'}")
    if recipe.quantization is not None:
        try:
            quantized_loading()
        except TrainingError as error:
            said.append(error.what)
    return said


def _require_trainable(recipe: Tuning, ref: ModelRef) -> None:
    require_start(recipe, ref.name, Path(ref.source))
    method, config = METHODS[recipe.method], config_file(ref)
    if config is None:
        return
    kind = model_kind(str(config.parent))
    if not (method.encoder_decoder and kind == "encoder-decoder"):
        require_kind(ref.name, kind, method.task)
    if method.task != "reward" and _scores(ref):
        raise TrainingError(
            "it scores completions and writes none", where=ref.name, remedy="Name another model"
        )


def _require_reward(key: str, ref: ModelRef) -> None:
    if _scores(ref) is False:
        raise TrainingError(
            f"{key}: it is no reward model",
            where=ref.name,
            remedy="Train one: `handloom train reward-support-desk`",
        )


def _scores(ref: ModelRef) -> bool | None:
    """Whether a model has a head of scores; None where its files are not at hand."""
    folder = Path(ref.source)
    if holds_adapters(folder) and are_rewards(folder):
        return True
    config = config_file(ref)
    if config is None:
        return None
    try:
        return names_a_reward(json.loads(config.read_text(encoding="utf-8")).get("architectures"))
    except (OSError, ValueError):
        return None  # loading it will say what is wrong
