"""One version of one response, and how a line of the ledger says it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from annotate.ledger_chain import canonical

Source = Literal["outbox", "webhook", "pull"]
Cause = Literal["response", "user", "record", "removed"]
Key = tuple[str, str, str]

VERSION_BYTES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One response as it was from one time on."""

    batch: str
    item_id: str
    annotator: str
    guideline: str
    status: str
    """submitted, draft, discarded or deleted."""
    values: Mapping[str, Any]
    """As Argilla gave them: question → {"value": …}, the order shown not undone. Of a deletion,
    the last there were."""
    inserted_at: datetime
    updated_at: datetime
    """When this version began to be: Argilla's time, UTC; of a deletion, when that was."""
    seconds: float | None = None
    """Time spent, where it is known."""
    source: Source = "pull"
    cause: Cause | None = None
    """Of a deletion: withdrawn by its author, gone with the user or with the record, or with an
    account that this project removed."""
    workspace: str | None = None
    event: str | None = None
    """Id of the outbox's row."""
    seen_at: datetime | None = None
    seq: int | None = None
    """Both are given by the ledger when the entry is appended."""

    @property
    def key(self) -> Key:
        """Whose answer to what: batch, item and annotator."""
        return self.batch, self.item_id, self.annotator

    @property
    def is_loss(self) -> bool:
        """Whether the response went with its user or record, and not because of what it said."""
        return self.status == "deleted" and self.cause not in (None, "response")

    def restates(self, earlier: Entry) -> bool:
        """Whether this says what `earlier` said: submitted again, or restored to another server."""
        return self.status == earlier.status and self.values == earlier.values


def version(entry: Entry) -> bytes:
    """What is the same in two sightings of one version, and in nothing else."""
    time = entry.updated_at.astimezone(UTC).isoformat()
    text = canonical([*entry.key, entry.status, entry.values, time])
    return hashlib.sha256(text.encode()).digest()[:VERSION_BYTES]


def payload_of(entry: Entry, seen_at: datetime) -> dict[str, Any]:
    """What a line says of an entry; what is not known is left out."""
    said = {
        "seen_at": (entry.seen_at or seen_at).isoformat(),
        "batch": entry.batch,
        "item_id": entry.item_id,
        "annotator": entry.annotator,
        "guideline": entry.guideline,
        "status": entry.status,
        "values": entry.values,
        "inserted_at": entry.inserted_at.isoformat(),
        "updated_at": entry.updated_at.isoformat(),
        "source": entry.source,
        "version": version(entry).hex(),
    }
    for name in ("seconds", "cause", "workspace", "event"):
        if (value := getattr(entry, name)) is not None:
            said[name] = value
    return said


def entry_of(said: Mapping[str, Any], seq: int | None = None) -> Entry:
    """The entry that a payload says."""
    return Entry(
        batch=said["batch"],
        item_id=said["item_id"],
        annotator=said["annotator"],
        guideline=said["guideline"],
        status=said["status"],
        values=said["values"],
        inserted_at=datetime.fromisoformat(said["inserted_at"]),
        updated_at=datetime.fromisoformat(said["updated_at"]),
        seconds=said.get("seconds"),
        source=said.get("source", "pull"),  # the first format knew only pulls
        cause=said.get("cause"),
        workspace=said.get("workspace"),
        event=said.get("event"),
        seen_at=datetime.fromisoformat(said["seen_at"]),
        seq=seq,
    )
