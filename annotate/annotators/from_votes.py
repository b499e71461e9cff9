"""Votes and what stands beside them → panels of comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.annotations import NO_TIME, Codes
from annotate.annotators.panel import Gold, Panel, Reals, Repeats
from annotate.labels import encode, natural
from annotate.records import SCHEMAS
from annotate.votes import CLASSES, every_vote, votes_by_version

# Most adults read between 175 and 300 words of English prose a minute (Brysbaert 2019, Journal of
# Memory and Language 109): who is faster than the fastest of them has not read all of it.
WORDS_A_SECOND = 300 / 60

_PAIR = ["output_a", "output_b"]


@dataclass(frozen=True)
class Beside:
    """What pull and push runs hold beside the votes. All may be empty."""

    items: pa.Table
    """Schema "items", the mixed items too."""
    mixed: pa.Table
    """Schema "mixed"."""
    mixed_responses: pa.Table
    """Answers to mixed items, schema "responses"."""
    prompts: pa.Table
    outputs: pa.Table

    @classmethod
    def empty(cls) -> Beside:
        """Nothing is known but the votes."""
        names = ("items", "mixed", "responses", "prompts", "outputs")
        return cls(*(SCHEMAS[name].empty_table() for name in names))


def panels_of_votes(
    votes: pa.Table, responses: pa.Table, beside: Beside, *, pool: bool = False
) -> list[Panel]:
    """One panel a version of the guideline, or a single one if versions are to be pooled.

    Who judged a pair under two versions has a vote in the panel of each.

    Args:
        votes: one a pair and annotator, schema "votes": the panel of pooled versions.
        responses: that the votes were made of.
        beside: everything else that is known.
        pool: whether versions are taken together.

    Raises:
        ProjectError: an answer to a mixed item has another form than its question's.
    """
    given = responses.select(SCHEMAS["responses"].names)
    every = every_vote(pa.concat_tables([given, beside.mixed_responses]))
    every = every.drop_duplicates(["item_id", "annotator", *_PAIR], keep="last")
    places = _places(beside.items)
    versions = sorted(every_vote(given)["guideline"].dropna().unique(), key=natural)
    parts = [(", ".join(versions), votes, every)]
    if not pool and len(versions) > 1:
        under = votes_by_version(responses, beside.items)
        parts = [(name, part, _of(every, name)) for name, part in under.items()]
    return [_panel(name, part, of, responses, beside, places) for name, part, of in parts]


def _of(every: pd.DataFrame, version: str) -> pd.DataFrame:
    found: pd.DataFrame = every[every["guideline"].fillna("") == version]
    return found


def _panel(
    version: str,
    votes: pa.Table,
    every: pd.DataFrame,
    responses: pa.Table,
    beside: Beside,
    places: pd.Series[int],
) -> Panel:
    time = pc.fill_null(votes["time"].cast(pa.int64()), NO_TIME).to_numpy()
    labels = encode(
        votes["pair_id"], votes["annotator"], votes["vote"], CLASSES,
        prompt=votes["prompt_id"], time=time,
    )  # fmt: skip
    columns = ["item_id", "annotator", "prompt_id", *_PAIR]
    frame = votes.select(columns).to_pandas()
    sign = votes["vote"].to_pandas().map({"a": 1.0, "b": -1.0, "tie": np.nan}).to_numpy(np.float64)
    response = frame.groupby(["item_id", "annotator"], sort=False).ngroup().to_numpy()
    several = len(np.unique(response)) < len(response)
    return Panel(
        labels,
        question="vote",
        guideline=version,
        symmetric=True,
        response=response if several else None,
        shown=pd.factorize(frame["item_id"])[0].astype(np.int64) if several else None,
        batch=_batches(frame, beside.items),
        first=_toward(sign, _earlier(frame, places)),
        longer=_toward(sign, _longer(frame, beside.outputs)),
        seconds=_seconds(frame, responses),
        reading=_reading(frame, beside),
        repeats=_repeats(every, places, labels.annotators),
        gold=_gold(every, beside.mixed, labels.annotators),
    )


def _places(items: pa.Table) -> pd.Series[int]:
    """Where each output stands in each item, by (item, output)."""
    frame = items.select(["item_id", "output_ids"]).to_pandas().drop_duplicates("item_id")
    frame = frame.explode("output_ids")
    frame["place"] = frame.groupby("item_id").cumcount()
    places: pd.Series[int] = frame.set_index(["item_id", "output_ids"])["place"]
    return places


def _at(frame: pd.DataFrame, places: pd.Series[int], output: str) -> Reals:
    """The place of one of each row's outputs, NaN where it is not known, shape (rows,)."""
    key = pd.MultiIndex.from_frame(frame[["item_id", output]])
    return np.asarray(places.reindex(key), dtype=np.float64)


