"""The file of a search index: its tables, and how it is made, opened and removed.

record      one row a record; `n` numbers them in order of arrival, `mix` shuffles them
text        FTS5, one column a field; `word` lists the occurrences of each word in it
value       (key, record, user, value): metadata, suggestions (user 0), answers; several allowed
response    one row a response: whose, on what, in which status
vector      (record, settings, value): float32, little endian
key, field, user    what the numbers and columns above stand for
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from annotate.embedded.documents import Kind

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE key (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL);
CREATE TABLE field (name TEXT PRIMARY KEY, "column" TEXT NOT NULL);
CREATE TABLE user (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE record (
    n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, external_id TEXT, status TEXT NOT NULL,
    inserted_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, mix INTEGER NOT NULL,
    length INTEGER NOT NULL
);
CREATE INDEX record_external_id ON record (external_id);
CREATE TABLE value (
    key INTEGER, record INTEGER, user INTEGER, value, PRIMARY KEY (key, record, user, value)
) WITHOUT ROWID;
CREATE TABLE response (
    record INTEGER, user INTEGER, id BLOB NOT NULL UNIQUE, status TEXT NOT NULL,
    updated_at INTEGER NOT NULL, PRIMARY KEY (record, user)
) WITHOUT ROWID;
CREATE INDEX response_user ON response (user, status, record);
CREATE TABLE vector (
    record INTEGER, settings TEXT, updated_at INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (record, settings)
);
CREATE INDEX vector_settings ON vector (settings, record);
"""


class IndexFile:
    """An open index file. Safe to share between threads: each call holds the file for itself."""

    def __init__(self, path: Path) -> None:
        """Open an existing index.

        Raises:
            sqlite3.DatabaseError: the file is missing, damaged, or of another version.
        """
        self.path = path
        self.lock = threading.RLock()
        self._closed = False
        self._db = _open(path)

    def close(self) -> None:
        """Close the file; the index is not to be used afterwards."""
        with self.lock:
            self._closed = True
            self._db.close()

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.lock:
            return self._db.execute(sql, parameters).fetchall()

    def arrays(self, sql: str, parameters: Sequence[object] = (), **columns: type) -> list[Any]:
        """The named columns of a query's rows, none null, each as an array, or texts as a list.

        SQLite joins them to one text: taking row after row, this thread would have to ask for the
        interpreter as often, and wait for the server's loop each time.
        """
        joined = ", ".join(
            f"{'json_group_array' if kind is str else 'group_concat'}({name})"
            for name, kind in columns.items()
        )
        (texts,) = self.read(f"SELECT {joined} FROM ({sql})", parameters)
        return [_parsed(text, kind) for text, kind in zip(texts, columns.values(), strict=True)]

    def damage(self) -> str:
        """What is wrong with the file itself; empty if nothing. It reads all of the file.

        Raises:
            sqlite3.DatabaseError: so much that it cannot even be said.
        """
        (found,) = self.read("PRAGMA quick_check(1)")[0]
        return "" if found == "ok" else " ".join(str(found).split())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block's writes, or none."""
        with self.lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def in_bulk(self) -> None:
        """Write fast and unsafely until `finish`: for a file that nobody uses yet."""
        with self.lock:
            self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")

    def finish(self) -> None:
        """Put what was written in bulk safely on the disk."""
        with self.lock:
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def replace(self, path: Path) -> None:
        """Let another file take this one's place; that one is not to be open anywhere.

        Raises:
            sqlite3.DatabaseError: it cannot be opened, or this index is closed: then all stays.
        """
        with self.lock:
            if self._closed:
                raise sqlite3.ProgrammingError("this index was removed")
            _open(path).close()  # checks it, and leaves no log beside it
            self._db.close()
            delete_files(self.path)
            path.replace(self.path)
            self._db = _open(self.path)


def create_file(
    path: Path, keys: Mapping[str, Kind], fields: Sequence[str], searched: Sequence[str]
) -> None:
    """Make an empty index; see `DatasetIndex.create`."""
    delete_files(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: f"f{number}" for number, name in enumerate(fields) if name in searched}
    declared = ", ".join(columns.values()) or "nothing"
    db = _connect(path, "rwc")
    db.executescript(_SCHEMA)
    db.execute(
        f'CREATE VIRTUAL TABLE text USING fts5({declared}, tokenize="unicode61 '
        "remove_diacritics 0 categories 'L* N* Co Mn Mc' tokenchars '_'\")"
    )
    db.execute("CREATE VIRTUAL TABLE word USING fts5vocab('text', 'instance')")
    db.executemany("INSERT INTO field VALUES (?, ?)", columns.items())
    db.executemany("INSERT INTO key (name, kind) VALUES (?, ?)", keys.items())
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.close()


def _open(path: Path) -> sqlite3.Connection:
    """A connection to an index.

    Raises:
        sqlite3.DatabaseError: the file is missing, damaged, or of another version.
    """
    db = _connect(path, "rw")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != SCHEMA_VERSION:
        db.close()
        raise sqlite3.DatabaseError(f"{path.name} has version {found}, not {SCHEMA_VERSION}")
    return db


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether a file was not as SQLite wrote it, so that a new one helps."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells which part it is
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def delete_files(path: Path) -> None:
    """Remove an index and SQLite's files beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    # The index can be rebuilt, so a power cut may cost its last writes: start-up finds that out.
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
    return db


def _parsed(text: str | None, kind: type) -> Any:
    if kind is str:
        return json.loads(text or "[]")
    return np.fromstring(text, dtype=kind, sep=",") if text else np.zeros(0, kind)
