"""Which known word was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

Complaint = tuple[str, str]
"""What is wrong with a value, and the remedy."""


def nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    """A remedy: the known word most like `word`; else all of them after the word `otherwise`."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"{otherwise}: {', '.join(known)}" if otherwise else ""


def unknown_word(key: str, value: Any, known: Sequence[str]) -> Complaint | None:
    """What is wrong with `value`, which is one of `known` or a list of such; None: nothing."""
    for word in value if isinstance(value, list) else [value]:
        if word not in known:
            return f"trainer.{key} cannot be {word!r}", nearest(str(word), known, "It may be")
    return None