def _earlier(frame: pd.DataFrame, places: pd.Series[int]) -> Reals:
    """1 where a stood before b, -1 after, NaN not known, shape (rows,)."""
    return np.asarray(np.sign(_at(frame, places, "output_b") - _at(frame, places, "output_a")))


def _longer(frame: pd.DataFrame, outputs: pa.Table) -> Reals | None:
    """1 where a has more characters than b, -1 fewer, NaN as many or not known."""
    if not outputs.num_rows:
        return None
    length = pd.Series(
        pc.utf8_length(outputs["completion"]).to_numpy(), outputs["output_id"].to_pandas()
    )
    length = length[~length.index.duplicated()].astype(np.float64)
    gap = (
        length.reindex(frame["output_a"]).to_numpy() - length.reindex(frame["output_b"]).to_numpy()
    )
    return np.asarray(np.where(gap == 0, np.nan, np.sign(gap)), dtype=np.float64)


def _batches(frame: pd.DataFrame, items: pa.Table) -> Codes:
    """The batch that each vote's item was shown in, shape (votes,)."""
    known = items.select(["item_id", "batch"]).to_pandas().drop_duplicates("item_id")
    batch = known.set_index("item_id")["batch"].reindex(frame["item_id"])
    return np.asarray(pd.factorize(batch, use_na_sentinel=False)[0], dtype=np.int64)


def _toward(sign: Reals, side: Reals | None) -> Reals | None:
    """1 where the vote is for that side, 0 for the other, NaN a tie or not known."""
    return None if side is None else (sign * side + 1) / 2


def _seconds(frame: pd.DataFrame, responses: pa.Table) -> Reals | None:
    """That the response took, NaN not known, shape (votes,)."""
    timed = responses.filter(pc.is_valid(responses["seconds"]))
    if not timed.num_rows:
        return None
    known = timed.select(["item_id", "annotator", "seconds"]).to_pandas()
    by = known.groupby(["item_id", "annotator"])["seconds"].last()
    key = pd.MultiIndex.from_frame(frame[["item_id", "annotator"]])
    return np.asarray(by.reindex(key), dtype=np.float64)


def _reading(frame: pd.DataFrame, beside: Beside) -> Reals | None:
    """Seconds that reading an item's prompt and outputs takes, NaN not known, shape (votes,)."""
    if not beside.outputs.num_rows:
        return None
    words = _words(beside.outputs["output_id"], beside.outputs["completion"])
    turns = beside.prompts["messages"].combine_chunks()
    of_turn = pc.list_parent_indices(turns)
    said = turns.flatten().field("content")
    asked = _words(beside.prompts["prompt_id"].take(of_turn), said)
    items = beside.items.select(["item_id", "prompt_id", "output_ids"]).to_pandas()
    items = items.drop_duplicates("item_id")
    long = items.explode("output_ids")
    shown = words.reindex(long["output_ids"]).to_numpy()
    total = pd.Series(shown, long["item_id"]).groupby(level=0).sum(min_count=1)
    total = total.add(pd.Series(asked.reindex(items["prompt_id"]).to_numpy(), items["item_id"]))
    return np.asarray(total.reindex(frame["item_id"]), dtype=np.float64) / WORDS_A_SECOND


