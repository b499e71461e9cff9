"""What a trainer is configured with, layer over layer, each with who asks for it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from align.conduct import conduct_arguments
from align.model import device_arguments
from align.recipe import PretrainRecipe, Recipe, Tuning


def argument_layers(
    recipe: Recipe,
    *,
    evaluates: bool,
    device: Literal["cpu", "cuda"] | None = None,
    processes: int = 1,
) -> dict[str, dict[str, Any]]:
    """Arguments of a trainer's configuration by who sets them; a later layer wins.

    Args:
        evaluates: whether rows are held out.
        device: to train on. None: what this machine has.
        processes: how many train together.

    Raises:
        InputError: as `align.conduct.conduct_arguments`.
    """
    layers: dict[str, dict[str, Any]] = {
        "device": device_arguments(device),
        "Handloom": {
            "logging_steps": 5,
            "logging_first_step": True,
            # On, a loss that is not a number would be logged as 0.
            "logging_nan_inf_filter": False,
            "eval_strategy": "epoch" if evaluates else "no",
            # By the clock instead (align.training.checkpoints).
            "save_strategy": "no",
            "save_total_limit": 2,
        },
    }
    if isinstance(recipe, PretrainRecipe) and recipe.corpus is not None:
        # A stream has no epochs: ten times a training instead.
        layers["stream"] = {
            "eval_strategy": "steps",
            "eval_steps": 0.1,
            "save_strategy": "steps",
            "save_steps": 0.1,
            # Each process reads it and takes its share; else the first would cut up batches.
            "accelerator_config": {"dispatch_batches": False},
        }
    if isinstance(recipe, Tuning) and recipe.prefix is not None:
        # A layer that is computed again forgets the keys and values that came before it.
        layers["prefix"] = {"gradient_checkpointing": False}
    if conduct := conduct_arguments(recipe, evaluates=evaluates, processes=processes):
        layers["conduct"] = conduct
    layers["recipe"] = dict(recipe.trainer)
    return layers


def resolved(
    recipe: Recipe,
    config: type,
    *,
    evaluates: bool,
    device: Literal["cpu", "cuda"] | None = None,
    processes: int = 1,
) -> dict[str, tuple[Any, str]]:
    """Every argument of `config` that is not left as it is: its value, and who sets it.

    Beside the layers, what every trainer is given by the recipe's own keys.
    """
    known = {field.name for field in dataclasses.fields(config)}
    chosen: dict[str, tuple[Any, str]] = {}
    if isinstance(recipe, Tuning):
        own = {"max_length": (recipe.max_length, "recipe"), "seed": (recipe.seed, "recipe")}
        own["precompute_ref_log_probs"] = (recipe.reference_first, "Handloom")
        chosen = {name: value for name, value in own.items() if name in known}
    layers = argument_layers(recipe, evaluates=evaluates, device=device, processes=processes)
    for layer, arguments in layers.items():
        chosen |= {name: (value, layer) for name, value in arguments.items()}
    return chosen


def defaults(config: type) -> dict[str, Any]:
    """What each argument of a configuration class is where nobody sets it."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found
