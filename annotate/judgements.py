"""Votes → judgements: one row a pair, with the posterior and everything that filters read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from annotate.consensus import Method, vote_counts
from annotate.consensus.comparisons import comparisons
from annotate.consensus.pairs import PairConsensus, judge_pairs
from annotate.consensus.reliability_curve import ReliabilityCurve
from annotate.gold_votes import GoldVotes
from annotate.labels import Labels
from annotate.records import SCHEMAS
from annotate.runs import Run
from annotate.votes import labels_of_votes


@dataclass(frozen=True)
class Judged:
    """Judgements, and the consensus they were made from."""

    judgements: pa.Table
    consensus: PairConsensus
    labels: Labels

    def annotators(self) -> dict[str, dict[str, Any]]:
        """Of each annotator: votes, the chance of being right, and that above chance."""
        return self.consensus.consensus.of_annotators(self.labels)

    def methods(self) -> dict[str, int]:
        """How many pairs each method judged."""
        counts = self.judgements["method"].value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in counts}

    def calibration(self) -> dict[str, Any]:
        """By method: how its posteriors were corrected, and its reliability curves."""
        return {name: found.to_dict() for name, found in self.consensus.calibration.items()}

    def temperatures(self) -> dict[str, dict[str, Any]]:
        """By method: the temperature, and the calibration error on held-out votes and gold."""
        return {name: found.summary() for name, found in self.consensus.calibration.items()}


def judge_votes(
    votes: pa.Table, method: Method = "auto", *, gold: GoldVotes | None = None
) -> Judged:
    """Judgements from votes, one a pair, sorted by pair id; schema "judgements".

    Args:
        votes: table `votes`, one vote a pair and annotator.
        method: as for `judge`. By majority, the posterior is `pair_posterior_of_votes` and no vote
            is weighted.
        gold: what annotators said of pairs that are known. It tells what they are worth and
            corrects the posteriors' calibration; gold pairs themselves are not judged.
    """
    known = gold or GoldVotes()
    asked = pc.unique(votes["pair_id"])
    extra = known.votes.filter(pc.invert(pc.is_in(known.votes["pair_id"], value_set=asked)))
    every = pa.concat_tables([votes, extra.select(votes.column_names)]) if len(extra) else votes
    judged = _judge(every, method, known)
    wanted = pc.is_in(judged.judgements["pair_id"], value_set=asked)
    return replace(judged, judgements=judged.judgements.filter(wanted))


def _judge(votes: pa.Table, method: Method, gold: GoldVotes) -> Judged:
    votes = votes.sort_by([("pair_id", "ascending"), ("annotator", "ascending")])
    labels = labels_of_votes(votes)
    n = len(labels.items)
    first = np.searchsorted(labels.item, np.arange(n))
    ids = {name: votes[name].take(first) for name in _IDS}
    held = judge_pairs(
        comparisons(labels, ids["prompt_id"], ids["output_a"], ids["output_b"]),
        method,
        gold=_codes_of(gold.better, labels),
    )
    for_b, ties, for_a = vote_counts(labels).T
    total = for_a + for_b + ties
    strength = _mean_strength(votes, labels)
    columns = {
        **ids,
        "votes_a": for_a,
        "votes_b": for_b,
        "ties": ties,
        "votes": total,
        "both_bad": np.bincount(labels.item[votes["both_bad"].to_numpy()], minlength=n),
        "flags": _lists(*_distinct(labels.item, votes["flags"]), n),
        "vote_share": (for_a + ties / 2) / total,
        "posterior": held.posterior,
        "noise_rate": np.minimum(held.posterior, 1 - held.posterior),
        "strength_mean": strength,
        "margin": pc.divide(pc.abs(strength), 3.0),
        **_weighted(held.weight, labels),
        "method": pa.array(held.method.tolist(), pa.string()),
        "annotators": _lists(labels.item, votes["annotator"].combine_chunks(), n),
        "guideline": _joined_guidelines(votes, labels.item, n),
    }
    schema = SCHEMAS["judgements"]
    arrays = [pa.table({"x": columns[column.name]})["x"].cast(column.type) for column in schema]
    return Judged(pa.Table.from_arrays(arrays, schema=schema), held, labels)


def calibration_lines(run: Run) -> list[str]:
    """What a judge run's posteriors mean, as text; nothing for a run without models."""
    path = run.path / "calibration.json"
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    return reliability_lines(stored, run.metrics["methods"], run.metrics["pairs"])


