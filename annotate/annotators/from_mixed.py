"""Repeats and gold items of questions other than comparisons: an answer is right, or the same, as a
whole.

What is asked of each output gives several values an item; they count together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.annotators.panel import Gold, Repeats

_KEY = ["item_id", "annotator"]


def answers_to_tests(
    question: str,
    version: str,
    responses: pa.Table,
    mixed_responses: pa.Table,
    mixed: pa.Table,
    annotators: Sequence[str],
) -> tuple[Repeats, Gold]:
    """What was answered to repeats and gold items.

    Args:
        question: by its name.
        version: of the guideline; all versions if empty.
        responses: answers that count, schema "responses".
        mixed_responses: answers to mixed items, schema "responses".
        mixed: schema "mixed".
        annotators: everybody, in the order of the panel.
    """
    rows = mixed.to_pandas()
    of_item = rows["of_item"].dropna()
    first = _whole(question, version, responses, set(of_item))
    again = _whole(question, version, mixed_responses, set(rows["item_id"]))
    joined = again.merge(rows, on="item_id")
    joined["who"] = pd.Index(annotators).get_indexer(pd.Index(joined["annotator"]))
    joined = joined[joined["who"] >= 0]
    pairs = joined[joined["role"] != "gold"].merge(
        first, left_on=["of_item", "annotator"], right_on=_KEY, suffixes=("", "_first")
    )
    gold = joined[joined["role"] == "gold"]
    known = [json.loads(answer) for answer in gold["answer"]]
    asked = np.array([question in each for each in known], dtype=bool)
    true = [_same_form(each.get(question)) for each in known]
    right = (gold["value"] == pd.Series(true, gold.index, dtype=object)).to_numpy(dtype=bool)
    return (
        Repeats(
            annotator=pairs["who"].to_numpy(dtype=np.int64),
            prompt=pd.factorize(pairs["of_item"])[0].astype(np.int64),
            same=(pairs["value"] == pairs["value_first"]).to_numpy(dtype=bool),
            swapped=(pairs["role"] == "swap").to_numpy(dtype=bool),
        ),
        Gold(
            annotator=gold["who"].to_numpy(dtype=np.int64)[asked],
            item=pd.factorize(gold["item_id"])[0].astype(np.int64)[asked],
            right=right[asked],
        ),
    )


def _whole(question: str, version: str, responses: pa.Table, items: set[str]) -> pd.DataFrame:
    """One row an item and annotator: everything they said to one question, in one form.

    Reads JSON row by row: of the items that are tests, or are tested, alone.
    """
    keep = pc.and_(
        pc.equal(responses["status"], "submitted"), pc.equal(responses["question"], question)
    )
    keep = pc.and_(keep, pc.is_in(responses["item_id"], pa.array(sorted(items), pa.string())))
    if version:
        keep = pc.and_(keep, pc.equal(responses["guideline"], version))
    said = responses.filter(keep).select([*_KEY, "value"]).to_pandas()
    said = said.drop_duplicates()  # two pulls of one push hold the same answers
    grouped = said.groupby(_KEY, sort=True)["value"]
    whole: pd.DataFrame = grouped.agg(lambda values: _same_form(_read(values))).reset_index()
    return whole


def _read(values: pd.Series[str]) -> Any:
    read = [json.loads(value) for value in values]
    return read[0] if len(read) == 1 else read


def _same_form(value: Any) -> str:
    """A value as text that is equal where values are; the order of a list says nothing."""
    parts = value if isinstance(value, list) else [value]
    return json.dumps(sorted(json.dumps(part, sort_keys=True) for part in parts))
