"""The ledger against the server: what only one of them holds, and where they disagree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from annotate.ledger import Entry, Key, Ledger
from annotate.pull import as_entry
from annotate.server import Server

Kind = Literal["missing on the server", "missing in the ledger", "different"]
KINDS: tuple[Kind, ...] = ("missing on the server", "missing in the ledger", "different")


@dataclass(frozen=True)
class Difference:
    """One response on which ledger and server do not agree."""

    kind: Kind
    batch: str
    item_id: str
    annotator: str
    ledger: str | None
    """The status in the ledger; None where it is not there."""
    server: str | None


def compare(ledger: Ledger, server: Server, batches: Iterable[str] = ()) -> list[Difference]:
    """Compare what counts in the ledger with what the server's workspace holds now.

    What its author withdrew and the server does not hold is no difference. Memory in proportion to
    the responses and to their versions in the ledger.

    Args:
        batches: all that the workspace holds or the ledger knows of it, if none are named.

    Raises:
        ServerError: Argilla cannot be reached.
        ProjectError: the ledger is damaged.
    """
    server.flush()
    there = {batch.name: batch for batch in server.batches()}
    own = (None, server.workspace)  # the first format did not say the workspace
    known = {entry.batch for entry in ledger if entry.workspace in own}
    names = sorted(set(batches) or known | there.keys())
    said = {key: e for key, e in ledger.standing(names).items() if e.workspace in own}
    held: dict[Key, Entry] = {}
    for name in names:
        if name in there and there[name].ready:
            for response in server.responses(there[name]):
                entry = as_entry(response, name, "", server.workspace)
                held[entry.key] = entry
    return list(_differences(said, held))


def _differences(said: dict[Key, Entry], held: dict[Key, Entry]) -> Iterable[Difference]:
    for key in sorted(said.keys() | held.keys()):
        ours, theirs = said.get(key), held.get(key)
        if ours is not None and ours.status == "deleted":
            ours = None
        if theirs is None:
            # A record that no push made is passed over by `Server.responses`.
            kind: Kind = "missing on the server"
            if ours is None or ours.item_id.startswith("record-"):
                continue
        elif ours is None:
            kind = "missing in the ledger"
        elif theirs.restates(ours):
            continue
        else:
            kind = "different"
        status = [entry.status if entry else None for entry in (ours, theirs)]
        yield Difference(kind, *key, *status)
