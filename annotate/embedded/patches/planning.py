"""What SQLite is told of Argilla's tables, so that it picks the index that narrows.

Argilla indexes columns with two or three values (a response's status) beside ids, and never lets
SQLite count. It then takes all indexes to be alike and looks for the submitted responses of one
record among all submitted responses: 8 ms a look at 7,000 of them and in proportion to their
number, in every answer. PostgreSQL counts by itself.

Counting (ANALYZE) at start would miss what comes later, as all of it does on a fresh server. So
the statistics are those of a large data set, whatever there is; SQLite's documentation provides for
such ones, written by hand. With few rows any plan is fast.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

ROWS = 1_000_000
"""Of each of these tables, as SQLite is told."""

FEW, ONE = 3, 1
_ROWS_A_VALUE = {
    "status": ROWS // 3,
    "type": ROWS // 2,
    "dataset_id": ROWS // 10,
    "user_id": ROWS // 30,
    "question_id": ROWS // 30,
    "vector_settings_id": ROWS // 10,
    "record_id": FEW,
    "external_id": FEW,
    "id": ONE,
}
"""Of each indexed column: rows that share a value."""

TABLES = ("records", "responses", "suggestions", "vectors")


async def prepare(engine: AsyncEngine) -> None:
    """Write the statistics; connections that are open read them when they are opened again."""
    if engine.dialect.name != "sqlite":
        return
    async with engine.begin() as connection:
        # Makes the table of statistics, which cannot be made by hand; of an empty table no row.
        await connection.execute(text("ANALYZE alembic_version"))
        for table in TABLES:
            await connection.execute(
                text("DELETE FROM sqlite_stat1 WHERE tbl = :table"), {"table": table}
            )
            rows = [
                {"table": table, "name": name, "stat": _statistics(columns)}
                for name, columns in (await _indexes(connection, table)).items()
            ]
            if rows:
                insert = "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:table, :name, :stat)"
                await connection.execute(text(insert), rows)
    await engine.dispose()


async def _indexes(connection: AsyncConnection, table: str) -> dict[str, list[str]]:
    """Name → columns of the indexes whose first column is known here."""
    found: dict[str, list[str]] = {}
    query = (
        "SELECT l.name, i.name FROM pragma_index_list(:table) l, pragma_index_info(l.name) i"
        " ORDER BY l.name, i.seqno"
    )
    for name, column in await connection.execute(text(query), {"table": table}):
        found.setdefault(name, []).append(column)
    return {name: columns for name, columns in found.items() if columns[0] in _ROWS_A_VALUE}


def _statistics(columns: list[str]) -> str:
    """SQLite's own form: rows, then rows that share the first column, the first two, …"""
    # Every index over several columns ends in what makes it (all but) unique.
    return " ".join(map(str, [ROWS, _ROWS_A_VALUE[columns[0]], *(ONE for _ in columns[1:])]))
