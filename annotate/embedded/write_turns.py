"""One writer at a time, in the order of asking, where Argilla's database is SQLite.

SQLite lets one transaction write. Who finds another writing tries again, at first after
milliseconds and later every tenth of a second, until the time-out of the connection: so newcomers
overtake whoever waits already. With fifteen people answering as fast as a busy server takes it,
some waited all 30 seconds and were refused ("database is locked"). Here a session waits before its
first write until those who asked earlier are through, without asking SQLite at all.

A turn ends when the session gives its connection back, which it does on commit, rollback and close.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

LONGEST_WAIT = 30.0
"""Seconds; then SQLite is asked all the same, so that a turn that never ends stops nobody."""

# The driver begins a transaction at these too.
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_HAS_TURN = "handloom_has_write_turn"

_LOG = logging.getLogger(__name__)


def install(engine: AsyncEngine) -> None:
    """Let the engine's sessions write in turn from now on; nothing to do where it is not SQLite.

    To be called once, in the event loop that uses the engine.
    """
    if engine.dialect.name != "sqlite":
        return
    turn = asyncio.Lock()  # whoever waits gets it in the order of asking

    def before_cursor_execute(
        connection: sa.Connection, _cursor: object, statement: str, *_: Any
    ) -> None:
        held = connection.info  # of the connection to the database, whoever uses it
        if _WRITES.match(statement) and _HAS_TURN not in held:
            held[_HAS_TURN] = await_only(_taken(turn))

    def give_back(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        if entry.info.pop(_HAS_TURN, False):
            turn.release()

    event.listen(engine.sync_engine, "before_cursor_execute", before_cursor_execute)
    event.listen(engine.sync_engine.pool, "checkin", give_back)


async def _taken(turn: asyncio.Lock) -> bool:
    """Wait for the turn; False if it does not come."""
    try:
        await asyncio.wait_for(turn.acquire(), LONGEST_WAIT)
    except TimeoutError:
        _LOG.warning("a session waited %.0f seconds for its turn to write", LONGEST_WAIT)
        return False
    return True
