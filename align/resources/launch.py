"""Accelerate's configuration files, by which a training runs on several devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from align.recipe import SHIPPED, nearest
from annotate.errors import InputError

FOLDER = SHIPPED / "launch"


def launch_file(name: str) -> Path:
    """The file at this path, or the one of this name among those shipped.

    Raises:
        InputError: there is none.
    """
    for path in (Path(name), FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    raise InputError(
        "no such accelerate configuration", where=name, remedy=nearest(name, shipped, "Shipped")
    )


def shards(path: Path) -> bool:
    """Whether weights, gradients and optimizer states are divided over the devices.

    FSDP does so, and DeepSpeed's ZeRO in its third stage.
    """
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    stage = (content.get("deepspeed_config") or {}).get("zero_stage")
    return content.get("distributed_type") == "FSDP" or stage == 3


def sharded_here() -> bool:
    """The same of this process, as accelerate has started it."""
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
    return os.environ.get("ACCELERATE_USE_FSDP") == "true" or stage == "3"