def _words(ids: pa.ChunkedArray, texts: Any) -> pd.Series[float]:
    """Words by id, of all texts with that id together."""
    counts = pc.count_substring_regex(texts, r"\S+").to_numpy(zero_copy_only=False)
    found: pd.Series[float] = (
        pd.Series(counts, ids.to_pandas()).astype(np.float64).groupby(level=0).sum()
    )
    return found


def _repeats(every: pd.DataFrame, places: pd.Series[int], annotators: Sequence[str]) -> Repeats:
    """Later judgements of a pair beside the first that its author made of it.

    Found in the data, whether the queue mixed them in or the pair came again in another batch.
    """
    every = every.assign(earlier=_earlier(every, places))
    every = every.sort_values([*_PAIR, "annotator", "time", "item_id"])
    by = every.groupby([*_PAIR, "annotator"], sort=False)
    first = by[["item_id", "sign", "earlier"]].transform("first")
    again = (by.cumcount() > 0) & (first["item_id"] != every["item_id"])
    pairs = every[again].assign(
        first_item=first["item_id"][again],
        same=(first["sign"] == every["sign"])[again].astype(np.float64),
        swapped=(first["earlier"] * every["earlier"] < 0)[again].astype(np.float64),
    )
    grouped = pairs.groupby(["annotator", "first_item", "item_id"], sort=True)
    each = grouped[["same", "swapped"]].mean().reset_index()
    code = pd.Index(annotators).get_indexer(pd.Index(each["annotator"]))
    known = code >= 0
    return Repeats(
        annotator=code[known].astype(np.int64),
        prompt=pd.factorize(each["first_item"])[0][known].astype(np.int64),
        same=(each["same"] > 0.5).to_numpy(dtype=bool)[known],
        swapped=(each["swapped"] > 0.5).to_numpy(dtype=bool)[known],
    )


def _gold(every: pd.DataFrame, mixed: pa.Table, annotators: Sequence[str]) -> Gold:
    """Judgements of gold items; right where most of an item's pairs are as they were known."""
    rows = mixed.filter(pc.equal(mixed["role"], "gold"))
    named = zip(rows["item_id"].to_pylist(), rows["answer"].to_pylist(), strict=True)
    truth = [known for item, answer in named for known in _known(item, json.loads(answer))]
    known = pd.DataFrame(truth, columns=["item_id", *_PAIR, "true"])
    hits = every.merge(known, on=["item_id", *_PAIR])
    hits["right"] = (hits["sign"] == hits["true"]).astype(np.float64)
    each = hits.groupby(["annotator", "item_id"], sort=True)["right"].mean().reset_index()
    code = pd.Index(annotators).get_indexer(pd.Index(each["annotator"]))
    kept = code >= 0
    return Gold(
        annotator=code[kept].astype(np.int64),
        item=pd.factorize(each["item_id"])[0][kept].astype(np.int64),
        right=(each["right"] > 0.5).to_numpy(dtype=bool)[kept],
    )


def _known(item: str, answer: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """(item, output_a, output_b, sign) of everything that a gold answer says of two outputs."""
    found = []
    for value in answer.values():
        if isinstance(value, dict) and "vote" in value:
            sign = {"a": 1, "b": -1, "tie": 0}[value["vote"]]
            found.append((item, value["a"], value["b"], sign))
        elif isinstance(value, dict) and "ranks" in value:
            ranks = sorted(value["ranks"].items())
            found += [
                (item, a, b, int(np.sign(of_b - of_a)))
                for at, (a, of_a) in enumerate(ranks)
                for b, of_b in ranks[at + 1 :]
            ]
    return found
