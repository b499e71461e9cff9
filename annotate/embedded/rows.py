"""Writing records, responses and values to an index file, in the caller's transaction."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

import numpy as np

from annotate.embedded.documents import (
    Kind,
    RecordRow,
    ResponseRow,
    Scalar,
    answer_key,
    microseconds,
    scalars,
    storable,
)
from annotate.embedded.text_query import searchable

IDS_A_QUERY = 10_000  # SQLite takes 32,766 parameters

Keys = Mapping[str, tuple[int, Kind]]

_UPSERT_RECORD = """
INSERT INTO record (n, id, external_id, status, inserted_at, updated_at, mix, length)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (n) DO UPDATE SET
    external_id = excluded.external_id, length = excluded.length,
    status = iif(updated_at BETWEEN excluded.updated_at + 1 AND ?9, status, excluded.status),
    updated_at = excluded.updated_at
"""
# The time is always the row's own, also where it comes late: so the start finds an index in which
# an older text took the place of a newer one (`freshness`).


def now() -> int:
    """What Argilla would give as the time of a change now, in microseconds.

    A row that is older than the one in the index came late, and is passed over; but a time in the
    future is one from before the clock was set back, and keeps nothing out.
    """
    return microseconds(datetime.now(UTC))


def put_records(db: sqlite3.Connection, rows: Sequence[RecordRow]) -> tuple[list[int], bool]:
    """Insert records with distinct ids, or replace them and all of theirs but their responses.

    Returns:
        Their numbers, and whether any text is new.
    """
    known = dict(_numbers(db, [row.id for row in rows]))
    (last,) = db.execute("SELECT coalesce(max(n), 0) FROM record").fetchone()
    numbers = []
    for row in rows:
        last += row.id not in known
        numbers.append(known.get(row.id, last))
    keys = _keys(db)
    _delete_parts(db, list(known.values()), keys, texts=False)
    new_text = _put_texts(db, zip(numbers, rows, strict=True), set(known.values()))
    at = now()
    records = ((*_record(n, row), at) for n, row in zip(numbers, rows, strict=True))
    db.executemany(_UPSERT_RECORD, records)
    facets = ((n, row.facets) for n, row in zip(numbers, rows, strict=True))
    _put_values(db, ((n, 0, values) for n, values in facets), keys)
    put_responses(db, [(n, r) for n, row in zip(numbers, rows, strict=True) for r in row.responses])
    db.executemany(
        "INSERT INTO vector VALUES (?, ?, ?, ?)",
        (
            (n, settings, vector.updated_at, np.asarray(vector.value, "<f4").tobytes())
            for n, row in zip(numbers, rows, strict=True)
            for settings, vector in row.vectors.items()
        ),
    )
    return numbers, new_text


def _record(n: int, row: RecordRow) -> tuple[object, ...]:
    digest = hashlib.blake2b(row.id, digest_size=4).digest()
    length = sum(map(len, row.text.values()))
    mix = int.from_bytes(digest, "big")
    times = (row.inserted_at, row.updated_at)
    external_id = None if row.external_id is None else storable(row.external_id)
    return (n, row.id, external_id, row.status, *times, mix, length)


def _put_texts(
    db: sqlite3.Connection, rows: Iterable[tuple[int, RecordRow]], known: set[int]
) -> bool:
    """Write the texts that changed; comparing costs a tenth of taking a text apart again."""
    columns = dict(db.execute('SELECT name, "column" FROM field').fetchall())
    if not columns:
        return False
    names = ", ".join(columns.values())
    fresh = []
    for n, row in rows:
        texts = tuple(
            searchable(storable(row.text[name])) if name in row.text else None for name in columns
        )
        if n in known:
            if db.execute(f"SELECT {names} FROM text WHERE rowid = ?", [n]).fetchone() == texts:
                continue
            db.execute("DELETE FROM text WHERE rowid = ?", [n])
        fresh.append((n, *texts))
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT INTO text (rowid, {names}) VALUES (?, {marks})", fresh)
    return bool(fresh)


def put_responses(db: sqlite3.Connection, responses: Sequence[tuple[int, ResponseRow]]) -> None:
    """Insert responses to the records of these numbers, or replace older ones (see `now`)."""
    if not responses:
        return
    keys, users = _keys(db), _users(db, {response.user for _, response in responses})
    written: list[tuple[int, int, Mapping[str, object]]] = []
    replaced: list[tuple[int, int]] = []
    at = now()
    for record, response in responses:
        user = users[response.user]
        sql = "SELECT updated_at FROM response WHERE record = ? AND user = ?"
        there = db.execute(sql, [record, user]).fetchone()
        if there and response.updated_at < there[0] <= at:
            continue
        if there:
            replaced.append((record, user))
        row = [record, user, response.id, response.status, response.updated_at]
        db.execute("INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?, ?)", row)
        answers = {answer_key(name): value for name, value in response.answers.items()}
        written.append((record, user, answers))
    _delete_answers(db, replaced, keys)
    _put_values(db, written, keys)


def replace_values(
    db: sqlite3.Connection, values: Iterable[tuple[int, Mapping[str, object]]]
) -> None:
    """Replace records' metadata and suggestions of the keys given for each."""
    keys = _keys(db)
    for record, new in values:
        db.executemany(
            "DELETE FROM value WHERE key = ? AND record = ?",
            [(keys[name][0], record) for name in new if name in keys],
        )
        _put_values(db, [(record, 0, new)], keys)


