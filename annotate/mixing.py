"""Items that test annotators, mixed in unseen: gold items with known answers, and repeats.

Both are made as any item is made (their ids, sides, metadata and texts come from `arrange` and
`publish`), and Argilla serves each person all items in a random order of their own, so that nothing
an annotator is served tells them from the others. Which they are stands
in the push run alone, in the table `mixed`. Their answers never vote: `pull` keeps them apart.

`guidelines/<task>/gold.jsonl` is in the import format; what is known stands in the metadata:

    {"id": "gold-1", "prompt": "…", "outputs": [{"model": "x", "text": "…"}, {…}],
     "metadata": {"answer": {"preference": "first"}}}

An answer names questions of the guideline. A preference is "first", "second" or "tie"; a ranking a
list of ranks, one an output; what is asked of each output a list, one an output; anything else is
given as `responses.value` holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotate.arrangement import arrange
from annotate.errors import InputError
from annotate.guidelines import Guideline
from annotate.orders import random_keys
from annotate.records import content_id, read_import, table_from_rows

GOLD, REPEAT, SWAP = "gold", "repeat", "swap"
"""Roles of mixed items."""

_VOTES = ("first", "second", "tie")


@dataclass(frozen=True)
class Gold:
    """Prompts whose answers are known."""

    prompts: pa.Table
    outputs: pa.Table
    answers: Mapping[str, str]
    """Prompt id → question → value, as JSON in terms of output ids."""


@dataclass(frozen=True)
class Mixed:
    """Items with tests among them."""

    items: pa.Table
    """All of them, sorted by id."""
    mixed: pa.Table
    """Which are tests; schema "mixed"."""


def gold_file(folder: Path, task: str) -> Path:
    """Where the gold items of a task stand."""
    return folder / "guidelines" / task / "gold.jsonl"


def read_gold(path: Path, guideline: Guideline) -> Gold:
    """Read a task's gold items.

    Raises:
        InputError: the file cannot be read, or a line is not one gold item of this guideline.
    """
    if not path.is_file():
        raise InputError(
            f"there are no gold items for {guideline.task}",
            where=str(path),
            remedy="Write some, as docs/queue.md shows, or leave --gold out",
        )
    found = read_import(path)
    if found.quarantine.num_rows:
        first = found.quarantine.slice(0, 1).to_pylist()[0]
        raise InputError(first["reason"], where=f"{path}:{first['line']}")
    outputs: dict[str, list[str]] = {name: [] for name in found.prompts["prompt_id"].to_pylist()}
    for row in found.outputs.select(["prompt_id", "output_id"]).to_pylist():
        outputs[row["prompt_id"]].append(row["output_id"])
    answers = {}
    for row in found.prompts.select(["prompt_id", "metadata"]).to_pylist():
        shown, where = outputs[row["prompt_id"]], f"{path}, {row['prompt_id']}"
        if not guideline.min_outputs <= len(shown) <= guideline.max_outputs:
            raise InputError(f"{guideline.name} does not show {len(shown)} outputs", where=where)
        known = json.loads(row["metadata"]).get("answer")
        if not isinstance(known, dict) or not known:
            raise InputError('its metadata has no "answer"', where=where)
        value = {name: _known(name, said, shown, guideline, where) for name, said in known.items()}
        answers[row["prompt_id"]] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return Gold(found.prompts, found.outputs, answers)


def _known(name: str, said: Any, outputs: list[str], guideline: Guideline, where: str) -> Any:
    """One known answer in terms of output ids."""
    question = next((each for each in guideline.questions if each.name == name), None)
    if question is None:
        asked = ", ".join(each.name for each in guideline.questions)
        raise InputError(f"{guideline.name} does not ask {name!r}", where=where, remedy=asked)
    if question.type == "preference":
        if said not in _VOTES:
            raise InputError(f"{name} must be first, second or tie, not {said!r}", where=where)
        a, b = sorted(outputs)
        better = [*outputs, None][_VOTES.index(said)]
        return {"a": a, "b": b, "vote": {a: "a", b: "b", None: "tie"}[better]}
    if question.type == "ranking" or question.each_output:
        if not isinstance(said, list) or len(said) != len(outputs):
            raise InputError(f"{name} must be a list of {len(outputs)}", where=where)
        if question.type == "ranking":
            return {"ranks": dict(zip(outputs, said, strict=True))}
        key = {"thumbs": "thumb"}.get(question.type, question.type)
        return [{"output": at, key: one} for at, one in zip(outputs, said, strict=True)]
    return said


def mix(
    items: pa.Table,
    guideline: Guideline,
    *,
    batch: str,
    seed: int,
    gold: Gold | None = None,
    gold_share: float = 0.0,
    repeat_share: float = 0.0,
    earlier: pa.Table | None = None,
) -> Mixed:
    """Put gold items and repeats among the items of a batch; shares are of the items there are.

    Every data set of the batch gets its own, one at least. Every other repeat shows its outputs
    turned round, where there are two or more. Where there is less gold than asked for, all of it
    is shown, once: shown twice it would be a repeat.

    Args:
        items: table `items`, without tests.
        batch: as given to `arrange`.
        earlier: items that the data sets hold already; their gold is not shown again.
    """
    tables, rows = [items], []
    if gold is not None and gold_share > 0:
        shown = _gold_items(items, gold, guideline, batch, seed, gold_share, earlier)
        tables.append(shown)
        rows += [
            {"item_id": item, "role": GOLD, "answer": gold.answers[prompt]}
            for item, prompt in zip(
                shown["item_id"].to_pylist(), shown["prompt_id"].to_pylist(), strict=True
            )
        ]
    for name in sorted(pc.unique(items["batch"]).to_pylist()) if repeat_share > 0 else ():
        again, mixed = _repeats(items.filter(pc.equal(items["batch"], name)), repeat_share, seed)
        tables.append(again)
        rows += mixed
    mixed_table = table_from_rows("mixed", rows).sort_by("item_id")
    return Mixed(pa.concat_tables(tables).sort_by("item_id"), mixed_table)


def _gold_items(
    items: pa.Table,
    gold: Gold,
    guideline: Guideline,
    batch: str,
    seed: int,
    share: float,
    earlier: pa.Table | None,
) -> pa.Table:
    twice = set(gold.answers) & set(items["prompt_id"].to_pylist())
    if twice:
        raise InputError(
            "a gold item has the id of a prompt of this run",
            where=min(twice),
            remedy="Give the gold items ids of their own",
        )
    before = items
    if earlier is not None:  # what is pushed again stands in both
        before = pa.concat_tables([earlier, without(items, earlier)])
    made = arrange(
        gold.prompts, gold.outputs, guideline, batch=batch, seed=seed, earlier=before
    ).items
    if earlier is not None:
        made = without(made, earlier)
    parts = [made.slice(0, 0)]
    for name in pc.unique(items["batch"]).to_pylist():
        fitting = made.filter(pc.equal(made["batch"], name))
        count = _count(share, pc.sum(pc.equal(items["batch"], name)).as_py())
        keys = random_keys(fitting["item_id"].to_pylist(), seed)
        parts.append(fitting.take(np.argsort(keys)[:count]))
    return pa.concat_tables(parts)


def _repeats(items: pa.Table, share: float, seed: int) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Repeats of some items of one data set, and what `mixed` says of them."""
    order = np.argsort(random_keys(items["item_id"].to_pylist(), seed + 1))
    chosen = items.take(order[: _count(share, items.num_rows)])
    rows, mixed = [], []
    for number, item in enumerate(chosen.to_pylist()):
        swap = number % 2 == 1 and len(item["output_ids"]) > 1
        outputs = item["output_ids"][::-1] if swap else item["output_ids"]
        again = content_id("i", "again", item["item_id"])
        rows.append({**item, "item_id": again, "output_ids": outputs})
        role = SWAP if swap else REPEAT
        mixed.append({"item_id": again, "role": role, "of_item": item["item_id"]})
    return table_from_rows("items", rows), mixed


def _count(share: float, n: int) -> int:
    return min(n, max(1, round(share * n)))


def without(table: pa.Table, mixed: pa.Table) -> pa.Table:
    """The rows of a table with `item_id` that are about none of these items."""
    return table.filter(pc.invert(_among(table, mixed)))


def only(table: pa.Table, mixed: pa.Table) -> pa.Table:
    """The rows of a table with `item_id` that are about one of these items."""
    return table.filter(_among(table, mixed))


def _among(table: pa.Table, mixed: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(table["item_id"], value_set=mixed["item_id"].combine_chunks())
