"""What people said → ledger → table: `handloom pull`.

A pull first writes every response it has not seen, drafts and discards too, into the ledger; the
run is then made from the ledger alone. So it can be killed anywhere and repeated, and what Argilla
has lost since an earlier pull is still there. The embedded server is asked first to write what it
holds, which knows more of each version (`seconds`). The run's id depends on the responses: a pull
that sees nothing new finds the last one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.display import Item, undo
from annotate.guidelines import Guideline, load_guideline
from annotate.ledger import Entry, Ledger
from annotate.mixing import only, without
from annotate.progress import progress
from annotate.publishing import shown_tables
from annotate.records import SCHEMAS, table_from_rows
from annotate.runs import Draft, Project, Run, RunPlan
from annotate.server import Server, connect, workspace_of
from annotate.server_types import Response

_ROWS_A_CHUNK = 50_000


def pull(project: Project, push_run: Run, *, again: bool = False) -> Run:
    """Fetch the responses to the items of a push, and table the latest of each person to each item.

    Raises:
        ProjectError: not a push run, or the ledger is damaged or was changed by hand.
        ServerError: Argilla cannot be reached, or does not have the batch.
        ResourceError: the disk is full.
    """
    push_run.require("push")
    items = push_run.read("items")
    guideline = load_guideline(project.root, push_run.manifest["settings"]["guideline"])
    batches = sorted(pc.unique(items["batch"]).to_pylist())
    ledger = Ledger.of(project)
    ledger.require_intact()
    with connect(project, workspace_of(push_run)) as server:
        server.flush()
        appended = sum(write_down(server, ledger, name, guideline.name) for name in batches)
    latest = _latest(ledger, batches, items)
    plan = RunPlan("pull", push_run.round, (push_run,), {"responses": _digest(latest)})
    if again:
        plan = project.again(plan)
    if (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        responses, quarantine = tabulate(
            latest, items, guideline, _marked_texts(push_run, items, guideline)
        )
        if push_run.has("mixed"):
            responses, items, latest = _tests_aside(draft, push_run, responses, items, latest)
        draft.write("responses", responses)
        draft.write("items", items)
        draft.write("quarantine", quarantine)
        draft.note(
            **_counts(latest, push_run.manifest["settings"].get("overlap")),
            items=items.num_rows,
            new_in_ledger=appended,
            quarantined=quarantine.num_rows,
        )
    return draft.run


def _tests_aside(
    draft: Draft, push_run: Run, responses: pa.Table, items: pa.Table, entries: list[Entry]
) -> tuple[pa.Table, pa.Table, list[Entry]]:
    """Write what gold items and repeats were answered apart; the rest, which alone votes."""
    mixed = push_run.read("mixed")
    tests = set(mixed["item_id"].to_pylist())
    draft.write("mixed", mixed)
    draft.write("mixed_responses", only(responses, mixed))
    draft.note(mixed_submitted=sum(e.item_id in tests and _submitted(e) for e in entries))
    rest = [entry for entry in entries if entry.item_id not in tests]
    return without(responses, mixed), without(items, mixed), rest


def _submitted(entry: Entry) -> bool:
    return entry.status == "submitted"


def write_down(server: Server, ledger: Ledger, name: str, guideline: str) -> int:
    """Write down what the server holds of a batch and the ledger does not; how many these were.

    Raises:
        ServerError: the server's workspace does not have the batch.
        ResourceError: the disk is full.
    """
    batch = server.batch(name)
    with progress(f"pull {name}", server.count(batch)) as advance:
        seen = list(server.responses(batch, advance))
    entries = (as_entry(response, name, guideline, server.workspace) for response in seen)
    return ledger.append(entries)


def as_entry(response: Response, batch: str, guideline: str, workspace: str | None = None) -> Entry:
    """A response on the server, as the ledger says it."""
    return Entry(batch=batch, guideline=guideline, workspace=workspace, **_fields(response))


def _fields(response: Response) -> dict[str, Any]:
    return {f.name: getattr(response, f.name) for f in dataclasses.fields(response)}


def _latest(ledger: Ledger, batches: list[str], items: pa.Table) -> list[Entry]:
    """The entry that counts of each item and annotator, less what its author withdrew."""
    known = set(items["item_id"].to_pylist())
    standing = ledger.standing(batches).values()
    entries = [e for e in standing if e.item_id in known and e.status != "deleted"]
    return sorted(entries, key=lambda entry: entry.key)


def _digest(entries: Iterable[Entry]) -> str:
    """Hash of what was answered, by whom and when, whatever the order it was seen in."""
    digest = hashlib.sha256()
    for entry in entries:
        content = [*entry.key, entry.status, entry.values, entry.updated_at.isoformat()]
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _counts(entries: list[Entry], overlap: int | None) -> dict[str, Any]:
    """What a pull notes of its responses; `extra` are submissions beyond an item's overlap."""
    status = [entry.status for entry in entries]
    submitted = Counter(entry.item_id for entry in entries if entry.status == "submitted")
    return {
        "answered": len(submitted),
        "annotators": len({e.annotator for e in entries if e.status == "submitted"}),
        "responses": len(entries),
        "submitted": status.count("submitted"),
        "drafts": status.count("draft"),
        "discarded": status.count("discarded"),
        "extra": sum(max(0, n - overlap) for n in submitted.values()) if overlap else 0,
        "sources": dict(sorted(Counter(entry.source for entry in entries).items())),
    }


