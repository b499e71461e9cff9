"""How many optimizer steps a training makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from align.recipe import SetShapes


@dataclass(frozen=True)
class Steps:
    """Optimizer steps, and how they come about."""

    count: int
    each: int
    """Rows of data in one of them, over all devices."""
    note: str


def steps(size: SetShapes | None, arguments: Mapping[str, Any], devices: int) -> Steps | None:
    """As transformers' Trainer counts them; None where the size of the set decides and is unknown.

    Each device takes its share of every batch and an epoch's last step may be smaller. Packing
    makes rows of `max_length` tokens, nearly full, so that its number is a little too low.

    Args:
        arguments: of the trainer, all that count: micro-batch, accumulation, epochs, max_steps.
    """
    micro = int(arguments["per_device_train_batch_size"])
    accumulated = int(arguments["gradient_accumulation_steps"])
    each = micro * accumulated * devices
    if (most := int(arguments["max_steps"])) > 0:
        return Steps(most, each, "max_steps")
    if size is None:
        return None
    epochs = float(arguments["num_train_epochs"])
    rows, said = size.rows, f"{size.rows:,} rows"
    if (written := int(arguments.get("num_generations") or 1)) > 1:
        # TRL leaves out the last prompts where they are too few for a step.
        count = max(rows // (each // written), 1) * int(arguments.get("num_iterations") or 1)
        said += f", {written} completions of each, {each} a step, epochs: {epochs:g}"
        return Steps(ceil(epochs * count), each, said)
    if arguments.get("packing"):
        if size.tokens is None or not arguments.get("max_length"):
            return None
        rows = ceil(size.tokens / int(arguments["max_length"]))
        said = f"about {rows:,} packed rows"
    batches = ceil(rows / (micro * devices))
    if arguments.get("dataloader_drop_last"):
        batches = rows // (micro * devices)
    an_epoch = max(ceil(batches / accumulated), 1)
    return Steps(ceil(epochs * an_epoch), each, f"{said}, {each} a step, epochs: {epochs:g}")
