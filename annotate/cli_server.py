"""Commands for the embedded server while it runs: reindex."""

from __future__ import annotations

import click

from annotate.cli import annotate_commands, here


@annotate_commands.command("reindex")
@click.argument("batches", metavar="[BATCH]...", nargs=-1)
def reindex_batches(batches: tuple[str, ...]) -> None:
    """Make the search index of each data set (or of BATCH) anew from Argilla's database.

    Never needed in normal use: at start, `handloom up` finds indexes that are missing, damaged or
    behind, and rebuilds them. People can go on working meanwhile.
    """
    from annotate.reindex import reindex
    from annotate.server import connect

    done = 0
    with connect(here()) as server:
        for one in reindex(server, batches):
            done += 1
            speed = one.records / max(one.seconds, 0.001)
            click.echo(f"{one.name}: {one.records:,} records, {speed:,.0f} a second")
    click.echo(f"reindexed {done} data sets" if done else "there is no published data set")
