"""Columns as the database keeps them, and their JSON: no object in between.

SQLite keeps ids as 32 hex digits, times as text, JSON as text or, where it is a number, as one;
PostgreSQL's driver gives ids and times as objects and JSON, unless it is cast, decoded.
"""

from typing import Any

from sqlalchemy import String, Text, cast, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession


class AsKept:
    """Of one database: what to select for a column."""

    def __init__(self, db: AsyncSession) -> None:
        self._postgresql = db.get_bind().dialect.name == "postgresql"

    def plain(self, column: Any) -> Any:
        """An id or a time."""
        return column if self._postgresql else type_coerce(column, String)

    def word(self, column: Any) -> Any:
        """An enumeration; Argilla's have names that are their values."""
        return cast(column, Text) if self._postgresql else type_coerce(column, String)

    def json(self, column: Any) -> Any:
        """JSON; a cast would have SQLite round numbers."""
        return cast(column, Text) if self._postgresql else type_coerce(column, Text)


def id_text(kept: Any) -> str:
    """An id as Argilla writes it."""
    if isinstance(kept, str):
        return f"{kept[:8]}-{kept[8:12]}-{kept[12:16]}-{kept[16:20]}-{kept[20:]}"
    return str(kept)


def time_text(kept: Any) -> str:
    """A time as Argilla writes it: without microseconds where there are none."""
    if isinstance(kept, str):
        return kept.replace(" ", "T", 1).removesuffix(".000000")
    written: str = kept.isoformat()
    return written


def json_text(kept: Any) -> Any:
    """JSON, where nothing is null."""
    return "null" if kept is None else kept
