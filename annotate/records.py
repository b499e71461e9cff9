"""The tables of the loop: Arrow schemas, Parquet in and out, and the import format.

Every table that one step hands to another is Parquet with one of the schemas in `SCHEMAS`. Ids
are deterministic: the same content gives the same id on every machine, so a step that runs twice
adds nothing. JSONL comes in at the edge, through `read_import`; a line that cannot be used is kept
in the `quarantine` table with its file, line and reason.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotate.errors import InputError, ProjectError

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROLES = ("system", "user", "assistant")
# How gzip, zip (a spreadsheet too), zstd, bzip2 and xz files begin.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zX")

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_COUNT, _REAL = pa.int32(), pa.float64()

SCHEMAS: dict[str, pa.Schema] = {
    "prompts": pa.schema(
        {
            "prompt_id": _TEXT,
            "messages": MESSAGES,
            "source": _TEXT,
            "split": _TEXT,  # "train" or "eval"
            "metadata": _TEXT,  # a JSON object
        }
    ),
    "outputs": pa.schema(
        {
            "output_id": _TEXT,
            "prompt_id": _TEXT,
            "model": _TEXT,
            "completion": _TEXT,
            "sampling": _TEXT,  # a JSON object: temperature, top_p, seed, …
            "tokens": _COUNT,
            "logprob": _REAL,  # natural log, summed over the completion's tokens
        }
    ),
    "items": pa.schema(
        {
            "item_id": _TEXT,
            "prompt_id": _TEXT,
            "output_ids": _TEXTS,  # in the order shown
            "kind": _TEXT,
            "guideline": _TEXT,  # "preference@v1"
            "batch": _TEXT,  # the Argilla dataset that shows it
        }
    ),
    # One row a (item, annotator, question, output); a response without answers has question null.
    "responses": pa.schema(
        {
            "item_id": _TEXT,
            "annotator": _TEXT,
            "question": _TEXT,
            "value": _TEXT,  # JSON in terms of output ids: the order shown is already undone
            "status": _TEXT,
            "time": pa.timestamp("us", tz="UTC"),
            "seconds": _REAL,
            "guideline": _TEXT,
        }
    ),
    # One row a pair and annotator, their latest; `vote` is "a", "b" or "tie", and
    # output_a < output_b.
    "votes": pa.schema(
        {
            "pair_id": _TEXT,
            "item_id": _TEXT,
            "prompt_id": _TEXT,
            "output_a": _TEXT,
            "output_b": _TEXT,
            "annotator": _TEXT,
            "vote": _TEXT,
            "strength": _COUNT,  # -3 to 3, positive where a is better; null from a ranking
            "both_bad": pa.bool_(),
            "flags": _TEXTS,  # "<output_id>:unsafe"
            "guideline": _TEXT,
            "time": pa.timestamp("us", tz="UTC"),
        }
    ),
    # One row a pair, with output_a < output_b; positive and `a` mean that output_a is better.
    "judgements": pa.schema(
        {
            "pair_id": _TEXT,
            "prompt_id": _TEXT,
            "output_a": _TEXT,
            "output_b": _TEXT,
            "votes_a": _COUNT,
            "votes_b": _COUNT,
            "ties": _COUNT,
            "votes": _COUNT,
            "both_bad": _COUNT,
            "flags": _TEXTS,  # "<output_id>:unsafe", whoever raised it
            "vote_share": _REAL,  # of a, a tie counting half
            "posterior": _REAL,  # that a beats b
            "noise_rate": _REAL,  # estimated chance that the winner is the worse one
            "strength_mean": _REAL,  # -3 to 3
            "margin": _REAL,  # |strength_mean| / 3
            "weighted_a": _REAL,  # votes weighted by each annotator's reliability
            "weighted_b": _REAL,
            "method": _TEXT,
            "annotators": _TEXTS,
            "guideline": _TEXT,
        }
    ),
    "decisions": pa.schema(
        {
            "pair_id": _TEXT,
            "prompt_id": _TEXT,
            "kept": pa.bool_(),
            "rule": _TEXT,  # the first that dropped it
            "threshold": _TEXT,
            "value": _TEXT,
            "votes": _TEXT,  # "2-1-0": for a, for b, ties
            "reasons": _TEXT,  # JSON: every rule that would have dropped it
        }
    ),
    "sft": pa.schema(
        {
            "row_id": _TEXT,
            "prompt_id": _TEXT,
            "prompt": MESSAGES,
            "completion": MESSAGES,
            "source": _TEXT,  # "correction", "demonstration" or "winner"
            "pair_id": _TEXT,
            "item_id": _TEXT,
            "output_id": _TEXT,
            "annotator": _TEXT,
            "split": _TEXT,
        }
    ),
    "preference": pa.schema(
        {
            "row_id": _TEXT,
            "prompt_id": _TEXT,
            "pair_id": _TEXT,
            "prompt": MESSAGES,
            "chosen": MESSAGES,
            "rejected": MESSAGES,
            "margin": _REAL,
            "p_chosen": _REAL,  # that the chosen response is the better one
            "noise_rate": _REAL,  # 1 - p_chosen
            "chosen_output": _TEXT,
            "rejected_output": _TEXT,
            "split": _TEXT,
        }
    ),
    # One row a label that a prompt, output or item could be given.
    "label_judgements": pa.schema(
        {
            "question": _TEXT,
            "unit": _TEXT,  # the id of what was labelled
            "label": _TEXT,
            "given": _COUNT,  # how many gave it
            "votes": _COUNT,  # how many answered
            "probability": _REAL,  # that it is the right one; of several labels that it holds
            "chosen": pa.bool_(),  # the most probable, alone
            "mean": _REAL,  # of all votes on the unit, where labels are numbers
            "method": _TEXT,
        }
    ),
    # What a classifier proposes, about a prompt or one of its outputs.
    "suggestions": pa.schema(
        {
            "prompt_id": _TEXT,
            "output_id": _TEXT,  # null where it is about the prompt
            "value": _TEXT,  # JSON, a list of its labels, the most probable first
            "score": _REAL,  # their probability; of several the least
            "agent": _TEXT,
        }
    ),
    # Of a push: the suggestions that its items could have, and which were kept back.
    "suggested": pa.schema(
        {
            "item_id": _TEXT,
            "question": _TEXT,
            "value": _TEXT,  # as in `responses`
            "score": _REAL,
            "agent": _TEXT,
            "shown": pa.bool_(),
        }
    ),
    # Outputs that people found good enough or not, for KTO.
    "kto": pa.schema(
        {
            "row_id": _TEXT,
            "prompt_id": _TEXT,
            "output_id": _TEXT,
            "prompt": MESSAGES,
            "completion": MESSAGES,
            "label": pa.bool_(),  # thumbs up
            "up": _COUNT,  # people's thumbs
            "down": _COUNT,
            "split": _TEXT,
        }
    ),
    # One row an output with a thumb.
    "kto_decisions": pa.schema(
        {
            "output_id": _TEXT,
            "prompt_id": _TEXT,
            "kept": pa.bool_(),
            "reason": _TEXT,  # why it was dropped
            "up": _COUNT,
            "down": _COUNT,
        }
    ),
    "scores": pa.schema(
        {
            "prompt_id": _TEXT,
            "output_id": _TEXT,
            "model": _TEXT,
            "versus_output": _TEXT,
            "versus_model": _TEXT,
            "outcome": _REAL,  # 1 a win of output_id, 0.5 a tie, 0 a loss
            "judged_by": _TEXT,  # "people" or "scorer:<name>"
            "votes": _COUNT,
            "score": _REAL,
            "versus_score": _REAL,
            "tokens": _COUNT,
            "versus_tokens": _COUNT,
        }
    ),
    # Trainings of a sweep; `values` and `path` (held-out figure by step) as JSON.
    "trials": pa.schema(
        {
            "number": _COUNT,
            "values": _TEXT,
            "state": _TEXT,  # "complete", "stopped" (early) or "failed"
            "run": _TEXT,
            "figure": _REAL,
            "steps": _COUNT,
            "path": _TEXT,
            "reason": _TEXT,
        }
    ),
    "failures": pa.schema(
        {
            "failure_id": _TEXT,
            "prompt_id": _TEXT,
            "output_id": _TEXT,
            "model": _TEXT,
            "versus_output": _TEXT,
            "versus_model": _TEXT,
            "why": _TEXT,  # "lost", "tied" or "thin evidence"
            "outcome": _REAL,
            "judged_by": _TEXT,
            "votes": _COUNT,
            "score": _REAL,
            "versus_score": _REAL,
            "prompt_text": _TEXT,
            "completion": _TEXT,
            "versus_completion": _TEXT,
        }
    ),
    # Items of a push that test annotators; they are shown like any other.
    "mixed": pa.schema(
        {
            "item_id": _TEXT,
            "role": _TEXT,  # "gold", "repeat" (in the same order) or "swap" (turned round)
            "of_item": _TEXT,  # the item that is repeated; null of gold
            "answer": _TEXT,  # a JSON object, question → value as in `responses`; null of repeats
        }
    ),
    # Pairs chosen for more labels, the most wanted first: a source like `failures`.
    "chosen": pa.schema(
        {
            "pair_id": _TEXT,
            "prompt_id": _TEXT,
            "output_a": _TEXT,
            "output_b": _TEXT,
            "score": _REAL,  # what it was chosen by; null where it lacked its first labels
            "why": _TEXT,
            "votes_a": _COUNT,
            "votes_b": _COUNT,
            "ties": _COUNT,
            "strength_median": _COUNT,  # of all votes, as `votes.strength`; null without any
            "annotators": _TEXTS,  # who voted on it already
        }
    ),
    # Of `tune-filters`, one row a setting; figures are accuracies on held-out pairs.
    "tuned_settings": pa.schema(
        {
            "setting": _TEXT,
            "overlap": _TEXT,
            "method": _TEXT,
            "filters": _TEXT,  # JSON
            "pairs_kept": _REAL,  # at equal votes, mean over seeds and folds
            "dropped": _REAL,  # share of judged pairs
            **{
                f"{figure}{end}": _REAL
                for figure in ("equal_votes", "equal_pairs", "behind")  # behind the choice
                for end in ("", "_low", "_high")
            },
            "told_apart": pa.bool_(),
            "same_as": _TEXT,  # a setting that kept the same pairs throughout
            "reason": _TEXT,  # why there is no figure
        }
    ),
    # One row a setting, seed and comparison ("votes" or "pairs").
    "tuned_trials": pa.schema(
        {
            "setting": _TEXT,
            "comparison": _TEXT,
            "seed": _COUNT,
            "pairs_kept": _REAL,
            "accuracy": _REAL,
        }
    ),
    "quarantine": pa.schema(
        {
            "file": _TEXT,
            "line": pa.int64(),
            "id": _TEXT,
            "reason": _TEXT,
            "content": _TEXT,
        }
    ),
}

# Of a pull run: answers to `mixed` items. Of a push run: what its gold items show.
SCHEMAS |= {
    "mixed_responses": SCHEMAS["responses"],
    "gold_prompts": SCHEMAS["prompts"],
    "gold_outputs": SCHEMAS["outputs"],
    # Of a judge run: the votes of reviewers, who saw the earlier votes.
    "adjudications": SCHEMAS["votes"],
}


def content_id(prefix: str, *parts: object) -> str:
    """Name a thing by its content: `prefix-` and 16 hex digits of sha256 over the parts.

    Parts are joined as a JSON array, so ("a", "bc") and ("ab", "c") differ.
    """
    text = json.dumps([str(part) for part in parts], ensure_ascii=False)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def table_from_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build the table `name` from dictionaries; an absent key is null, an unknown one an error."""
    rows = list(rows)
    schema = SCHEMAS[name]
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"table {name} has no column {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def conform(name: str, table: pa.Table) -> pa.Table:
    """Order and cast a table's columns to the schema of `name`; a missing column becomes null.

    Raises:
        ValueError: a column does not belong to the table, or does not cast without loss.
    """
    schema = SCHEMAS[name]
    unknown = set(table.column_names) - set(schema.names)
    if unknown:
        raise ValueError(f"table {name} has no column {sorted(unknown)}")
    columns = [
        table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(table.num_rows, column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(path: Path, name: str, table: pa.Table) -> None:
    """Write `table` as Parquet under the schema of `name`."""
    pq.write_table(conform(name, table), path, compression="zstd")


def read_table(
    path: Path, columns: Sequence[str] | None = None, rows: pc.Expression | None = None
) -> pa.Table:
    """Read one of our Parquet tables, or some columns of it, or the `rows` where this holds.

    Raises:
        ProjectError: the file is missing or is not Parquet.
    """
    try:
        wanted = list(columns) if columns is not None else None
        return pq.read_table(path, columns=wanted, filters=rows)
    except FileNotFoundError:
        raise ProjectError("table not found", where=str(path)) from None
    except (pa.ArrowInvalid, OSError) as error:  # Arrow raises OSError for damaged bytes
        raise ProjectError(
            f"not a readable Parquet table ({error})",
            where=str(path),
            remedy="`handloom verify` says which runs are damaged",
        ) from None


def text_message(role: str, content: str) -> dict[str, str]:
    """One turn of a conversation."""
    return {"role": role, "content": content}


def flat_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as one text: a lone user turn as it is, several turns with their roles."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)


@dataclass
class Imported:
    """What an import file held: `prompts`, `outputs` and `quarantine`, as tables."""

    prompts: pa.Table
    outputs: pa.Table
    quarantine: pa.Table
    merged: int = 0  # lines that repeated an earlier line's id and content


class _BadLineError(Exception):
    """Why one line of an import file cannot be used, with the id it gave itself."""

    def __init__(self, reason: str, row_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.row_id = reason, row_id


@dataclass
class _Collector:
    """Rows read so far; merges a repeated line, refuses a repeated id with other content."""

    source: str
    split: str
    with_outputs: bool = True
    prompts: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, tuple[str, int]] = field(default_factory=dict)
    merged: int = 0

    def add(self, row: Any, line: int) -> None:
        if not isinstance(row, dict):
            raise _BadLineError(f"a line must be a JSON object, this is a {type(row).__name__}")
        row_id = _row_id(row)
        messages = _messages(row.get("prompt"), row_id)
        outputs = _outputs(row.get("outputs"), row_id) if self.with_outputs else []
        metadata = _metadata(row.get("metadata"), row_id)
        unknown = sorted(set(row) - {"id", "prompt", "outputs", "metadata"})
        if unknown:
            key = json.dumps(unknown[0])  # in ASCII: it may not be encodable
            raise _BadLineError(f'unknown key {key}; put it under "metadata"', row_id)
        content = json.dumps([messages, outputs], sort_keys=True, ensure_ascii=False)
        prompt_id = row_id or content_id("p", content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        if prompt_id in self.digests:
            known, first = self.digests[prompt_id]
            if known == digest:
                self.merged += 1
                return
            raise _BadLineError(f"this id stands on line {first} with other content", row_id)
        self.digests[prompt_id] = digest, line
        self.prompts[prompt_id] = {
            "prompt_id": prompt_id,
            "messages": messages,
            "source": self.source,
            "split": self.split,
            "metadata": metadata,
        }
        self.outputs += output_rows(prompt_id, outputs)


def output_rows(
    prompt_id: str, outputs: Sequence[tuple[str, str]], sampling: str = "{}"
) -> list[dict[str, Any]]:
    """Rows of `outputs` for one prompt's (model, completion) pairs.

    The same model may give the same completion twice; its id then counts the repetition.
    """
    seen: dict[tuple[str, str], int] = {}
    rows = []
    for model, text in outputs:
        repetition = seen[model, text] = seen.get((model, text), -1) + 1
        rows.append(
            {
                "output_id": content_id("o", prompt_id, model, repetition, text),
                "prompt_id": prompt_id,
                "model": model,
                "completion": text,
                "sampling": sampling,
            }
        )
    return rows


def require_file(path: Path) -> None:
    """Refuse what cannot be read as a text file.

    Raises:
        InputError: it is missing, a folder, not for us to read, or compressed.
    """
    try:
        if not path.is_file():
            raise InputError("not a file" if path.exists() else "no such file", where=str(path))
        with path.open("rb") as file:
            compressed = file.read(4).startswith(_COMPRESSED)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from None
    if compressed:
        raise InputError("a compressed file", where=str(path), remedy="Unpack it first")


def read_import(path: Path, *, split: str = "train", with_outputs: bool = True) -> Imported:
    """Read DESIGN's import format, one JSON object a line.

    `{"id"?, "prompt": text or messages, "outputs": [{"model", "text"}, …], "metadata"?}`. A
    repeated line is merged; a bad one goes to `quarantine` with its reason and the others are
    still read. One pass, memory in proportion to the file. Without `with_outputs` only prompts are
    read, and a line needs no "outputs".

    Raises:
        InputError: the file cannot be read, or holds no usable line.
    """
    collector = _Collector(source=path.name, split=split, with_outputs=with_outputs)
    quarantine: list[dict[str, Any]] = []
    require_file(path)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                raw = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not raw.strip():
                    continue
                try:
                    collector.add(_parse(raw), number)
                except _BadLineError as bad:
                    quarantine.append(
                        {
                            "file": path.name,
                            "line": number,
                            "id": bad.row_id,
                            "reason": bad.reason,
                            "content": raw.decode("utf-8", "replace").rstrip("\n"),
                        }
                    )
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from None
    if not collector.prompts:
        first = quarantine[0] if quarantine else {"line": 1, "reason": "the file is empty"}
        raise InputError(
            f"no usable line: {first['reason']}",
            where=f"{path}:{first['line']}",
            remedy='A line is {"prompt": …, "outputs": [{"model": …, "text": …}, …]}'
            if with_outputs
            else 'A line is {"prompt": …}',
        )
    return Imported(
        prompts=table_from_rows("prompts", collector.prompts.values()),
        outputs=table_from_rows("outputs", collector.outputs),
        quarantine=table_from_rows("quarantine", quarantine),
        merged=collector.merged,
    )


def _parse(raw: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise _BadLineError(f"{constant} is not JSON")

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise _BadLineError(f"not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise _BadLineError(f"not JSON: {error.msg} at column {error.colno}") from None
    except ValueError:  # Python's own limit on the digits of a whole number
        raise _BadLineError("not JSON: a number is too long") from None
    except RecursionError:
        raise _BadLineError("not JSON: nested too deeply") from None


def _row_id(row: Mapping[str, Any]) -> str | None:
    row_id = row.get("id")
    if row_id is None:
        return None
    if isinstance(row_id, bool) or not isinstance(row_id, str | int) or str(row_id).strip() == "":
        raise _BadLineError('"id" must be a text or a whole number')
    return _encodable(str(row_id), None)


def _messages(prompt: Any, row_id: str | None) -> list[dict[str, str]]:
    turns = [text_message("user", prompt)] if isinstance(prompt, str) else prompt
    if not isinstance(turns, list) or not turns:
        raise _BadLineError('"prompt" must be a text or a list of messages', row_id)
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise _BadLineError(f'a message needs "role", one of {", ".join(ROLES)}', row_id)
        if not isinstance(turn.get("content"), str):
            raise _BadLineError('a message needs "content", a text', row_id)
        messages.append(text_message(turn["role"], _encodable(turn["content"], row_id)))
    if not any(turn["content"].strip() for turn in messages):
        raise _BadLineError("the prompt is empty", row_id)
    if messages[-1]["role"] == "assistant":
        raise _BadLineError("the last message must not be the assistant's", row_id)
    return messages


def _outputs(outputs: Any, row_id: str | None) -> list[tuple[str, str]]:
    if not isinstance(outputs, list):
        reason = '"outputs" must be a list; [] where people are to see the prompt alone'
        raise _BadLineError(reason, row_id)
    pairs = []
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("model"), str):
            raise _BadLineError('an output needs "model", a text', row_id)
        if not output["model"].strip():
            raise _BadLineError('an output\'s "model" is empty', row_id)
        if not isinstance(output.get("text"), str):
            raise _BadLineError('an output needs "text", a text (empty is allowed)', row_id)
        pairs.append((_encodable(output["model"], row_id), _encodable(output["text"], row_id)))
    return pairs


def _metadata(metadata: Any, row_id: str | None) -> str:
    if not isinstance(metadata, dict | None):
        raise _BadLineError('"metadata" must be an object', row_id)
    try:
        text = json.dumps(metadata or {}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError:  # 1e999 reads as infinity
        raise _BadLineError('a number in "metadata" is too large', row_id) from None
    return _encodable(text, row_id)


def _encodable(text: str, row_id: str | None) -> str:
    """JSON can spell half of a surrogate pair; no table or page can hold one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadLineError(f"a lone surrogate at character {error.start}", row_id) from None
    return text
