"""The ledger against the server: what only one of them holds, and where they disagree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from annotate.accounts import workspaces_of
from annotate.batches import pushed_batches
from annotate.errors import InputError
from annotate.front_matter import nearest
from annotate.ledger import Entry, Key, Ledger
from annotate.pull import as_entry
from annotate.runs import Project
from annotate.server import Server

Kind = Literal["missing on the server", "missing in the ledger", "different", "removed"]


@dataclass(frozen=True)
class Difference:
    """One response on which ledger and server do not agree."""

    kind: Kind
    """"removed" is missing on the server because `handloom users remove` took the account."""
    batch: str
    item_id: str
    annotator: str
    ledger: str | None
    """The status in the ledger; None where it is not there."""
    server: str | None
    workspace: str
    """Where the batch is, or should be."""


@dataclass(frozen=True)
class Compared:
    """What was looked at in one workspace."""

    workspace: str
    batches: int
    responses: int
    """That count in the ledger or are on the server, each once."""


@dataclass(frozen=True)
class Comparison:
    """The ledger against all workspaces that it or a push knows of."""

    workspaces: list[Compared]
    differences: list[Difference]
    removed: list[Difference]
    """Of kind "removed": nothing is amiss."""


def compare(project: Project, server: Server, batches: Collection[str] = ()) -> Comparison:
    """Compare what counts in the ledger with what the server holds now, in every workspace.

    What its author withdrew and the server does not hold is no difference. Memory in proportion to
    the responses and to their versions in the ledger.

    Args:
        batches: if none are named, all that were pushed, that the ledger knows, or that are in the
            server's own workspace.

    Raises:
        InputError: a batch that nobody knows is named.
        ServerError: Argilla cannot be reached.
        ProjectError: the ledger is damaged.
    """
    ledger = Ledger.of(project)
    server.flush()
    places = _places(project, ledger, server)
    for name in batches:
        if name not in places:
            remedy = nearest(name, list(places)) if places else "`handloom push` makes batches"
            raise InputError("no such batch", where=name, remedy=remedy)
    if batches:
        places = {name: places[name] for name in batches}
    said = {
        key: entry for key, entry in ledger.standing(places).items() if entry.status != "deleted"
    }
    held = {entry.key: entry for entry in _held(server, places)}
    found = list(_differ(said, held, places, _removed(ledger)))
    return Comparison(
        _counted(places, said.keys() | held.keys()),
        [each for each in found if each.kind != "removed"],
        [each for each in found if each.kind == "removed"],
    )


def _places(project: Project, ledger: Ledger, server: Server) -> dict[str, str]:
    """Batch → its workspace: as pushed last, else as the ledger says, else the server's own."""
    found = {each.name: each.workspace or server.workspace for each in pushed_batches(project)}
    said = {entry.batch: entry.workspace for entry in ledger}  # the first format said no workspace
    for name, workspace in said.items():
        found.setdefault(name, workspace or server.workspace)
    if server.workspace in workspaces_of(server):
        for batch in server.batches():
            found.setdefault(batch.name, server.workspace)
    return found


def _removed(ledger: Ledger) -> set[Key]:
    """Responses whose accounts were removed on purpose and that were not put back since."""
    since: dict[Key, datetime] = {}
    for entry in ledger:
        if entry.cause == "removed":
            since[entry.key] = entry.updated_at
        elif not entry.is_loss and entry.key in since and entry.updated_at > since[entry.key]:
            del since[entry.key]
    return set(since)


def _held(server: Server, places: Mapping[str, str]) -> Iterator[Entry]:
    """Every response on the server to these batches; none of what is not there."""
    for workspace in sorted(set(places.values()) & workspaces_of(server).keys()):
        with server.in_workspace(workspace) as there:
            for batch in there.batches():
                if batch.ready and places.get(batch.name) == workspace:
                    for response in there.responses(batch):
                        yield as_entry(response, batch.name, "", workspace)


def _counted(places: Mapping[str, str], keys: Iterable[Key]) -> list[Compared]:
    responses = dict.fromkeys(places.values(), 0)
    for batch, _, _ in keys:
        responses[places[batch]] += 1
    names = list(places.values())
    return [Compared(each, names.count(each), responses[each]) for each in sorted(responses)]


def _differ(
    said: Mapping[Key, Entry],
    held: Mapping[Key, Entry],
    places: Mapping[str, str],
    removed: Set[Key],
) -> Iterator[Difference]:
    for key in sorted(said.keys() | held.keys()):
        ours, theirs = said.get(key), held.get(key)
        if theirs is None:
            # A record that no push made is passed over by `Server.responses`.
            kind: Kind = "removed" if key in removed else "missing on the server"
            if ours is None or ours.item_id.startswith("record-"):
                continue
        elif ours is None:
            kind = "missing in the ledger"
        elif theirs.restates(ours):
            continue
        else:
            kind = "different"
        ledger, server = (entry.status if entry else None for entry in (ours, theirs))
        yield Difference(kind, *key, ledger=ledger, server=server, workspace=places[key[0]])
