"""The step `evaluate`: is the new model better than the old one, and than where it all began?

    train, prompts, judge*  →  evaluate  (prompts, outputs, scores, quarantine)

Each model completes each held-out prompt once, with the same settings and random numbers.
Annotators decide where a judge run holds the pair (push this run, pull, judge, evaluate again), the
named scorer otherwise. Only prompts of side "eval" count; those of side "train" are there for
failures (align.evaluate.pools).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.completions import Shards
from align.evaluate.compare import compare, scored, summary, votes_held
from align.evaluate.completed import complete_all
from align.evaluate.opponents import Opponent, opponents, started_from
from align.evaluate.pools import Pools, PromptChoice, choose_prompts, screen_pools, settings_of
from align.evaluate.reward import held_out_pairs, pair_logprobs, reward_accuracy
from align.evaluate.reward_model import evaluate_reward_model
from align.evaluate.scorers import CALLED, scorer_named
from align.generate import SHARDS, model_files
from align.model import load_model
from align.model_ref import MODEL, REWARD_MODEL, ModelRef, resolve_model
from align.sampling import Sampling
from align.split import EVAL, Sides, sides_taken
from annotate.errors import InputError
from annotate.records import table_from_rows
from annotate.runs import Draft, Project, Run, RunPlan
from annotate.statistics import Estimate


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation reads."""

    project: Project
    train_run: Run
    own: ModelRef
    opponents: list[Opponent]
    pools: Pools
    judge_runs: list[Run]
    scorer: str | None
    sampling: Sampling


def evaluate(
    project: Project,
    train_run: Run,
    *,
    against: Sequence[str] | None = None,
    choice: PromptChoice | None = None,
    scorer: str | None = None,
    sampling: Sampling | None = None,
    batch_size: int = 128,
    again: bool = False,
) -> Run:
    """Compare a trained model with earlier ones; the finished run, if there is one.

    A reward model is measured on held-out pairs instead (`align.evaluate.reward_model`).

    Args:
        against: models to compare with; None: the one it was trained from, and the round 0 model.
        choice: held-out prompts, and where to look for failures.
        scorer: who judges the pairs that no annotator did; None leaves those unjudged.
        sampling: how completions are drawn, the same for all models. Its seed also draws the
            support desk's prompts and the bootstraps.
        batch_size: completions computed together.
        again: make a new run although a finished one exists.

    Raises:
        InputError: no prompts, no opponent, an unknown scorer, or an encoder-decoder.
        ProjectError: not a train run.
        TrainingError: a model cannot be loaded.
    """
    train_run.require("train")
    makes = train_run.metrics.get("makes", MODEL)
    if makes == REWARD_MODEL:
        if against or scorer:
            raise InputError(
                "it is a reward model, which writes no completions to compare",
                where=train_run.id,
                remedy="Leave out --against and --scorer",
            )
        seed = (sampling or Sampling()).seed
        return evaluate_reward_model(project, train_run, seed=seed, again=again)
    if makes != MODEL:
        raise InputError(
            f"its model is an {makes}, and only decoders are compared",
            where=train_run.id,
            remedy=f"What it was worth on held-out rows: `handloom health {train_run.id}`",
        )
    if scorer is not None:
        scorer_named(scorer)
    rules = sampling or Sampling()
    rivals = opponents(project, train_run, against)
    pools = choose_prompts(project, train_run, choice or PromptChoice(), rules.seed)
    trained = [train_run, *(one.ref.run for one in rivals if one.ref.run is not None)]
    taken = _all_sides(trained)
    pools = screen_pools(pools, taken)
    _try_scorer(scorer, _all_prompts(pools))
    judge_runs = _judge_runs(project, pools.held_out.prompts)
    own = resolve_model(project, train_run.id)
    what = Evaluation(project, train_run, own, rivals, pools, judge_runs, scorer, rules)
    plan = _plan(what, trained)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        _write(draft, what, batch_size)
    return draft.run


def _try_scorer(scorer: str | None, prompts: pa.Table) -> None:
    """A scorer that cannot judge one of the prompts says so now, not after hours of sampling."""
    if scorer is not None:
        judge = scorer_named(scorer)
        for messages in prompts["messages"].to_pylist():
            judge(messages, "")


