"""The `handloom` command: the people's commands and those that learn, in the order of the loop."""

from __future__ import annotations

import os
from pathlib import Path

import click

from annotate.cli import LoopGroup, annotate_commands, here

_ORDER = (
    "init up down users import generate push simulate pull agreement judge build train evaluate "
    "failures rounds dashboard runs verify trace demo"
).split()


@click.group(cls=LoopGroup)
def align_commands() -> None:
    """The model's side of the loop."""


@click.group(cls=LoopGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Work as if started in this folder.",
)
@click.version_option(package_name="handloom")
def main(folder: Path | None) -> None:
    """Learn a language model from people's judgement, round after round.

    generate or import outputs, push them to Argilla, pull what people said, judge, build the
    training sets, train, evaluate, and push the failures back.
    """
    if folder is not None:
        os.chdir(folder)


@align_commands.command("dashboard")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: any free."
)
def show_dashboard(port: int) -> None:
    """Show rounds, failures, agreement and training curves in the browser.

    Serves on this machine only, until Ctrl-C. Failures chosen there can be sent to Argilla.
    """
    from align.dashboard import HOST, become_dashboard, free_port

    project = here()
    port = free_port(port)
    click.echo(f"dashboard: http://{HOST}:{port}  (Ctrl-C ends it)")
    become_dashboard(project, port)


_all = {**annotate_commands.commands, **align_commands.commands}
for _name in sorted(_all, key=_ORDER.index):
    main.add_command(_all[_name])
