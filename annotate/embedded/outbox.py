"""From the database's outbox into the ledger: nothing that an annotator submitted is lost.

The triggers of `outbox_sql` note every version of every response in its own transaction. Here a
task takes the notes over: it appends them to the ledger, and only when that is on the disk it
deletes exactly those rows. A crash between the two leaves rows that the ledger knows and passes
over. While the disk is full or the database locked the rows stay, and it tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Record, Response, User
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, object_session

from annotate.embedded.outbox_sql import CAUSES, OUTBOX, ensure, entry_of
from annotate.errors import ServerError
from annotate.ledger import Entry, Ledger

Seconds = Callable[[UUID, UUID, datetime], float | None]
"""User, record and time of the answer → seconds spent on it, where that is known."""

GATHER_SECONDS = 0.06
"""Between a commit and the look into the outbox, so that answers given together go together."""
POLL_SECONDS = 1.0
"""Without a commit in this process: another may write to the database too."""
LONGEST_PAUSE = 5.0
ROWS_AT_ONCE = 1000

_EQUIPPED: weakref.WeakSet[sa.Engine] = weakref.WeakSet()
"""Engines of databases that have an outbox."""

_LOG = logging.getLogger(__name__)


async def install(engine: AsyncEngine) -> bool:
    """Make the outbox in Argilla's database, after its migrations, and note what is there already.

    Returns:
        Whether that had to be done: the outbox was missing, or of another version.
    """
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Python's driver would begin only at the first INSERT, after the triggers are made.
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        made = await ensure(connection)
        await connection.commit()
    _EQUIPPED.add(engine.sync_engine)
    if not event.contains(Session, "before_flush", _mark_causes):
        event.listen(Session, "before_flush", _mark_causes)
        event.listen(User.username, "set", _keep_name)
    return made


def _keep_name(user: User, name: str, before: object, _: Any) -> None:
    """Refuse to rename somebody: the ledger knows people by their names, and would take what they
    say from then on, and what they have said, for two people's."""
    session = object_session(user)
    if not isinstance(before, str) or name == before or session is None:
        return
    if session.get_bind().engine in _EQUIPPED:
        raise UnprocessableEntityError(
            f"the username {before!r} stands in the ledger beside every answer and cannot be "
            "changed; first and last name can"
        )


def _mark_causes(session: Session, *_: Any) -> None:
    """Say in the database why, where the ORM deletes a response before the user or record it goes
    with: the trigger cannot know."""
    deleted = list(session.deleted)
    if not deleted or session.get_bind().engine not in _EQUIPPED:
        return
    users = {item.id for item in deleted if isinstance(item, User)}
    records = {item.id for item in deleted if isinstance(item, Record)}
    causes = [
        {"response_id": item.id, "cause": "user" if item.user_id in users else "record"}
        for item in deleted
        if isinstance(item, Response) and (item.user_id in users or item.record_id in records)
    ]
    if causes:
        session.connection().execute(sa.insert(CAUSES), causes)


class Drain:
    """Takes the outbox over into a ledger; one a process and database.

    Args:
        seconds: how long answers took.
        may: whether the database is this server's alone; another's outbox is for another ledger.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        ledger: Ledger,
        seconds: Seconds | None = None,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._seconds = seconds
        self._may = may
        self._turn = asyncio.Lock()

    async def drain(self) -> int:
        """Take over everything that is committed now; how many versions that was.

        Raises:
            ResourceError: the disk is full; what was not taken over stays in the outbox.
            ProjectError: the ledger is damaged; likewise.
            ServerError: it is not known whether another server works on the database; likewise.
            sqlalchemy.exc.DBAPIError: the database does not answer; likewise.
        """
        taken = 0
        async with self._turn:
            while rows := await self._rows():
                if not self._may():
                    raise ServerError("another server may be working on the database")
                entries = [self._entry(row) for row in rows]
                await asyncio.to_thread(self._ledger.append, entries)
                await self._delete([row.seq for row in rows])
                taken += len(rows)
                if len(rows) < ROWS_AT_ONCE:
                    break
        return taken

    async def forever(self) -> None:
        """Drain soon after each commit in this process, and every second, until cancelled."""
        loop, committed = asyncio.get_running_loop(), asyncio.Event()

        def after_commit(_: Session) -> None:
            if not committed.is_set():
                loop.call_soon_threadsafe(committed.set)  # jobs commit in threads of their own

        event.listen(Session, "after_commit", after_commit)
        try:
            complaint, pause = "", 0.0
            while True:
                await asyncio.sleep(max(GATHER_SECONDS, pause))
                committed.clear()
                complaint = await self._attempt(complaint)
                if complaint:
                    pause = min(LONGEST_PAUSE, max(0.1, 2 * pause))
                    continue
                pause = 0.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await committed.wait()
        finally:
            event.remove(Session, "after_commit", after_commit)

    async def _attempt(self, complaint: str) -> str:
        """Drain; what is in the way, logged once as long as it stays the same."""
        try:
            await self.drain()
        except Exception as error:  # noqa: BLE001 - logged; nothing is lost, and the next try may do
            new = reason(error)
            if new != complaint:
                _LOG.error("responses wait in the outbox: %s", new)
            return new
        if complaint:
            _LOG.warning("responses go from the outbox to the ledger again")
        return ""

    async def _rows(self) -> Sequence[sa.Row[Any]]:
        async with self._engine.connect() as connection:
            asked = sa.select(OUTBOX).order_by(OUTBOX.c.seq).limit(ROWS_AT_ONCE)
            return (await connection.execute(asked)).all()

    async def _delete(self, seqs: list[int]) -> None:
        """In a transaction that reads nothing before, so that SQLite can wait for its turn."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.seq.in_(seqs)))

    def _entry(self, row: sa.Row[Any]) -> Entry:
        at = row.updated_at.replace(tzinfo=UTC)
        spent = None
        if self._seconds is not None and row.op in ("insert", "update"):
            spent = self._seconds(row.user_id, row.record_id, at)
        return entry_of(row, spent)


def reason(error: Exception) -> str:
    """An error in one short line, without the statement that SQLAlchemy adds below."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@contextlib.asynccontextmanager
async def draining(
    engine: AsyncEngine,
    ledger: Ledger,
    seconds: Seconds | None = None,
    may: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Drain]:
    """Drain in the background, and a last time at the end; see `Drain`."""
    drain = Drain(engine, ledger, seconds, may)
    task = asyncio.create_task(drain.forever())
    try:
        yield drain
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await drain._attempt("")