def _plan(what: Evaluation, trained: Sequence[Run]) -> RunPlan:
    sources = [one for one in (what.pools.held_out, what.pools.pool) if one is not None]
    parents = [*trained, *(run for one in sources for run in one.parents), *what.judge_runs]
    files = [path for rival in what.opponents for path in model_files(rival.ref)]
    settings = {
        "against": {rival.ref.name: list(rival.roles) for rival in what.opponents},
        "scorer": what.scorer,
        **settings_of(what.pools),
        **what.sampling.model_dump(exclude={"seed"}),
    }
    inputs = (*files, *(path for one in sources for path in one.inputs))
    distinct = {run.id: run for run in parents}
    round = trained[0].round
    return RunPlan(
        "evaluate", round, tuple(distinct.values()), settings, what.sampling.seed, inputs
    )


def _all_sides(runs: Sequence[Run]) -> Sides:
    taken = sides_taken(runs[0])
    for run in runs[1:]:
        taken |= sides_taken(run)
    return taken


def _all_prompts(pools: Pools) -> pa.Table:
    """Held-out prompts, then the pool's."""
    return pa.concat_tables(
        [pools.held_out.prompts, *([pools.pool.prompts] if pools.pool is not None else [])]
    )


def _judge_runs(project: Project, held_out: pa.Table) -> list[Run]:
    """Judge runs that hold a held-out prompt, oldest first.

    Not those that hold the pool's: its pairs are judged in the next round, and an evaluation of
    this one must not change with it.
    """
    ids = held_out["prompt_id"]
    found = []
    for run in project.all_runs():
        if run.step == "judge" and run.has("judgements"):
            theirs = run.read("judgements", ["prompt_id"])["prompt_id"]
            if pc.any(pc.is_in(theirs, value_set=ids)).as_py():
                found.append(run)
    return found


def _write(draft: Draft, what: Evaluation, batch_size: int) -> None:
    # The opponents beyond the first are there for the win rate: they leave the pool alone.
    everything, held_out = _all_prompts(what.pools), what.pools.held_out.prompts
    asked = {what.own: everything, what.opponents[0].ref: everything}
    asked |= {rival.ref: held_out for rival in what.opponents[1:]}
    shards = Shards(draft.path / SHARDS)
    outputs, unfit = complete_all(what.project, asked, what.sampling, shards, batch_size)
    prompts = everything
    prompts = prompts.filter(pc.is_in(prompts["prompt_id"], value_set=outputs["prompt_id"]))
    judged = scored(outputs, prompts, what.scorer)
    votes = votes_held(what.judge_runs)
    own = judged[judged["model"] == what.own.name]
    scores = [
        compare(own, judged[judged["model"] == rival.ref.name], votes, what.scorer)
        for rival in what.opponents
    ]
    sources = [one for one in (what.pools.held_out, what.pools.pool) if one is not None]
    aside = [*(one.quarantine for one in sources), table_from_rows("quarantine", unfit)]
    draft.write("prompts", prompts)
    draft.write("outputs", outputs)
    draft.write("scores", pa.concat_tables(scores))
    draft.write("quarantine", pa.concat_tables(aside))
    draft.note(**_figures(what, prompts, scores), quarantined=sum(map(len, aside)))
    shutil.rmtree(draft.path / SHARDS, ignore_errors=True)


def _figures(what: Evaluation, prompts: pa.Table, scores: Sequence[pa.Table]) -> dict[str, Any]:
    held_out = prompts.filter(pc.equal(prompts["split"], EVAL))
    comparisons = []
    for rival, table in zip(what.opponents, scores, strict=True):
        measuring = table.filter(pc.is_in(table["prompt_id"], value_set=held_out["prompt_id"]))
        figures = summary(measuring, what.sampling.seed)
        comparisons.append({"versus": rival.ref.name, "roles": list(rival.roles), **figures})
    return {
        "model": what.own.name,
        "scorer": what.scorer,
        "scorer_called": CALLED.get(what.scorer) if what.scorer else None,
        "comparisons": comparisons,
        "reward_accuracy": _reward_accuracy(what).to_dict(),
        "held_out": held_out.num_rows,
        "pool": prompts.num_rows - held_out.num_rows,
    }


def _reward_accuracy(what: Evaluation) -> Estimate:
    pairs = held_out_pairs(what.train_run)
    reference = started_from(what.project, what.train_run)
    if pairs is None or not pairs.num_rows or reference is None:
        return reward_accuracy(pairs, {}, {})
    policy = pair_logprobs(load_model(what.own), pairs)
    return reward_accuracy(
        pairs, policy, pair_logprobs(load_model(reference), pairs), seed=what.sampling.seed
    )
