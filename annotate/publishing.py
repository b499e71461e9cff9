"""Items → records of Argilla's data sets: what push and restore put on a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.display import Item, is_conversation, record_fields, record_metadata, texts_by_id
from annotate.guidelines import Guideline, load_guideline
from annotate.progress import progress
from annotate.runs import Run
from annotate.server import Server
from annotate.server_types import Batch, Record


@dataclass(frozen=True)
class Shown:
    """Items with the texts they show and the rules they are asked under."""

    items: pa.Table
    rules: Guideline
    messages: Mapping[str, Any]
    completions: Mapping[str, str]
    multi_turn: bool

    @classmethod
    def of(cls, source: Run, items: pa.Table, rules: Guideline) -> Shown:
        """The items of a run that holds their prompts and outputs."""
        prompts = source.read("prompts")
        prompts = prompts.filter(pc.is_in(prompts["prompt_id"], pc.unique(items["prompt_id"])))
        messages, completions = texts_by_id(prompts, source.read("outputs"))
        return cls(items, rules, messages, completions, is_conversation(prompts))

    @classmethod
    def of_push(cls, push_run: Run) -> Shown:
        """What a finished push showed."""
        asked = push_run.manifest["settings"]
        rules = load_guideline(push_run.project.root, asked["guideline"])
        rules = dataclasses.replace(rules, overlap=asked["overlap"])
        (source,) = push_run.parents
        return cls.of(source, push_run.read("items"), rules)

    def batches(self) -> list[str]:
        """Names of the data sets that the items are in."""
        return sorted(pc.unique(self.items["batch"]).to_pylist())

    def ensure_batch(self, server: Server, name: str) -> Batch:
        """The data set of this name, made if it is not there; see `Server.ensure_batch`."""
        n_outputs = len(self._rows(name)["output_ids"][0])
        return server.ensure_batch(name, self.rules, n_outputs, multi_turn=self.multi_turn)

    def records(self, server: Server, batch: Batch) -> Iterator[Record]:
        """The records of one of the data sets, as annotators see them."""
        chat = server.shows_chat(batch)  # the batch may be older than this push
        for part in self._rows(batch.name).to_batches(max_chunksize=1000):
            for row in part.to_pylist():
                item: Item = row
                fields = record_fields(item, self.messages, self.completions, multi_turn=chat)
                yield Record(item["item_id"], fields, record_metadata(item))

    def _rows(self, batch: str) -> pa.Table:
        return self.items.filter(pc.equal(self.items["batch"], batch))


def publish(server: Server, shown: Shown) -> int:
    """Put the items on the server where they are missing; how many were."""
    added = 0
    with progress("push", shown.items.num_rows) as advance:
        for name in shown.batches():
            batch = shown.ensure_batch(server, name)
            added += server.publish(batch, shown.records(server, batch), advance)
    return added
