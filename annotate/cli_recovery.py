"""Commands that bring back what was lost: backup and restore."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from annotate.cli import annotate_commands, here

if TYPE_CHECKING:
    from annotate.restore import Restored
    from annotate.restore_batch import BatchOutcome


@annotate_commands.command("restore")
@click.option(
    "--withdraw",
    metavar="NAME",
    help="Delete the responses that Argilla's own import put under NAME although others gave them.",
)
def restore_server(withdraw: str | None) -> None:
    """Put back in Argilla what the ledger and the runs hold and the server lacks.

    Accounts, data sets, records, and every person's responses under their own names: after a user
    or data set was deleted, after an import by Argilla itself, or on an empty server. Nothing is
    deleted and nothing newer is overwritten; it can be repeated at any time, while people work.
    """
    from annotate.server import connect

    project = here()
    with connect(project) as server:
        if withdraw is not None:
            from annotate.imported import withdraw_copies

            count = withdraw_copies(project, server, withdraw)
            click.echo(f"{withdraw}: {count:,} responses withdrawn; the ledger keeps them")
            return
        from annotate.restore import restore

        done = restore(project, server, _report_batch)
    _report(done, os.path.relpath(project.state_dir / "users.json"))


def _report_batch(batch: BatchOutcome) -> None:
    if batch.problem:
        click.echo(f"{batch.name}: {batch.problem}", err=True)
        return
    line = f"{batch.present:,} of {batch.standing:,} responses were there"
    if batch.changed:
        line += f"; put back {batch.restored:,} responses and {batch.records:,} records"
    if batch.updated:
        line += f", {batch.updated:,} older versions replaced"
    click.echo(f"{batch.name}: {line}")
    for refused in batch.refused:
        click.echo(f"{batch.name}: {refused}", err=True)
    if batch.withdrawn:
        click.echo(f"  {batch.withdrawn:,} that their authors withdrew are on the server; left so")
    for name, count in batch.copies.items():
        click.echo(
            f"  {count:,} of {name} came with an import and are others' words; "
            f"`handloom restore --withdraw {name}` deletes them"
        )


def _report(done: Restored, passwords: str) -> None:
    if done.accounts:
        click.echo(f"accounts made for {', '.join(done.accounts)}; passwords in {passwords}")
    for batch, count in done.strays.items():
        click.echo(
            f"{batch}: {count:,} responses in the ledger to items of no push here; bring back the "
            "push and the runs before it (`handloom restore --from BACKUP`), then restore again",
            err=True,
        )
    if not done.complete:
        from annotate.errors import ServerError

        raise ServerError("not all of the ledger is on the server", remedy="See the lines above")
    stands = sum(batch.standing for batch in done.batches)
    click.echo(
        f"all {stands:,} responses of {len(done.batches)} batches are on the server"
        + ("" if done.changed else "; nothing was missing")
    )
    click.echo("  next handloom pull")
