"""Rows of tokens from documents: several documents in a row, none of which looks at another.

A document that fits into a row is never cut (best-fit packing, Ding et al. 2024, "Fewer truncations
improve language modeling"): a model that read prompts cut off learnt to ignore the prompt.

Positions start again at 0 with every document. Where a model gets positions but no attention mask
and keeps no cache, transformers takes from them which tokens may look at each other; a model whose
attention does not is found by `attends_across`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

Row = dict[str, list[int]]
"""input_ids, labels and position_ids, of one length."""

IGNORED = -100
"""The label of a token that is not learnt."""

# Rows that wait to be filled. More leave less room unused, and keep documents waiting longer.
_OPEN = 64


def pieces(documents: Iterable[Sequence[int]], length: int) -> Iterator[Sequence[int]]:
    """Documents of at most `length` tokens; a longer one is cut into several, in order."""
    for document in documents:
        for start in range(0, len(document), length):
            yield document[start : start + length]


def packed(documents: Iterable[Sequence[int]], length: int) -> Iterator[Row]:
    """Rows of at most `length` tokens that hold whole documents, nearly without room to spare.

    Each piece goes into the fullest open row that has room for it. The order depends on the
    documents alone.
    """
    rows: list[list[Sequence[int]]] = []
    room: list[int] = []
    for piece in pieces(documents, length):
        fitting = [(left, at) for at, left in enumerate(room) if left >= len(piece)]
        if fitting:
            at = min(fitting)[1]
        else:
            if len(rows) == _OPEN:
                at = room.index(min(room))
                del room[at]
                yield joined(rows.pop(at))
            at = len(rows)
            rows.append([])
            room.append(length)
        rows[at].append(piece)
        room[at] -= len(piece)
        if room[at] == 0:
            del room[at]
            yield joined(rows.pop(at))
    yield from map(joined, rows)


def joined(documents: Iterable[Sequence[int]]) -> Row:
    """One row of these documents. The first token of each is not learnt: nothing tells of it."""
    row: Row = {"input_ids": [], "labels": [], "position_ids": []}
    for document in documents:
        row["input_ids"] += document
        row["labels"] += [IGNORED, *document[1:]]
        row["position_ids"] += range(len(document))
    return row


def collate(rows: Sequence[Row], pad: int) -> dict[str, Any]:
    """A batch of rows, each filled up on the right with a document of `pad` that is not learnt.

    Returns:
        input_ids, labels and position_ids, shape (rows, longest row), and `use_cache`: with a cache
        transformers would not look at the positions.
    """
    longest = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, value: int | None) -> torch.Tensor:
        lists = []
        for row in rows:
            missing = longest - len(row[name])
            lists.append(
                row[name] + ([value] * missing if value is not None else [*range(missing)])
            )
        return torch.tensor(lists)

    return {
        "input_ids": filled("input_ids", pad),
        "labels": filled("labels", IGNORED),
        "position_ids": filled("position_ids", None),
        "use_cache": False,
    }


def attends_across(model: Any) -> bool:
    """Whether a document changes what a model makes of the next one in the same row."""
    first, other, second = [4, 5, 6, 7], [7, 6, 5, 4], [5, 4, 7, 6]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found = []
    with torch.inference_mode():
        for before in (first, other):
            row = joined([before, second])
            ids, positions = (
                torch.tensor([row[name]], device=device) for name in ("input_ids", "position_ids")
            )
            made = model(input_ids=ids, position_ids=positions, use_cache=False)
            found.append(made.logits[0, len(before) :].float())
    model.train(training)
    return not torch.allclose(found[0], found[1], atol=1e-3, rtol=1e-3)
