"""Outputs → items in front of people: `handloom push`, and what the dashboard's “send” calls.

The items and the order they show are settled and written into the run's draft first, then
published; so a push that was killed goes on with the same order, and a repeat adds nothing. A
finished push publishes again what the server lacks: it may be another server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.assignment import check_capacity, reserve, workspace_for
from annotate.errors import InputError
from annotate.guidelines import Guideline, load_guideline, publish_guideline
from annotate.mixing import GOLD
from annotate.publishing import Shown, publish
from annotate.push_items import settled_items
from annotate.records import read_table
from annotate.runs import Draft, Project, Run, RunPlan
from annotate.server import Server, connect
from annotate.server_types import check_workspace
from annotate.suggesting import suggest


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
    gold: float = 0.0,
    repeats: float = 0.0,
    to: Sequence[str] | None = None,
    cap: int | None = None,
    part: Mapping[str, Any] | None = None,
    suggestions: Run | None = None,
    without: float = 0.2,
    purpose: str | None = None,
) -> Run:
    """Show a run's outputs to people, as items of an Argilla data set.

    Of a failures run, each failure is a pair of its own: the output and what it lost to. Of a run
    that chose pairs (next, adjudicate), those pairs.

    Args:
        run: holds `prompts` and `outputs`.
        guideline: `task` (its latest version) or `task@vN`.
        batch: name of the data set, made up from the run if None. Rankings of n responses go to
            `<batch>-of-<n>`.
        overlap: people who must submit each item; the guideline's own if None.
        pairs_per_prompt: show at most so many pairs of a prompt.
        again: make new items in a new batch although these were pushed before.
        select: ids of failures, pairs or prompts; everything if None.
        workspace: who is a member of it may answer; see `annotate.server.connect` for None. The
            same outputs in another workspace are a push of its own.
        gold, repeats: share of tests to mix in, of the items; see `annotate.mixing`.
        to: only these people may answer, in a workspace of their own.
        cap: items of each data set that one person may answer; kept by the embedded server.
        part: of several pushes that share the run's prompts among them; see `push_to_groups`.
        suggestions: a prelabel run, whose suggestions the items show.
        without: share of the items with a suggestion that is shown none; see `annotate.suggesting`.
        purpose: what the answers are for, where they are no votes of the round: "relabel".

    Raises:
        InputError: nothing to show, an id that is not in the run, bad gold, a bad guideline, or
            people who cannot answer all of it.
        ServerError: Argilla cannot be reached, or holds the batch under other settings.
    """
    _require_outputs(run)
    rules = load_guideline(project.root, guideline)
    if overlap is not None:
        rules = dataclasses.replace(rules, overlap=_positive(overlap, "overlap"))
    if to is not None:
        to = sorted(set(to))
        workspace = workspace or workspace_for(to)
    settings = _settings(rules, batch, pairs_per_prompt, select, workspace)
    settings |= _extras(gold, repeats, to, cap, part)
    check_capacity(0, rules.overlap, to, cap)
    if suggestions is not None:
        settings |= {"suggestions": suggestions.id, "without": without}
    if purpose is not None:
        settings["purpose"] = purpose
    if batch is not None:
        _refuse_in_two_workspaces(project, batch, workspace)
    plan = RunPlan("push", run.round, (run,), settings, seed)
    if again:
        plan = project.again(plan)
    name = batch or f"r{run.round}-{rules.task}-{plan.run_id.rpartition('-')[2]}"
    with connect(project, workspace) as server:
        if to is not None:
            reserve(project, server, to)
        finished = project.finished(plan)
        if finished is not None:
            publish(server, Shown.of_push(finished))
            return finished
        with project.draft(plan) as draft:
            items = settled_items(draft, run, rules, name)
            if suggestions is not None:
                table = suggest(suggestions, items, rules, without=without, seed=seed)
                draft.write("suggested", table)
            publish_guideline(project.root, rules)
            added = publish(server, Shown.of_draft(draft, items, rules))
            _note(draft, items, added, server)
    return draft.run


def push_to_groups(
    project: Project,
    run: Run,
    groups: Mapping[str, Sequence[str]],
    *,
    batch: str | None = None,
    **options: Any,
) -> list[Run]:
    """Share a run's prompts among groups of people, in proportion to their sizes; a push each.

    All items of a prompt go to one group. May be repeated after a crash.

    Args:
        groups: workspace → its people, as `annotate.assignment.read_groups` gives them.
        batch: the data sets are `<batch>-<workspace>`; made up if None.
        options: as `push` takes them.

    Raises:
        InputError, ServerError: as `push` does.
    """
    shares = [len(people) for people in groups.values()]
    return [
        push(
            project,
            run,
            batch=f"{batch}-{workspace}" if batch is not None else None,
            workspace=workspace,
            to=people,
            part={"shares": shares, "number": number},
            **options,
        )
        for number, (workspace, people) in enumerate(groups.items())
    ]


def pushes_of_round(push_run: Run) -> list[Run]:
    """Every push of this push's round, itself among them, oldest first."""
    runs = push_run.project.all_runs()
    return [run for run in runs if run.step == "push" and run.round == push_run.round]


def _require_outputs(run: Run) -> None:
    if not (run.has("outputs") and run.has("prompts")):
        raise InputError(
            "this run has no outputs to show",
            where=run.id,
            remedy="Name a generate, import, evaluate or failures run; `handloom runs` lists them",
        )


def _settings(
    rules: Guideline,
    batch: str | None,
    pairs_per_prompt: int | None,
    select: Sequence[str] | None,
    workspace: str | None,
) -> dict[str, Any]:
    if pairs_per_prompt is not None:
        _positive(pairs_per_prompt, "pairs-per-prompt")
    settings: dict[str, Any] = {
        "guideline": rules.name,
        "guideline_sha256": rules.sha256,
        "overlap": rules.overlap,
        "pairs_per_prompt": pairs_per_prompt,
        "select": sorted(set(select)) if select is not None else None,
        "batch": _named(batch, "batch") if batch is not None else None,
    }
    if workspace is not None:  # ids of runs without one stay what they were
        settings["workspace"] = check_workspace(workspace, "--workspace")
    return settings


def _extras(
    gold: float,
    repeats: float,
    to: Sequence[str] | None,
    cap: int | None,
    part: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Settings that stand in a manifest only where they were asked for."""
    for share, option in ((gold, "gold"), (repeats, "repeats")):
        if not 0 <= share <= 1:
            raise InputError(f"--{option} is a share from 0 to 1, not {share:g}")
    extras = {
        "gold": gold or None,
        "repeats": repeats or None,
        "to": list(to) if to is not None else None,
        "cap": _positive(cap, "cap") if cap is not None else None,
        "part": dict(part) if part is not None else None,
    }
    return {name: value for name, value in extras.items() if value is not None}


def _note(draft: Draft, items: pa.Table, added: int, server: Server) -> None:
    tests = {}
    if (draft.path / "mixed.parquet").is_file():
        roles = read_table(draft.path / "mixed.parquet")["role"].to_pylist()
        tests = {"gold": roles.count(GOLD), "repeats": len(roles) - roles.count(GOLD)}
    draft.note(
        batches=sorted(pc.unique(items["batch"]).to_pylist()),
        items=items.num_rows,
        prompts=len(pc.unique(items["prompt_id"])),
        added=added,
        quarantined=read_table(draft.path / "quarantine.parquet").num_rows,
        server=server.url,
        workspace=server.workspace,
        **tests,
    )


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
