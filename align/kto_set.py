"""Thumbs up and down as TRL's conversational unpaired data, one row an output:

prompt      [{"role": "user", "content": "My order never arrived."}]
completion  [{"role": "assistant", "content": "I am sorry. …"}]
label       true

KTO (Ethayarajh et al. 2024, arXiv:2402.01306) learns from single outputs that are desirable or not.
An output's label is what most people said of it; where they were too divided nothing is learned,
and `kto_decisions` says of every output that was judged whether it is kept, and why not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from align.preference_set import assistant_turns, row_ids
from annotate.errors import ProjectError
from annotate.records import SCHEMAS, conform


@dataclass(frozen=True)
class KtoSet:
    """The set, and what became of every judged output; kept + dropped is all of them."""

    rows: pa.Table
    """Table `kto`, sorted by row id."""
    decisions: pa.Table
    """Table `kto_decisions`, sorted by output."""


def thumbs(responses: pa.Table, items: pa.Table) -> pd.DataFrame:
    """The submitted thumbs, one a person and output, their latest: output_id, annotator, up.

    Raises:
        ProjectError: an answer of another form.
    """
    submitted = responses.filter(
        pc.and_(
            pc.equal(responses["status"], "submitted"),
            pc.match_substring(pc.fill_null(responses["value"], ""), '"thumb":'),
        )
    )
    # Other answers may speak of thumbs in a text: they have no output.
    values = [json.loads(value) for value in submitted["value"].to_pylist()]
    frame = pd.DataFrame(
        {
            "output_id": [value.get("output") for value in values],
            "thumb": [value.get("thumb") for value in values],
            "annotator": submitted["annotator"].to_pylist(),
            "time": submitted["time"].to_pandas(),
            "guideline": submitted["guideline"].to_pylist(),
        }
    ).dropna(subset=["output_id", "thumb"])
    odd = frame.loc[~frame["thumb"].isin(["up", "down"]), "thumb"]
    if len(odd):
        raise ProjectError(
            f"a thumb is up or down, not {odd.iloc[0]!r}",
            where="responses",
            remedy="`handloom verify` says whether a run was changed; then pull again",
        )
    frame = frame.sort_values(["output_id", "annotator", "time"], kind="stable")
    frame = frame.drop_duplicates(["output_id", "annotator"], keep="last")
    return frame.assign(up=frame["thumb"] == "up")


def kto_set(
    given: pd.DataFrame, outputs: pa.Table, prompts: pa.Table, ambiguous: pa.Array, share: float
) -> KtoSet:
    """The set that people's thumbs make.

    Args:
        given: as `thumbs` gives them.
        outputs: table `outputs`, each once.
        prompts: table `prompts`, each once, with the column `split` set to each prompt's side.
        ambiguous: ids that stand for different prompts.
        share: of an output's thumbs that must point one way; a half is never enough.
    """
    counted = given.groupby("output_id")["up"].agg(["sum", "count"])
    output_ids = pa.array(counted.index.to_list(), pa.string())
    up = counted["sum"].to_numpy(dtype=np.int64)
    down = counted["count"].to_numpy(dtype=np.int64) - up
    at = pc.index_in(output_ids, value_set=outputs["output_id"])
    completion = outputs["completion"].take(at)
    prompt_ids = outputs["prompt_id"].take(at)
    place = pc.index_in(prompt_ids, value_set=prompts["prompt_id"])
    blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(completion, "")), "")
    divided = (up == down) | (np.maximum(up, down) < share * (up + down) - 1e-9)
    reason = _first_reason(
        {
            "its output is in no run behind it": pc.is_null(at),
            "its prompt is in no run behind it": pc.is_null(place),
            "its prompt's id stands for different prompts": pc.is_in(
                prompt_ids, value_set=ambiguous
            ),
            "the completion is empty": blank,
            "people are divided": pa.array(divided),
        },
        len(output_ids),
    )
    decisions = pa.table(
        {
            "output_id": output_ids,
            "prompt_id": prompt_ids,
            "kept": pc.is_null(reason),
            "reason": reason,
            "up": up,
            "down": down,
        }
    )
    rows = _rows(decisions, completion, prompts.take(place))
    return KtoSet(conform("kto", rows.sort_by("row_id")), conform("kto_decisions", decisions))


def _first_reason(wrong: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """The first reason that holds in each row, null where none does."""
    reason = pa.nulls(rows, pa.string())
    for text, here in wrong.items():
        reason = pc.if_else(pc.and_(pc.is_null(reason), here), text, reason)
    return reason


def _rows(decisions: pa.Table, completion: pa.ChunkedArray, prompts: pa.Table) -> pa.Table:
    """Rows of the set, of the outputs that are kept; both arguments are in step with them."""
    keep = decisions["kept"]
    kept, prompts = decisions.filter(keep), prompts.filter(keep)
    if not kept.num_rows:
        return SCHEMAS["kto"].empty_table()
    return pa.table(
        {
            "row_id": row_ids("kto", kept["output_id"]),
            "prompt_id": kept["prompt_id"],
            "output_id": kept["output_id"],
            "prompt": prompts["messages"],
            "completion": assistant_turns(completion.filter(keep)),
            "label": pc.greater(kept["up"], kept["down"]),
            "up": kept["up"],
            "down": kept["down"],
            "split": prompts["split"],
        }
    )
