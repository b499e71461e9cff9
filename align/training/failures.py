"""What libraries say when a training cannot go on, in one line of ours."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from annotate.errors import ResourceError, TrainingError

_REFUSALS = (TypeError, ValueError, NotImplementedError, KeyError, ImportError, AssertionError)
# What the libraries say when there is no room left; none has an exception of its own for it.
_NO_MEMORY = ("out of memory", "can't allocate memory")
_NO_SPACE = ("No space left", "inline_container", "PytorchStreamWriter")


@contextlib.contextmanager
def settings_reported(where: str) -> Iterator[None]:
    """Turn a library's refusal of a recipe's settings into one of our errors.

    A mistake of our own keeps its traceback.
    """
    try:
        yield
    except _REFUSALS as error:
        if _raised_by_us(error):
            raise
        said = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        first = (said.strip() or type(error).__name__).split("\n")[0].removesuffix(".")
        raise TrainingError(
            f"the trainer refuses these settings: {first}", where=where, remedy="Mend the recipe"
        ) from error


SMALLER_BATCHES = (
    "Set batch_size and lower trainer.per_device_train_batch_size: more batches make a step, and "
    "its result stays"
)
"""What to do where memory has run out, with most methods."""


@contextlib.contextmanager
def resources_reported(where: str, less_memory: str = SMALLER_BATCHES) -> Iterator[None]:
    """Turn a library's failure for want of memory or disk into one of ours.

    Args:
        less_memory: what to do where memory has run out.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        said = str(error)
        if any(words in said for words in _NO_MEMORY):
            raise ResourceError(
                "memory has run out",
                where=where,
                remedy=less_memory,
            ) from None
        if any(words in said for words in _NO_SPACE):
            raise ResourceError(
                "the disk is full",
                where=where,
                remedy="Free some space and run the same command again: it resumes",
            ) from None
        raise


def _raised_by_us(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = str(frames[-1].f_globals.get("__name__", ""))
    return name.startswith(("align.", "annotate."))
