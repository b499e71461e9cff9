"""Which items a push shows: what was asked for of a run, and the tests mixed in among it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotate.arrangement import Arrangement, arrange
from annotate.assignment import check_capacity
from annotate.errors import InputError
from annotate.guidelines import Guideline
from annotate.mixing import gold_file, mix, read_gold
from annotate.orders import random_keys
from annotate.records import SCHEMAS, content_id, read_table
from annotate.runs import Draft, Project, Run, RunPlan

_PAIRS = {
    "failures": ("failure_id", "output_id", "versus_output"),
    "chosen": ("pair_id", "output_a", "output_b"),
}
"""Tables that name pairs, of which alone a run's outputs are shown: id and the two outputs."""


def settled_items(draft: Draft, run: Run, rules: Guideline, batch: str) -> pa.Table:
    """The items of an interrupted attempt, else new ones, in the draft before any is shown.

    Raises:
        InputError: nothing to show, an id that is not in the run, or bad gold items.
    """
    path = draft.path / "items.parquet"
    if path.is_file():
        return read_table(path)
    plan = draft.plan
    earlier = _earlier_items(draft.project, batch)
    arranged = _arranged(run, rules, batch, plan, earlier)
    if not arranged.items.num_rows:
        reasons = pc.unique(arranged.quarantine["reason"]).to_pylist()
        raise InputError(
            f"nothing to show under {rules.name}" + (f": {reasons[0]}" if reasons else ""),
            where=run.id,
            remedy="Choose another --guideline, or generate more outputs a prompt",
        )
    items, tests = _with_tests(draft, arranged.items, rules, batch, earlier)
    check_capacity(items.num_rows, rules.overlap, plan.settings.get("to"), plan.settings.get("cap"))
    for name, table in {"quarantine": arranged.quarantine, **tests}.items():
        draft.write(name, table)
    draft.write("items", items)
    return items


def _with_tests(
    draft: Draft, items: pa.Table, rules: Guideline, batch: str, earlier: pa.Table | None
) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The items with the tests that were asked for, and the tables that tell of these."""
    settings = draft.plan.settings
    gold_share, repeat_share = settings.get("gold", 0.0), settings.get("repeats", 0.0)
    if not gold_share and not repeat_share:
        return items, {}
    gold = read_gold(gold_file(draft.project.root, rules.task), rules) if gold_share else None
    mixed = mix(
        items,
        rules,
        batch=batch,
        seed=draft.plan.seed or 0,
        gold=gold,
        gold_share=gold_share,
        repeat_share=repeat_share,
        earlier=earlier,
    )
    told = {"mixed": mixed.mixed}
    if gold is not None:
        told |= {"gold_prompts": gold.prompts, "gold_outputs": gold.outputs}
    return mixed.items, told


def _arranged(
    run: Run, rules: Guideline, batch: str, plan: RunPlan, earlier: pa.Table | None
) -> Arrangement:
    prompts, outputs, pairs = _asked_for(run, plan.settings["select"], rules)
    if (part := plan.settings.get("part")) is not None:
        prompts = prompts.filter(_in_part(prompts, part["shares"], part["number"]))
        outputs = outputs.filter(pc.is_in(outputs["prompt_id"], pc.unique(prompts["prompt_id"])))
    return arrange(
        prompts,
        outputs,
        rules,
        batch=batch,
        seed=plan.seed or 0,
        pairs_per_prompt=plan.settings["pairs_per_prompt"],
        pairs=pairs,
        earlier=earlier,
    )


def _in_part(prompts: pa.Table, shares: Sequence[int], number: int) -> pa.Array:
    """Which prompts belong to one of several parts; each prompt is in one, by its id alone."""
    ids = [content_id("s", prompt) for prompt in prompts["prompt_id"].to_pylist()]
    place = np.argsort(np.argsort(random_keys(ids, 0)))
    ends = np.rint(np.cumsum(shares) / sum(shares) * len(ids))
    return pa.array(np.searchsorted(ends, place, side="right") == number)


def _asked_for(
    run: Run, select: Sequence[str] | None, rules: Guideline
) -> tuple[pa.Table, pa.Table, set[frozenset[str]] | None]:
    """The prompts and outputs to show; of a run that names pairs also which pairs of outputs.

    Of a failure that people see by itself, to mend it or to mark it, not what it lost to.
    """
    prompts, outputs = run.read("prompts"), run.read("outputs")
    pairs = None
    wanted = None if select is None else pa.array(sorted(select), pa.string())
    if wanted is not None:
        _check_known(run, prompts, wanted)
    for table, columns in _PAIRS.items():
        if run.has(table):
            named = run.read(table, [*columns, "prompt_id"])
            if wanted is not None:
                either = [pc.is_in(named[name], wanted) for name in (columns[0], "prompt_id")]
                named = named.filter(pc.or_(*either))
            ends = named[columns[1]].to_pylist(), named[columns[2]].to_pylist()
            pairs = {frozenset(pair) for pair in zip(*ends, strict=True)}
            alone = table == "failures" and rules.max_outputs == 1
            shown = ends[0] if alone else [*ends[0], *ends[1]]
            outputs = outputs.filter(pc.is_in(outputs["output_id"], pa.array(shown, pa.string())))
            wanted = pc.unique(named["prompt_id"])
    if wanted is not None:
        prompts = prompts.filter(pc.is_in(prompts["prompt_id"], wanted))
        outputs = outputs.filter(pc.is_in(outputs["prompt_id"], wanted))
    return prompts, outputs, pairs


def _check_known(run: Run, prompts: pa.Table, wanted: pa.Array) -> None:
    known = [prompts["prompt_id"].combine_chunks()]
    known += [
        run.read(table, [columns[0]])[columns[0]].combine_chunks()
        for table, columns in _PAIRS.items()
        if run.has(table)
    ]
    missing = wanted.filter(pc.invert(pc.is_in(wanted, pa.concat_arrays(known))))
    if len(missing):
        raise InputError(
            f"{len(missing)} selected ids are neither prompts nor failures of this run, "
            f"the first being {missing[0]}",
            where=run.id,
        )


def _earlier_items(project: Project, batch: str) -> pa.Table | None:
    """Items that earlier pushes put into the same batch, each once."""
    tables = [run.read("items") for run in project.all_runs() if run.step == "push"]
    if not tables:
        return None
    items = pa.concat_tables([SCHEMAS["items"].empty_table(), *tables])
    names = items["batch"]
    same = pc.or_(pc.equal(names, batch), pc.starts_with(names, f"{batch}-of-"))
    items = items.filter(same)
    first = np.unique(items["item_id"].to_numpy(), return_index=True)[1]
    return items.take(first)
