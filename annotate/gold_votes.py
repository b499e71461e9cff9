"""Votes on gold pairs, and which of their outputs is known to be better.

`pull` sets the answers to gold items apart, in `mixed_responses`: they make no judgement. Here
they add to what is known of the annotators, like other votes, and show what a posterior means.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.records import SCHEMAS, content_id
from annotate.runs import Run
from annotate.votes import votes_of_responses


@dataclass(frozen=True)
class GoldVotes:
    """What annotators said of pairs that are known."""

    votes: pa.Table = field(default_factory=lambda: SCHEMAS["votes"].empty_table())
    """Schema "votes"."""
    better: dict[str, str] = field(default_factory=dict)
    """Pair id → "a", "b" or "tie"."""


def gold_votes(pull_runs: Sequence[Run]) -> GoldVotes:
    """The votes on gold pairs of these pull runs; none where no gold was mixed in.

    Raises:
        ProjectError: an answer to a gold item has another form than its question's.
    """
    runs = [run for run in pull_runs if run.has("mixed_responses")]
    if not runs:
        return GoldVotes()
    mixed = pa.concat_tables([run.read("mixed") for run in runs])
    gold = mixed.filter(pc.equal(mixed["role"], "gold"))
    responses = pa.concat_tables([run.read("mixed_responses") for run in runs])
    about_gold = pc.is_in(responses["item_id"], value_set=gold["item_id"].combine_chunks())
    items = pa.concat_tables([run.ancestor("push").read("items") for run in runs])
    better = {
        pair: side
        for answer in pc.unique(gold["answer"]).to_pylist()
        for pair, side in known_pairs(json.loads(answer))
    }
    return GoldVotes(votes_of_responses(responses.filter(about_gold), items), better)


def known_pairs(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Pair id and better side of every pair that a gold item's answers tell about."""
    for value in answer.values():
        if not isinstance(value, dict):
            continue
        if "vote" in value:
            yield content_id("j", value["a"], value["b"]), value["vote"]
        for (a, rank_a), (b, rank_b) in itertools.combinations(
            sorted(value.get("ranks", {}).items()), 2
        ):
            side = "tie" if rank_a == rank_b else "a" if rank_a < rank_b else "b"
            yield content_id("j", a, b), side
