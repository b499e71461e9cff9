"""Pairs whose better output is known, as the truth that settings are scored by.

The file is that of gold items: the import format, one prompt with two outputs a line, and the
answer in the metadata:

    {"prompt": "…", "outputs": [{"model": "x", "text": "…"}, {"model": "x", "text": "…"}],
     "metadata": {"answer": {"preference": "first"}}}
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from annotate.errors import InputError
from annotate.records import flat_text, read_import

_WINNERS = {"first": 1.0, "second": -1.0}

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Gold:
    """Pairs with a known winner."""

    prompts: list[Messages]
    """Of each pair."""
    completions: list[tuple[str, str]]
    label: list[float]
    """1 where the first completion is the better one, -1 where the second is."""


def read_gold(path: Path, voted_on: Collection[str]) -> Gold:
    """The file's pairs; ties, other answers and prompts that people voted on are passed over.

    Args:
        voted_on: prompts that settings may train on, as `flat_text` writes them.

    Raises:
        InputError: the file cannot be read, a line is damaged, or no pair is left.
    """
    found = read_import(path)
    if found.quarantine.num_rows:
        first = found.quarantine.slice(0, 1).to_pylist()[0]
        raise InputError(first["reason"], where=f"{path}:{first['line']}")
    texts: dict[str, list[str]] = {}
    for row in found.outputs.select(["prompt_id", "completion"]).to_pylist():
        texts.setdefault(row["prompt_id"], []).append(row["completion"])
    gold = Gold([], [], [])
    for row in found.prompts.to_pylist():
        winner = _winner(row["metadata"])
        pair = texts.get(row["prompt_id"], [])
        if winner is None or len(pair) != 2 or flat_text(row["messages"]) in voted_on:
            continue
        gold.prompts.append(row["messages"])
        gold.completions.append((pair[0], pair[1]))
        gold.label.append(winner)
    if not gold.label:
        raise InputError(
            "no pair with a known winner on a prompt that nobody voted on",
            where=str(path),
            remedy='Give two outputs and "metadata": {"answer": {"preference": "first"}}',
        )
    return gold


def _winner(metadata: str) -> float | None:
    answer = json.loads(metadata).get("answer")
    said = answer.get("preference") if isinstance(answer, dict) else None
    return _WINNERS.get(said) if isinstance(said, str) else None
