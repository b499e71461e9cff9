"""The command `handloom agreement`: how far annotators agree, of runs or of any table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from annotate.cli import (
    annotate_commands,
    chosen_pulls,
    here,
    json_option,
    run_or_table,
    seed_option,
    table_option,
)


@annotate_commands.command("agreement")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@table_option
@click.option(
    "--level",
    type=click.Choice(["nominal", "ordinal", "interval"]),
    help="Of the labels of --table: names (the default), ranks or quantities.",
)
@seed_option
@json_option
def show_agreement(
    run_ids: tuple[str, ...],
    table: Path | None,
    level: Literal["nominal", "ordinal", "interval"] | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how far annotators agree: alpha, kappa, raw agreement, with intervals.

    On the newest pull of each batch of the round, on the pull RUNs, or on any table of labels;
    the latter needs no project.
    """
    import json

    from annotate.agreement_report import agreement_of_table
    from annotate.errors import InputError
    from annotate.judge import agreement_of_run

    run_or_table(run_ids, table)
    if table is not None:
        measured = agreement_of_table(table, level or "nominal", seed=seed)
    elif level is not None:
        raise InputError("--level goes with --table; a run's questions have their own levels")
    else:
        project = here()
        measured = agreement_of_run(*chosen_pulls(project, run_ids), seed=seed)
    text = json.dumps(measured.to_dict(), indent=1) if as_json else "\n".join(measured.lines())
    click.echo(text)
