"""The history of every response: `handloom ledger`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from annotate.cli import annotate_commands, here, json_option

if TYPE_CHECKING:
    from annotate.ledger import Entry, Ledger
    from annotate.ledger_diff import Comparison, Difference
    from annotate.runs import Project

_SHOWN = 20
"""Lines of a kind, before the rest is only counted."""

_GONE = {
    "user": " with the account",
    "record": " with the record",
    "removed": " with the account, which was removed",
}


@annotate_commands.group("ledger")
def ledger() -> None:
    """Every version of every response: check, compare, show, erase, listen."""


@ledger.command("verify")
@click.option("--head", metavar="HASH", help="A head noted earlier, which must still be there.")
@json_option
def verify_ledger(head: str | None, as_json: bool) -> None:
    """Follow the chain of hashes from the first line to the last.

    Note the head somewhere else: with it, a later check also finds lines cut off the end and a
    history that was rewritten as a whole.
    """
    import json
    from dataclasses import asdict

    from annotate.ledger import Ledger

    project = here()
    ledger = Ledger.of(project)
    found = ledger.verdict(head)
    if lost := ledger.lost_by(project):
        found.problems.append(lost)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _shortened(found.problems)
        state = "gone" if lost else "damaged" if found.problems else "intact"
        erased = f", {found.erased} of them erased" if found.erased else ""
        click.echo(f"{os.path.relpath(ledger.path)}: {state}, {found.lines} lines{erased}")
        click.echo(f"  head {found.head}")
        if lost:
            click.echo("  next handloom restore --from BACKUP, which brings the history back;")
            click.echo("       without one, handloom pull begins anew with what Argilla still has")
        else:
            click.echo("  next handloom ledger diff")
    if found.problems:
        raise click.exceptions.Exit(1)


@ledger.command("diff")
@click.option("--batch", "batches", multiple=True, help="Only this data set; repeatable.")
@json_option
def diff_ledger(batches: tuple[str, ...], as_json: bool) -> None:
    """Compare what counts in the ledger with what the server holds; exit status 1 on a difference.

    In every workspace that a push or the ledger knows of.

    `handloom pull` writes down what is missing in the ledger, `handloom restore` puts back what is
    missing on the server.
    """
    import json
    from dataclasses import asdict

    from annotate.ledger_diff import compare
    from annotate.server import connect

    project = here()
    with connect(project) as server:
        done = compare(project, server, batches)
        where = server.url
    found = done.differences
    if as_json:
        click.echo(json.dumps([asdict(e) for e in (*found, *done.removed)], indent=2))
    elif found:
        _say_differences(found)
        click.echo(f"{len(found)} differences between the ledger and {where}")
        _say_workspaces(done)
    else:
        click.echo(f"the ledger and {where} agree")
        _say_workspaces(done)
        click.echo("  next handloom pull")
    if found:
        raise click.exceptions.Exit(1)


def _say_differences(found: list[Difference]) -> None:
    """Count by kind, batch and annotator; then the first ones, with what to do."""
    from collections import Counter

    counted = Counter((each.kind, each.batch, each.annotator) for each in found)
    for (kind, batch, annotator), number in sorted(counted.items()):
        click.echo(f"  {number:>6} {kind}: {batch}, {annotator}")
    _shortened(
        [
            f"{each.kind}: {each.batch} {each.item_id} {each.annotator}"
            + (f" (ledger {each.ledger}, server {each.server})" if each.kind == "different" else "")
            for each in found
        ]
    )


def _say_workspaces(done: Comparison) -> None:
    from collections import Counter

    differ = Counter(each.workspace for each in done.differences)
    gone = Counter(each.annotator for each in done.removed)
    for name, number in sorted(gone.items()):
        click.echo(f"  {name} was removed: {number:,} responses in the ledger only, on purpose")
    for seen in done.workspaces:
        of = f"{seen.responses:,} responses in {seen.batches} batch{'es' * (seen.batches != 1)}"
        click.echo(f"  workspace {seen.workspace}: {differ[seen.workspace]} of {of} differ")


@ledger.command("show")
@click.argument("item_id", metavar="ITEM")
@json_option
def show_item(item_id: str, as_json: bool) -> None:
    """Every version of every response to an item, oldest first."""
    import json

    from annotate.errors import ProjectError
    from annotate.ledger import Ledger

    found = Ledger.of(here()).history([item_id])
    if not found:
        raise ProjectError(
            "the ledger has nothing of this item",
            where=item_id,
            remedy="`handloom trace` finds an item's id from a pair or training row",
        )
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in found], indent=2))
        return
    for entry in found:
        gone = _GONE.get(entry.cause or "", "")
        spent = f", {entry.seconds:.0f} s" if entry.seconds is not None else ""
        time = entry.updated_at.strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{time}  {entry.annotator:<16} {entry.status}{gone}{spent}  ({entry.source})")
        for question, answer in sorted(entry.values.items()):
            said = json.dumps(answer.get("value"), ensure_ascii=False)
            click.echo(f"    {question}: {said}")


def _plain(entry: Entry) -> dict[str, object]:
    """An entry as JSON-able values."""
    from dataclasses import asdict

    times = ("inserted_at", "updated_at", "seen_at")
    shown = {name: time.isoformat() for name in times if (time := getattr(entry, name))}
    return {**asdict(entry), **shown}


@ledger.command("erase")
@click.option("--annotator", metavar="NAME", help="What this annotator said.")
@click.option("--item", "item_id", metavar="ID", help="What was said of this item.")
@click.option("--reason", required=True, help="Stays in the ledger: name nobody in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase_entries(annotator: str | None, item_id: str | None, reason: str, yes: bool) -> None:
    """Take what was said out of the ledger for good; the chain still verifies.

    Only the ledger is changed: runs, backups and the server's own database are not. What the server
    still holds, the next pull writes down again, so delete it there first.
    """
    from annotate.errors import InputError
    from annotate.ledger import Ledger

    if annotator is None and item_id is None:
        raise InputError("name an --annotator or an --item")
    project = here()
    ledger = Ledger.of(project)
    _require_erasable(ledger, annotator, item_id, reason)
    again = _comes_back(project, annotator) if annotator else ""
    if again:
        click.echo(again, err=True)
    of = " of ".join(name for name in (item_id, annotator) if name)
    if not yes:
        click.confirm(f"Erase everything {of} from the ledger for good?", abort=True)
    erased = ledger.erase(annotator=annotator, item_id=item_id, reason=reason)
    click.echo(f"{os.path.relpath(ledger.path)}: {erased} entries erased")
    kept = [run.id for run in project.all_runs() if run.step == "pull"]
    if erased and kept:
        click.echo(f"  runs keep their own copies: {', '.join(kept)} and what was made of them")
    if again:
        click.echo(f"  next handloom users remove {annotator}, then this command again")
    else:
        click.echo("  next handloom ledger verify")


def _require_erasable(
    ledger: Ledger, annotator: str | None, item_id: str | None, reason: str
) -> None:
    """Refuse where nothing is meant, or where the reason names who is to be forgotten."""
    import re

    from annotate.errors import InputError
    from annotate.front_matter import nearest

    names: set[str] = set()
    items: set[str] = set()
    meant: set[str] = set()
    for entry in ledger:
        names.add(entry.annotator)
        items.add(entry.item_id)
        if annotator in (None, entry.annotator) and item_id in (None, entry.item_id):
            meant.add(entry.annotator)
    for name in sorted(meant | ({annotator} if annotator else set())):
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason, re.IGNORECASE):
            raise InputError(
                f"the reason names {name}, and it stays in the ledger",
                where="--reason",
                remedy="Name nobody in it: a ticket's number will do",
            )
    if annotator is not None and annotator not in names:
        remedy = nearest(annotator, sorted(names)) if names else ""
        raise InputError("the ledger has nothing of this annotator", where=annotator, remedy=remedy)
    if item_id is not None and item_id not in items:
        close = nearest(item_id, sorted(items)) if items else ""
        remedy = close if close.startswith("Did") else "`handloom trace` finds an item's id"
        raise InputError("the ledger has nothing of this item", where=item_id, remedy=remedy)
    if not meant:
        raise InputError(
            f"the ledger has nothing of {annotator} about this item", where=item_id or ""
        )


def _comes_back(project: Project, annotator: str) -> str:
    """What to say where the next pull may write down again what is to be erased; else nothing."""
    from annotate.accounts import list_users
    from annotate.errors import ServerError
    from annotate.server import connect

    pulls = "the next pull writes down again what Argilla still holds of them"
    first = f"`handloom users remove {annotator}` first"
    try:
        with connect(project) as server:
            names = {user.name for user in list_users(server)}
    except ServerError:
        return f"{annotator}: Argilla cannot be asked; if they have an account, {pulls}: {first}"
    return f"{annotator} still has an account, and {pulls}: {first}" if annotator in names else ""


@ledger.command("listen")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=6910, show_default=True, help="0 takes any free one.")
@click.option("--public-url", help="Under which Argilla reaches this, if not by host and port.")
def listen(host: str, port: int, public_url: str | None) -> None:
    """Write down what another Argilla tells by webhook, until Ctrl-C.

    The embedded server needs no such thing. Each version is on the disk before it is acknowledged;
    of responses sent with records in bulk Argilla tells nothing, which `handloom pull` finds.
    """
    import signal
    import threading

    from annotate.ledger import Ledger
    from annotate.server import connect
    from annotate.webhook_receiver import Receiver, registered

    project = here()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with connect(project) as server:
        receiver = Receiver(Ledger.of(project), host, port)
        shown = f"[{host}]" if ":" in host else host
        url = (public_url or f"http://{shown}:{receiver.port}").rstrip("/") + "/"
        with receiver.serving(), registered(server, receiver, url):
            click.echo(f"{url}: listening to {server.url}, until Ctrl-C")
            click.echo(f"  in   {os.path.relpath(receiver.ledger.path)}")
            click.echo("  next handloom pull, which also finds what is not told")
            ended.wait()
    click.echo(
        f"{receiver.written} versions written, {receiver.known} known already, "
        f"{receiver.refused} requests refused"
    )


def _shortened(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        click.echo(line)
    if len(lines) > _SHOWN:
        click.echo(f"… and {len(lines) - _SHOWN} more")
