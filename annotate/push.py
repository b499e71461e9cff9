"""Outputs → items in front of people: `handloom push`, and what the dashboard's “send” calls.

The items and the order they show are settled and written into the run's draft first, then
published; so a push that was killed goes on with the same order, and a repeat adds nothing. A
finished push publishes again what the server lacks: it may be another server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotate.display import Arrangement, arrange
from annotate.errors import InputError
from annotate.guidelines import Guideline, load_guideline, publish_guideline
from annotate.publishing import Shown, publish
from annotate.records import SCHEMAS, read_table
from annotate.runs import Draft, Project, Run, RunPlan
from annotate.server import connect


def push(
    project: Project,
    run: Run,
    *,
    guideline: str = "preference",
    batch: str | None = None,
    overlap: int | None = None,
    pairs_per_prompt: int | None = None,
    seed: int = 0,
    again: bool = False,
    select: Sequence[str] | None = None,
    workspace: str | None = None,
) -> Run:
    """Show a run's outputs to people, as items of an Argilla data set.

    Of a failures run, each failure is a pair of its own: the output and what it lost to.

    Args:
        run: holds `prompts` and `outputs`.
        guideline: `task` (its latest version) or `task@vN`.
        batch: name of the data set, made up from the run if None. Rankings of n responses go to
            `<batch>-of-<n>`.
        overlap: people who must submit each item; the guideline's own if None.
        pairs_per_prompt: show at most so many pairs of a prompt.
        again: make new items in a new batch although these were pushed before.
        select: ids of failures or prompts; everything if None.
        workspace: who is a member of it may answer; see `annotate.server.connect` for None. The
            same outputs in another workspace are a push of its own.

    Raises:
        InputError: nothing to show, an id that is not in the run, or a bad guideline.
        ServerError: Argilla cannot be reached, or holds the batch under other settings.
    """
    if not (run.has("outputs") and run.has("prompts")):
        raise InputError(
            "this run has no outputs to show",
            where=run.id,
            remedy="Name a generate, import, evaluate or failures run; `handloom runs` lists them",
        )
    if batch is not None:
        _named(batch, "batch")
    rules = load_guideline(project.root, guideline)
    if overlap is not None:
        rules = dataclasses.replace(rules, overlap=_positive(overlap, "overlap"))
    if pairs_per_prompt is not None:
        _positive(pairs_per_prompt, "pairs-per-prompt")
    settings: dict[str, Any] = {
        "guideline": rules.name,
        "guideline_sha256": rules.sha256,
        "overlap": rules.overlap,
        "pairs_per_prompt": pairs_per_prompt,
        "select": sorted(set(select)) if select is not None else None,
        "batch": batch,
    }
    if workspace is not None:  # ids of runs without one stay what they were
        settings["workspace"] = _named(workspace, "workspace")
    if batch is not None:
        _refuse_in_two_workspaces(project, batch, workspace)
    plan = RunPlan("push", run.round, (run,), settings, seed)
    if again:
        plan = project.again(plan)
    name = batch or f"r{run.round}-{rules.task}-{plan.run_id.rpartition('-')[2]}"
    with connect(project, workspace) as server:
        finished = project.finished(plan)
        if finished is not None:
            publish(server, Shown.of(run, finished.read("items"), rules))
            return finished
        with project.draft(plan) as draft:
            items = _settled_items(draft, run, rules, name)
            publish_guideline(project.root, rules)
            added = publish(server, Shown.of(run, items, rules))
            draft.note(
                batches=sorted(pc.unique(items["batch"]).to_pylist()),
                items=items.num_rows,
                prompts=len(pc.unique(items["prompt_id"])),
                added=added,
                quarantined=read_table(draft.path / "quarantine.parquet").num_rows,
                server=server.url,
                workspace=server.workspace,
            )
    return draft.run


def _named(name: str, option: str) -> str:
    if not name.strip():
        raise InputError(f"--{option} must not be empty")
    return name


def _refuse_in_two_workspaces(project: Project, batch: str, workspace: str | None) -> None:
    """The ledger knows an item by its batch: one name stands for one data set."""
    for run in project.all_runs():
        settings = run.manifest["settings"]
        elsewhere = settings.get("workspace")
        if run.step == "push" and settings.get("batch") == batch and elsewhere != workspace:
            raise InputError(
                f"the batch {batch} is in the workspace {elsewhere or 'of the project'} already",
                where=run.id,
                remedy="Choose another --batch",
            )


def _positive(number: int, option: str) -> int:
    if number < 1:
        raise InputError(f"--{option} must be 1 or more, not {number}")
    return number


def _settled_items(draft: Draft, run: Run, rules: Guideline, batch: str) -> pa.Table:
    """The items of an interrupted attempt, else new ones, in the draft before any is shown."""
    path = draft.path / "items.parquet"
    if path.is_file():
        return read_table(path)
    plan = draft.plan
    arranged = _arranged(run, rules, batch, plan, _earlier_items(draft.project, batch))
    if not arranged.items.num_rows:
        reasons = pc.unique(arranged.quarantine["reason"]).to_pylist()
        raise InputError(
            f"nothing to show under {rules.name}" + (f": {reasons[0]}" if reasons else ""),
            where=run.id,
            remedy="Choose another --guideline, or generate more outputs a prompt",
        )
    draft.write("quarantine", arranged.quarantine)
    draft.write("items", arranged.items)
    return arranged.items


def _arranged(
    run: Run, rules: Guideline, batch: str, plan: RunPlan, earlier: pa.Table | None
) -> Arrangement:
    prompts, outputs, pairs = _chosen(run, plan.settings["select"])
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


def _chosen(
    run: Run, select: Sequence[str] | None
) -> tuple[pa.Table, pa.Table, set[frozenset[str]] | None]:
    """The prompts and outputs to show; of a failures run also which pairs of outputs."""
    prompts, outputs = run.read("prompts"), run.read("outputs")
    pairs = None
    wanted = None if select is None else pa.array(sorted(select), pa.string())
    if wanted is not None:
        _check_known(run, prompts, wanted)
    if run.has("failures"):
        failures = run.read("failures")
        if wanted is not None:
            failures = failures.filter(
                pc.or_(
                    pc.is_in(failures["failure_id"], wanted),
                    pc.is_in(failures["prompt_id"], wanted),
                )
            )
        ends = failures["output_id"].to_pylist(), failures["versus_output"].to_pylist()
        pairs = {frozenset(pair) for pair in zip(*ends, strict=True)}
        outputs = outputs.filter(pc.is_in(outputs["output_id"], pa.array([*ends[0], *ends[1]])))
        wanted = pc.unique(failures["prompt_id"])
    if wanted is not None:
        prompts = prompts.filter(pc.is_in(prompts["prompt_id"], wanted))
        outputs = outputs.filter(pc.is_in(outputs["prompt_id"], wanted))
    return prompts, outputs, pairs


def _check_known(run: Run, prompts: pa.Table, wanted: pa.Array) -> None:
    known = [prompts["prompt_id"].combine_chunks()]
    if run.has("failures"):
        known.append(run.read("failures", ["failure_id"])["failure_id"].combine_chunks())
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
