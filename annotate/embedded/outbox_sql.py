"""The outbox's tables and triggers: the database itself notes every version of every response.

A trigger writes in the transaction that changes the response, so a version is noted exactly when
it is kept: whoever writes, one at a time or by upsert in bulk, through Argilla or past it, and
when the response goes with its user, record, data set or workspace. By then the names of these are
gone; that is why `handloom_identities` keeps them for each response.

    handloom_outbox       versions on their way to the ledger, in the order written
    handloom_identities   what each response is called in the ledger
    handloom_causes       written by `outbox` just before the ORM deletes a response with its owner

A deletion has the database's time, but never one before the version it ends. An update that
changes neither answer nor status nor time is no version. An item without an id of ours (made past
`handloom push`) is called by Argilla's: "record-" and its hex digits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from annotate.ledger_entry import Entry

METADATA = sa.MetaData()

_NAMES = ("item_id", "batch", "workspace", "annotator", "guideline")
_PREFIX = "handloom_outbox_"

OUTBOX = sa.Table(
    "handloom_outbox",
    METADATA,
    # Never used again, so that deleting what was read cannot meet a row that came since.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("op", sa.Text, nullable=False),  # insert, update, delete, existing
    sa.Column("response_id", sa.Uuid, nullable=False),
    sa.Column("record_id", sa.Uuid, nullable=False),
    sa.Column("user_id", sa.Uuid, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in _NAMES),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("values", sa.JSON),
    sa.Column("inserted_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("cause", sa.Text),
    sqlite_autoincrement=True,
)
IDENTITIES = sa.Table(
    "handloom_identities",
    METADATA,
    sa.Column("response_id", sa.Uuid, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in _NAMES),
)
CAUSES = sa.Table(
    "handloom_causes",
    METADATA,
    sa.Column("response_id", sa.Uuid, primary_key=True),
    sa.Column("cause", sa.Text, nullable=False),
)


def entry_of(row: sa.Row[Any], seconds: float | None = None) -> Entry:
    """What a row of the outbox says, as the ledger says it."""
    return Entry(
        batch=row.batch,
        item_id=row.item_id,
        annotator=row.annotator,
        guideline=row.guideline,
        status=row.status,
        values=row._mapping["values"] or {},
        inserted_at=row.inserted_at.replace(tzinfo=UTC),
        updated_at=row.updated_at.replace(tzinfo=UTC),
        seconds=seconds,
        source="outbox",
        cause=row.cause,
        workspace=row.workspace,
        event=row.event,
    )


def waiting(connection: sa.Connection) -> list[Entry]:
    """What is in the outbox of a database on which no server works; it stays there.

    Memory for all of it: a server that runs leaves little.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is damaged.
    """
    if not sa.inspect(connection).has_table(OUTBOX.name):
        return []
    return [entry_of(row) for row in connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.seq))]


@dataclass(frozen=True)
class _Words:
    """Where SQLite and PostgreSQL say the same differently."""

    event: str
    now: str
    later: str
    guideline: str
    cross: str
    listed: str


_SQLITE = _Words(
    event="lower(hex(randomblob(16)))",
    now="strftime('%Y-%m-%d %H:%M:%f000', 'now')",  # as SQLAlchemy writes times: text, UTC
    later="max",
    # Half of a surrogate pair would come out as text that nobody can read; of two paths JSON comes.
    guideline="CASE WHEN json_valid(r.metadata)"
    " AND json_extract(r.metadata, '$.guideline', '$.guideline') NOT GLOB '*\\u[dD][89a-fA-F]*'"
    " THEN json_extract(r.metadata, '$.guideline') END",
    cross="JOIN",
    listed=f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '{_PREFIX}%'",
)
_POSTGRESQL = _Words(
    event="replace(CAST(gen_random_uuid() AS text), '-', '')",
    now="clock_timestamp() AT TIME ZONE 'utc'",
    later="greatest",
    guideline="handloom_guideline(r.metadata)",
    cross="CROSS JOIN",
    listed="SELECT tgname FROM pg_trigger"
    f" WHERE tgrelid = CAST('responses' AS regclass) AND tgname LIKE '{_PREFIX}%'",
)


def _identify(words: _Words, row: str, source: str = "") -> str:
    """Write down what a response is called; `row` is NEW, or a table that `source` joins."""
    renew = ", ".join(f"{name} = excluded.{name}" for name in _NAMES)
    return f"""
INSERT INTO handloom_identities (response_id, {", ".join(_NAMES)})
SELECT {row}.id, coalesce(r.external_id, 'record-' || replace(CAST(r.id AS text), '-', '')),
       d.name, w.name, u.username, coalesce({words.guideline}, '')
FROM {source} records r, datasets d, workspaces w, users u
WHERE r.id = {row}.record_id AND d.id = r.dataset_id AND w.id = d.workspace_id
  AND u.id = {row}.user_id
ON CONFLICT (response_id) DO UPDATE SET {renew}"""


def _note(words: _Words, row: str, op: str, source: str = "") -> str:
    """Put a version into the outbox; `op` is SQL."""
    gone = row == "OLD"
    status = "'deleted'" if gone else f"CAST({row}.status AS text)"
    time = f"{words.later}({words.now}, OLD.updated_at)" if gone else f"{row}.updated_at"
    names = ", ".join(f"i.{name}" for name in _NAMES)
    return f"""