def _marked_texts(push_run: Run, items: pa.Table, guideline: Guideline) -> dict[str, str] | None:
    """The texts that marks refer to, by output id; None where nobody marks any."""
    if guideline.kind != "span":
        return None
    _, outputs = shown_tables(push_run.parents[0], push_run.path)
    marked = pc.list_flatten(items["output_ids"])
    outputs = outputs.filter(pc.is_in(outputs["output_id"], value_set=marked))
    return dict(
        zip(outputs["output_id"].to_pylist(), outputs["completion"].to_pylist(), strict=True)
    )


def tabulate(
    entries: Iterable[Entry],
    items: pa.Table,
    guideline: Guideline,
    completions: Mapping[str, str] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """The table `responses` with the order shown undone, and what cannot be read.

    Args:
        completions: by output id; needed where the guideline asks for spans.
    """
    by_id: dict[str, Item] = {row["item_id"]: row for row in items.to_pylist()}
    chunks = [SCHEMAS["responses"].empty_table()]
    rows: list[dict[str, Any]] = []
    unread: list[dict[str, Any]] = []
    for entry in entries:
        undone = undo(entry.values, by_id[entry.item_id], guideline, completions)
        rows += _rows(entry, undone.answers)
        unread += _unread(entry, undone.problems)
        if len(rows) >= _ROWS_A_CHUNK:
            chunks.append(table_from_rows("responses", rows))
            rows = []
    chunks.append(table_from_rows("responses", rows))
    return pa.concat_tables(chunks), table_from_rows("quarantine", unread)


def _rows(entry: Entry, answers: Iterable[Any]) -> Iterator[dict[str, Any]]:
    row = {
        "item_id": entry.item_id,
        "annotator": entry.annotator,
        "status": entry.status,
        "time": entry.updated_at,
        "seconds": entry.seconds,
        "guideline": entry.guideline,
    }
    answered = [{**row, "question": a.question, "value": a.json} for a in answers]
    yield from answered or [row]


def _unread(entry: Entry, problems: Iterable[str]) -> Iterator[dict[str, Any]]:
    for problem in problems:
        yield {
            "file": entry.batch,
            "id": entry.item_id,
            "reason": f"{entry.annotator}: {problem}",
            "content": json.dumps(entry.values, sort_keys=True),
        }
