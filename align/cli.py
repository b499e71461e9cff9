"""The `handloom` command: the people's commands and those that learn, in the order of the loop."""

from __future__ import annotations

import os
from pathlib import Path

import click

from annotate.cli import (
    LoopGroup,
    again_option,
    annotate_commands,
    chosen_run,
    here,
    report,
    seed_option,
)


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
