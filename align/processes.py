"""Several processes that train one model: which of them this is, and what only the first one does.

Each is started with RANK and WORLD_SIZE in its environment, by `handloom train --launch`, by
`accelerate launch` or by torchrun. The first (rank 0) writes the run; the others compute.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from annotate.errors import TrainingError
from annotate.runs import Draft, Project, Run, RunPlan


class PeerGoneError(TrainingError):
    """Another of the processes that train together has ended: it has the reason, not this one."""


# What torch says then.
_PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL")


@contextlib.contextmanager
def peers_reported() -> Iterator[None]:
    """Turn what torch raises when another process has gone into one of our errors.

    Raises:
        PeerGoneError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip()
        if world_size() > 1 and any(words in said for words in _PEER_GONE):
            # Most often; or else this is all that tells what is wrong between them.
            first = said.split("\n")[0].rstrip(".")
            raise PeerGoneError(
                f"another process has ended, or cannot be reached: {first}"
            ) from None
        raise


def rank() -> int:
    """This process' number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the run, the log and the progress."""
    return rank() == 0


def different_result(batch_size: int | None) -> dict[str, int]:
    """What the number of processes adds to a run's settings: nothing where a step has as many rows
    whatever their number.
    """
    several = world_size() > 1 and batch_size is None
    return {"processes": world_size()} if several else {}


def wait_for_all() -> None:
    """Go on when every process has come here."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def agreed(choice: bool) -> bool:
    """What rank 0 chose, for all: clocks differ, and a checkpoint is taken by all or by none."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return choice
    from accelerate.utils import broadcast_object_list

    told = [choice]
    broadcast_object_list(told, from_process=0)
    return bool(told[0])


@dataclass
class _Watched(Draft):
    """The draft as the other processes see it: they read its folder and leave it as it is."""

    def write(self, table: str, rows: pa.Table) -> None:
        """Left to rank 0."""

    def write_text(self, name: str, text: str) -> None:
        """Left to rank 0."""


@contextlib.contextmanager
def shared_draft(project: Project, plan: RunPlan) -> Iterator[Draft]:
    """`project.draft(plan)` in the first process; in the others the same folder, not to write to.

    The run of the others' draft is finished only when rank 0 has ended.
    """
    if is_main():
        with project.draft(plan) as draft:
            yield draft
        return
    watched = _Watched(project, plan, project.runs_dir / f".{plan.run_id}.partial")
    yield watched
    watched._run = Run(project, project.runs_dir / plan.run_id)
