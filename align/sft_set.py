"""Completions worth imitating, as TRL's conversational prompt and completion.

Three sources, told apart in the column `source`:

- "correction": a response that an annotator rewrote and submitted, in the annotator's name.
- "demonstration": a response that an annotator wrote to a prompt alone.
- "winner": an output that won a kept pair clearly and lost none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from align.preference_set import assistant_turns, row_ids
from annotate.records import SCHEMAS, conform

WRITTEN = ("correction", "demonstration")
"""The questions whose answers are texts to imitate; their names stand in `source`."""


@dataclass(frozen=True)
class Corrections:
    """Texts that people wrote, and what was left aside: counts by reason."""

    rows: pa.Table
    """item_id, prompt_id, output_id (what was corrected, where one was shown), annotator, text,
    source."""
    dropped: dict[str, int]


def corrections(responses: pa.Table, items: pa.Table) -> Corrections:
    """The submitted corrections and demonstrations in pull runs' responses, one a (prompt, text).

    Annotators who wrote the same text for one prompt count once, under the first name.
    """
    asked = responses.filter(pc.is_in(responses["question"], value_set=pa.array(WRITTEN)))
    submitted = asked.filter(pc.equal(asked["status"], "submitted"))
    texts = pc.fill_null(_text_of(submitted["value"]), "")
    at = pc.index_in(submitted["item_id"], value_set=items["item_id"])
    rows = pa.table(
        {
            "item_id": submitted["item_id"],
            "prompt_id": items["prompt_id"].take(at),
            "output_id": _only_output(items["output_ids"]).take(at),
            "annotator": submitted["annotator"],
            "text": texts,
            "source": submitted["question"],
        }
    )
    known = rows.filter(pc.is_valid(rows["prompt_id"]))
    written = known.filter(pc.not_equal(pc.utf8_trim_whitespace(known["text"]), ""))
    written = written.sort_by(
        [(name, "ascending") for name in ("prompt_id", "annotator", "item_id")]
    )
    repeated = written.select(["prompt_id", "text"]).to_pandas().duplicated()
    counts = {
        "not submitted": asked.num_rows - submitted.num_rows,
        "unknown item": rows.num_rows - known.num_rows,
        "empty": known.num_rows - written.num_rows,
        "repeated": int(repeated.sum()),
    }
    kept = written.filter(pa.array(~repeated.to_numpy()))
    return Corrections(kept, {reason: n for reason, n in counts.items() if n})


def clear_winners(evidence: pa.Table, at_least: float) -> pa.Table:
    """The kept pairs whose winner is clear, the best of each output: rows of `evidence`.

    Args:
        evidence: of the kept pairs (`align.filters.evidence`).
        at_least: margin, 0 to 1; a pair without any strength has the margin 0.
    """
    lost = pc.if_else(
        pc.equal(evidence["winner_output"], evidence["output_a"]),
        evidence["output_b"],
        evidence["output_a"],
    )
    margin = np.nan_to_num(evidence["winner_margin"].to_numpy().astype(float))
    clear = pc.and_(
        pa.array(margin >= at_least - 1e-9),
        pc.invert(pc.is_in(evidence["winner_output"], value_set=lost.combine_chunks())),
    )
    order = pd.DataFrame(
        {
            "output": evidence["winner_output"].to_pandas(),
            "margin": -margin,
            "pair": evidence["pair_id"].to_pandas(),
        }
    )[clear.to_pandas().to_numpy()]
    best = order.sort_values(["output", "margin", "pair"]).drop_duplicates("output")
    return evidence.take(pa.array(np.sort(best.index.to_numpy())))


def sft_set(written: pa.Table, winners: pa.Table | None, prompts: pa.Table) -> pa.Table:
    """The `sft` table, sorted by row id; one row a (prompt, text), what people wrote first.

    Args:
        written: `Corrections.rows`.
        winners: as `clear_winners` gives them, if anything was compared.
        prompts: with the column `split` set to each prompt's side.
    """
    parts = [written, *([_imitated(winners)] if winners is not None else [])]
    rows = pa.concat_tables(parts, promote_options="default")
    repeated = rows.select(["prompt_id", "text"]).to_pandas().duplicated().to_numpy()
    empty = pc.equal(pc.utf8_trim_whitespace(rows["text"]), "")
    rows = rows.filter(pc.and_not(pa.array(~repeated), empty))
    at = pc.index_in(rows["prompt_id"], value_set=prompts["prompt_id"])
    made = {
        "row_id": row_ids("sft", rows["source"], rows["prompt_id"], rows["text"]),
        "prompt": prompts["messages"].take(at),
        "completion": assistant_turns(rows["text"]),
        "split": prompts["split"].take(at),
    }
    kept = {name: rows[name] for name in rows.column_names if name in SCHEMAS["sft"].names}
    return conform("sft", pa.table({**kept, **made}).sort_by("row_id"))


def _imitated(winners: pa.Table) -> pa.Table:
    """Winners as rows like those of what people wrote."""
    return pa.table(
        {
            "prompt_id": winners["prompt_id"],
            "text": pc.if_else(
                pc.greater(winners["winner"], 0), winners["completion_a"], winners["completion_b"]
            ),
            "source": pa.repeat("winner", winners.num_rows),
            "pair_id": winners["pair_id"],
            "output_id": winners["winner_output"],
        }
    )


def _only_output(shown: pa.ChunkedArray) -> pa.ChunkedArray:
    """The output that an item shows, null where it shows none or several."""
    column = shown.combine_chunks()
    alone = pc.fill_null(pc.equal(pc.list_value_length(column), 1), False)
    lists = pc.if_else(alone, column, pa.scalar([None], column.type))
    return pa.chunked_array([pc.list_element(lists, 0)])


def _text_of(values: pa.ChunkedArray) -> pa.Array:
    """The "text" of each {"text": …}, null where there is none."""
    import json

    answers = (json.loads(value) if value else {} for value in values.to_pylist())
    return pa.array([answer.get("text") for answer in answers], pa.string())
