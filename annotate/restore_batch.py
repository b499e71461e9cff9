"""One batch of a restore: what the ledger holds of it against what the server holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from annotate.accounts import add_people, list_users, make_accounts, members
from annotate.batches import PushedBatch
from annotate.errors import InputError, ProjectError
from annotate.imported import copies
from annotate.ledger import Entry, Key, Ledger
from annotate.people_file import Person
from annotate.progress import progress
from annotate.publishing import Shown
from annotate.pull import as_entry
from annotate.restore_writing import Writer
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import Batch, Placed, Response


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

    Reads the batch once if nothing is missing, else twice. Memory for its responses.

    Args:
        server: in the batch's workspace.
        batch: the data set; None if the server does not have it.

    Raises:
        ServerError: Argilla cannot be reached.
    """
    outcome = BatchOutcome(pushed.name, server.workspace)
    items = pushed.item_ids()
    held = _written_down(server, batch, pushed, ledger)
    stands = _standing(ledger, pushed, items)
    wanted = {key: entry for key, entry in stands.items() if entry.status != "deleted"}
    lacking = {key: e for key, e in wanted.items() if not _is_same(held.get(key), e)}
    placed = server.placed(batch) if batch else {}
    outcome.standing, outcome.present = len(wanted), len(wanted) - len(lacking)
    outcome.withdrawn = sum(key in held for key in stands.keys() - wanted.keys())
    absent = items - placed.keys()
    if absent or lacking:
        try:
            shown = [Shown.of_push(run) for run in pushed.runs] if absent else []
        except (ProjectError, InputError) as error:  # what the records were made from is gone
            outcome.problem, outcome.missing = str(error), len(lacking)
            return outcome
        batch, placed = _write(project, server, batch, shown, absent, lacking, held, outcome)
        held = _written_down(server, batch, pushed, ledger)
        stands = _standing(ledger, pushed, items)
        outcome.missing = sum(
            e.status != "deleted" and not _is_same(held.get(k), e) for k, e in stands.items()
        )
    _let_return(project, server, wanted)
    outcome.copies = {name: len(each) for name, each in copies(stands, placed).items()}
    return outcome


def _write(
    project: Project,
    server: Server,
    batch: Batch | None,
    shown: Sequence[Shown],
    absent: set[str],
    lacking: Mapping[Key, Entry],
    held: Mapping[Key, Response],
    outcome: BatchOutcome,
) -> tuple[Batch | None, dict[str, Placed]]:
    """Put back absent records and lacking responses; the data set and its records then."""
    authors = {entry.annotator for entry in lacking.values()}
    make_accounts(project, server, [Person(name) for name in sorted(authors)])
    users = {user.name: user for user in list_users(server)}
    outsiders = {name for name in authors if users[name].role != "owner"} - members(server)
    with progress(f"restore {outcome.name}", len(absent) + len(lacking)) as advance:
        writer = Writer(server, users, outsiders, held, advance)
        rest = list(lacking.values())
        if absent:
            batch, rest = writer.put_back(shown, outcome.name, batch, absent, rest)
        placed = server.placed(batch) if batch else {}
        if batch:
            writer.answer(batch, rest, placed)
    outcome.records, outcome.restored = writer.records, writer.restored
    outcome.updated, outcome.refused = writer.updated, writer.refused
    return batch, placed


def _let_return(project: Project, server: Server, wanted: Mapping[Key, Entry]) -> None:
    """Have people be members whose account is younger than what they said: it was made anew.

    Last of all, so that they cannot answer while their responses are put back.
    """
    began: dict[str, datetime] = {}
    for entry in wanted.values():
        began[entry.annotator] = min(entry.updated_at, began.get(entry.annotator, entry.updated_at))
    if not began:
        return
    inside = members(server)
    returning = [
        Person(user.name)
        for user in list_users(server)
        if user.role != "owner" and user.name not in inside
        if user.name in began and began[user.name] < user.since
    ]
    add_people(project, server, returning)


def _standing(ledger: Ledger, pushed: PushedBatch, items: set[str]) -> dict[Key, Entry]:
    found = ledger.standing([pushed.name])
    return {key: entry for key, entry in found.items() if entry.item_id in items}


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
