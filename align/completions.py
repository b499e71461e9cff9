"""Complete a table of prompts with one model, resumably.

Finished completions are written in shards, so an interrupted run goes on where it stopped, with
whatever batch size. What a completion is depends on the model, its prompt's text, the sample's
number and the sampling settings alone (align.sampling), never on which others are already there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.progress import Progress

from align.model import Loaded, ModelRef, load_model
from align.sampling import Sampling, draws, sample_batch
from align.split import fingerprints
from annotate.errors import ResourceError, TrainingError
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
class Wanted:
    """A completion to make."""

    prompt_id: str
    says: str
    """The prompt's fingerprint, from which its random numbers come."""
    sample: int


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
    batch_size: int = 128,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Every prompt `n` times by one model.

    Args:
        ref: the model; loaded only if something is missing.
        prompts: the table of that name.
        rules: how to sample.
        shards: what is already there, and where the rest goes.
        batch_size: completions computed together.

    Returns:
        Rows of schema `SHARD`, and `quarantine` rows of the prompts that do not fit the model.

    Raises:
        TrainingError: the model cannot be loaded, or cannot be sampled.
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
    loaded = load_model(ref)
    messages = dict(zip(ids, prompts["messages"].to_pylist(), strict=True))
    tokens, quarantine = _formatted(loaded, missing, messages, rules)
    fitting = [one for one in missing if one.prompt_id in tokens]
    # Rows of like length share a batch: padding is computed too.
    fitting.sort(key=lambda one: (len(tokens[one.prompt_id]), one.says, one.sample))
    with _progress(f"{ref.name} completes", len(fitting)) as advance:
        for start in range(0, len(fitting), batch_size):
            batch = fitting[start : start + batch_size]
            shards.add(_completed(loaded, batch, tokens, rules))
            advance(len(batch))
    made = shards.read()
    return made.filter(pc.equal(made["model"], ref.name)), quarantine


def _formatted(
    loaded: Loaded,
    wanted: Sequence[Wanted],
    messages: Mapping[str, Any],
    rules: Sampling,
) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Each prompt as token ids by the chat template, and `quarantine` rows of those too long."""
    ids = list(dict.fromkeys(one.prompt_id for one in wanted))
    tokens = dict(zip(ids, prompt_tokens(loaded, [messages[one] for one in ids]), strict=True))
    room = getattr(loaded.model.config, "max_position_embeddings", None)
    quarantine = []
    for prompt_id in ids:
        needed = len(tokens[prompt_id]) + rules.max_new_tokens
        if room is not None and needed > room:
            reason = f"prompt and completion may take {needed} tokens, the model has {room}"
            content = json.dumps(messages[prompt_id], ensure_ascii=False)
            quarantine.append({"id": prompt_id, "reason": reason, "content": content})
            del tokens[prompt_id]
    return tokens, quarantine


def prompt_tokens(loaded: Loaded, conversations: Sequence[Any]) -> list[list[int]]:
    """Each conversation as the chat template writes it, up to where the assistant begins.

    Raises:
        TrainingError: the template refuses a conversation.
    """
    try:
        texts = loaded.tokenizer.apply_chat_template(
            list(conversations), add_generation_prompt=True, tokenize=False
        )
    except jinja2.TemplateError as error:
        raise TrainingError(f"its chat template fails ({error})", where=loaded.ref.name) from None
    # The template has written the special tokens already.
    found: list[list[int]] = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def _completed(
    loaded: Loaded,
    batch: Sequence[Wanted],
    tokens: Mapping[str, list[int]],
    rules: Sampling,
) -> list[dict[str, Any]]:
    uniform = np.stack(
        [draws(rules.seed, one.says, one.sample, rules.max_new_tokens) for one in batch]
    )
    stop = end_tokens(loaded)
    prompts = [tokens[one.prompt_id] for one in batch]
    try:
        sampled = sample_batch(loaded.model, prompts, uniform, rules, stop)
    except torch.OutOfMemoryError:
        raise ResourceError(
            f"{len(batch)} completions at once do not fit into memory",
            where=loaded.ref.name,
            remedy="Name a smaller --batch-size; the same command goes on where it stopped",
        ) from None
    texts = loaded.tokenizer.batch_decode([one.tokens for one in sampled], skip_special_tokens=True)
    return [
        {
            "model": loaded.ref.name,
            "prompt_id": wanted.prompt_id,
            "sample": wanted.sample,
            "completion": text,
            "tokens": len(made.tokens),
            "logprob": made.logprob,
        }
        for wanted, made, text in zip(batch, sampled, texts, strict=True)
    ]


def end_tokens(loaded: Loaded) -> list[int]:
    """Ids of the tokens that end a turn: the model's own and the tokenizer's."""
    own = loaded.model.generation_config.eos_token_id
    given = own if isinstance(own, list) else [own]
    return sorted({one for one in (*given, loaded.tokenizer.eos_token_id) if one is not None})


def output_table(prompts: pa.Table, made: pa.Table, sampling: Sampling) -> pa.Table:
    """The `outputs` table of completions: by prompt, then model, then sample.

    A completion that a model gave twice stays twice, under ids of their own.

    Args:
        prompts: whose order to keep.
        made: rows of schema `SHARD`, the models in their order.
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
            drawn = sampling_text(sampling, row["sample"])
            extra = {"tokens": row["tokens"], "logprob": row["logprob"], "sampling": drawn}
            rows.append(output | extra)
    return table_from_rows("outputs", rows)


def sampling_text(rules: Sampling, sample: int) -> str:
    """What `outputs.sampling` says of the completion with this number."""
    return json.dumps(rules.model_dump() | {"sample": sample})


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
