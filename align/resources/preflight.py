"""What is checked of a training before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from align.adapters import quantized_loading
from align.arguments import defaults, resolved
from align.model_ref import ModelRef
from align.processes import is_main, world_size
from align.recipe import PretrainRecipe, Recipe, Tuning
from align.resources.device import (
    device_of,
    free_bytes,
    local_processes,
    require_devices,
)
from align.resources.fitting import pretraining_setup, require_room, setup_of
from align.resources.launch import sharded_here
from align.resources.setup import Setup
from align.resources.shapes import config_file, model_shapes


def preflight(
    recipe: Tuning, ref: ModelRef, name: str, config: type, *, unchecked: bool = False
) -> None:
    """Refuse a training whose devices are not here or that does not fit into their memory.

    Where the model's sizes are not known there is no telling, and that is said.

    Args:
        ref: the model that it starts from.
        name: of the recipe.
        config: the class that configures its trainer.
        unchecked: leave the memory out.

    Raises:
        TrainingError: there is no GPU, or too few, for a recipe that is for them.
        ResourceError: by the estimate it does not fit.
    """
    started = world_size()
    require_devices(recipe.hardware, recipe.method, name, started=started)
    if recipe.quantization is not None:
        quantized_loading()
    if unchecked:
        return
    shapes, said = model_shapes(recipe, ref)
    if shapes is None:
        # Without a configuration it cannot be loaded either, which says why.
        if is_main() and config_file(ref) is not None:
            _say_unknown(ref, said)
        return
    setup = setup_of(recipe, shapes, _arguments(recipe, config))
    _require_room(setup, device_of(recipe.hardware), name)


def preflight_pretraining(
    recipe: PretrainRecipe, name: str, config: type, *, unchecked: bool = False
) -> None:
    """`preflight` of a model that is made from nothing.

    Raises:
        ResourceError: by the estimate it does not fit.
    """
    if not unchecked:
        _require_room(pretraining_setup(recipe, _arguments(recipe, config)), device_of(None), name)


def _arguments(recipe: Recipe, config: type) -> Mapping[str, Any]:
    """Of the trainer, all that count."""
    chosen = resolved(recipe, config, evaluates=False, processes=world_size())
    return defaults(config) | {key: value for key, (value, _) in chosen.items()}


def _require_room(setup: Setup, device: str, name: str) -> None:
    here = replace(setup, devices=world_size(), sharded=sharded_here())
    shared = local_processes() if device == "cpu" else 1
    require_room(here, free_bytes(device) / shared, name)


def _say_unknown(ref: ModelRef, said: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(
        f"warning: {ref.name}: whether it fits into memory could not be estimated: {said}. "
        "shapes.model in the recipe states its sizes",
        markup=False,
    )
