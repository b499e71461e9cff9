"""The ledger: every response that was ever seen, in the order seen, never changed.

Argilla overwrites a response when it is edited and deletes a user's with the user, so what a pull
sees is written down here first, and everything else is made from here. `<state>/ledger.jsonl` holds
one JSON object a line:

    seq          0, 1, 2, …
    prev         `hash` of the line before; 64 zeros for the first
    seen_at      when a pull saw it, UTC
    batch        the Argilla data set
    item_id, annotator, guideline ("preference@v1")
    status       submitted, draft or discarded
    values       as Argilla gave them: question → {"value": …}, the order shown not undone
    inserted_at, updated_at   Argilla's times, UTC
    hash         sha256 of the line without `hash`, as JSON with sorted keys and no spaces

A response that is edited, or whose status changes, is a further line. Because every line holds the
hash of the one before, none can be changed, taken out or put in unnoticed (`verify`).

One writer at a time (flock); a write is fsynced before it counts. A crash can only tear the last
line: the next writer moves what is left of it to `ledger.torn` and goes on; readers pass it over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotate.errors import ProjectError, ResourceError
from annotate.runs import Project

FIRST = "0" * 64
"""`prev` of the first line."""

TABLE = pa.schema(
    {
        "seq": pa.int64(),
        "seen_at": pa.timestamp("us", tz="UTC"),
        "batch": pa.string(),
        "item_id": pa.string(),
        "annotator": pa.string(),
        "guideline": pa.string(),
        "status": pa.string(),
        "values": pa.string(),  # JSON
        "inserted_at": pa.timestamp("us", tz="UTC"),
        "updated_at": pa.timestamp("us", tz="UTC"),
    }
)

_ROWS_A_CHUNK = 50_000
_REPAIR = "Restore the ledger from a backup; what Argilla still has, `handloom pull` sees again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One response as it was at one time."""

    batch: str
    item_id: str
    annotator: str
    guideline: str
    status: str
    values: Mapping[str, Any]
    inserted_at: datetime
    updated_at: datetime
    seen_at: datetime | None = None
    seq: int | None = None
    """Both are given by the ledger when the entry is appended."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Whose answer to what: a later entry of the same key replaces this one."""
        return self.batch, self.item_id, self.annotator

    def same_response(self, other: Entry) -> bool:
        """Whether both are the same answer, given at the same time."""
        return (self.status, self.values, self.updated_at) == (
            other.status,
            other.values,
            other.updated_at,
        )


