"""Responses → votes: what each annotator holds of each pair of outputs.

    preference  {"a": "o-1", "b": "o-2", "strength": -2}  →  o-1 o-2  vote b    strength -2
    ranking     {"ranks": {"o-1": 1, "o-2": 1, "o-3": 2}} →  o-1 o-2  vote tie
                                                             o-1 o-3  vote a
                                                             o-2 o-3  vote a    strength null

Only submitted responses vote. Who answered a pair more than once (in a preference and in a ranking,
or in two batches) has one vote, the latest. Flags and "both bad" stand beside the vote.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.answer_table import answer_columns, damaged
from annotate.errors import ProjectError
from annotate.labels import Labels, encode, natural
from annotate.records import SCHEMAS, content_id, table_from_rows

# In the order that Dawid–Skene's symmetry reverses.
CLASSES = ("b", "tie", "a")
_KEY = ["item_id", "annotator"]

_PREFERENCE = pa.schema({"a": pa.string(), "b": pa.string(), "strength": pa.int32()})
_FLAGS = pa.schema({"output": pa.string(), "flags": pa.list_(pa.string())})


def votes_of_responses(responses: pa.Table, items: pa.Table) -> pa.Table:
    """One vote a pair and annotator, sorted by both; schema "votes".

    Args:
        responses: table `responses`; drafts and discards are passed over.
        items: table `items`, every item that was answered.

    Raises:
        ProjectError: an answer of another form than its question's, or to an unknown item.
    """
    submitted = responses.filter(pc.equal(responses["status"], "submitted"))
    votes = every_vote(responses)
    if votes.empty:
        return table_from_rows("votes", [])
    votes = _with_prompts(votes, items)
    votes["vote"] = np.select([votes["sign"] > 0, votes["sign"] < 0], ["a", "b"], "tie")
    votes["both_bad"] = _marked(votes, submitted)
    votes = votes.sort_values(["output_a", "output_b", "annotator", "time", "item_id"])
    votes = votes.drop_duplicates(["output_a", "output_b", "annotator"], keep="last")
    votes["flags"] = _flags(votes, submitted)
    pairs = votes[["output_a", "output_b"]].drop_duplicates()
    pairs["pair_id"] = [
        content_id("j", a, b) for a, b in zip(pairs["output_a"], pairs["output_b"], strict=True)
    ]
    votes = votes.merge(pairs, on=["output_a", "output_b"]).sort_values(["pair_id", "annotator"])
    schema = SCHEMAS["votes"]
    return pa.Table.from_pandas(votes[schema.names], schema=schema, preserve_index=False)


def votes_by_version(responses: pa.Table, items: pa.Table) -> dict[str, pa.Table]:
    """The votes given under each version of a guideline, versions in order; "" where not known.

    Who judged a pair under two versions has a vote under each, the latest there; arguments and
    errors as for `votes_of_responses`.
    """
    guideline = pc.fill_null(responses["guideline"], "")
    found = {
        name: votes_of_responses(responses.filter(pc.equal(guideline, name)), items)
        for name in sorted(pc.unique(guideline).to_pylist(), key=natural)
    }
    return {name: votes for name, votes in found.items() if votes.num_rows}


def every_vote(responses: pa.Table) -> pd.DataFrame:
    """Every submitted comparison of two outputs, also where one person judged a pair repeatedly.

    Columns item_id, annotator, time, guideline, output_a < output_b, sign (1 where a is better, 0 a
    tie, -1) and strength.

    Raises:
        ProjectError: an answer of another form than its question's.
    """
    submitted = responses.filter(pc.equal(responses["status"], "submitted"))
    return pd.concat([_preferences(submitted), _rankings(submitted)], ignore_index=True)


def labels_of_votes(votes: pa.Table) -> Labels:
    """Votes as labels of pairs, the classes in the order b, tie, a."""
    return encode(votes["pair_id"], votes["annotator"], votes["vote"], CLASSES)


def _preferences(submitted: pa.Table) -> pd.DataFrame:
    """Pairs of the preference question: output_a < output_b, sign, strength."""
    frame = answer_columns(submitted, "preference", _PREFERENCE)
    strength = frame["strength"].astype("int64")
    if (strength.abs() > 3).any() or (frame["a"] == frame["b"]).any():
        raise damaged("preference", "two outputs and a strength from -3 to 3")
    turned = (frame["a"] > frame["b"]).to_numpy(dtype=bool)
    signed = np.where(turned, -strength, strength)
    return frame.assign(
        output_a=np.where(turned, frame["b"], frame["a"]),
        output_b=np.where(turned, frame["a"], frame["b"]),
        sign=np.sign(signed),
        strength=pd.array(signed, dtype="Int32"),
    )[[*_KEY, "time", "guideline", "output_a", "output_b", "sign", "strength"]]


def _rankings(submitted: pa.Table) -> pd.DataFrame:
    """All pairs that rankings imply, as `_preferences` gives them, without strength."""
    rows = submitted.filter(pc.equal(submitted["question"], "ranking")).to_pandas()
    try:
        # The keys are ids, which Arrow would read as one column each; json takes 1 µs a row.
        ranks = [json.loads(value)["ranks"] for value in rows["value"]]
        long = pd.DataFrame(
            {
                "row": np.repeat(np.arange(len(ranks)), [len(rank) for rank in ranks]),
                "output": [output for rank in ranks for output in rank],
                "rank": np.array([int(n) for rank in ranks for n in rank.values()], dtype="int64"),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged("ranking", repr(error)) from None
    pairs = long.merge(long, on="row", suffixes=("_a", "_b"))
    pairs = pairs[pairs["output_a"] < pairs["output_b"]]
    of_row: pd.DataFrame = (
        rows[[*_KEY, "time", "guideline"]].iloc[pairs["row"]].reset_index(drop=True)
    )
    return of_row.assign(
        output_a=pairs["output_a"].to_numpy(),
        output_b=pairs["output_b"].to_numpy(),
        sign=np.sign(pairs["rank_b"].to_numpy() - pairs["rank_a"].to_numpy()),
        strength=pd.array([pd.NA] * len(pairs), dtype="Int32"),
    )


def _with_prompts(votes: pd.DataFrame, items: pa.Table) -> pd.DataFrame:
    of_item = items.select(["item_id", "prompt_id"]).to_pandas().drop_duplicates("item_id")
    joined: pd.DataFrame = votes.merge(of_item, on="item_id", how="left")
    lost = joined.loc[joined["prompt_id"].isna(), "item_id"]
    if len(lost):
        raise ProjectError(
            f"a response is about item {lost.iloc[0]}, which was never pushed",
            where="responses",
            remedy="`handloom verify` says which runs are damaged",
        )
    return joined


def _marked(votes: pd.DataFrame, submitted: pa.Table) -> pd.Series[bool]:
    """Whether each vote's annotator marked its item as both bad."""
    rows = submitted.filter(
        pc.and_(pc.equal(submitted["question"], "both_bad"), pc.equal(submitted["value"], "true"))
    )
    marked = pd.MultiIndex.from_frame(rows.select(_KEY).to_pandas())
    return pd.Series(pd.MultiIndex.from_frame(votes[_KEY]).isin(marked), index=votes.index)


def _flags(votes: pd.DataFrame, submitted: pa.Table) -> pd.Series[list[str]]:
    """The flags a vote's annotator raised on either output: "<output_id>:<flag>", sorted."""
    raised = answer_columns(submitted, "flags", _FLAGS)[[*_KEY, "output", "flags"]]
    raised = raised.explode("flags").dropna(subset=["flags"])
    flags: pd.Series[list[str]] = pd.Series(
        [[] for _ in range(len(votes))], index=votes.index, dtype=object
    )
    if raised.empty:
        return flags
    raised["flag"] = raised["output"] + ":" + raised["flags"]
    place = votes[[*_KEY, "output_a", "output_b"]].assign(place=votes.index)
    hits = raised.merge(place, on=_KEY)
    hits = hits[(hits["output"] == hits["output_a"]) | (hits["output"] == hits["output_b"])]
    found = hits.groupby("place")["flag"].agg(lambda names: sorted(set(names)))
    flags.loc[found.index] = found
    return flags
