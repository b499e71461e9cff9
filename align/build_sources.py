"""Everything a build reads, out of the runs behind it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from align.sft_set import Corrections, corrections
from align.split import Sides, fingerprints, sides_taken
from annotate.errors import ProjectError
from annotate.records import SCHEMAS, conform
from annotate.runs import Run


@dataclass(frozen=True)
class Sources:
    """Everything a build reads."""

    origin: str
    """Ids of the judge runs."""
    judgements: pa.Table
    outputs: pa.Table
    prompts: pa.Table
    corrections: Corrections
    taken: Sides
    votes: pa.Table = field(default_factory=SCHEMAS["votes"].empty_table)
    """Of single people, for filters that look at them."""
    ambiguous: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    """Ids that stand for different prompts, as where two imported files both count from 1."""


def gather(judge_runs: Sequence[Run]) -> Sources:
    """Read the judgements and, from the runs behind them, outputs, prompts and corrections."""
    # A run of an earlier release may lack a column that filters read.
    judged = [conform("judgements", run.read("judgements")) for run in judge_runs]
    judgements = pa.concat_tables(judged)
    pulls = _pulls(judge_runs)
    items = pa.concat_tables([run.read("items") for run in pulls])
    wanted = pa.chunked_array([*judgements["prompt_id"].chunks, *items["prompt_id"].chunks])
    taken = [sides_taken(run) for run in judge_runs]
    every = lineage_rows(pulls, "prompts", wanted)
    return Sources(
        origin=", ".join(run.id for run in judge_runs),
        judgements=judgements,
        outputs=first_of_each(lineage_rows(pulls, "outputs", wanted), "output_id"),
        prompts=first_of_each(every, "prompt_id"),
        corrections=corrections(pa.concat_tables([run.read("responses") for run in pulls]), items),
        taken=functools.reduce(operator.or_, taken),
        votes=_votes(judge_runs, judged),
        ambiguous=ambiguous_ids(every),
    )


def _votes(judge_runs: Sequence[Run], judged: Sequence[pa.Table]) -> pa.Table:
    """The votes behind the judgements: of a pair that stands in two runs, those of the first."""
    earlier = pa.array([], pa.string())
    found = [SCHEMAS["votes"].empty_table()]
    for run, judgements in zip(judge_runs, judged, strict=True):
        if run.has("votes"):
            votes = conform("votes", run.read("votes"))
            found.append(votes.filter(pc.invert(pc.is_in(votes["pair_id"], value_set=earlier))))
        earlier = pa.chunked_array([earlier, *judgements["pair_id"].chunks]).combine_chunks()
    return pa.concat_tables(found)


def _pulls(judge_runs: Sequence[Run]) -> list[Run]:
    """The pull runs that these judged, one a batch, each once."""
    parents = [parent for run in judge_runs for parent in run.parents if parent.step == "pull"]
    return list({pull.id: pull for pull in parents}.values())


def lineage_rows(runs: Sequence[Run], name: str, prompt_ids: pa.ChunkedArray) -> pa.Table:
    """The rows of these prompts in every ancestor's table, the nearest first."""
    every = {holder.id: holder for run in runs for holder in run.ancestors()}
    holders = [holder for holder in every.values() if holder.has(name)]
    if not holders:
        raise ProjectError(f"no {name} behind it", where=runs[0].id, remedy="`handloom runs`")
    distinct = pc.unique(prompt_ids)
    found = []
    for holder in holders:
        table = holder.read(name)
        found.append(table.filter(pc.is_in(table["prompt_id"], value_set=distinct)))
    return pa.concat_tables(found)


def ambiguous_ids(prompts: pa.Table) -> pa.Array:
    """The ids under which rows of `prompts` say different things."""
    said = pa.table({"id": prompts["prompt_id"], "text": fingerprints(prompts["messages"])})
    counts = said.group_by(["id", "text"]).aggregate([])["id"].value_counts()
    several = pc.greater(pc.struct_field(counts, "counts"), 1)
    return pc.struct_field(counts, "values").filter(several)


def first_of_each(rows: pa.Table, key: str) -> pa.Table:
    """The first row of each value of a column."""
    first = pc.index_in(pc.unique(rows[key]), value_set=rows[key])
    return rows.take(first)
