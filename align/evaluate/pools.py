"""The prompts of an evaluation: those that measure, and those where failures are looked for.

- Side "eval" measures win rates. No model in the comparison may have been trained on one of them.
- Side "train" is the pool: fresh prompts on which failures become labelling items, and after
  judgement training rows. They never count in a win rate.

So a failure can be learnt from and the evaluation stays honest. Prompts on the wrong side are set
aside in `quarantine`, with the reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.prompts import SUPPORT_DESK, PromptSource, prompts_of_run, read_prompts
from align.split import EVAL, TRAIN, Sides, fingerprints
from annotate.errors import InputError
from annotate.records import conform
from annotate.runs import Project, Run


@dataclass(frozen=True)
class PromptChoice:
    """What to evaluate on, as the user says it."""

    prompts: str | None = None
    """Held-out prompts: a run, a file or "support-desk"; None takes those of the project's first
    evaluation, so that rounds can be compared, else those of side "eval" behind the model."""
    count: int | None = None
    """The first so many; None takes all (100 from the support desk)."""
    pool: str | None = None
    """Where to look for failures: likewise; None draws from the support desk if the held-out
    prompts are from there, and else looks nowhere."""
    pool_count: int = 100
    """How many of these; 0 for none."""


@dataclass(frozen=True)
class Pools:
    """The prompts of one evaluation."""

    held_out: PromptSource
    pool: PromptSource | None


def choose_prompts(project: Project, train_run: Run, choice: PromptChoice, seed: int) -> Pools:
    """Read the prompts; nothing is set aside yet.

    The same seed draws the same held-out prompts in every round; the pool is new for each model.

    Raises:
        InputError: there are no held-out prompts, or a source cannot be used.
    """
    if choice.prompts is None:
        held_out = _held_out_before(project, train_run, choice.count)
    else:
        held_out = read_prompts(project, choice.prompts, split=EVAL, count=choice.count, seed=seed)
    source = choice.pool
    if source is None and SUPPORT_DESK in held_out.prompts["source"].to_pylist():
        source = SUPPORT_DESK
    if source is None or choice.pool_count == 0:
        return Pools(held_out, None)
    digest = hashlib.sha256(f"{seed} {train_run.id}".encode()).digest()
    fresh = int.from_bytes(digest[:4], "big")
    pool = read_prompts(project, source, split=TRAIN, count=choice.pool_count, seed=fresh)
    return Pools(held_out, pool)


def _held_out_before(project: Project, train_run: Run, count: int | None) -> PromptSource:
    first = next((run for run in project.all_runs() if run.step == "evaluate"), None)
    if first is not None:
        # Read again as it was read then: the same command on the first model finds its run.
        then = first.manifest["settings"]["held_out"]
        wanted = then["count"] if count is None else count
        if then["prompts"] == SUPPORT_DESK:
            return read_prompts(
                project, SUPPORT_DESK, split=EVAL, count=wanted, seed=then["prompt_seed"]
            )
        from_run = [run for run in first.parents if run.id == then["prompts"]]
        # A file is not read again: it may be gone, and the evaluation holds its prompts.
        return prompts_of_run(*from_run or [first], split=EVAL, count=wanted)
    for run in train_run.ancestors():
        if run.has("prompts") and EVAL in run.read("prompts", ["split"])["split"].to_pylist():
            return prompts_of_run(run, split=EVAL, count=count)
    raise InputError(
        "there are no held-out prompts to evaluate on",
        where=train_run.id,
        remedy=f'Name them: --prompts FILE, a run, or "{SUPPORT_DESK}"',
    )


def screened(source: PromptSource, against: frozenset[str], reason: str) -> PromptSource:
    """A source without the prompts whose fingerprint is in `against`: those are quarantined."""
    wrong = pc.is_in(
        fingerprints(source.prompts["messages"]), value_set=pa.array(sorted(against), pa.string())
    )
    aside = source.prompts.filter(wrong)
    rows = {
        "id": aside["prompt_id"],
        "reason": pa.repeat(reason, aside.num_rows),
        "content": pa.array([str(messages) for messages in aside["messages"].to_pylist()]),
    }
    quarantine = conform("quarantine", pa.table(rows))
    return PromptSource(
        source.prompts.filter(pc.invert(wrong)),
        pa.concat_tables([source.quarantine, quarantine]),
        source.parents,
        source.inputs,
        source.settings,
    )


def screen_pools(pools: Pools, taken: Sides) -> Pools:
    """Both pools without the prompts that stand on the wrong side.

    Raises:
        InputError: no held-out prompt is left.
    """
    held_out = screened(pools.held_out, taken.trained, "a model compared was trained on it")
    if not held_out.prompts.num_rows:
        raise InputError(
            f"a model was trained on all {pools.held_out.prompts.num_rows} of these prompts",
            remedy="Evaluate on others: --prompts",
        )
    if pools.pool is None:
        return Pools(held_out, None)
    measuring = frozenset(fingerprints(held_out.prompts["messages"]).to_pylist())
    pool = screened(pools.pool, taken.held_out | measuring, "it is held out for evaluation")
    return Pools(held_out, screened(pool, taken.trained, "a model was trained on it already"))


def settings_of(pools: Pools) -> dict[str, Any]:
    """What an evaluation records of where its prompts came from."""
    pool = None if pools.pool is None else pools.pool.settings
    return {"held_out": pools.held_out.settings, "pool": pool}
