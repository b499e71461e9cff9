"""The search index of one data set: a SQLite file that can be rebuilt from Argilla's database.

    record      one row a record; `n` numbers them in order of arrival, `mix` shuffles them
    text        FTS5, one column a field
    facet       (record, key, value): metadata and suggestions, several values allowed
    response    one row a response: whose, on what, in which status
    answer      (response, key, value): answers to rating and label questions
    vector      (record, settings, value): float32, little endian
    key, field  what the numbers and columns above stand for

Writes are upserts that keep the newer row, so that requests that finish out of order cannot undo
one another.
"""

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from annotate.embedded.documents import Kind, RecordRow, ResponseRow, Scalar, scalars
from annotate.embedded.text_query import searchable

SCHEMA_VERSION = 1
MIX_PRIME = 2**31 - 1

_LOG = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE key (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL);
CREATE TABLE field (name TEXT PRIMARY KEY, "column" TEXT NOT NULL);
CREATE TABLE record (
    n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, external_id TEXT, status TEXT NOT NULL,
    inserted_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, mix INTEGER NOT NULL
);
CREATE INDEX record_status ON record (status);
CREATE TABLE facet (record INTEGER, key INTEGER, value, PRIMARY KEY (record, key, value))
    WITHOUT ROWID;
CREATE INDEX facet_value ON facet (key, value, record);
CREATE TABLE response (
    n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, record INTEGER NOT NULL, user BLOB NOT NULL,
    status TEXT NOT NULL, updated_at INTEGER NOT NULL
);
CREATE INDEX response_record ON response (record);
CREATE INDEX response_user ON response (user, status, record);
CREATE TABLE answer (response INTEGER, key INTEGER, value, PRIMARY KEY (response, key, value))
    WITHOUT ROWID;
CREATE INDEX answer_value ON answer (key, value, response);
CREATE TABLE vector (settings TEXT, record INTEGER, value BLOB, PRIMARY KEY (settings, record));
"""


class DatasetIndex:
    """One open index file. Safe to share between threads: each call holds the file for itself."""

    def __init__(self, path: Path) -> None:
        """Open an existing index.

        Raises:
            sqlite3.DatabaseError: the file is missing, damaged, or of another version.
        """
        self.path = path
        self.lock = threading.RLock()
        self._db = _connect(path, create=False)
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found != SCHEMA_VERSION:
            self._db.close()
            raise sqlite3.DatabaseError(f"{path.name} has version {found}, not {SCHEMA_VERSION}")

    @classmethod
    def create(
        cls, path: Path, keys: Mapping[str, Kind], fields: Sequence[str], searched: Sequence[str]
    ) -> "DatasetIndex":
        """Make an empty index, replacing any file of that name.

        Args:
            path: where.
            keys: what can be filtered by, with types.
            fields: every field of the data set.
            searched: those of them that hold text.
        """
        delete_files(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {name: f"f{number}" for number, name in enumerate(fields) if name in searched}
        declared = ", ".join(columns.values()) or "nothing"
        db = _connect(path, create=True)
        with db:
            db.executescript(_SCHEMA)
            db.execute(
                f'CREATE VIRTUAL TABLE text USING fts5({declared}, tokenize="unicode61 '
                "remove_diacritics 0 categories 'L* N* Co Mn Mc' tokenchars '_'\")"
            )
            db.executemany("INSERT INTO field VALUES (?, ?)", columns.items())
            db.executemany("INSERT INTO key (name, kind) VALUES (?, ?)", keys.items())
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.close()
        return cls(path)

    def close(self) -> None:
        """Close the file; the index is not to be used afterwards."""
        with self.lock:
            self._db.close()

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.lock:
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def keys(self) -> dict[str, tuple[int, Kind]]:
        """Number and type of each key."""
        rows = self.read("SELECT name, n, kind FROM key")
        return {name: (n, kind) for name, n, kind in rows}

    def columns(self) -> dict[str, str]:
        """Text column of each searchable field."""
        return dict(self.read('SELECT name, "column" FROM field'))

    def declare(self, key: str, kind: Kind) -> None:
        """Add a key, or give it another type; values of the old type are dropped."""
        with self._transaction() as db:
            known = db.execute("SELECT n, kind FROM key WHERE name = ?", [key]).fetchone()
            if known and known[1] != kind:
                db.execute("DELETE FROM facet WHERE key = ?", [known[0]])
            db.execute(
                "INSERT INTO key (name, kind) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET kind = excluded.kind",
                [key, kind],
            )

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        """Insert records, or replace them with all that belongs to them."""
        keys, columns = self.keys(), self.columns()
        with self._transaction() as db:
            for row in rows:
                self._put_record(db, row, keys, columns)

    def _put_record(
        self,
        db: sqlite3.Connection,
        row: RecordRow,
        keys: Mapping[str, tuple[int, Kind]],
        columns: Mapping[str, str],
    ) -> None:
        known = db.execute("SELECT n FROM record WHERE id = ?", [row.id]).fetchone()
        if known:
            _delete_parts(db, known[0])
        (n,) = db.execute(
            "INSERT INTO record (id, external_id, status, inserted_at, updated_at, mix)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " external_id = excluded.external_id, status = excluded.status,"
            " updated_at = excluded.updated_at RETURNING n",
            [row.id, row.external_id, row.status, row.inserted_at, row.updated_at, _mix(row.id)],
        ).fetchone()
        text = {columns[f]: searchable(value) for f, value in row.text.items() if f in columns}
        if text:
            names, marks = ", ".join(text), ", ".join("?" * len(text))
            db.execute(
                f"INSERT INTO text (rowid, {names}) VALUES (?, {marks})", [n, *text.values()]
            )
        _put_facets(db, n, row.facets, keys)
        for response in row.responses:
            _put_response(db, n, response, keys)
        db.executemany(
            "INSERT INTO vector VALUES (?, ?, ?)",
            [(s, n, np.asarray(v, "<f4").tobytes()) for s, v in row.vectors.items()],
        )

    def delete_records(self, ids: Iterable[bytes]) -> None:
        """Forget records and all that belongs to them."""
        with self._transaction() as db:
            for record_id in ids:
                row = db.execute("DELETE FROM record WHERE id = ? RETURNING n", [record_id])
                for (n,) in row.fetchall():
                    _delete_parts(db, n)

    def set_status(self, record: bytes, status: str, updated_at: int) -> None:
        """Note that a record is complete, or pending again."""
        with self._transaction() as db:
            db.execute(
                "UPDATE record SET status = ?, updated_at = ? WHERE id = ? AND updated_at <= ?",
                [status, updated_at, record, updated_at],
            )

    def put_response(self, record: bytes, response: ResponseRow) -> None:
        """Insert a response or replace an older one."""
        keys = self.keys()
        with self._transaction() as db:
            n = _number(db, record)
            if n is not None:
                _put_response(db, n, response, keys)

    def delete_response(self, response: bytes) -> None:
        """Forget a response."""
        with self._transaction() as db:
            _delete_responses(db, "id = ?", response)

    def put_facets(self, record: bytes, facets: Mapping[str, object]) -> None:
        """Replace a record's values of the given keys; null leaves none."""
        keys = self.keys()
        with self._transaction() as db:
            n = _number(db, record)
            if n is None:
                return
            for name in facets.keys() & keys.keys():
                db.execute("DELETE FROM facet WHERE record = ? AND key = ?", [n, keys[name][0]])
            _put_facets(db, n, facets, keys)

    def vectors(self, settings: str) -> tuple[np.ndarray, np.ndarray]:
        """Record numbers, int64 (n,), and their vectors, float32 (n, dimensions)."""
        rows = self.read("SELECT record, value FROM vector WHERE settings = ?", [settings])
        numbers = np.array([row[0] for row in rows], dtype=np.int64)
        matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        return numbers, matrix.reshape(len(rows), -1) if rows else matrix.reshape(0, 0)


