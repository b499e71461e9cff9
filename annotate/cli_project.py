"""Commands that set a project up: init, up, down, import."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotate.cli import FILE, again_option, annotate_commands, counted, here, report
from annotate.embedded.leases import DEFAULT_MINUTES

if TYPE_CHECKING:
    from annotate.runs import Project

CUSTOM_FIELDS_WARNING = """\
warning: scripts in custom fields may run, and so may any script that stands in a record's text:
  it can read the session of whoever opens the record and answer in their name.
  Use this only for records that all come from people you trust, and start without it again after.\
"""


@annotate_commands.command("init")
@click.argument("folder", type=FILE, default=".")
def init(folder: Path) -> None:
    """Make FOLDER (the working directory) a project, with guidelines and recipes to begin with.

    What is there already is left as it is.
    """
    from annotate.project_init import init_project

    project, written = init_project(folder)
    click.echo(f"{project.root}: a project, {len(written)} files written")
    click.echo("  next handloom up")


@annotate_commands.command("up")
@click.option("--port", default=6900, show_default=True, help="Of Argilla; 0 takes any free one.")
@click.option("--dashboard-port", default=8501, show_default=True, help="Of the dashboard.")
@click.option("--dashboard/--no-dashboard", default=True, help="Whether to start the dashboard.")
@click.option(
    "--detach/--foreground", default=True, help="Return when all is up, or stay until Ctrl-C."
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0),
    default=DEFAULT_MINUTES,
    show_default=True,
    help="Minutes of silence after which what an annotator holds open goes to others; 0: none.",
)
@click.option(
    "--allow-custom-fields",
    is_flag=True,
    help="Let custom fields run their scripts, and with them any script in any record.",
)
def up(
    port: int,
    dashboard_port: int,
    dashboard: bool,
    detach: bool,
    lease: float,
    allow_custom_fields: bool,
) -> None:
    """Start Argilla, and the dashboard, for this project on this machine."""
    from annotate.embedded.process import running, start

    project = here()
    home = project.state_dir / "argilla"
    argilla = running(home)
    if argilla is None:
        click.echo("starting Argilla …", err=True)
        if allow_custom_fields:
            click.echo(CUSTOM_FIELDS_WARNING, err=True)
        argilla = start(
            home,
            port,
            lease_minutes=lease,
            custom_fields=allow_custom_fields,
            say=partial(click.echo, err=True),
        )
    click.echo(f"Argilla    {argilla.url}")
    click.echo(f"  owner and password in {os.path.relpath(home / 'credentials.json')}")
    if dashboard:
        _start_dashboard(project, dashboard_port)
    click.echo("  next handloom users add NAME, or handloom push")
    if not detach:
        _stay(project)


def _start_dashboard(project: Project, port: int) -> None:
    from annotate import dashboard_process

    if not dashboard_process.installed():
        click.echo("dashboard  not installed; pip install 'handloom[dashboard]'")
        return
    if dashboard_process.running(project) is None:
        click.echo("starting the dashboard …", err=True)
    click.echo(f"dashboard  {dashboard_process.start(project, port).url}")


def _stay(project: Project) -> None:
    """Wait until Ctrl-C, SIGTERM or the server's end, then stop what was started."""
    import signal
    import time

    from annotate.embedded.process import running

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        while running(project.state_dir / "argilla") is not None:
            time.sleep(1.0)
    except KeyboardInterrupt:
        click.echo("stopping …", err=True)
    finally:
        _stop_all(project)


@annotate_commands.command("down")
def down() -> None:
    """Stop this project's Argilla and dashboard; nothing is lost."""
    stopped = _stop_all(here())
    click.echo(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")


def _stop_all(project: Project) -> list[str]:
    from annotate import dashboard_process
    from annotate.embedded.process import stop

    stopped = []
    if dashboard_process.stop(project):
        stopped.append("the dashboard")
    if stop(project.state_dir / "argilla"):
        stopped.append("Argilla")
    return stopped


@annotate_commands.command("import")
@click.argument("file", type=FILE)
@click.option(
    "--round",
    "round_",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="That the outputs are of.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "eval"]),
    default="train",
    show_default=True,
    help="Whether the prompts may be trained on.",
)
@again_option
def import_outputs(file: Path, round_: int, split: str, again: bool) -> None:
    """Read prompts and outputs from a JSONL FILE, one object a line.

    {"id"?, "prompt": text or messages, "outputs": [{"model", "text"}, …], "metadata"?}; a line that
    cannot be used is shown with its reason and kept in the run's quarantine.
    """
    from annotate.importing import import_file

    run = import_file(here(), file, round=round_, split=split, again=again)
    for row in run.read("quarantine").to_pylist():
        click.echo(f"{file}:{row['line']}: {row['reason']}", err=True)
    noted = run.metrics
    report(
        run,
        f"{counted(noted['prompts'], 'prompt')}, {counted(noted['outputs'], 'output')}"
        + (f", {counted(noted['merged'], 'repeated line')} merged" if noted["merged"] else "")
        + (
            f", {counted(noted['quarantined'], 'line')} quarantined" if noted["quarantined"] else ""
        ),
        "handloom push",
    )
