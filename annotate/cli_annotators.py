"""The command `handloom annotators`: what is known of each annotator, and who stands out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotate.cli import (
    annotate_commands,
    chosen_pulls,
    here,
    json_option,
    judged_kind_option,
    run_or_table,
    table_option,
)

if TYPE_CHECKING:
    from annotate.agreement_report import TableKind


@annotate_commands.command("annotators")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@table_option
@judged_kind_option
@click.option(
    "--pool-versions",
    is_flag=True,
    help="Take versions of the guideline together; without, each has its own figures.",
)
@json_option
def show_annotators(
    run_ids: tuple[str, ...],
    table: Path | None,
    kind: TableKind | None,
    pool_versions: bool,
    as_json: bool,
) -> None:
    """Show how reliable, biased, consistent and fast each annotator is, and who stands out.

    On the newest pull of each batch of the round, on the pull RUNs, or on any table of labels. All
    tests of one report are controlled together: where nothing differs, at most 5 % of reports flag
    anybody. Nobody is flagged with fewer than 20 labels, nor for speed.
    """
    import json

    from annotate.annotators import annotators_of_runs, annotators_of_table
    from annotate.judge import answers_of
    from annotate.paused import paused_people
    from annotate.votes import votes_of_responses

    run_or_table(run_ids, table, kind)
    if table is not None:
        found = annotators_of_table(table, kind=kind, pool=pool_versions)
    else:
        project = here()
        runs = chosen_pulls(project, run_ids)
        responses, items = answers_of(runs)
        paused = {name: pause.since for name, pause in paused_people(project).items()}
        votes = votes_of_responses(responses, items)
        found = annotators_of_runs(
            runs, responses, items, votes, pool=pool_versions, paused=paused
        )  # fmt: skip
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else "\n".join(found.lines()))
