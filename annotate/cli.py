"""The commands of the people's side: `handloom init` to `handloom trace`.

A command parses its options, calls one function and reports the run it made and what comes next.
Imports that take time stand inside the command bodies, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotate.errors import HandloomError

if TYPE_CHECKING:
    from annotate.runs import Project, Run

FILE = click.Path(path_type=Path)

seed_option = click.option("--seed", default=0, show_default=True, help="Of every random choice.")
again_option = click.option(
    "--again", is_flag=True, help="Make a new run although a finished one exists."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class LoopGroup(click.Group):
    """Lists commands in the order of the loop, and turns a user's error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of registration, which is the order of the loop."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a `HandloomError` becomes one line on stderr and exit status 1."""
        try:
            return super().invoke(ctx)
        except HandloomError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


@click.group(cls=LoopGroup)
def annotate_commands() -> None:
    """The people's side of the loop."""


def here() -> Project:
    """The project of the working directory."""
    from annotate.runs import Project

    return Project.find()


def chosen_run(project: Project, run_id: str | None, *steps: str) -> Run:
    """The run named on the command line, else the newest of one of these steps."""
    return project.resolve(run_id) if run_id else project.latest(*steps)


def report(run: Run, line: str, next_command: str) -> None:
    """Say what a step made, where it lies and what comes next."""
    click.echo(f"{run.id}: {line}")
    click.echo(f"  in   {os.path.relpath(run.path)}")
    click.echo(f"  next {next_command}")


@annotate_commands.command("runs")
@json_option
def list_runs(as_json: bool) -> None:
    """List the project's runs, oldest first, and what is unfinished."""
    from annotate.listing import print_runs

    print_runs(here(), as_json=as_json)


@annotate_commands.command("verify")
@click.argument("run_id", metavar="[RUN]", required=False)
def verify_runs(run_id: str | None) -> None:
    """Check every file of every run (or of RUN) against the hash in its manifest."""
    from annotate.errors import ProjectError
    from annotate.runs import verify

    project = here()
    runs = [project.resolve(run_id)] if run_id else project.all_runs()
    problems = verify(project, runs)
    for run, problem in problems:
        click.echo(f"{run}: {problem}", err=True)
    if problems:
        raise ProjectError(
            f"{len(problems)} problems in {len({run for run, _ in problems})} of {len(runs)} runs",
            remedy="Restore the damaged runs from a backup, or remove them and run their commands",
        )
    click.echo(f"{len(runs)} runs verified: every file is as it was written")
