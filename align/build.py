"""The step `build`: from what people hold of each pair to sets a model can be trained on.

    judge  (judgements)  →  build  (decisions, quarantine, preference, sft, README.md)

Every judged pair ends in one of three places, and the counts add up: kept, dropped with a reason
(`decisions`), or quarantined because its row cannot be used. What is kept becomes one preference
row; corrections and clear winners become SFT rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.answer_sets import build_answer_sets
from align.answer_sets import lines as answer_lines
from align.build_recipe import BuildRecipe, read_recipe
from align.build_sources import Sources, gather
from align.card import CardFacts, card, interval_text
from align.filters import apply, evidence, in_force
from align.preference_set import mean_noise_rate, preference_set
from align.sft_set import clear_winners, sft_set
from align.split import require_disjoint, sides
from annotate.errors import InputError, ProjectError
from annotate.records import conform
from annotate.runs import Project, Run, RunPlan

__all__ = ["BuildRecipe", "Sets", "Sources", "build", "gather", "lines", "make_sets", "read_recipe"]


def build(
    project: Project,
    judge_runs: Sequence[Run],
    *,
    recipe: str | None = None,
    again: bool = False,
) -> Run:
    """Build the training sets from judge runs; the finished run, if there is one.

    Args:
        judge_runs: usually one; several where a round pushed several batches. Of pull runs, whose
            answers compare nothing, see `align.answer_sets`.
        recipe: a file, or a recipe's name; None for `build-preference`.
        again: make a new run although a finished one exists.

    Raises:
        InputError: the recipe is wrong, or nothing is left to train on.
        ProjectError: the judgements' outputs or prompts are not in the lineage.
    """
    rules = read_recipe(project, recipe)
    if all(run.step == "pull" for run in judge_runs):
        return build_answer_sets(project, judge_runs, rules.held_out, again=again)
    _require_comparisons(judge_runs)
    newest = max(run.round for run in judge_runs)
    settings = rules.model_dump(mode="json")
    plan = RunPlan("build", newest, tuple(judge_runs), settings, inputs=rules.inputs)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    sources = gather(judge_runs)
    sets = make_sets(sources, rules)
    if not sets.preference.num_rows and not sets.sft.num_rows:
        lost = sets.counts["dropped"] | {"quarantine": sets.quarantine.num_rows}
        dropped = ", ".join(f"{rule} {n}" for rule, n in lost.items() if n)
        raise InputError(
            f"no pair is left to train on; dropped by {dropped}",
            where=sources.origin,
            remedy="Collect more votes, or loosen the recipe's filters",
        )
    with project.draft(plan) as draft:
        draft.write("decisions", sets.decisions)
        draft.write("quarantine", sets.quarantine)
        draft.write("preference", sets.preference)
        draft.write("sft", sets.sft)
        draft.note(**sets.counts)
        draft.write_text("README.md", card(_facts(plan, sources, sets, rules)))
    return draft.run


def _require_comparisons(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.step != "judge":
            raise ProjectError("this is not a judge run", where=run.id, remedy="`handloom judge`")
        if not run.has("judgements"):
            raise ProjectError(
                "nothing was compared in it, so there is no preference to learn",
                where=run.id,
                remedy="Name a judge run of comparisons, or a pull run of texts or thumbs",
            )


@dataclass(frozen=True)
class Sets:
    """What a build writes."""

    decisions: pa.Table
    quarantine: pa.Table
    preference: pa.Table
    sft: pa.Table
    counts: dict[str, Any]


def make_sets(sources: Sources, rules: BuildRecipe) -> Sets:
    """Decide every pair and build both sets from those kept. Pure; rows in a fixed order."""
    judgements = sources.judgements.sort_by("pair_id")
    usable, quarantine = screen(judgements, sources)
    behind = {"prompts": sources.prompts, "votes": sources.votes}
    decisions = apply(rules.filters, usable, sources.outputs, **behind)
    kept = evidence(usable.filter(decisions["kept"]), sources.outputs)
    side = sides(sources.prompts, sources.taken, rules.held_out)
    at = sources.prompts.column_names.index("split")
    prompts = sources.prompts.set_column(at, "split", side)
    preference = preference_set(kept, prompts)
    winners = clear_winners(kept, rules.winner_margin)
    corrected = sources.corrections.rows
    known = pc.invert(_in(corrected["prompt_id"], sources.ambiguous))
    sft = sft_set(corrected.filter(known), winners, prompts)
    for table in (preference, sft):
        trained = table.filter(pc.equal(table["split"], "train"))
        require_disjoint(trained["prompt"], sources.taken, sources.origin)
    decided = kept["pair_id"].filter(pc.starts_with(kept["method"], "adjudicated"))
    voted = preference.filter(pc.invert(_in(preference["pair_id"], decided)))
    counts = {
        "pairs": judgements.num_rows,
        "kept": kept.num_rows,
        "adjudicated": len(decided),
        "dropped": _counted(decisions, "rule"),
        "quarantined": quarantine.num_rows,
        # What reviewers decided has a posterior of 1 or 0 by decree, which says nothing of noise.
        "noise_rate": mean_noise_rate(voted).to_dict(),
        "preference": _counted(preference, "split"),
        "sft": _counted(sft, "source"),
        "sft_split": _counted(sft, "split"),
        "corrections_left_out": sources.corrections.dropped,
    }
    return Sets(decisions, quarantine, preference, sft, counts)


def screen(judgements: pa.Table, sources: Sources) -> tuple[pa.Table, pa.Table]:
    """Usable judgements, and the others as `quarantine` rows with the first thing that is wrong."""
    reason = pa.nulls(judgements.num_rows, pa.string())
    for text, wrong in _problems(judgements, sources).items():
        reason = pc.if_else(pc.and_(pc.is_null(reason), wrong), text, reason)
    bad = judgements.filter(pc.is_valid(reason))
    row = pc.indices_nonzero(pc.is_valid(reason))
    quarantine = {
        "file": pa.repeat(f"{sources.origin}: judgements", bad.num_rows),
        "line": pc.add(pc.cast(row, pa.int64()), 1),
        "id": bad["pair_id"],
        "reason": reason.filter(pc.is_valid(reason)),
        "content": pa.array([json.dumps(each, default=str) for each in bad.to_pylist()]),
    }
    return judgements.filter(pc.is_null(reason)), conform("quarantine", pa.table(quarantine))


def _problems(judgements: pa.Table, sources: Sources) -> dict[str, Any]:
    """What can be wrong with a judgement, and where it is: true or false for each row."""
    first = pc.index_in(judgements["pair_id"], value_set=judgements["pair_id"])
    outputs, prompts = sources.outputs["output_id"], sources.prompts["prompt_id"]
    cast = pc.add(pc.add(judgements["votes_a"], judgements["votes_b"]), judgements["ties"])
    same = pc.equal(judgements["output_a"], judgements["output_b"])
    return {
        "the pair has no id": pc.is_null(judgements["pair_id"]),
        "the pair stands here twice": pc.not_equal(first, pa.array(range(len(first)), pa.int32())),
        "its prompt's id stands for different prompts": _in(
            judgements["prompt_id"], sources.ambiguous
        ),
        "its prompt is in no run behind it": pc.invert(_in(judgements["prompt_id"], prompts)),
        "output_a is in no run behind it": pc.invert(_in(judgements["output_a"], outputs)),
        "output_b is in no run behind it": pc.invert(_in(judgements["output_b"], outputs)),
        "an output is compared with itself": pc.fill_null(same, False),
        "votes_a, votes_b and ties do not add up to votes": pc.fill_null(
            pc.not_equal(cast, judgements["votes"]), True
        ),
        "the posterior is not between 0 and 1": _outside(judgements["posterior"], 0, 1),
        "the noise rate is not between 0 and 0.5": _outside(judgements["noise_rate"], 0, 0.5),
        "strength_mean is not between -3 and 3": _outside(judgements["strength_mean"], -3, 3),
    }


def _in(values: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(values, value_set=known)


def _outside(column: pa.ChunkedArray, low: float, high: float) -> pa.ChunkedArray:
    """Where a number is given that is NaN or out of range."""
    inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    return pc.fill_null(pc.invert(inside), False)


def _counted(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value occurs, the most frequent first; null is not counted."""
    given = table[column].drop_null()
    rows = given.value_counts().to_pylist()
    rows.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in rows}