class Ledger:
    """The append-only history of a project's responses."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, project: Project) -> Ledger:
        """The project's ledger; it need not exist yet."""
        return cls(project.state_dir / "ledger.jsonl")

    def append(self, entries: Iterable[Entry]) -> int:
        """Append those entries that are new or changed, and return how many these were.

        Compared with the latest of the same batch, item and annotator, under the writer's lock: two
        pulls at once append a response once.

        Raises:
            ProjectError: the end of the file is not of this ledger.
            ResourceError: the disk is full; the ledger is as it was.
        """
        entries = list(entries)
        with self._writing() as file:
            seq, prev = _repaired_end(file, self.path)
            latest = self.latest({entry.batch for entry in entries})
            lines = []
            for entry in entries:
                known = latest.get(entry.key)
                if known is not None and known.same_response(entry):
                    continue
                latest[entry.key] = entry
                line, prev = _line(entry, seq, prev)
                lines.append(line)
                seq += 1
            _write_durably(file, b"".join(lines), self.path)
        return len(lines)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, oldest first, one at a time."""
        for number, line in self._lines():
            yield _entry(_parsed(line, f"{self.path}:{number}"))

    def latest(self, batches: Collection[str]) -> dict[tuple[str, str, str], Entry]:
        """The newest entry of each (batch, item, annotator) of these batches.

        Memory in proportion to what is returned.
        """
        marks = [json.dumps(batch).encode() for batch in batches]
        found: dict[tuple[str, str, str], Entry] = {}
        for number, line in self._lines():
            if any(mark in line for mark in marks):  # parse only lines that may be of a batch
                entry = _entry(_parsed(line, f"{self.path}:{number}"))
                if entry.batch in batches:
                    found[entry.key] = entry
        return found

    def history(self, item_ids: Collection[str]) -> list[Entry]:
        """Every entry about these items, oldest first: edits, drafts and discards too."""
        marks = [json.dumps(item_id).encode() for item_id in item_ids]
        return [
            entry
            for number, line in self._lines()
            if any(mark in line for mark in marks)
            for entry in [_entry(_parsed(line, f"{self.path}:{number}"))]
            if entry.item_id in item_ids
        ]

    def read(self) -> pa.Table:
        """The whole ledger as a table with the schema `TABLE`."""
        chunks, rows = [], []
        for entry in self:
            rows.append(
                {
                    **{name: getattr(entry, name) for name in TABLE.names},
                    "values": json.dumps(entry.values, sort_keys=True, ensure_ascii=False),
                }
            )
            if len(rows) == _ROWS_A_CHUNK:
                chunks.append(pa.Table.from_pylist(rows, schema=TABLE))
                rows = []
        chunks.append(pa.Table.from_pylist(rows, schema=TABLE))
        return pa.concat_tables(chunks)

    def verify(self) -> list[str]:
        """What is wrong with the chain of hashes, one line each; empty where all is well.

        After a broken line the chain is taken up again from that line's own hash, so that each
        tampering is reported once.
        """
        problems = []
        prev, number = FIRST, 0
        for number, line in self._lines():
            try:
                content = _parsed(line, str(number))
                claimed = content.pop("hash")
                if content["seq"] != number - 1 or content["prev"] != prev:
                    problems.append(f"line {number} does not follow the line before it")
                elif _digest(content) != claimed:
                    problems.append(f"line {number} was changed")
                prev = claimed
            except (ProjectError, KeyError):
                problems.append(f"line {number} is not an entry")
        if self.path.exists() and _torn_bytes(self.path):
            problems.append(f"line {number + 1} is torn; the next pull mends it")
        return problems

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, numbered from 1; a torn last one is passed over."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield number, line

    @contextlib.contextmanager
    def _writing(self) -> Iterator[FileIO]:
        """The file, open to append, while no other process writes; waits for its turn."""
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if new:
                _fsync_folder(self.path.parent)
            yield file


def _line(entry: Entry, seq: int, prev: str) -> tuple[bytes, str]:
    """An entry's line and its hash."""
    content: dict[str, Any] = {
        "seq": seq,
        "prev": prev,
        "seen_at": (entry.seen_at or datetime.now(UTC)).isoformat(),
        "batch": entry.batch,
        "item_id": entry.item_id,
        "annotator": entry.annotator,
        "guideline": entry.guideline,
        "status": entry.status,
        "values": entry.values,
        "inserted_at": entry.inserted_at.isoformat(),
        "updated_at": entry.updated_at.isoformat(),
    }
    content["hash"] = _digest(content)
    return json.dumps(content).encode() + b"\n", content["hash"]


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ProjectError("the ledger is damaged: not an entry", where=where, remedy=_REPAIR)
    return content


def _entry(content: Mapping[str, Any]) -> Entry:
    return Entry(
        batch=content["batch"],
        item_id=content["item_id"],
        annotator=content["annotator"],
        guideline=content["guideline"],
        status=content["status"],
        values=content["values"],
        inserted_at=datetime.fromisoformat(content["inserted_at"]),
        updated_at=datetime.fromisoformat(content["updated_at"]),
        seen_at=datetime.fromisoformat(content["seen_at"]),
        seq=content["seq"],
    )


def _repaired_end(file: FileIO, path: Path) -> tuple[int, str]:
    """The next `seq` and `prev`; a torn last line is moved aside and cut off first."""
    torn = _torn_bytes(path)
    if torn:
        with path.with_name("ledger.torn").open("ab") as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        os.fsync(file.fileno())
    last = _last_line(path)
    if not last:
        return 0, FIRST
    content = _parsed(last, f"{path}, last line")
    return int(content["seq"]) + 1, str(content["hash"])


def _torn_bytes(path: Path) -> bytes:
    """What follows the last line break."""
    return _tail(path).rpartition(b"\n")[2]


def _last_line(path: Path) -> bytes:
    return _tail(path).removesuffix(b"\n").rpartition(b"\n")[2]


def _tail(path: Path) -> bytes:
    """The end of the file, with at least one whole line and whatever follows it."""
    size, length = path.stat().st_size, 1 << 16
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - length))
            tail = file.read()
            if len(tail) == size or tail.count(b"\n") >= 3:
                return tail
            length *= 4


def _write_durably(file: FileIO, content: bytes, path: Path) -> None:
    """Append and fsync; on a full disk the file is as it was."""
    end = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), end)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                "the disk is full",
                where=str(path),
                remedy="Free some space and run the same command again: it resumes",
            ) from None
        raise


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
