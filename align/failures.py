"""The step `failures`: what the new model gets wrong, as the next round's outputs.

    evaluate  (scores, outputs)  →  failures  (failures, prompts, outputs), ready to `push`

A failure is a comparison with the previous model that the new one lost or tied, or on which the
evidence is thin. It belongs to the round after the model's: people judge the new model's completion
beside the opponent's, and what they agree on becomes training data.

Failures on held-out prompts would turn the evaluation into training data, so they are never taken:
an evaluation completes a second pool of fresh prompts for this (align.evaluate.pools), and only
that side is read here. A pair of identical completions is left out; there is nothing to compare.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from align.model_ref import REWARD_MODEL
from align.split import TRAIN, require_disjoint, sides_taken
from annotate.errors import InputError
from annotate.records import conform, content_id, flat_text
from annotate.runs import Project, Run, RunPlan

ENOUGH_VOTES = 2
"""Fewer votes than this are thin evidence of a win."""

LOST, TIED, THIN = "lost", "tied", "thin evidence"
_ORDER = {LOST: 0, THIN: 1, TIED: 2}


def failures(
    project: Project, evaluate_run: Run, *, limit: int | None = None, again: bool = False
) -> Run:
    """Collect the failures of an evaluation; the finished run, if there is one.

    Args:
        limit: the worst so many: lost before thin before tied, the largest loss by score first.
        again: make a new run although a finished one exists.

    Raises:
        InputError: the evaluation looked at no fresh prompts, or found no failure on them.
        ProjectError: not an evaluate run.
    """
    _require_completions(evaluate_run)
    plan = RunPlan("failures", evaluate_run.round + 1, (evaluate_run,), {"limit": limit})
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    pool = _fresh_prompts(evaluate_run)
    outputs = evaluate_run.read("outputs")
    every = find_failures(evaluate_run.read("scores"), pool, outputs)
    distinct = every.filter(pc.not_equal(every["completion"], every["versus_completion"]))
    found = distinct.slice(0, limit)
    if not found.num_rows:
        raise InputError(
            f"no failure on {pool.num_rows} fresh prompts",
            where=evaluate_run.id,
            remedy="Evaluate on more: `handloom evaluate --pool-count N`",
        )
    chosen = pa.chunked_array([*found["output_id"].chunks, *found["versus_output"].chunks])
    with project.draft(plan) as draft:
        draft.write("failures", found)
        draft.write(
            "prompts", pool.filter(pc.is_in(pool["prompt_id"], pc.unique(found["prompt_id"])))
        )
        draft.write("outputs", _with_ids(outputs, "output_id", chosen))
        why = {row["values"]: row["counts"] for row in found["why"].value_counts().to_pylist()}
        draft.note(
            failures=found.num_rows,
            why=why,
            fresh_prompts=pool.num_rows,
            identical_left_out=every.num_rows - distinct.num_rows,
            over_limit=distinct.num_rows - found.num_rows,
        )
    return draft.run


def _require_completions(run: Run) -> None:
    run.require("evaluate")
    if run.metrics.get("makes") == REWARD_MODEL:
        raise InputError(
            "a reward model writes nothing that could fail",
            where=run.id,
            remedy="Name the evaluation of a model that completes prompts",
        )


def _fresh_prompts(run: Run) -> pa.Table:
    """The prompts of an evaluation that may be trained on."""
    prompts = run.read("prompts")
    pool = prompts.filter(pc.equal(prompts["split"], TRAIN))
    if not pool.num_rows:
        raise InputError(
            "it has only held-out prompts, whose failures stay out of training",
            where=run.id,
            remedy="Evaluate with fresh prompts too: `handloom evaluate --pool SOURCE`",
        )
    require_disjoint(pool["messages"], sides_taken(run), run.id)
    return pool


def newest_evaluation(project: Project) -> Run:
    """The newest evaluation of a model that completes prompts.

    Raises:
        ProjectError: there is no evaluation.
    """
    runs = [run for run in project.all_runs() if run.step == "evaluate"]
    of_models = [run for run in runs if run.metrics.get("makes") != REWARD_MODEL]
    return of_models[-1] if of_models else project.latest("evaluate")


def find_failures(scores: pa.Table, pool: pa.Table, outputs: pa.Table) -> pa.Table:
    """The `failures` table, worst first, of the comparisons on `pool`; one row a comparison.

    Args:
        scores: the table of that name.
        pool: prompts of side "train".
        outputs: with every completion that `scores` names.
    """
    rows = scores.filter(pc.is_in(scores["prompt_id"], value_set=pool["prompt_id"]))
    why = _why(rows)
    rows, why = rows.filter(pc.is_valid(why)), why.drop_null()
    texts = pa.array([flat_text(messages) for messages in pool["messages"].to_pylist()])
    at = pc.index_in(rows["prompt_id"], value_set=pool["prompt_id"])
    both = zip(rows["output_id"].to_pylist(), rows["versus_output"].to_pylist(), strict=True)
    told = rows.drop_columns(["tokens", "versus_tokens"])
    columns = {
        "failure_id": pa.array([content_id("f", *pair) for pair in both], pa.string()),
        "why": why,
        "prompt_text": texts.take(at),
        "completion": _completions(rows["output_id"], outputs),
        "versus_completion": _completions(rows["versus_output"], outputs),
    }
    for name, column in columns.items():
        told = told.append_column(name, column)
    return conform("failures", _worst_first(told))


def _why(scores: pa.Table) -> pa.ChunkedArray:
    """Why each comparison is a failure, null where it is a sure win."""
    outcome = scores["outcome"]
    few = pc.less(scores["votes"], ENOUGH_VOTES)
    return pc.if_else(
        pc.or_(pc.is_null(outcome), pc.fill_null(few, False)),
        THIN,
        pc.case_when(
            pc.make_struct(pc.equal(outcome, 0.0), pc.equal(outcome, 0.5)),
            pa.scalar(LOST),
            pa.scalar(TIED),
        ),
    )


def _worst_first(table: pa.Table) -> pa.Table:
    rank = pa.array([_ORDER[why] for why in table["why"].to_pylist()], pa.int32())
    gap = pc.fill_null(pc.subtract(table["score"], table["versus_score"]), 0.0)
    keyed = table.append_column("rank", rank).append_column("gap", gap)
    order = [("rank", "ascending"), ("gap", "ascending"), ("failure_id", "ascending")]
    return keyed.sort_by(order).drop_columns(["rank", "gap"])


def _with_ids(table: pa.Table, column: str, ids: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.is_in(table[column], value_set=ids))


def _completions(ids: pa.ChunkedArray, outputs: pa.Table) -> pa.ChunkedArray:
    at = pc.index_in(ids, value_set=outputs["output_id"])
    return outputs["completion"].take(at)
