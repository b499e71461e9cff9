"""Submitted answers as columns, question by question: Arrow parses their JSON, not a loop."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from annotate.errors import ProjectError
from annotate.records import content_id

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_SPAN = pa.struct({"start": pa.int64(), "end": pa.int64(), "label": _TEXT})
PARTS: Mapping[str, pa.Schema] = {
    "rating": pa.schema({"rating": pa.int64()}),
    "label": pa.schema({"label": _TEXT}),
    "thumb": pa.schema({"thumb": _TEXT}),
    "flags": pa.schema({"flags": _TEXTS}),
    "labels": pa.schema({"labels": _TEXTS}),
    "text": pa.schema({"text": _TEXT}),
    "spans": pa.schema({"spans": pa.list_(_SPAN), "length": pa.int64()}),
}
"""What a value holds beside `output`, by the part that tells what it is."""


@dataclass(frozen=True)
class Submitted:
    """Submitted rows with the prompts of their items."""

    rows: pa.Table
    """Table `responses` and `prompt_id`."""
    outputs: pd.Series[Any]
    """Item id → the outputs it shows."""

    @classmethod
    def of(cls, submitted: pa.Table, items: pa.Table) -> Submitted:
        """Join rows of `responses` that were submitted with their items.

        Raises:
            ProjectError: an item that is not there.
        """
        at = pc.index_in(submitted["item_id"], value_set=items["item_id"])
        if at.null_count:
            lost = submitted["item_id"].filter(pc.is_null(at))[0]
            raise ProjectError(
                f"a response is about item {lost}, which was never pushed",
                where="responses",
                remedy="`handloom verify` says which runs are damaged",
            )
        rows = submitted.append_column("prompt_id", items["prompt_id"].take(at))
        shown = items.select(["item_id", "output_ids"]).to_pandas().drop_duplicates("item_id")
        return cls(rows, shown.set_index("item_id")["output_ids"])

    def form(self, question: str) -> list[str]:
        """The parts that the first value of a question has; none where it is a mark.

        Raises:
            ProjectError: it is no answer.
        """
        value = self.of_question(question)["value"][0].as_py()
        try:
            first = json.loads(value)
        except (TypeError, ValueError) as error:
            raise damaged(question, repr(error)) from None
        if first is not True and not isinstance(first, dict):
            raise damaged(question, f"{value:.80} is no answer")
        return sorted(first) if isinstance(first, dict) else []

    def of_question(self, question: str) -> pa.Table:
        """The rows of one question."""
        return self.rows.filter(pc.equal(self.rows["question"], question))

    def answers(self, question: str, part: str) -> tuple[pd.DataFrame, pa.Table]:
        """The latest answers to a question with what each is about (`unit`), and their parts.

        Args:
            part: the one that tells what the answers are, a key of `PARTS`.

        Raises:
            ProjectError: a value of another form.
        """
        schema = PARTS[part]
        if "output" in self.form(question):
            schema = schema.append(pa.field("output", _TEXT))
        rows, parts = answer_parts(self.rows, question, schema)
        frame = keys_of(rows)
        if "output" in schema.names:
            frame["unit"] = parts["output"].to_pandas()
        elif part in ("label", "labels", "rating"):
            frame["unit"] = self._shown(frame)
        latest = latest_of(frame)
        return frame.loc[latest], parts.take(latest)

    def asked(self, question: str) -> pd.DataFrame:
        """Everybody who answered an item under a version that asks this, and what it was about.

        Who marks nothing gives no answer; so whether a version asks is seen by anybody's answer.
        """
        asking = pc.unique(self.rows["guideline"].filter(pc.equal(self.rows["question"], question)))
        asked = self.rows.filter(pc.is_in(self.rows["guideline"], value_set=asking))
        frame = keys_of(asked).drop_duplicates(["item_id", "annotator", "guideline"])
        frame["unit"] = self._shown(frame)
        return frame.reset_index(drop=True)

    def _shown(self, frame: pd.DataFrame) -> pd.Series[str]:
        """What an answer to each row's item as a whole is about.

        The prompt where the item shows no output, the output where it shows one, else these outputs
        together, in whatever order: of two that is the `pair_id` of their votes.
        """
        each = frame[["item_id", "prompt_id"]].drop_duplicates("item_id").set_index("item_id")
        outputs = self.outputs.reindex(each.index)
        shown = [
            _together(prompt, of) for prompt, of in zip(each["prompt_id"], outputs, strict=True)
        ]
        found: pd.Series[str] = frame["item_id"].map(pd.Series(shown, each.index, dtype=object))
        return found


def _together(prompt: str, outputs: Sequence[str]) -> str:
    if len(outputs) == 0:
        return prompt
    return outputs[0] if len(outputs) == 1 else content_id("j", *sorted(outputs))


def keys_of(rows: pa.Table) -> pd.DataFrame:
    """Who answered what when; `unit`, what an answer is about, is the item."""
    frame: pd.DataFrame = rows.select(
        ["item_id", "annotator", "prompt_id", "time", "guideline"]
    ).to_pandas()
    frame["unit"] = frame["item_id"]
    return frame


def latest_of(frame: pd.DataFrame) -> Any:
    """Places of the last answer of each person to each unit under each version, sorted."""
    ordered = frame.sort_values(["unit", "annotator", "guideline", "time"], kind="stable")
    return ordered.drop_duplicates(["unit", "annotator", "guideline"], keep="last").index.to_numpy()


def answer_columns(submitted: pa.Table, question: str, schema: pa.Schema) -> pd.DataFrame:
    """The rows of one question, with the parts of their values as columns; lists stay lists.

    Args:
        submitted: rows of the table `responses`.
        schema: the parts that a value has.

    Raises:
        ProjectError: a value of another form.
    """
    rows, parts = answer_parts(submitted, question, schema)
    frame: pd.DataFrame = rows.to_pandas()
    for name in schema.names:
        frame[name] = parts[name].to_pandas().to_numpy()
    return frame


def answer_parts(
    submitted: pa.Table, question: str, schema: pa.Schema
) -> tuple[pa.Table, pa.Table]:
    """The rows of one question, and the parts of their values as an Arrow table.

    Raises:
        ProjectError: a value of another form.
    """
    rows = submitted.filter(pc.equal(submitted["question"], question))
    if not rows.num_rows:
        return rows, schema.empty_table()
    if rows["value"].null_count:
        raise damaged(question, "it has no value")
    options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    lines = "\n".join(rows["value"].to_pylist()).encode()
    # Each block starts on a new line, so that it must hold the longest.
    block = max(1 << 20, 2 * int(pc.max(pc.binary_length(rows["value"])).as_py()))
    try:
        parts = pa_json.read_json(io.BytesIO(lines), pa_json.ReadOptions(block_size=block), options)
    except pa.ArrowInvalid as error:
        raise damaged(question, str(error)) from None
    if parts.num_rows != rows.num_rows or any(parts[name].null_count for name in schema.names):
        raise damaged(question, f"it needs {', '.join(schema.names)}")
    return rows, parts


def damaged(question: str, why: str) -> ProjectError:
    """The error of an answer that no pull can have written."""
    return ProjectError(
        f'an answer to "{question}" has another form than that question\'s ({why})',
        where="responses",
        remedy="`handloom verify` says whether a run was changed; then pull again",
    )