def _facts(plan: RunPlan, sources: Sources, sets: Sets, rules: BuildRecipe) -> CardFacts:
    judged, outputs = sources.judgements, sources.outputs
    shown = [_in(outputs["output_id"], judged[f"output_{side}"]) for side in "ab"]
    behind = [run for parent in plan.parents for run in (parent, *parent.ancestors())]
    return CardFacts(
        run_id=plan.run_id,
        counts=sets.counts,
        filters=[(rule.rule, rule.threshold) for rule in in_force(rules.filters)],
        annotators=_distinct(pc.list_flatten(judged["annotators"])),
        guidelines=_distinct(judged["guideline"]),
        models=_distinct(outputs.filter(pc.or_(*shown))["model"]),
        agreement={
            f"{question} ({run.id})" if len(plan.parents) > 1 else question: figures
            for run in plan.parents
            for question, figures in run.metrics.get("agreement", {}).items()
        },
        lineage=list(dict.fromkeys(run.id for run in behind)),
    )


def _distinct(column: Any) -> list[str]:
    return sorted(value for value in pc.unique(column).to_pylist() if value is not None)


def lines(run: Run) -> list[str]:
    """What was kept and dropped, as a table in text; the counts add up to the pairs."""
    metrics = run.metrics
    if "kto" in metrics:
        return answer_lines(run)
    rows = {"judged pairs": metrics["pairs"], "kept": metrics["kept"]}
    rows |= {f"dropped by {rule}": count for rule, count in metrics["dropped"].items()}
    rows["quarantined"] = metrics["quarantined"]
    width = max(map(len, rows))
    table = [f"  {name:<{width}}  {count:>7,}" for name, count in rows.items()]
    # A build of an earlier release states none.
    if noise := metrics.get("noise_rate"):
        table.append(
            f"  estimated noise rate of the kept: {interval_text(noise)}, n={noise['n']:,}"
        )
    if decided := metrics.get("adjudicated"):
        table.append(f"  kept because reviewers decided: {decided:,}, not in the noise rate")
    return table