def delete_files(path: Path) -> None:
    """Remove an index and SQLite's files beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    mode = "rwc" if create else "rw"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    # The index can be rebuilt, so a power cut may cost its last writes: start-up finds that out.
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
    return db


def _mix(record_id: bytes) -> int:
    digest = hashlib.blake2b(record_id, digest_size=8).digest()
    return int.from_bytes(digest, "big") % MIX_PRIME


def _number(db: sqlite3.Connection, record: bytes) -> int | None:
    row = db.execute("SELECT n FROM record WHERE id = ?", [record]).fetchone()
    if row is None:
        _LOG.warning("record %s is not in the index yet: update skipped", record.hex())
        return None
    number: int = row[0]
    return number


def _put_facets(
    db: sqlite3.Connection,
    n: int,
    facets: Mapping[str, object],
    keys: Mapping[str, tuple[int, Kind]],
) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO facet VALUES (?, ?, ?)",
        [(n, key, value) for key, value in _values(facets, keys)],
    )


def _put_response(
    db: sqlite3.Connection, n: int, response: ResponseRow, keys: Mapping[str, tuple[int, Kind]]
) -> None:
    row = db.execute(
        "INSERT INTO response (id, record, user, status, updated_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
        " updated_at = excluded.updated_at WHERE excluded.updated_at >= updated_at RETURNING n",
        [response.id, n, response.user, response.status, response.updated_at],
    ).fetchone()
    if row is None:  # a newer version is there already
        return
    db.execute("DELETE FROM answer WHERE response = ?", row)
    answers = {f"responses.{question}": value for question, value in response.answers.items()}
    db.executemany(
        "INSERT OR IGNORE INTO answer VALUES (?, ?, ?)",
        [(row[0], key, value) for key, value in _values(answers, keys)],
    )


def _values(
    raw: Mapping[str, object], keys: Mapping[str, tuple[int, Kind]]
) -> Iterator[tuple[int, Scalar]]:
    for name, value in raw.items():
        if name in keys:
            key, kind = keys[name]
            yield from ((key, one) for one in scalars(kind, value))


def _delete_parts(db: sqlite3.Connection, n: int) -> None:
    db.execute("DELETE FROM text WHERE rowid = ?", [n])
    db.execute("DELETE FROM facet WHERE record = ?", [n])
    db.execute("DELETE FROM vector WHERE record = ?", [n])
    _delete_responses(db, "record = ?", n)


def _delete_responses(db: sqlite3.Connection, where: str, parameter: object) -> None:
    rows = db.execute(f"DELETE FROM response WHERE {where} RETURNING n", [parameter]).fetchall()
    db.executemany("DELETE FROM answer WHERE response = ?", rows)