def delete_records(db: sqlite3.Connection, ids: Iterable[bytes]) -> list[int]:
    """Forget records and all that belongs to them; the numbers that they had."""
    numbers = [n for _, n in _numbers(db, list(ids))]
    _delete_parts(db, numbers, _keys(db), texts=True)
    for n in numbers:
        delete_responses(db, "record = ?", n)
    db.executemany("DELETE FROM record WHERE n = ?", ((n,) for n in numbers))
    return numbers


def delete_responses(db: sqlite3.Connection, which: str, parameter: object) -> list[int]:
    """Forget the responses for which a condition holds; the numbers of their records."""
    sql = f"DELETE FROM response WHERE {which} RETURNING record, user"
    rows = db.execute(sql, [parameter]).fetchall()
    _delete_answers(db, rows, _keys(db))
    return [record for record, _ in rows]


def _delete_parts(
    db: sqlite3.Connection, numbers: Sequence[int], keys: Keys, *, texts: bool
) -> None:
    if texts:
        db.executemany("DELETE FROM text WHERE rowid = ?", ((n,) for n in numbers))
    facets = [key for name, (key, _) in keys.items() if not name.startswith("responses.")]
    db.executemany(
        "DELETE FROM value WHERE key = ? AND record = ?",
        ((key, n) for key in facets for n in numbers),
    )
    db.executemany("DELETE FROM vector WHERE record = ?", ((n,) for n in numbers))


def _delete_answers(
    db: sqlite3.Connection, responses: Sequence[tuple[int, int]], keys: Keys
) -> None:
    questions = [key for name, (key, _) in keys.items() if name.startswith("responses.")]
    db.executemany(
        "DELETE FROM value WHERE key = ? AND record = ? AND user = ?",
        ((key, *response) for key in questions for response in responses),
    )


def _put_values(
    db: sqlite3.Connection, values: Iterable[tuple[int, int, Mapping[str, object]]], keys: Keys
) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO value (record, user, key, value) VALUES (?, ?, ?, ?)",
        (
            (record, user, key, value)
            for record, user, new in values
            for key, value in _scalars(new, keys)
        ),
    )


def _scalars(raw: Mapping[str, object], keys: Keys) -> Iterator[tuple[int, Scalar]]:
    for name, value in raw.items():
        if name in keys:
            key, kind = keys[name]
            yield from ((key, one) for one in scalars(kind, value))


def _keys(db: sqlite3.Connection) -> dict[str, tuple[int, Kind]]:
    return {name: (n, kind) for name, n, kind in db.execute("SELECT name, n, kind FROM key")}


def _users(db: sqlite3.Connection, ids: Iterable[bytes]) -> dict[bytes, int]:
    """The numbers of users, given to those who have none yet."""
    db.executemany("INSERT OR IGNORE INTO user (id) VALUES (?)", [(user,) for user in ids])
    return dict(db.execute("SELECT id, n FROM user").fetchall())


def in_pieces(values: Iterable[object]) -> Iterator[tuple[str, list[object]]]:
    """Values in pieces that one query takes, each with its question marks."""
    rest = iter(values)
    while some := list(islice(rest, IDS_A_QUERY)):
        yield ", ".join("?" * len(some)), some


def _numbers(db: sqlite3.Connection, ids: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Id and number of those records that are there."""
    for marks, some in in_pieces(ids):
        yield from db.execute(f"SELECT id, n FROM record WHERE id IN ({marks})", some).fetchall()
