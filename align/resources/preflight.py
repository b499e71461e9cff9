"""What is checked of a training before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

from align.adapters import quantized_loading
from align.arguments import defaults, resolved
from align.model_ref import ModelRef
from align.recipe import Tuning
from align.resources.device import (
    device_of,
    free_bytes,
    local_processes,
    require_devices,
)
from align.resources.fitting import require_room, setup_of
from align.resources.launch import sharded_here
from align.resources.shapes import model_shapes


def preflight(
    recipe: Tuning, ref: ModelRef, name: str, config: type, *, unchecked: bool = False
) -> None:
    """Refuse a training whose devices are not here or that does not fit into their memory.

    Args:
        ref: the model that it starts from.
        name: of the recipe.
        config: the class that configures its trainer.
        unchecked: leave the memory out.

    Raises:
        TrainingError: there is no GPU, or too few, for a recipe that is for them.
        ResourceError: by the estimate it does not fit.
    """
    from align.processes import world_size

    started = world_size()
    require_devices(recipe.hardware, recipe.method, name, started=started)
    if recipe.quantization is not None:
        quantized_loading()
    if unchecked:
        return
    shapes, _ = model_shapes(recipe, ref)
    if shapes is None:
        return
    chosen = resolved(recipe, config, evaluates=False, processes=started)
    arguments = defaults(config) | {key: value for key, (value, _) in chosen.items()}
    setup = replace(setup_of(recipe, shapes, arguments), devices=started, sharded=sharded_here())
    device = device_of(recipe.hardware)
    shared = local_processes() if device == "cpu" else 1
    require_room(setup, free_bytes(device) / shared, name)