def reliability_lines(
    stored: Mapping[str, Any], methods: Mapping[str, int], judged: int
) -> list[str]:
    """What each method's posteriors mean, as text.

    Args:
        stored: `Judged.calibration`.
        methods: how many pairs each method judged.
        judged: how many pairs were judged in all.
    """
    lines = []
    for name, found in stored.items():
        pairs = methods.get(name, 0)
        lines.append(
            f"{name}: judged {pairs:,} pairs, log-odds divided by {found['temperature']:.2f}"
        )
        if pairs < judged:
            lines.append("  fitted to and checked on the votes of all pairs, not of these alone")
        curves = [found["held_out"], *([found["gold"]] if found["gold"] else [])]
        for curve in curves:
            lines += [f"  {line}" for line in ReliabilityCurve.from_dict(curve).lines()]
    return lines


_IDS = ("pair_id", "prompt_id", "output_a", "output_b")


def _codes_of(gold: Mapping[str, str], labels: Labels) -> dict[int, float]:
    """Gold by the codes of those pairs that have votes: 1 where a is better, 0 where b is."""
    worth = {"a": 1.0, "tie": 0.5, "b": 0.0}
    return {code: worth[gold[pair]] for code, pair in enumerate(labels.items) if pair in gold}


def _weighted(weight: NDArray[np.float64] | None, labels: Labels) -> dict[str, Any]:
    """Votes for each side by their weights; of a tie, half goes to each."""
    n = len(labels.items)
    if weight is None:
        return dict.fromkeys(("weighted_a", "weighted_b"), pa.nulls(n, pa.float64()))
    # The classes are b, tie, a.
    return {
        "weighted_a": np.bincount(labels.item, weight * labels.label / 2, n),
        "weighted_b": np.bincount(labels.item, weight * (2 - labels.label) / 2, n),
    }


def _mean_strength(votes: pa.Table, labels: Labels) -> pa.Array:
    """The mean of each pair's signed strengths; null where no vote has one."""
    strength = votes["strength"].to_numpy().astype(np.float64)
    given = ~np.isnan(strength)
    n = len(labels.items)
    count = np.bincount(labels.item[given], minlength=n)
    total = np.bincount(labels.item[given], strength[given], n)
    mean = np.divide(total, count, out=np.zeros(n), where=count > 0)
    return pa.array(mean, mask=count == 0)


def _distinct(pair: NDArray[np.int64], lists: pa.ChunkedArray) -> tuple[Any, pa.Array]:
    """Each pair's distinct values of a list column: pair codes and values, sorted by both."""
    column = lists.combine_chunks()
    owner = pair[pc.list_parent_indices(column).to_numpy()]
    flat = pa.table({"pair": owner, "value": column.flatten()})
    flat = flat.group_by(["pair", "value"]).aggregate([])
    flat = flat.sort_by([("pair", "ascending"), ("value", "ascending")])
    return flat["pair"].to_numpy(), flat["value"].combine_chunks()


def _lists(pair: NDArray[np.int64], values: pa.Array, n: int) -> pa.Array:
    """Values, sorted by pair, as one list a pair."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=n))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _joined_guidelines(votes: pa.Table, pair: NDArray[np.int64], n: int) -> pa.Array:
    """The guideline of each pair's votes; several, as across versions, joined by a comma."""
    one_each = pa.ListArray.from_arrays(
        pa.array(np.arange(votes.num_rows + 1, dtype=np.int32)), votes["guideline"].combine_chunks()
    )
    lists = _lists(*_distinct(pair, pa.chunked_array([one_each])), n)
    return pc.binary_join(lists, ", ")