INSERT INTO handloom_outbox (event, op, response_id, record_id, user_id, {", ".join(_NAMES)},
                             status, "values", inserted_at, updated_at, cause)
SELECT {words.event}, {op}, {row}.id, {row}.record_id, {row}.user_id, {names},
       {status}, {row}."values", {row}.inserted_at, {time}, {_CAUSE if gone else "NULL"}
FROM {source} handloom_identities i
WHERE i.response_id = {row}.id"""


# By foreign key the user or record goes before its responses, by the ORM after them.
_CAUSE = """coalesce(
         (SELECT c.cause FROM handloom_causes c WHERE c.response_id = OLD.id),
         CASE WHEN NOT EXISTS (SELECT 1 FROM users u WHERE u.id = OLD.user_id) THEN 'user'
              WHEN NOT EXISTS (SELECT 1 FROM records r WHERE r.id = OLD.record_id) THEN 'record'
              ELSE 'response' END)"""

_FORGET = """
DELETE FROM handloom_identities WHERE response_id = OLD.id;
DELETE FROM handloom_causes WHERE response_id = OLD.id"""


def _sqlite_triggers() -> dict[str, str]:
    """A trigger for each kind of change; `{name}` is to be filled in."""
    identify = _identify(_SQLITE, "NEW")
    columns = ("status", "values", "updated_at")
    changed = " OR ".join(f'OLD."{name}" IS NOT NEW."{name}"' for name in columns)
    inserted, updated = (_note(_SQLITE, "NEW", f"'{op}'") for op in ("insert", "update"))
    deleted = _note(_SQLITE, "OLD", "'delete'")
    bodies = {
        "INSERT": f"BEGIN {identify}; {inserted}; END",
        "UPDATE": f"WHEN {changed} BEGIN {identify}; {updated}; END",
        "DELETE": f"BEGIN {deleted}; {_FORGET}; END",
    }
    return {
        op.lower(): f"CREATE TRIGGER {{name}} AFTER {op} ON responses {body}"
        for op, body in bodies.items()
    }


# Metadata with \u0000 or half of a surrogate pair are JSON, and taking a text out of them fails:
# that must not fail the answer.
_POSTGRESQL_GUIDELINE = """
CREATE OR REPLACE FUNCTION handloom_guideline(metadata json) RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
  RETURN metadata ->> 'guideline';
EXCEPTION WHEN OTHERS THEN
  RETURN '';
END $body$"""

_POSTGRESQL_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {{name}}() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    {_note(_POSTGRESQL, "OLD", "'delete'")};
    {_FORGET};
  ELSIF TG_OP = 'INSERT' OR OLD.status IS DISTINCT FROM NEW.status
        OR OLD.updated_at IS DISTINCT FROM NEW.updated_at
        OR CAST(OLD."values" AS text) IS DISTINCT FROM CAST(NEW."values" AS text) THEN
    {_identify(_POSTGRESQL, "NEW")};
    {_note(_POSTGRESQL, "NEW", "lower(TG_OP)")};
  END IF;
  RETURN NULL;
END $body$"""

_POSTGRESQL_TRIGGER = """
CREATE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON responses
FOR EACH ROW EXECUTE FUNCTION {name}()"""


async def ensure(connection: AsyncConnection) -> bool:
    """Make tables and triggers unless this very version of them is there; whether it had to.

    Then every response is noted once more, so that none written before, or while a trigger was
    missing (a migration that rebuilds the table drops them), is passed over; the ledger knows the
    ones it has. Takes time and space in proportion to the responses, once.

    Args:
        connection: in a transaction in which nobody else writes.
    """
    await connection.run_sync(METADATA.create_all)
    if connection.dialect.name == "sqlite":
        words, made = _SQLITE, await _ensure_sqlite(connection)
    else:
        words, made = _POSTGRESQL, await _ensure_postgresql(connection)
    if made:
        source = f"responses {words.cross}"
        await connection.exec_driver_sql(_identify(words, "responses", source))
        await connection.exec_driver_sql(_note(words, "responses", "'existing'", source))
    return made


async def _ensure_sqlite(connection: AsyncConnection) -> bool:
    wanted = {_named(op, text): text for op, text in _sqlite_triggers().items()}
    there = set((await connection.exec_driver_sql(_SQLITE.listed)).scalars())
    if there == wanted.keys():
        return False
    for name in there:
        await connection.exec_driver_sql(f"DROP TRIGGER {name}")
    for name, text in wanted.items():
        await connection.exec_driver_sql(text.format(name=name))
    return True


async def _ensure_postgresql(connection: AsyncConnection) -> bool:
    parts = (_POSTGRESQL_GUIDELINE, _POSTGRESQL_FUNCTION, _POSTGRESQL_TRIGGER)
    name = _named("all", "".join(parts))
    there = set((await connection.exec_driver_sql(_POSTGRESQL.listed)).scalars())
    if there == {name}:
        return False
    await connection.exec_driver_sql("LOCK TABLE responses IN SHARE ROW EXCLUSIVE MODE")
    for old in there:
        await connection.exec_driver_sql(f"DROP TRIGGER {old} ON responses")
        await connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {old}()")
    for text in parts:
        await connection.exec_driver_sql(text.format(name=name))
    return True


def _named(op: str, text: str) -> str:
    """A name that changes with what the trigger does."""
    return f"{_PREFIX}{op}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
