"""Runs that choose pairs for more labels: what `next` and `adjudicate` hand to `push`.

Such a run holds the table `chosen`, and the prompts and outputs of those pairs; a push shows these
pairs and no others, as it does with `failures`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.errors import ProjectError
from annotate.records import SCHEMAS
from annotate.runs import Draft, Run

_SIDES = ["votes_b", "ties", "votes_a"]


def write_chosen(draft: Draft, chosen: pa.Table) -> None:
    """Write the chosen pairs with the prompts and outputs that they are about.

    Raises:
        ProjectError: one of these is in no run behind this one.
    """
    outputs = pa.chunked_array([*chosen["output_a"].chunks, *chosen["output_b"].chunks])
    draft.write("prompts", _found(draft, "prompts", "prompt_id", chosen["prompt_id"]))
    draft.write("outputs", _found(draft, "outputs", "output_id", outputs))
    draft.write("chosen", chosen)
    draft.note(chosen=chosen.num_rows, why=_counted(chosen["why"]))


def _found(draft: Draft, table: str, column: str, wanted: pa.ChunkedArray) -> pa.Table:
    """The rows of the runs behind this one that have these ids, each once."""
    parts = [SCHEMAS[table].empty_table()]
    lacking = pc.unique(wanted)
    for run in _behind(draft):
        if run.has(table) and len(lacking):
            rows = run.read(table)
            rows = rows.filter(pc.is_in(rows[column], value_set=lacking))
            first = np.unique(rows[column].to_numpy(), return_index=True)[1]
            parts.append(rows.take(first))
            lacking = lacking.filter(
                pc.invert(pc.is_in(lacking, value_set=pc.unique(rows[column])))
            )
    if len(lacking):
        raise ProjectError(
            f"{len(lacking)} {table} of the chosen pairs are in no run behind it, the first being "
            f"{lacking[0]}",
            where=draft.plan.run_id,
        )
    return pa.concat_tables(parts)


def _behind(draft: Draft) -> Iterator[Run]:
    for parent in draft.plan.parents:
        yield parent
        yield from parent.ancestors()


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}


def with_strengths(judgements: pd.DataFrame, votes: pa.Table) -> pd.DataFrame:
    """Judgements with `strength_median` of the votes for the answer that most gave.

    Null where no answer leads, or no vote for it says how much.
    """
    counts = judgements[_SIDES].to_numpy()
    top = counts.max(axis=1)
    leads = (counts == top[:, None]).sum(axis=1) == 1
    side = pd.Series(np.where(leads, counts.argmax(axis=1) - 1, 9), index=judgements["pair_id"])
    said = votes.select(["pair_id", "vote", "strength"]).to_pandas()
    said = said[said["vote"].map({"b": -1, "tie": 0, "a": 1}) == said["pair_id"].map(side)]
    median = said.dropna().groupby("pair_id")["strength"].median()
    found = judgements["pair_id"].map(median).to_numpy(dtype=np.float64)
    towards_zero = pd.array(np.trunc(found), dtype="Float64").astype("Int32")
    return judgements.assign(strength_median=towards_zero)


def chosen_table(frame: pd.DataFrame) -> pa.Table:
    """The table `chosen` of a frame that has its columns and perhaps others."""
    schema = SCHEMAS["chosen"]
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
