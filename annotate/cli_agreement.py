"""The command `handloom agreement`: how far annotators agree, of runs or of any table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from annotate.cli import (
    TABLE_KINDS,
    annotate_commands,
    chosen_pulls,
    here,
    json_option,
    run_or_table,
    seed_option,
    table_option,
)

if TYPE_CHECKING:
    from annotate.agreement_report import Measured, TableKind


@annotate_commands.command("agreement")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@table_option
@click.option(
    "--kind",
    type=click.Choice(TABLE_KINDS),
    help="What the labels of --table are. label: words or numbers (the default). rating: numbers. "
    "pairwise: a, b, tie, or -3 to 3. multi-label: spam|rude, and | for none. "
    "ranking: x>y=z, the best first. text: anything. span: 3-9:error|12-15:style, and | for none.",
)
@click.option(
    "--level",
    type=click.Choice(["nominal", "ordinal", "interval"]),
    help="Of --kind label: names (the default), ranks or quantities.",
)
@click.option(
    "--mix-guidelines",
    is_flag=True,
    help="Take the versions of each task's guideline together, instead of a report for each.",
)
@click.option(
    "--question",
    "only",
    multiple=True,
    metavar="NAME",
    help="Report this question of a run; repeatable. Without, all of them.",
)
@click.option(
    "--without", multiple=True, metavar="NAME", help="Leave this annotator out; repeatable."
)
@seed_option
@json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
def show_agreement(
    run_ids: tuple[str, ...],
    table: Path | None,
    kind: TableKind | None,
    level: Literal["nominal", "ordinal", "interval"] | None,
    mix_guidelines: bool,
    only: tuple[str, ...],
    without: tuple[str, ...],
    seed: int,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Measure how far annotators agree, each figure with two intervals and its definition.

    On the newest pull of each batch of the round, on the pull RUNs, or on any table of labels
    (columns item, annotator, label and, if known, time, guideline, prompt); the latter needs no
    project.
    """
    from annotate.agreement_report import agreement_of_table
    from annotate.errors import InputError
    from annotate.judge import agreement_of_run

    run_or_table(run_ids, table)
    if as_json and as_markdown:
        raise InputError("--json and --markdown exclude each other")
    if table is None and (level or kind):
        option = "--level" if level else "--kind"
        raise InputError(f"{option} goes with --table; a run's questions have their own levels")
    if table is not None and only:
        raise InputError("--question goes with runs; the labels of --table are one question")
    if table is not None:
        measured = agreement_of_table(
            table, level, kind=kind or "label",
            mix_guidelines=mix_guidelines, without=without, seed=seed,
        )  # fmt: skip
    else:
        measured = agreement_of_run(
            *chosen_pulls(here(), run_ids),
            mix_guidelines=mix_guidelines, without=without, only=only, seed=seed,
        )  # fmt: skip
    click.echo(_printed(measured, as_json=as_json, as_markdown=as_markdown))


def _printed(measured: Measured, *, as_json: bool, as_markdown: bool) -> str:
    if as_json:
        import json

        return json.dumps(measured.to_dict(), indent=1)
    return "\n".join(measured.markdown() if as_markdown else measured.lines())
