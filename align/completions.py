"""Complete a table of prompts with one model, resumably, by any backend.

Finished completions are written in shards, so an interrupted run goes on where it stopped. By which
backend they are made, and what a completion then depends on, align.backends says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from align.backends import Backend, Job, Made, Unfit, Wanted
from align.backends.transformers_loop import Transformers
from align.model_ref import ModelRef
from align.sampling import Sampling
from align.split import fingerprints
from annotate.records import output_rows, table_from_rows

SHARD = pa.schema(
    {
        "model": pa.string(),
        "prompt_id": pa.string(),
        "sample": pa.int32(),
        "completion": pa.string(),
        "tokens": pa.int32(),
        "logprob": pa.float64(),
    }
)


@dataclass(frozen=True)
class Shards:
    """Completions already made, as Parquet files in a run's hidden folder."""

    folder: Path

    def read(self) -> pa.Table:
        """All of them, schema `SHARD`; a file that a power failure left unreadable is removed."""
        tables = [SHARD.empty_table()]
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                tables.append(pq.read_table(path, schema=SHARD))
            except pa.ArrowInvalid:
                path.unlink()
        return pa.concat_tables(tables)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep these, whole or not at all."""
        self.folder.mkdir(exist_ok=True)
        number = max((int(path.stem) for path in self.folder.glob("*.parquet")), default=-1) + 1
        target = self.folder / f"{number:06d}.parquet"
        temporary = target.with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(list(rows), schema=SHARD), temporary)
        temporary.replace(target)


def complete(
    ref: ModelRef,
    prompts: pa.Table,
    n: int,
    rules: Sampling,
    *,
    shards: Shards,
    batch_size: int | None = None,
    backend: Backend | None = None,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Every prompt `n` times by one model.

    Args:
        ref: the model; loaded only if something is missing.
        prompts: the table of that name.
        rules: how to sample.
        shards: what is already there, and where the rest goes.
        batch_size: completions computed together; None: as many as suit the backend.
        backend: what computes them; None: transformers.

    Returns:
        Rows of schema `SHARD`, and `quarantine` rows of the prompts that do not fit the model.

    Raises:
        TrainingError: the model cannot be loaded, or cannot be sampled.
        ServerError: a server refuses, or is away for too long; what it has made is kept.
    """
    there = shards.read()
    there = there.filter(pc.equal(there["model"], ref.name))
    done = set(zip(there["prompt_id"].to_pylist(), there["sample"].to_pylist(), strict=True))
    says = fingerprints(prompts["messages"]).to_pylist()
    ids = prompts["prompt_id"].to_pylist()
    missing = [
        Wanted(prompt_id, says[row], sample)
        for row, prompt_id in enumerate(ids)
        for sample in range(n)
        if (prompt_id, sample) not in done
    ]
    if not missing:
        return there, []
    messages = dict(zip(ids, prompts["messages"].to_pylist(), strict=True))
    backend = backend or Transformers()
    job = Job(ref, missing, messages, rules, batch_size or backend.batch_size)
    unfit: dict[str, str] = {}
    with _progress(f"{ref.name} completes", len(missing)) as advance:
        for batch in backend.complete(job):
            made = [one for one in batch if isinstance(one, Made)]
            unfit |= {one.prompt_id: one.reason for one in batch if isinstance(one, Unfit)}
            if made:
                shards.add([_row(ref, one) for one in made])
            advance(len(made))
    quarantine = [
        {"id": one, "reason": why, "content": json.dumps(messages[one], ensure_ascii=False)}
        for one, why in unfit.items()
    ]
    whole = shards.read()
    return whole.filter(pc.equal(whole["model"], ref.name)), quarantine


def _row(ref: ModelRef, made: Made) -> dict[str, Any]:
    return {
        "model": ref.name,
        "prompt_id": made.wanted.prompt_id,
        "sample": made.wanted.sample,
        "completion": made.completion,
        "tokens": made.tokens,
        "logprob": made.logprob,
    }


def output_table(
    prompts: pa.Table, made: pa.Table, sampling: Sampling, backend: str = Transformers.name
) -> pa.Table:
    """The `outputs` table of completions: by prompt, then model, then sample.

    A completion that a model gave twice stays twice, under ids of their own.

    Args:
        prompts: whose order to keep.
        made: rows of schema `SHARD`, the models in their order.
        sampling: how they were drawn.
        backend: by which backend.
    """
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    order = {name: rank for rank, name in enumerate(made["model"].unique().to_pylist())}
    for row in made.to_pylist():
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    rows = []
    for prompt_id in prompts["prompt_id"].to_pylist():
        found = by_prompt.get(prompt_id, [])
        found.sort(key=lambda row: (order[row["model"]], row["sample"]))
        named = output_rows(prompt_id, [(row["model"], row["completion"]) for row in found])
        for output, row in zip(named, found, strict=True):
            drawn = sampling_text(sampling, row["sample"], backend)
            extra = {"tokens": row["tokens"], "logprob": row["logprob"], "sampling": drawn}
            rows.append(output | extra)
    return table_from_rows("outputs", rows)


def sampling_text(rules: Sampling, sample: int, backend: str = Transformers.name) -> str:
    """What `outputs.sampling` says of the completion with this number."""
    drawn = rules.model_dump() | {"sample": sample}
    if backend != Transformers.name:  # another gives other completions for the same seed
        drawn["backend"] = backend
    return json.dumps(drawn)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
