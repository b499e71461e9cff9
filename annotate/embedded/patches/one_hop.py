"""One hop to the database's thread a statement, where SQLAlchemy's aiosqlite driver makes four.

It asks the thread for a cursor, has it execute, has it fetch and has it close, and waits for the
answer each time: forty statements of one annotator's answer are 160 waits, a third of their time.
"""

from collections import deque
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_cursor

from annotate.embedded.patches.replacement import Patch, Replacement, by

Done = tuple[Any, list[Any], int | None, int]

_original_execute = AsyncAdapt_aiosqlite_cursor.execute


def execute(self: Any, operation: Any, parameters: Any = None) -> Any:
    """What the driver's own does, in one hop; a server-side cursor stays open and is left to it."""
    if self.server_side:
        return _original_execute(self, operation, parameters)
    arguments = (operation,) if parameters is None else (operation, parameters)
    _hop(self, "execute", arguments)
    return None


def executemany(self: Any, operation: Any, seq_of_parameters: Any) -> Any:
    """What the driver's own does, in one hop."""
    _hop(self, "executemany", (operation, seq_of_parameters))
    self.description = None


def _hop(cursor: Any, method: str, arguments: tuple[Any, ...]) -> None:
    connection = cursor._connection
    try:
        done: Done = cursor.await_(connection._execute(_whole, connection, method, arguments))
    except Exception as error:  # noqa: BLE001 - the driver's own way: it raises what it makes of it
        cursor._adapt_connection._handle_exception(error)
        return
    cursor.description, rows, cursor.lastrowid, cursor.rowcount = done
    if cursor.description:
        cursor._rows = deque(rows)
        cursor.lastrowid = cursor.rowcount = -1


def _whole(connection: Any, method: str, arguments: tuple[Any, ...]) -> Done:
    """In the database's thread: a statement from cursor to rows."""
    cursor = connection._conn.cursor()
    try:
        getattr(cursor, method)(*arguments)
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, rows, cursor.lastrowid, cursor.rowcount
    finally:
        cursor.close()


PATCH = Patch(
    Replacement(AsyncAdapt_aiosqlite_cursor, "execute", by(execute)),
    Replacement(AsyncAdapt_aiosqlite_cursor, "executemany", by(executemany)),
)
