"""Commands that bring back what was lost: backup and restore."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotate.cli import FILE, annotate_commands, here

if TYPE_CHECKING:
    from annotate.restore import Restored
    from annotate.restore_batch import BatchOutcome


@annotate_commands.command("backup")
@click.argument("file", type=FILE, required=False)
@click.option("--with-models", is_flag=True, help="Trained weights too.")
def make_backup(file: Path | None, with_models: bool) -> None:
    """Save everything into FILE (a new one in the working directory), while people work.

    Argilla's database, the ledger, accounts and keys, guidelines, recipes and runs, in one tar
    archive that only you can read, checked after it is written. FILE may be a folder. Keep it on
    another disk.
    """
    from annotate.backup import backup

    done = backup(here(), file, with_models=with_models)
    noted = done.manifest
    size = done.path.stat().st_size
    database = f"{noted.database} database" if noted.database else "no database (it is elsewhere)"
    click.echo(
        f"{os.path.relpath(done.path)}: {database}, {noted.ledger['lines']:,} lines of ledger, "
        f"{len(noted.files):,} files, {size / 1e6:,.1f} MB; read again and right"
    )
    click.echo("  it holds keys and passwords: mode 0600, and not for git")
    if noted.left_out:
        click.echo(f"  {len(noted.left_out)} files of trained weights left out; --with-models")
    for problem in done.problems:
        click.echo(problem, err=True)
    if done.problems:
        from annotate.errors import ProjectError

        raise ProjectError("saved as it is, but what was saved is damaged", where=str(done.path))
    click.echo(f"  back with handloom restore --from {os.path.relpath(done.path)}")


@annotate_commands.command("restore")
@click.option(
    "--from",
    "archive",
    type=FILE,
    metavar="BACKUP",
    help="Put this backup in place, here or in an empty folder; Argilla must be stopped.",
)
@click.option("--yes", is_flag=True, help="With --from: do not ask.")
@click.option(
    "--withdraw",
    metavar="NAME",
    help="Delete the responses that Argilla's own import put under NAME although others gave them.",
)
def restore_server(archive: Path | None, yes: bool, withdraw: str | None) -> None:
    """Put back in Argilla what the ledger and the runs hold and the server lacks.

    Accounts, data sets, records, and every person's responses under their own names: after a user
    or data set was deleted, after an import by Argilla itself, or on an empty server. Nothing is
    deleted and nothing newer is overwritten; it can be repeated at any time, while people work.

    With --from: the project as it was, its present state moved aside. A newer ledger, newer runs
    and guidelines are kept, so that `handloom restore` then brings back what was said since.
    """
    if archive is not None:
        _bring_back(archive, yes=yes)
        return
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


def _bring_back(archive: Path, *, yes: bool) -> None:
    from annotate.bring_back import bring_back, is_replacing, project_root
    from annotate.errors import InputError
    from annotate.runs import INTERRUPTED

    root = project_root(Path.cwd())
    if not archive.is_file() and not (root / INTERRUPTED).is_file():  # what goes on needs no file
        raise InputError("there is no such file", where=str(archive))
    if is_replacing(root) and not yes:
        click.confirm(f"move what is in {root} aside, and {archive} in its place?", abort=True)
    done = bring_back(root, archive)
    click.echo(f"{done.root}: as saved on {done.made[:16].replace('T', ' ')} UTC")
    if done.aside is not None:
        click.echo(f"  the state before lies in {os.path.relpath(done.aside)}")
    if done.ledger_note:
        click.echo(f"  its ledger was not kept: {done.ledger_note}")
    if done.outbox_note:
        click.echo(f"  answers its server had not yet put into the ledger: {done.outbox_note}")
    then = "handloom up" + (
        ", then handloom restore: the ledger has newer responses" if done.newer_responses else ""
    )
    click.echo(f"  next {then}")


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
