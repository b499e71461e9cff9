"""The `handloom` command: the people's commands and those that learn, in the order of the loop."""

from __future__ import annotations

import os
from pathlib import Path

import click

from annotate.cli import LoopGroup, annotate_commands

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


_all = {**annotate_commands.commands, **align_commands.commands}
for _name in sorted(_all, key=_ORDER.index):
    main.add_command(_all[_name])
