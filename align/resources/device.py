"""The devices that a training runs on, and the room that they have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from align.recipe import SHIPPED, Hardware
from annotate.errors import TrainingError

# A container's limit and use, in bytes or "max" (Linux control groups, version 2).
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


def device_of(hardware: Hardware | None) -> Literal["cpu", "cuda"]:
    """ "cpu" or "cuda": what the recipe says, else what there is."""
    if hardware is not None:
        return hardware.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def free_bytes(device: str) -> int:
    """Memory that can be had now: of this process's GPU, else of the machine or its container."""
    if device == "cuda":
        import torch
        from accelerate import PartialState

        return int(torch.cuda.mem_get_info(PartialState().local_process_index)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = _LIMIT.read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(_USED.read_text()))
    except OSError:
        return free  # not in such a container
    return free


def require_devices(hardware: Hardware | None, method: str, recipe: str, *, started: int) -> None:
    """Refuse a recipe whose devices are not here.

    Args:
        recipe: its name.
        started: how many processes the training runs in, one for each device.

    Raises:
        TrainingError: with the recipe of this method for a CPU, or how to start it on all devices.
    """
    if hardware is None or hardware.device == "cpu":
        return
    import torch

    wanted = "an NVIDIA GPU" if hardware.count == 1 else f"{hardware.count} NVIDIA GPUs"
    there = torch.cuda.device_count()
    if there == 0:
        raise TrainingError(
            f"this recipe is for {wanted}, and there is none here",
            where=recipe,
            remedy=cpu_remedy(method),
        )
    if hardware.count > there * (started // local_processes()):
        raise TrainingError(
            f"this recipe is for {wanted}, and there are {there} here",
            where=recipe,
            remedy=f"`handloom train {method}-24gb` takes one; or copy the recipe, lower its "
            "hardware.count, and num_processes in the file for accelerate",
        )
    if hardware.count != started:
        raise TrainingError(
            f"this recipe is for {wanted}, and it was started on {started}",
            where=recipe,
            remedy=f"`handloom train {recipe} --launch zero3`, or another file for accelerate",
        )


def local_processes() -> int:
    """How many of the processes that train together run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cpu_remedy(method: str) -> str:
    """Which shipped recipe of a method runs on a CPU."""
    name = f"{method}-support-desk"
    if (SHIPPED / f"{name}.yaml").is_file():
        return f"On a CPU: `handloom train {name}`; --dry-run shows this one anyway"
    return "--dry-run shows what it would do"
