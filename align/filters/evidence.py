"""The table that filters read: judgements, with the texts, votes and winner beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from align.filters.rule import numbers

_NO_TEXT = pa.scalar(None, pa.string())


def winners(judgements: pa.Table) -> NDArray[np.int8]:
    """1 where a wins, -1 where b wins, 0 where neither does, shape (n,).

    By the posterior; by the share of votes where there is none.
    """
    lead = numbers(judgements, "posterior", np.nan) - 0.5
    lead = np.where(np.isnan(lead), numbers(judgements, "vote_share", np.nan) - 0.5, lead)
    # A posterior made of sums may miss a half by rounding.
    winner = np.where(np.abs(lead) > 1e-9, np.sign(lead), 0.0)
    return np.nan_to_num(winner).astype(np.int8)


class Evidence:
    """Judgements and what stands behind them; a slice of it is the table that filters read.

    Where everything stands is looked up once, and texts are fetched a slice at a time: a million
    pairs need not lie in memory with their texts.

    Args:
        judgements: the table of that name.
        outputs: the texts the judgements are about.
        prompts: for filters that read prompts; the prompts' texts are null without.
        votes: for filters that read single votes; `strengths` is null without.
    """

    def __init__(
        self,
        judgements: pa.Table,
        outputs: pa.Table,
        *,
        prompts: pa.Table | None = None,
        votes: pa.Table | None = None,
    ) -> None:
        self.judgements, self.outputs, self.prompts = judgements, outputs, prompts
        self.at = {
            side: pc.index_in(judgements[f"output_{side}"], value_set=outputs["output_id"])
            for side in "ab"
        }
        if prompts is not None:
            self.at["prompt"] = pc.index_in(judgements["prompt_id"], value_set=prompts["prompt_id"])
        self.strengths = _strengths(judgements, votes)

    def rows(self, start: int = 0, length: int | None = None) -> pa.Table:
        """The rows from `start` on: their judgements, and the columns

        - completion_a, completion_b: the texts, null for an output that `outputs` does not hold.
        - prompt_text: what all turns of the prompt say, a line feed between.
        - strengths: of single votes, -3 to 3, positive where a is better, ascending.
        - winner: as `winners` gives it.
        - winner_output: its id, null without a winner.
        - winner_margin: mean strength towards the winner over 3, -1 to 1, null where unknown.
        - p_winner: the probability that the winner is the better one, null where unknown.
        """
        table = self.judgements.slice(start, length)
        at = {name: column.slice(start, length) for name, column in self.at.items()}
        columns: dict[str, Any] = {
            f"completion_{side}": self.outputs["completion"].take(at[side]) for side in "ab"
        }
        columns["prompt_text"] = (
            pa.nulls(table.num_rows, pa.string())
            if self.prompts is None
            else prompt_texts(self.prompts["messages"].take(at["prompt"]))
        )
        columns["strengths"] = self.strengths.slice(start, length)
        columns |= _winner_columns(table)
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table


def evidence(
    judgements: pa.Table,
    outputs: pa.Table,
    *,
    prompts: pa.Table | None = None,
    votes: pa.Table | None = None,
) -> pa.Table:
    """All rows of `Evidence`, in the order of `judgements`."""
    return Evidence(judgements, outputs, prompts=prompts, votes=votes).rows()


def prompt_texts(messages: pa.ChunkedArray) -> pa.Array:
    """What all turns of each conversation say, a line feed between; null for null."""
    column = messages.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    ends = np.cumsum(np.asarray(lengths, dtype=np.int32), dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
    said = pc.fill_null(pc.struct_field(column.flatten(), "content"), "")
    text = pc.binary_join(pa.ListArray.from_arrays(offsets, said), "\n")
    return pc.if_else(pc.is_valid(column), text, _NO_TEXT)


def _winner_columns(table: pa.Table) -> dict[str, Any]:
    winner = winners(table)
    strength = numbers(table, "strength_mean", np.nan)
    margin = np.where(winner == 0, np.abs(strength), strength * winner) / 3
    winning = pc.if_else(pa.array(winner > 0), table["output_a"], table["output_b"])
    posterior = numbers(table, "posterior", np.nan)
    sure = np.maximum(posterior, 1 - posterior)
    if "noise_rate" in table.column_names:
        calibrated = 1 - numbers(table, "noise_rate", np.nan)
        sure = np.where(np.isnan(calibrated), sure, calibrated)
    return {
        "winner": pa.array(winner),
        "winner_output": pc.if_else(pa.array(winner != 0), winning, _NO_TEXT),
        "winner_margin": pa.array(margin, mask=np.isnan(margin)),
        "p_winner": pa.array(sure, mask=np.isnan(sure)),
    }


def _strengths(judgements: pa.Table, votes: pa.Table | None) -> pa.Array:
    """Each pair's strengths, ascending, as one list a judgement; null without votes."""
    n = judgements.num_rows
    if votes is None:
        return pa.nulls(n, pa.list_(pa.int32()))
    given = votes.filter(pc.is_valid(votes["strength"])).select(["pair_id", "strength"])
    row = pc.index_in(given["pair_id"], value_set=judgements["pair_id"])
    known = np.asarray(pc.is_valid(row))
    owner = np.asarray(row.filter(pa.array(known)), dtype=np.int64)
    strength = np.asarray(given["strength"], dtype=np.int64)[known]
    # One number a vote to sort by: its pair first, then -3 to 3 as 0 to 6.
    key = np.sort(owner * 8 + strength + 3)
    offsets = np.searchsorted(key, np.arange(n + 1) * 8).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array((key % 8 - 3).astype(np.int32)))
