"""Whether a search index has all that Argilla's database has: counts, and sums over the times.

Every write of Argilla sets a row's `updated_at`, to the microsecond. So a row that the index lacks,
has too many, or has as it was before, changes a count or a sum of microseconds. It takes one pass
over the data set's rows.
"""

from typing import Any

from argilla_server.models import Dataset, Record, Response, Suggestion, Vector
from sqlalchemy import BigInteger, ColumnElement, Integer, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from annotate.embedded.documents import dataset_keys
from annotate.embedded.index import DatasetIndex

Fingerprint = tuple[int, ...]

SECOND = 1_000_000

_PARTS = {
    "records": "SELECT count(*), total(updated_at % 1000000) FROM record",
    "completed records": "SELECT count(*), 0 FROM record WHERE status = 'completed'",
    "responses": "SELECT count(*), total(updated_at % 1000000) FROM response",
    "suggestions": "SELECT count(*), total(value % 1000000) FROM value WHERE key IN"
    " (SELECT n FROM key WHERE name GLOB 'suggestions.*.at')",
    "vectors": "SELECT count(*), total(updated_at % 1000000) FROM vector",
}


async def outdated(db: AsyncSession, dataset: Dataset, index: DatasetIndex) -> str:
    """What an index lacks or has too much of, in a word or two; empty if nothing.

    The data set's properties and questions must be loaded.

    Raises:
        sqlite3.DatabaseError: the index is damaged.
    """
    kinds = {name: kind for name, (_, kind) in index.keys().items()}
    if kinds != dataset_keys(dataset):
        return "its properties"
    wanted = await _of_database(db, dataset)
    for name, sql in _PARTS.items():
        count, total = index.read(sql)[0]
        if (count, int(total)) != wanted[name]:
            return f"its {name}"
    return ""


async def _of_database(db: AsyncSession, dataset: Dataset) -> dict[str, tuple[int, int]]:
    """What `_PARTS` give when nothing is missing from the index."""
    own = Record.dataset_id == dataset.id
    found = {
        "records": await _counted(db, Record, own),
        "completed records": (
            (await _counted(db, Record, own, Record.status == "completed"))[0],
            0,
        ),
    }
    for name, model in (("responses", Response), ("suggestions", Suggestion), ("vectors", Vector)):
        found[name] = await _counted(db, model, own, model.record_id == Record.id)
    return found


async def _counted(
    db: AsyncSession, model: Any, *conditions: ColumnElement[bool]
) -> tuple[int, int]:
    micro = _microseconds(model.updated_at, db.get_bind().dialect.name)
    query = select(func.count(), func.coalesce(func.sum(micro), 0)).select_from(model)
    count, total = (await db.execute(query.where(*conditions))).one()
    return count, int(total)


def _microseconds(time: Any, dialect: str) -> ColumnElement[int]:
    """The part of a time below one second; SQLite keeps times as 2026-01-31 12:00:00.123456."""
    if dialect == "sqlite":
        return cast(func.substr(time, 21), Integer)
    return cast(extract("microseconds", time), BigInteger) % SECOND
