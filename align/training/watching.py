"""Callbacks that whoever starts a training adds to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from transformers import TrainerCallback

_watching: ContextVar[tuple[TrainerCallback, ...]] = ContextVar("_watching", default=())


@contextlib.contextmanager
def watched_by(*callbacks: TrainerCallback) -> Iterator[None]:
    """Every training that starts within has these callbacks too."""
    token = _watching.set((*_watching.get(), *callbacks))
    try:
        yield
    finally:
        _watching.reset(token)


def watching() -> tuple[TrainerCallback, ...]:
    """The callbacks of the context one stands in."""
    return _watching.get()
