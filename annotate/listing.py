"""`handloom runs`: what the project holds, oldest first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import click

from annotate.runs import Project, Run


def print_runs(
    project: Project, describers: Mapping[str, Callable[[Run], str]], *, as_json: bool = False
) -> None:
    """Print every run with what it is and its parents, then what is unfinished.

    Args:
        describers: by step, what to say of a run instead of the rows it holds.
    """
    runs = project.all_runs()
    unfinished = project.unfinished()
    if as_json:
        shown = [run.manifest for run in runs]
        click.echo(json.dumps({"runs": shown, "unfinished": unfinished}, indent=2))
        return
    if not runs and not unfinished:
        click.echo("no runs yet\n  next handloom import FILE")
    width = max((len(run.id) for run in runs), default=0)
    for run in runs:
        parents = ", ".join(parent["id"] for parent in run.manifest["parents"])
        when = str(run.manifest["finished"])[:16].replace("T", " ")
        origin = f"  from {parents}" if parents else ""
        click.echo(f"{run.id:<{width}}  {when}  {describers.get(run.step, _rows)(run)}{origin}")
    for run_id in unfinished:
        click.echo(f"{run_id}: unfinished; the same command takes it up again")


def _rows(run: Run) -> str:
    """What its tables hold: "12 prompts, 24 outputs"; empty tables are left out."""
    counts = {
        name.removesuffix(".parquet"): entry["rows"]
        for name, entry in run.manifest["files"].items()
        if entry.get("rows")
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "-"
