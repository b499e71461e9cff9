"""Records and responses put back on a server, so that nobody's newer answer is lost.

Records that are missing are made together with their responses, in one transaction and one try.
Responses of people who cannot answer at this moment, being no members of the workspace, go there
many in a request. A member's response is created alone, which Argilla refuses if they have answered
meanwhile; where the server holds an older version, that is looked at again just before it is
replaced. Argilla takes responses from more people than the overlap, completed records included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from annotate.errors import ServerError
from annotate.ledger import Entry, Key
from annotate.publishing import Shown
from annotate.server import RECORDS_A_REQUEST, Server
from annotate.server_types import Batch, Placed, Record, Response, User
from annotate.transport import AGAIN, StatusError

_GONE, _TAKEN, _REFUSED = 404, 409, 422


@dataclass
class Writer:
    """Puts back what is lacking of one batch, and counts it."""

    server: Server
    """In the batch's workspace, with an owner's key."""
    users: Mapping[str, User]
    """The accounts of all whose responses are lacking."""
    outsiders: set[str]
    """Those who are no members of the workspace."""
    held: Mapping[Key, Response]
    """What the server holds."""
    advance: Callable[[int], None]
    records: int = 0
    restored: int = 0
    updated: int = 0
    refused: list[str] = field(default_factory=list)

    def put_back(
        self,
        shown: Sequence[Shown],
        name: str,
        batch: Batch | None,
        absent: set[str],
        lacking: Iterable[Entry],
    ) -> tuple[Batch, list[Entry]]:
        """Make the data set and the absent records, with their responses.

        Returns:
            The data set, and the responses that are still to be put back.
        """
        answers: dict[str, list[Entry]] = {}
        rest = []
        for entry in lacking:
            if entry.item_id in absent:
                answers.setdefault(entry.item_id, []).append(entry)
            else:
                rest.append(entry)
        left = set(absent)
        for each in shown:
            batch = batch or each.ensure_batch(self.server, name)
            records = (r for r in each.records(self.server, batch) if r.item_id in left)
            while chunk := list(islice(records, RECORDS_A_REQUEST)):
                rest += self._make(batch, chunk, answers)
                left -= {record.item_id for record in chunk}
        if batch is None:
            raise ValueError("a pushed batch has a push")
        return batch, rest

    def _make(
        self, batch: Batch, records: Sequence[Record], answers: Mapping[str, Sequence[Entry]]
    ) -> list[Entry]:
        """Make records with their responses; all of the responses come back if one is refused.

        So they do where it is not known whether Argilla took them: then each is given by itself.
        """
        given = [entry for record in records for entry in answers.get(record.item_id, ())]
        plain = [
            {"external_id": r.item_id, "fields": dict(r.fields), "metadata": dict(r.metadata)}
            for r in records
        ]
        full = [
            {**item, "responses": [self._response(e) for e in answers.get(record.item_id, ())]}
            for item, record in zip(plain, records, strict=True)
        ]
        refused = []
        if self._is_taken(batch, full):
            self.restored += len(given)
        else:
            self._upsert(batch, plain)
            refused = given
        self.records += len(records)
        self.advance(len(records) + len(given) - len(refused))
        return refused

    def answer(self, batch: Batch, entries: Iterable[Entry], placed: Mapping[str, Placed]) -> None:
        """Put responses to records that are there, each under its author's name."""
        by_author: dict[str, list[Entry]] = {}
        for entry in entries:
            by_author.setdefault(entry.annotator, []).append(entry)
        for name, theirs in by_author.items():
            if name in self.outsiders:
                for start in range(0, len(theirs), RECORDS_A_REQUEST):
                    self._give(batch, theirs[start : start + RECORDS_A_REQUEST])
                continue
            with self.server.as_user(self.users[name]) as desk:
                for entry in theirs:
                    self._say(desk, placed[entry.item_id].record_id, entry)

    def _give(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """Put responses of one person, who cannot answer meanwhile, to different records."""
        items = [{"external_id": e.item_id, "responses": [self._response(e)]} for e in entries]
        reason = self._refusal(batch, items)
        if not reason:
            older = sum(entry.key in self.held for entry in entries)
            self.updated += older
            self.restored += len(entries) - older
            self.advance(len(entries))
        elif len(entries) > 1:
            for entry in entries:
                self._give(batch, [entry])
        else:
            self._refuse(entries[0], reason)

    def _say(self, desk: Server, record_id: str, entry: Entry) -> None:
        try:
            if (older := self.held.get(entry.key)) is None:
                self._create(desk, record_id, entry)
            else:
                self._update(desk, record_id, entry, older)
            self.advance(1)
        except StatusError as error:
            if error.status not in (_GONE, _REFUSED):
                raise
            self._refuse(entry, error.what)

    def _create(self, desk: Server, record_id: str, entry: Entry) -> None:
        try:
            desk.request("POST", f"records/{record_id}/responses", json=_content(entry))
            self.restored += 1
        except StatusError as error:
            if error.status != _TAKEN:  # answered meanwhile, or by this request's first try
                raise

    def _update(self, desk: Server, record_id: str, entry: Entry, older: Response) -> None:
        record = self.server.request("GET", f"records/{record_id}")
        mine = self.users[entry.annotator].id
        (now,) = [r for r in record["responses"] or () if r["user_id"] == mine] or [None]
        if now is None or Response.read(entry.item_id, entry.annotator, now) != older:
            return  # changed meanwhile
        desk.request("PUT", f"responses/{now['id']}", json=_content(entry))
        self.updated += 1

    def _refuse(self, entry: Entry, reason: str) -> None:
        self.refused.append(f"{entry.item_id} of {entry.annotator}: {reason}")
        self.advance(1)

    def _is_taken(self, batch: Batch, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether Argilla has taken new records with responses, for certain; tried only once.

        If the first try was taken and its answer lost, a second one would overwrite what members
        have said to the new records meanwhile.
        """
        try:
            self._upsert(batch, items, attempts=1)
        except StatusError as error:
            if error.status != _REFUSED and error.status not in AGAIN:
                raise
            return False
        except ServerError:  # no answer; if none comes to what follows either, that says so
            return False
        return True

    def _refusal(self, batch: Batch, items: Sequence[Mapping[str, Any]]) -> str:
        """Why Argilla did not take records with responses; empty if it took all of them."""
        try:
            self._upsert(batch, items)
        except StatusError as error:
            if error.status != _REFUSED:
                raise
            return error.what
        return ""

    def _upsert(
        self, batch: Batch, items: Sequence[Mapping[str, Any]], attempts: int | None = None
    ) -> None:
        path = f"datasets/{batch.id}/records/bulk"
        self.server.request("PUT", path, json={"items": items}, attempts=attempts)

    def _response(self, entry: Entry) -> dict[str, Any]:
        return {"user_id": self.users[entry.annotator].id, **_content(entry)}


def _content(entry: Entry) -> dict[str, Any]:
    return {"values": dict(entry.values), "status": entry.status}
