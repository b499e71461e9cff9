"""The ledger → Argilla: every data set and every person's responses, where they are missing.

A restore first writes down what the server holds; then what stands in the ledger and is missing on
the server is put there under each person's name (`annotate.restore_batch`). It deletes nothing. It
may be killed anywhere and given again, while people work.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from annotate.accounts import add_people, list_users
from annotate.batches import on_server, pushed_batches
from annotate.errors import ProjectError
from annotate.ledger import Ledger
from annotate.passwords import known_passwords
from annotate.people_file import Person
from annotate.restore_batch import BatchOutcome, restore_batch
from annotate.runs import Project
from annotate.server import Server


@dataclass
class Restored:
    """What a restore did."""

    batches: list[BatchOutcome] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    """People whose accounts were made."""
    strays: dict[str, int] = field(default_factory=dict)
    """Batch → responses in the ledger to items that no finished push of this project has."""

    @property
    def changed(self) -> bool:
        """Whether anything was put back."""
        return bool(self.accounts) or any(batch.changed for batch in self.batches)

    @property
    def complete(self) -> bool:
        """Whether all that the ledger holds is on the server now."""
        whole = not any(batch.missing or batch.problem for batch in self.batches)
        return whole and not self.strays


def restore(
    project: Project, server: Server, done: Callable[[BatchOutcome], None] | None = None
) -> Restored:
    """Put back on the server what the ledger holds and the server lacks.

    Accounts are made for people who answered and have none, with the password this project knows
    of them, else a new one. Reads the ledger once for each batch and keeps the responses of one
    batch in memory at a time.

    Args:
        done: called with each batch when it is dealt with.

    Raises:
        ServerError: Argilla cannot be reached.
        ProjectError: the ledger is damaged or was changed by hand, or another restore is at work.
        ResourceError: the disk is full.
    """
    with _alone(project):
        result = Restored()
        ledger = Ledger.of(project)
        ledger.require_intact()  # false answers would take the place of true ones
        server.flush()
        before = {user.name for user in list_users(server)}
        known: dict[str, set[str]] = {}
        for pushed in pushed_batches(project):
            there, batch = on_server(server, pushed)
            with there:
                known[pushed.name] = pushed.item_ids()
                outcome = restore_batch(project, there, batch, pushed, ledger)
            result.batches.append(outcome)
            if done:
                done(outcome)
        present = {user.name for user in list_users(server)}
        waiting = sorted(known_passwords(project).keys() - present)  # who have answered nothing
        add_people(project, server, [Person(name) for name in waiting])
        result.accounts = sorted({user.name for user in list_users(server)} - before)
        result.strays = _strays(ledger, known)
        return result


@contextlib.contextmanager
def _alone(project: Project) -> Iterator[None]:
    with (project.state_dir / "restore.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError("another restore is at work", remedy="Wait for it to end") from None
        yield


def _strays(ledger: Ledger, known: Mapping[str, set[str]]) -> dict[str, int]:
    """Batch → responses to items that no push has."""
    keys = {
        entry.key
        for entry in ledger
        if entry.batch not in known or entry.item_id not in known[entry.batch]
    }
    found: dict[str, int] = {}
    for batch, _, _ in sorted(keys):
        found[batch] = found.get(batch, 0) + 1
    return found
