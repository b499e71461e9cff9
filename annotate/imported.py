"""Responses that Argilla's own import put under the wrong name.

`from_hub` gives the responses of people it does not know to whoever imports, one a record. They are
on the server and so in the ledger, where nothing is ever removed unasked. They are recognised: the
response came with its record, and somebody else had said just that of the item before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from annotate.accounts import find_user
from annotate.batches import on_server, pushed_batches
from annotate.ledger import Entry, Key, Ledger
from annotate.pull import write_down
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import Placed

WITH_ITS_RECORD = timedelta(seconds=10)
"""Nobody reads and answers a record so soon after it was put there, and in another's very words."""


def copies(stands: Mapping[Key, Entry], placed: Mapping[str, Placed]) -> dict[str, list[Entry]]:
    """Person → responses that came with their records and repeat somebody else's, said before.

    Args:
        stands: of one batch, `Ledger.standing`. What was restored counts from its first time on and
            is no copy.
        placed: item id → its record.
    """
    by_item: dict[str, list[Entry]] = {}
    for entry in stands.values():
        if entry.status != "deleted" and entry.item_id in placed:
            by_item.setdefault(entry.item_id, []).append(entry)
    found: dict[str, list[Entry]] = {}
    for item_id, entries in by_item.items():
        since = placed[item_id].since
        before = [entry for entry in entries if entry.updated_at < since]
        for entry in entries:
            came_along = since <= entry.updated_at <= since + WITH_ITS_RECORD
            if came_along and any(entry.restates(other) for other in before):
                found.setdefault(entry.annotator, []).append(entry)
    return found


def withdraw_copies(project: Project, server: Server, name: str) -> int:
    """Delete from the server what an import put under this name; how many responses these were.

    The ledger keeps them, and that they were withdrawn: they count no longer.

    Raises:
        InputError: there is no such account.
        ServerError: Argilla cannot be reached.
    """
    user = find_user(server, name)
    ledger = Ledger.of(project)
    ledger.require_intact()
    server.flush()
    gone = 0
    for pushed in pushed_batches(project):
        there, batch = on_server(server, pushed)
        with there:
            if batch is None:
                continue
            write_down(there, ledger, pushed.name, pushed.guideline)
            placed = there.placed(batch)
            mine = copies(ledger.standing([pushed.name]), placed).get(name, ())
            deleted = [e for e in mine if _delete(there, placed[e.item_id].record_id, user.id)]
            ledger.append(_withdrawn(entry) for entry in deleted)
            gone += len(deleted)
    return gone


def _delete(server: Server, record_id: str, user_id: str) -> bool:
    record = server.request("GET", f"records/{record_id}")
    ids = [r["id"] for r in record["responses"] or () if r["user_id"] == user_id]
    for response_id in ids:
        server.request("DELETE", f"responses/{response_id}")
    return bool(ids)


def _withdrawn(entry: Entry) -> Entry:
    """That the response was deleted: an Argilla without our outbox does not say so itself."""
    return Entry(
        batch=entry.batch,
        item_id=entry.item_id,
        annotator=entry.annotator,
        guideline=entry.guideline,
        status="deleted",
        values=entry.values,
        inserted_at=entry.inserted_at,
        updated_at=datetime.now(UTC),
        cause="response",
        workspace=entry.workspace,
    )
