"""One batch of a restore: its data set, records and responses.

Records that are missing are made together with their responses, in one transaction. A response to a
record that is there is created alone, which Argilla refuses if its author has answered meanwhile. A
response of which the server holds an older version is looked at again just before it is replaced.
Argilla takes responses from more people than the overlap, whether a record is completed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from annotate.accounts import add_people, list_users
from annotate.batches import PushedBatch
from annotate.errors import InputError, ProjectError
from annotate.imported import copies
from annotate.ledger import Entry, Key, Ledger
from annotate.people_file import Person
from annotate.progress import progress
from annotate.publishing import Shown
from annotate.pull import as_entry
from annotate.runs import Project
from annotate.server import RECORDS_A_REQUEST, Server
from annotate.server_types import Batch, Placed, Record, Response, User
from annotate.transport import StatusError

Advance = Callable[[int], None]
_TAKEN, _REFUSED = 409, 422


@dataclass
class BatchOutcome:
    """What a restore found and did to one batch."""

    name: str
    workspace: str
    standing: int = 0
    """Responses that the ledger holds, drafts and discards too."""
    present: int = 0
    """Those that were on the server."""
    records: int = 0
    """Records put back."""
    restored: int = 0
    """Responses put back."""
    updated: int = 0
    """Responses of which the server held an older version."""
    missing: int = 0
    """Responses still missing after all."""
    refused: list[str] = field(default_factory=list)
    """Item, person and Argilla's reason, of responses that it does not take."""
    withdrawn: int = 0
    """Responses on the server that their authors deleted later, as the ledger says."""
    copies: dict[str, int] = field(default_factory=dict)
    """Person → responses that an import put under their name; see `annotate.imported`."""
    problem: str = ""
    """Why the batch could not be dealt with."""

    @property
    def changed(self) -> bool:
        """Whether anything was put back."""
        return bool(self.records or self.restored or self.updated)


def restore_batch(
    project: Project, server: Server, batch: Batch | None, pushed: PushedBatch, ledger: Ledger
) -> BatchOutcome:
    """Put back what the ledger holds of a batch and the server lacks.

    Reads the batch once if nothing is missing, else twice. Memory for its responses. A response to
    a record that is there takes a request, any other a part of one.

    Args:
        server: in the batch's workspace.
        batch: the data set; None if the server does not have it.

    Raises:
        ServerError: Argilla cannot be reached.
    """
    outcome = BatchOutcome(pushed.name, server.workspace)
    held = _written_down(server, batch, pushed, ledger)
    items = pushed.item_ids()
    stands = {k: e for k, e in ledger.standing([pushed.name]).items() if e.item_id in items}
    wanted = {key: entry for key, entry in stands.items() if entry.status != "deleted"}
    lacking = {key: e for key, e in wanted.items() if not _is_same(held.get(key), e)}
    placed = server.placed(batch) if batch else {}
    outcome.standing, outcome.present = len(wanted), len(wanted) - len(lacking)
    outcome.withdrawn = sum(key in held for key in stands.keys() - wanted.keys())
    if absent := items - placed.keys():
        try:
            shown = [Shown.of_push(run) for run in pushed.runs]
        except (ProjectError, InputError) as error:  # what the records were made from is gone
            outcome.problem, outcome.missing = str(error), len(lacking)
            return outcome
    if absent or lacking:
        users = _users(project, server, {entry.annotator for entry in lacking.values()})
        with progress(f"restore {pushed.name}", len(absent) + len(lacking)) as advance:
            work = _Work(server, users, outcome, advance)
            rest: Iterable[Entry] = lacking.values()
            if absent:
                batch, rest = work.put_back(shown, pushed.name, batch, absent, lacking)
                placed = server.placed(batch)
            work.answer(rest, held, placed)
        held = _written_down(server, batch, pushed, ledger)
        stands = {k: e for k, e in ledger.standing([pushed.name]).items() if e.item_id in items}
        outcome.missing = sum(
            e.status != "deleted" and not _is_same(held.get(k), e) for k, e in stands.items()
        )
    outcome.copies = {name: len(each) for name, each in copies(stands, placed).items()}
    return outcome


