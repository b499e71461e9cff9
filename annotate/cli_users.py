"""Annotators as people: `handloom users`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotate.cli import FILE, annotate_commands, here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from annotate.accounts import Added
    from annotate.people_file import Person

name_argument = click.argument("name", metavar="NAME")


@annotate_commands.group("users")
def users() -> None:
    """Annotators' accounts in Argilla: who may log in, where, and with which password."""


@users.command("add")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--file", type=FILE, help="CSV: name, first_name, last_name, workspace, role.")
@click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    metavar="NAME",
    help="Make them members of it, and make it if need be; repeatable. The project's own if none.",
)
def add(names: tuple[str, ...], file: Path | None, workspaces: tuple[str, ...]) -> None:
    """Make an account for each NAME, with a password of its own, where there is none.

    Who has an account keeps it and only joins the workspaces. In a file only the column name must
    be there; several workspaces are separated by spaces; a line that cannot be used is shown with
    its reason, and the others count.
    """
    from annotate.accounts import add_people
    from annotate.passwords import users_file
    from annotate.server import connect

    people = _people(names, file)
    project = here()
    with connect(project) as server:
        added = add_people(project, server, people, workspaces)
        made = sum(each.made for each in added)
        click.echo(f"{_counted(added)} may log in at {server.url}, {made} of them new")
    joined = sorted({name for each in added for name in each.joined})
    if joined:
        click.echo(f"  joined {', '.join(joined)}")
    click.echo(f"  passwords in {os.path.relpath(users_file(project))}")
    click.echo("  next handloom push")


def _counted(added: Sequence[Added]) -> str:
    """How many of each role, as in "3 annotators, 1 admin"."""
    from annotate.people_file import ROLES

    counts = [(role, sum(each.user.role == role for each in added)) for role in ROLES]
    return ", ".join(f"{n} {role}{'s' if n > 1 else ''}" for role, n in counts if n)


def _people(names: tuple[str, ...], file: Path | None) -> list[Person]:
    """Everybody named on the command line and in the file, each once; bad lines are shown."""
    from annotate.accounts import check_names
    from annotate.errors import InputError
    from annotate.people_file import Person, read_people

    check_names(names)
    people = {name: Person(name) for name in names}
    if file is not None:
        found, bad = read_people(file)
        for line in bad:
            click.echo(f"{file}:{line.line}: {line.reason}", err=True)
        if not found and not people:
            raise InputError("no line can be used", where=str(file))
        people |= {person.name: person for person in found}
    if not people:
        raise InputError("nobody is named", remedy="`handloom users add NAME...` or --file FILE")
    return list(people.values())


@users.command("list")
@click.option("--workspace", metavar="NAME", help="Only its members.")
def show(workspace: str | None) -> None:
    """List the accounts: role, workspaces, responses on the server, who is paused.

    And whose password is known.
    """
    from annotate.accounts import accounts
    from annotate.passwords import users_file
    from annotate.server import connect

    project = here()
    known = os.path.relpath(users_file(project))
    with connect(project) as server:
        found = accounts(project, server, workspace)
    width = max([20, *(len(account.name) for account in found)])
    for account in found:
        where = f"password in {known}" if account.password else ""
        if account.paused:
            where = f"paused since {account.paused[:10]}  {where}"
        counted = f"{account.responses:,} responses"
        member = ", ".join(account.workspaces) or "-"
        line = f"{account.name:<{width}}  {account.role:<10}{counted:>16}  {member:<20}  {where}"
        click.echo(line.rstrip())
    if not found:
        click.echo(f"nobody is a member of {workspace}")


@users.command("pause")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def pause(names: tuple[str, ...]) -> None:
    """Show NAME no items until `resume`; account, password and responses stay."""
    from annotate.pausing import pause_users
    from annotate.server import connect

    with connect(here()) as server:
        for name, workspaces in pause_users(here(), server, names).items():
            left = f"left {', '.join(workspaces)}" if workspaces else "was a member of nothing"
            click.echo(f"{name}: paused; {left}")
    click.echo(f"  next handloom users resume {' '.join(names)}, when they may go on")


@users.command("resume")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def resume(names: tuple[str, ...]) -> None:
    """Show items to NAME again, in the workspaces that they were paused in."""
    from annotate.pausing import resume_users
    from annotate.server import connect

    with connect(here()) as server:
        for back in resume_users(here(), server, names):
            joined = f"in {', '.join(back.workspaces)}" if back.workspaces else "in no workspace"
            line = f"{back.name}: back {joined}"
            click.echo(line + (f"; {', '.join(back.gone)} is no more" if back.gone else ""))
    click.echo("  next handloom users list")


@users.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--lose-others",
    is_flag=True,
    help="Also if they answered data sets that this project did not push: those answers are lost.",
)
def remove(names: tuple[str, ...], yes: bool, lose_others: bool) -> None:
    """Delete the account of each NAME; their responses stay in the ledger.

    Argilla deletes the responses with the account, so all of them are written into the ledger
    first. `handloom pull` goes on counting them.
    """
    from annotate.removal import remove_users
    from annotate.server import connect

    project = here()
    with connect(project) as server:
        if not yes:
            click.confirm(f"delete {', '.join(names)} from {server.url}?", abort=True)
        for gone in remove_users(project, server, names, lose_others=lose_others):
            line = f"{gone.name}: removed; the ledger keeps {gone.kept:,} responses"
            click.echo(line + (f", {gone.lost:,} to other data sets are lost" if gone.lost else ""))
    click.echo(f"  ledger {os.path.relpath(project.state_dir / 'ledger.jsonl')}")
    click.echo(
        "  handloom restore makes the account again, with the responses that the ledger keeps;"
    )
    click.echo("  not if they are erased: handloom ledger erase --annotator NAME --reason ...")


@users.command("password")
@name_argument
def password(name: str) -> None:
    """Make up a new password for NAME; the old one no longer logs in."""
    from annotate.accounts import renew_password
    from annotate.passwords import users_file
    from annotate.server import connect

    project = here()
    with connect(project) as server:
        renew_password(project, server, name)
    click.echo(f"{name}: new password in {os.path.relpath(users_file(project))}")


@users.command("key")
@name_argument
@click.option("--renew", is_flag=True, help="A new one; the old one is refused from now on.")
def key(name: str, renew: bool) -> None:
    """Print the API key of NAME, which answers in their name: hand it to nobody else."""
    from annotate.accounts import find_user, renew_key
    from annotate.server import connect

    with connect(here()) as server:
        click.echo(renew_key(server, name) if renew else find_user(server, name).api_key)
