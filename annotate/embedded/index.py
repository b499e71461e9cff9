"""The search index of one data set: a SQLite file that can be rebuilt from Argilla's database.

The file (`index_file`) is what is durable; what searches compute with is kept in memory
(`columns`, `vectors`).
Writes are upserts that keep the newer response and status, so that requests that finish out of
order cannot undo one another.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annotate.embedded import rows as rows_
from annotate.embedded.columns import Columns
from annotate.embedded.documents import Kind, RecordRow, ResponseRow
from annotate.embedded.index_file import IndexFile, create_file
from annotate.embedded.vectors import Vectors

VECTORS_A_READ = 5_000

_LOG = logging.getLogger(__name__)

Call = tuple[str, tuple[object, ...]]


@dataclass
class Changes:
    """What was written to an index since some moment: to which records, and calls for others."""

    records: set[bytes] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.calls)


class DatasetIndex(IndexFile):
    """One open index file. Safe to share between threads: each call holds the file for itself."""

    def __init__(self, path: Path) -> None:
        """Open an existing index.

        Raises:
            sqlite3.DatabaseError: the file is missing, damaged, or of another version.
        """
        super().__init__(path)
        self.columns = Columns(self)
        self._vectors: dict[str, Vectors] = {}
        self._vocabulary: list[str] | None = None
        self._changes: Changes | None = None

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
        create_file(path, keys, fields, searched)
        return cls(path)

    # Reading

    def size(self) -> int:
        """One more than the largest number of a record."""
        return int(self.read("SELECT coalesce(max(n), 0) + 1 FROM record")[0][0])

    def keys(self) -> dict[str, tuple[int, Kind]]:
        """Number and type of each key."""
        rows = self.read("SELECT name, n, kind FROM key")
        return {name: (n, kind) for name, n, kind in rows}

    def fields(self) -> dict[str, str]:
        """Text column of each searchable field."""
        return dict(self.read('SELECT name, "column" FROM field'))

    def vocabulary(self) -> list[str]:
        """Every word of the texts, kept until a text is written; seconds at a million records."""
        with self.lock:
            if self._vocabulary is None:
                self._db.execute(
                    "CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary"
                    " USING fts5vocab(main, 'text', 'row')"
                )
                (self._vocabulary,) = self.arrays("SELECT term FROM vocabulary", term=str)
            return self._vocabulary

    def vectors(self, settings: str) -> Vectors:
        """The vectors of these settings."""

        def pieces(numbers: Iterable[int] | None) -> Iterator[tuple[Any, Any]]:
            some = [] if numbers is None else [json.dumps(list(numbers))]
            only = "record IN (SELECT value FROM json_each(?))" if some else "1"
            after = -1
            while True:
                rows = self.read(
                    f"SELECT record, value FROM vector WHERE settings = ? AND record > ? AND {only}"
                    " ORDER BY record LIMIT ?",
                    [settings, after, *some, VECTORS_A_READ],
                )
                if not rows:
                    return
                after = rows[-1][0]
                matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
                yield np.array([row[0] for row in rows]), matrix.reshape(len(rows), -1)

        with self.lock:
            found = self._vectors.setdefault(settings, Vectors(pieces))
            found.bring_up()
            return found

    # Writing

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        """Insert records, or replace them and all that belongs to them except responses.

        Of responses the newer stays: no request that writes records takes one away.
        """
        by_id = {row.id: row for row in rows}
        with self.transaction() as db:
            numbers, new_text = rows_.put_records(db, list(by_id.values()))
            self._written(numbers, by_id)
            if new_text:
                self._vocabulary = None

    def refresh(self, ids: Iterable[bytes], rows: Sequence[RecordRow]) -> None:
        """Make some records what these rows say, in their place; those without a row are gone."""
        present = {row.id for row in rows}
        self.delete_records(one for one in ids if one not in present)
        with self.transaction() as db:
            for record in present:
                which = "record = (SELECT n FROM record WHERE id = ?)"
                self._written(rows_.delete_responses(db, which, record), [record])
        self.put_records(rows)

    def delete_records(self, ids: Iterable[bytes]) -> None:
        """Forget records and all that belongs to them."""
        ids = list(ids)
        with self.transaction() as db:
            self._written(rows_.delete_records(db, ids), ids)

    def set_status(self, record: bytes, status: str, updated_at: int) -> None:
        """Note that a record is complete, or pending again."""
        with self.transaction() as db:
            found = db.execute(
                "UPDATE record SET status = ?, updated_at = ? WHERE id = ?"
                " AND updated_at NOT BETWEEN ? AND ? RETURNING n",
                [status, updated_at, record, updated_at + 1, rows_.now()],
            ).fetchall()
            self._written([n for (n,) in found], [record], "record")

    def put_response(self, record: bytes, response: ResponseRow) -> None:
        """Insert a response or replace an older one."""
        with self.transaction() as db:
            n = _number(db, record)
            if n is not None:
                rows_.put_responses(db, [(n, response)])
                self._written([n], [record], *self._of_responses())

    def delete_response(self, response: bytes) -> None:
        """Forget a response."""
        with self.transaction() as db:
            numbers = rows_.delete_responses(db, "id = ?", response)
            ids = [db.execute("SELECT id FROM record WHERE n = ?", [n]).fetchone() for n in numbers]
            self._written(numbers, [row[0] for row in ids if row], *self._of_responses())

    def delete_user(self, user: bytes) -> None:
        """Forget all responses of a person."""
        with self.transaction() as db:
            which = "user = (SELECT n FROM user WHERE id = ?)"
            self._written(rows_.delete_responses(db, which, user), [], *self._of_responses())
            self._called("delete_user", user)

    def put_facets(self, facets: Mapping[bytes, Mapping[str, object]]) -> None:
        """Replace records' values of the keys given for each; null leaves none."""
        with self.transaction() as db:
            numbers = {record: _number(db, record) for record in facets}
            known = [(n, facets[record]) for record, n in numbers.items() if n is not None]
            rows_.replace_values(db, known)
            names = {name for _, values in known for name in values}
            self._written([n for n, _ in known], facets, *sorted(names) or ["record"])

    def declare(self, key: str, kind: Kind) -> None:
        """Add a key, or give it another type; values of the old type are dropped."""
        with self.transaction() as db:
            known = db.execute("SELECT n, kind FROM key WHERE name = ?", [key]).fetchone()
            if known and known[1] != kind:
                db.execute("DELETE FROM value WHERE key = ?", [known[0]])
            db.execute(
                "INSERT INTO key (name, kind) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET kind = excluded.kind",
                [key, kind],
            )
            self.columns.forget(key)
            self._called("declare", key, kind)

    def drop_key(self, key: str) -> None:
        """Forget a key and its values."""
        with self.transaction() as db:
            for (n,) in db.execute("DELETE FROM key WHERE name = ? RETURNING n", [key]).fetchall():
                db.execute("DELETE FROM value WHERE key = ?", [n])
            self.columns.forget(key)
            self._called("drop_key", key)

    def drop_vectors(self, settings: str) -> None:
        """Forget the vectors of these settings."""
        with self.transaction() as db:
            db.execute("DELETE FROM vector WHERE settings = ?", [settings])
            self._vectors.pop(settings, None)
            self._called("drop_vectors", settings)

    def _of_responses(self) -> list[str]:
        """What changes with a response, as `Columns.touch` names it."""
        return ["response", *(name for name in self.keys() if name.startswith("responses."))]

    # What was written since

    def _written(self, numbers: Iterable[int], records: Iterable[bytes], *sources: str) -> None:
        numbers = list(numbers)
        self.columns.touch(numbers, *sources)
        if not sources:
            for vectors in self._vectors.values():
                vectors.touch(numbers)
        if self._changes is not None:
            self._changes.records.update(records)

    def _called(self, method: str, *arguments: object) -> None:
        if self._changes is not None:
            self._changes.calls.append((method, arguments))

    def follow(self) -> bool:
        """Note from now on what is written, for a new file; False if one is in the making."""
        with self.lock:
            if self._changes is not None:
                return False
            self._changes = Changes()
            return True

    def unfollow(self) -> None:
        """No new file will come, or it has come."""
        with self.lock:
            self._changes = None

    def changes(self) -> Changes:
        """What was written since the last call, or since `follow`."""
        with self.lock:
            missing, self._changes = self._changes or Changes(), Changes()
            return missing

    def adopt(self, path: Path) -> Changes:
        """Let a new file take this one's place, if nothing was written since `changes`.

        Returns:
            What was written; then nothing is done.

        Raises:
            sqlite3.DatabaseError: the new file cannot be opened.
        """
        with self.lock:
            if missing := self.changes():
                return missing
            self.replace(path)
            self.columns.forget()
            self._vectors, self._vocabulary = {}, None
            return missing


def _number(db: sqlite3.Connection, record: bytes) -> int | None:
    row = db.execute("SELECT n FROM record WHERE id = ?", [record]).fetchone()
    if row is None:
        _LOG.warning("record %s is not in the index yet: update skipped", record.hex())
        return None
    number: int = row[0]
    return number