def _written_down(
    server: Server, batch: Batch | None, pushed: PushedBatch, ledger: Ledger
) -> dict[Key, Response]:
    """What the server holds of the batch, after the ledger knows it."""
    if batch is None:
        return {}
    with progress(f"read {pushed.name}", server.count(batch)) as advance:
        held = list(server.responses(batch, advance))
    named = pushed.name, pushed.guideline, server.workspace
    ledger.append(as_entry(response, *named) for response in held)
    return {(pushed.name, response.item_id, response.annotator): response for response in held}


def _is_same(held: Response | None, entry: Entry) -> bool:
    """Whether the server's response says what the entry says."""
    return held is not None and (held.status, held.values) == (entry.status, entry.values)


def _users(project: Project, server: Server, names: set[str]) -> dict[str, User]:
    """The accounts of these people, made and members of the workspace where they were not."""
    owners = {user.name for user in list_users(server) if user.role == "owner"}  # need not join
    people = [Person(name) for name in sorted(names - owners)]
    add_people(project, server, people)
    return {user.name: user for user in list_users(server)}


@dataclass
class _Work:
    """Puts back what is lacking, and counts it."""

    server: Server
    users: Mapping[str, User]
    outcome: BatchOutcome
    advance: Advance

    def put_back(
        self,
        shown: Sequence[Shown],
        name: str,
        batch: Batch | None,
        absent: set[str],
        lacking: Mapping[Key, Entry],
    ) -> tuple[Batch, list[Entry]]:
        """Make the data set and the absent records, with their responses.

        Returns:
            The data set, and the responses that are still to be put back.
        """
        answers: dict[str, list[Entry]] = {}
        rest = []
        for entry in lacking.values():
            if entry.item_id in absent:
                answers.setdefault(entry.item_id, []).append(entry)
            else:
                rest.append(entry)
        for each in shown:
            batch = batch or each.ensure_batch(self.server, name)
            records = (r for r in each.records(self.server, batch) if r.item_id in absent)
            while chunk := list(islice(records, RECORDS_A_REQUEST)):
                rest += self._make(batch, chunk, answers)
                absent = absent - {record.item_id for record in chunk}
        if batch is None:
            raise ValueError("a pushed batch has a push")
        return batch, rest

    def _make(
        self, batch: Batch, records: Sequence[Record], answers: Mapping[str, Sequence[Entry]]
    ) -> list[Entry]:
        """Make records with their responses; all of the responses come back if one is refused."""
        given = [entry for record in records for entry in answers.get(record.item_id, ())]
        path = f"datasets/{batch.id}/records/bulk"
        plain = [
            {"external_id": r.item_id, "fields": dict(r.fields), "metadata": dict(r.metadata)}
            for r in records
        ]
        full = [
            {**item, "responses": [self._response(e) for e in answers.get(record.item_id, ())]}
            for item, record in zip(plain, records, strict=True)
        ]
        refused: list[Entry] = []
        try:
            self.server.request("PUT", path, json={"items": full})
            self.outcome.restored += len(given)
        except StatusError as error:
            if error.status != _REFUSED or not given:
                raise
            self.server.request("PUT", path, json={"items": plain})
            refused = given
        self.outcome.records += len(records)
        self.advance(len(records) + len(given) - len(refused))
        return refused

    def _response(self, entry: Entry) -> dict[str, Any]:
        return {"user_id": self.users[entry.annotator].id, **_content(entry)}

    def answer(
        self, entries: Iterable[Entry], held: Mapping[Key, Response], placed: Mapping[str, Placed]
    ) -> None:
        """Put responses to records that are there, each under its author's name."""
        by_author: dict[str, list[Entry]] = {}
        for entry in entries:
            by_author.setdefault(entry.annotator, []).append(entry)
        for name, theirs in by_author.items():
            with self.server.as_user(self.users[name]) as desk:
                for entry in theirs:
                    record_id = placed[entry.item_id].record_id
                    try:
                        if (older := held.get(entry.key)) is None:
                            self._create(desk, record_id, entry)
                        else:
                            self._update(desk, record_id, entry, older)
                    except StatusError as error:
                        if error.status not in (404, _REFUSED):
                            raise
                        self.outcome.refused.append(f"{entry.item_id} of {name}: {error.what}")
                    self.advance(1)

    def _create(self, desk: Server, record_id: str, entry: Entry) -> None:
        try:
            desk.request("POST", f"records/{record_id}/responses", json=_content(entry))
            self.outcome.restored += 1
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
        self.outcome.updated += 1


def _content(entry: Entry) -> dict[str, Any]:
    return {"values": dict(entry.values), "status": entry.status}
