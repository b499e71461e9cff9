"""Items → records of Argilla's data sets: what push and restore put on a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.adjudication import ADJUDICATE, VOTES, EarlierVotes
from annotate.display import (
    Item,
    is_conversation,
    record_fields,
    record_metadata,
    record_suggestions,
    texts_by_id,
)
from annotate.guidelines import Guideline, load_guideline
from annotate.progress import progress
from annotate.records import read_table
from annotate.runs import Draft, Run
from annotate.server import Server
from annotate.server_types import Batch, Record, Suggestion
from annotate.suggesting import shown_suggestions


@dataclass(frozen=True)
class Shown:
    """Items with the texts they show and the rules they are asked under."""

    items: pa.Table
    rules: Guideline
    messages: Mapping[str, Any]
    completions: Mapping[str, str]
    multi_turn: bool
    cap: int | None = None
    """Items of a data set that one person may answer."""
    earlier_votes: EarlierVotes | None = None
    """Shown to reviewers who decide what stayed split."""
    suggestions: Mapping[str, Mapping[str, Suggestion]] = field(default_factory=dict)
    """What a classifier suggests, by item and question."""

    @classmethod
    def of(
        cls,
        source: Run,
        items: pa.Table,
        rules: Guideline,
        *,
        folder: Path | None = None,
        cap: int | None = None,
    ) -> Shown:
        """The items of a run that holds their prompts and outputs; see `shown_tables`."""
        prompts, outputs = shown_tables(source, folder)
        prompts = prompts.filter(pc.is_in(prompts["prompt_id"], pc.unique(items["prompt_id"])))
        messages, completions = texts_by_id(prompts, outputs)
        votes = EarlierVotes.of(source, rules) if source.step == ADJUDICATE else None
        chat = is_conversation(prompts)
        suggested = folder / "suggested.parquet" if folder is not None else None
        made: Mapping[str, Mapping[str, Suggestion]] = {}
        if suggested is not None and suggested.is_file():
            made = shown_suggestions(read_table(suggested), items, rules)
        return cls(items, rules, messages, completions, chat, cap, votes, made)

    @classmethod
    def of_draft(cls, draft: Draft, items: pa.Table, rules: Guideline) -> Shown:
        """What a push that is being written shows."""
        (source,) = draft.plan.parents
        return cls.of(source, items, rules, folder=draft.path, cap=draft.plan.settings.get("cap"))

    @classmethod
    def of_push(cls, push_run: Run) -> Shown:
        """What a finished push showed."""
        asked = push_run.manifest["settings"]
        rules = load_guideline(push_run.project.root, asked["guideline"])
        rules = dataclasses.replace(rules, overlap=asked["overlap"])
        (source,) = push_run.parents
        items = push_run.read("items")
        return cls.of(source, items, rules, folder=push_run.path, cap=asked.get("cap"))

    def batches(self) -> list[str]:
        """Names of the data sets that the items are in."""
        return sorted(pc.unique(self.items["batch"]).to_pylist())

    def ensure_batch(self, server: Server, name: str) -> Batch:
        """The data set of this name, made if it is not there; see `Server.ensure_batch`."""
        n_outputs = len(self._rows(name)["output_ids"][0])
        batch = server.ensure_batch(name, self.rules, n_outputs, multi_turn=self.multi_turn)
        if self.cap is not None:
            server.limit(batch, self.cap)
        if self.earlier_votes is not None:
            server.add_metadata(batch, VOTES, "Earlier votes")
        return batch

    def records(self, server: Server, batch: Batch) -> Iterator[Record]:
        """The records of one of the data sets, as annotators see them."""
        chat = server.shows_chat(batch)  # the batch may be older than this push
        for part in self._rows(batch.name).to_batches(max_chunksize=1000):
            for row in part.to_pylist():
                item: Item = row
                fields = record_fields(item, self.messages, self.completions, multi_turn=chat)
                suggested = record_suggestions(item, self.completions)
                suggested |= self.suggestions.get(item["item_id"], {})
                record = Record(item["item_id"], fields, record_metadata(item), suggested)
                yield self.earlier_votes.shown(record, item) if self.earlier_votes else record

    def _rows(self, batch: str) -> pa.Table:
        return self.items.filter(pc.equal(self.items["batch"], batch))


def shown_tables(source: Run, folder: Path | None = None) -> tuple[pa.Table, pa.Table]:
    """Prompts and outputs that a push shows: its source's, and those of its gold items.

    Args:
        folder: of the push.
    """
    tables = []
    for name in ("prompts", "outputs"):
        parts = [source.read(name)]
        gold = folder / f"gold_{name}.parquet" if folder else None
        if gold is not None and gold.is_file():
            parts.append(read_table(gold))
        tables.append(pa.concat_tables(parts))
    prompts, outputs = tables
    return prompts, outputs


def publish(server: Server, shown: Shown) -> int:
    """Put the items on the server where they are missing; how many were."""
    added = 0
    with progress("push", shown.items.num_rows) as advance:
        for name in shown.batches():
            batch = shown.ensure_batch(server, name)
            added += server.publish(batch, shown.records(server, batch), advance)
    return added
