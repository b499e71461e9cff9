"""From any row back to the people, the guideline version and the model behind it.

Starts at the newest run that knows an id (of a training row, a failure, a pair, an item, an output
or a prompt) and walks up its parents: decision, judgement, responses, item, outputs, prompt.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from annotate.errors import ProjectError
from annotate.ledger import Ledger
from annotate.records import read_table
from annotate.runs import Project, Run

Row = dict[str, Any]

_KINDS = (
    ("preference row", "preference", "row_id"),
    ("SFT row", "sft", "row_id"),
    ("KTO row", "kto", "row_id"),
    ("failure", "failures", "failure_id"),
    ("pair", "decisions", "pair_id"),
    ("pair", "judgements", "pair_id"),
    ("item", "items", "item_id"),
    ("output", "outputs", "output_id"),
    ("prompt", "prompts", "prompt_id"),
)
_OUTPUT_COLUMNS = (
    *("chosen_output", "rejected_output", "output_id", "versus_output", "output_a", "output_b"),
)


@dataclass(frozen=True)
class Trace:
    """What is known of an id; each row carries the `run` it was read from."""

    id: str
    kind: str
    row: Row
    decision: Row | None = None
    judgement: Row | None = None
    responses: list[Row] = field(default_factory=list)
    """One a question answered, oldest first; `edits` counts earlier versions in the ledger."""
    items: list[Row] = field(default_factory=list)
    """With the batch, the order shown, and the guideline and its sha256."""
    outputs: list[Row] = field(default_factory=list)
    """With the run that made each and, where it is a model trained here, that model's run."""
    prompt: Row | None = None
    runs: list[str] = field(default_factory=list)
    """The run where the id was found and every run it was made from, nearest first."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; times as ISO 8601."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain


def trace(project: Project, wanted: str) -> Trace:
    """Walk the lineage of an id.

    Raises:
        ProjectError: no run knows it.
    """
    kind, run, row = _find(project, wanted)
    lineage = [run, *run.ancestors()]
    decision = judgement = None
    if (pair_id := row.get("pair_id")) is not None:
        decision = _first(lineage, "decisions", "pair_id", pair_id)
        judgement = _first(lineage, "judgements", "pair_id", pair_id)
    outputs = _output_ids(row) or _output_ids(judgement or {})
    items = _items(lineage, row, outputs, kind)
    item_ids = [item["item_id"] for item in items]
    for item in items:
        outputs += [output for output in item["output_ids"] if output not in outputs]
    return Trace(
        id=wanted,
        kind=kind,
        row=row,
        decision=decision,
        judgement=judgement,
        responses=_responses(project, lineage, item_ids),
        items=items,
        outputs=[found for output in outputs if (found := _output(lineage, output))],
        prompt=_first(lineage, "prompts", "prompt_id", row["prompt_id"]),
        runs=[r.id for r in lineage],
    )


def _find(project: Project, wanted: str) -> tuple[str, Run, Row]:
    runs = project.all_runs()
    for kind, table, column in _KINDS:
        for run in reversed(runs):
            for row in _rows(run, table, column, [wanted]):
                return kind, run, row
    raise ProjectError(
        "no run knows this id",
        where=wanted,
        remedy="Give the id of a training row, failure, pair, item, output or prompt",
    )


def _rows(run: Run, table: str, column: str, values: Collection[str]) -> Iterator[Row]:
    """The rows of a run's table whose `column` is one of `values`."""
    if run.has(table) and values:
        path = run.path / f"{table}.parquet"
        found = read_table(path, rows=pc.field(column).isin(list(values)))
        for row in found.to_pylist():
            yield {**row, "run": run.id}


def _first(lineage: Sequence[Run], table: str, column: str, value: str) -> Row | None:
    """The row of the nearest run that has it."""
    return next((row for run in lineage for row in _rows(run, table, column, [value])), None)


def _output_ids(row: Row) -> list[str]:
    named = [row[column] for column in _OUTPUT_COLUMNS if row.get(column)]
    return list(dict.fromkeys([*named, *row.get("output_ids", [])]))


def _items(lineage: Sequence[Run], row: Row, outputs: Sequence[str], kind: str) -> list[Row]:
    """The items that showed these outputs together, or the one that the row names."""
    if kind in ("output", "prompt"):
        return []
    found: dict[str, Row] = {}
    pushes = [run for run in lineage if run.step == "push"]
    for run in pushes or [run for run in lineage if run.has("items")]:
        settings = run.manifest["settings"]
        for item in _rows(run, "items", "prompt_id", [row["prompt_id"]]):
            same = item["item_id"] == row.get("item_id")
            if same or (not row.get("item_id") and outputs and {*outputs} <= {*item["output_ids"]}):
                item["guideline_sha256"] = settings.get("guideline_sha256")
                found.setdefault(item["item_id"], item)
    return list(found.values())


def _responses(project: Project, lineage: Sequence[Run], item_ids: Sequence[str]) -> list[Row]:
    """The responses that the lineage's pull tabled; of an item, those of its newest pull."""
    if not item_ids:
        return []
    pulls = [run for run in lineage if run.step == "pull"]
    if not pulls:
        above = {run.id for run in lineage}
        later = (run for run in reversed(project.all_runs()) if run.step == "pull")
        pulls = [run for run in later if above & {parent.id for parent in run.parents}][:1]
    versions: dict[tuple[str, str], int] = {}
    for entry in Ledger.of(project).history(item_ids):
        key = entry.item_id, entry.annotator
        versions[key] = versions.get(key, 0) + (not entry.is_loss)
    rows = [row for run in pulls for row in _rows(run, "responses", "item_id", item_ids)]
    for row in rows:
        row["edits"] = max(0, versions.get((row["item_id"], row["annotator"]), 1) - 1)
        row["value"] = json.loads(row["value"]) if row["value"] is not None else None
    return sorted(rows, key=lambda row: (row["time"], row["annotator"]))


def _output(lineage: Sequence[Run], output_id: str) -> Row | None:
    """An output with the run that made it (the farthest that has it) and its model's, if one is.

    What was generated by a model trained here is called by that run's id.
    """
    holders = [
        (run, row) for run in lineage for row in _rows(run, "outputs", "output_id", [output_id])
    ]
    if not holders:
        return None
    _, row = holders[-1]
    trained = {run.id for run in lineage if run.step == "train"}
    return {**row, "model_run": row["model"] if row["model"] in trained else None}
