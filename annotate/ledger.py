"""The ledger: every version of every response, kept for good.

Argilla overwrites a response when it is edited and deletes a user's with the user. So every version
is written down here, and everything else is made from here. On the embedded server each comes from
an outbox that the database fills in the answer's own transaction; on another server from webhooks,
where they are listened to, and from pulls. The same version seen twice is written once.

The file is a chain of hashes (`annotate.ledger_chain`, `annotate.ledger_file`). A payload holds the
members of `Entry`, and `version`, the hash by which a version is known again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from io import FileIO
from os import SEEK_SET, fstat
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotate.errors import ProjectError
from annotate.known_versions import KnownVersions
from annotate.ledger_chain import Verdict, damaged, parsed, payload
from annotate.ledger_entry import VERSION_BYTES, Entry, Key, entry_of, payload_of, version
from annotate.ledger_file import LedgerFile
from annotate.runs import Project

__all__ = ["TABLE", "Entry", "Key", "Ledger"]

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
        "seconds": pa.float64(),
        "source": pa.string(),
        "cause": pa.string(),
        "workspace": pa.string(),
    }
)

_ROWS_A_CHUNK = 50_000
_VERSION = b'"version":"'


class Ledger:
    """The append-only history of a project's responses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LedgerFile(path)
        self._known = _Known()

    @classmethod
    def of(cls, project: Project) -> Ledger:
        """The project's ledger; it need not exist yet."""
        return cls(project.state_dir / "ledger.jsonl")

    def append(self, entries: Iterable[Entry]) -> int:
        """Append those entries whose version is not there yet, and return how many these were.

        A version is a key with a status, values and time: two writers at once append it once. The
        first append of an object reads the whole file (some seconds for a million lines); later
        ones read what others have appended since.

        Raises:
            ProjectError: the end of the file is not of a ledger.
            ResourceError: the disk is full; the ledger is as it was.
        """
        fresh: dict[bytes, dict[str, Any]] = {}
        seen_at = datetime.now(UTC)
        with self._file.writing() as writer:
            self._known.read_on(writer.file, self.path)
            for entry in entries:
                said = payload_of(entry, seen_at)
                mark = bytes.fromhex(said["version"])
                if mark not in self._known.versions and mark not in fresh:
                    fresh[mark] = said
            writer.append(fresh.values())
            self._known.read_on(writer.file, self.path)
        return len(fresh)

    def erase(
        self, *, annotator: str | None = None, item_id: str | None = None, reason: str
    ) -> int:
        """Take what was said by an annotator, or about an item, out of the ledger for good.

        Of each of these lines the note remains that and why it was erased; the chain verifies. What
        the server still has, the next pull writes down again: delete it there first. Given both, an
        entry must be of both.

        Returns:
            How many entries were erased.

        Raises:
            ValueError: neither an annotator nor an item is named.
            ProjectError: the ledger is damaged.
            ResourceError: the disk is full; the ledger is as it was.
        """
        if annotator is None and item_id is None:
            raise ValueError("name an annotator or an item")

        def is_meant(said: Mapping[str, Any]) -> bool:
            by = annotator is None or said["annotator"] == annotator
            return by and (item_id is None or said["item_id"] == item_id)

        return self._file.erase(is_meant, reason)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry that is not erased, in the order written, one at a time."""
        return self._entries(())

    def standing(self, batches: Collection[str]) -> dict[Key, Entry]:
        """The entry that counts for each (batch, item, annotator) of these batches.

        The last of them: in the outbox's own order, and by time where pull and outbox may have
        written out of order (see `_in_order`). What went with its user or record still counts, and
        a restatement counts from its first time on; so a restored server changes nothing. A
        response withdrawn by its author stands as "deleted".

        Memory in proportion to the versions of these batches.
        """
        versions: dict[Key, list[Entry]] = {}
        for entry in self._entries(batches):
            if entry.batch in batches and not entry.is_loss:
                versions.setdefault(entry.key, []).append(entry)
        return {key: _standing(each) for key, each in versions.items()}

    def history(self, item_ids: Collection[str]) -> list[Entry]:
        """Every entry about these items, oldest first: edits, drafts, discards and deletions."""
        return _in_order(entry for entry in self._entries(item_ids) if entry.item_id in item_ids)

    def read(self) -> pa.Table:
        """The whole ledger as a table with the schema `TABLE`."""
        chunks, rows = [], []
        for entry in self:
            row = {name: getattr(entry, name) for name in TABLE.names}
            rows.append({**row, "values": json.dumps(entry.values, sort_keys=True)})
            if len(rows) == _ROWS_A_CHUNK:
                chunks.append(pa.Table.from_pylist(rows, schema=TABLE))
                rows = []
        chunks.append(pa.Table.from_pylist(rows, schema=TABLE))
        return pa.concat_tables(chunks)

    def verify(self) -> list[str]:
        """What is wrong with the chain of hashes, one line each; empty where all is well."""
        return self.verdict().problems

    def verdict(self, known_head: str | None = None) -> Verdict:
        """What a walk along the chain finds; see `ledger_chain.verdict`."""
        return self._file.verify(known_head)

    def lost_by(self, project: Project) -> str:
        """What to say where pull runs were made from a ledger that is not there; else nothing."""
        if next(self._file.lines(), None) is not None:
            return ""
        runs = [r.id for r in project.all_runs() if r.step == "pull" and r.metrics.get("responses")]
        if not runs:
            return ""
        made = f"{runs[0]} was" if len(runs) == 1 else f"{runs[0]} and {len(runs) - 1} more were"
        return f"there is no ledger here, and {made} made from one"

    def require_intact(self) -> None:
        """Refuse to go on from a ledger that was changed by hand: its words are not what was said.

        Reads and hashes every line, about 20 µs each. A torn end, which the next writer mends, is
        no fault. A ledger that is not there is intact.

        Raises:
            ProjectError: the chain of hashes is broken; names the first line where it is.
        """
        if problems := self._file.broken():
            first, *more = problems
            raise ProjectError(
                f"the ledger was changed by hand: {first}"
                + (f", and {len(more)} more" if more else ""),
                where=str(self.path),
                remedy="`handloom ledger verify` says where; bring the file back from a backup "
                "(`handloom restore --from BACKUP`)",
            )

    def _entries(self, names: Collection[str]) -> Iterator[Entry]:
        """The entries of lines that hold one of these names somewhere; of all if none is given."""
        marks = [json.dumps(name).encode() for name in names]
        for number, line in self._file.lines():
            if marks and not any(mark in line for mark in marks):
                continue  # parse only lines that may be meant
            where = f"{self.path}:{number}"
            content = parsed(line, where)
            if (said := payload(content)) is not None:
                try:
                    entry = entry_of(said, content["seq"])
                except (KeyError, TypeError, ValueError):
                    raise damaged(where) from None
                yield entry


class _Known:
    """The versions in a ledger's file, kept up with what any process appends to it."""

    def __init__(self) -> None:
        self.versions = KnownVersions()
        self._inode, self._read_to = 0, 0

    def read_on(self, file: FileIO, path: Path) -> None:
        """Take in what was written since the last call; all of it if the file was replaced."""
        state = fstat(file.fileno())
        if state.st_ino != self._inode or state.st_size < self._read_to:
            self.versions = KnownVersions()
            self._inode, self._read_to = state.st_ino, 0
        with open(file.fileno(), "rb", closefd=False) as lines:
            lines.seek(self._read_to, SEEK_SET)
            for line in lines:
                mark = _version_in(line, path)
                if mark is not None and mark not in self.versions:
                    self.versions.add(mark)
        self._read_to = state.st_size


def _version_in(line: bytes, path: Path) -> bytes | None:
    """The version a line writes down; None if it was erased, records an erasure or is damaged.

    Within a text every quotation mark is escaped, and only names of texts follow this member in the
    sorted payload: so the last occurrence is the member itself. A damaged line is for `verify` to
    tell; what people say now is written down all the same.
    """
    at = line.rfind(_VERSION)
    try:
        if at >= 0:
            at += len(_VERSION)
            return bytes.fromhex(line[at : at + 2 * VERSION_BYTES].decode())
        said = payload(parsed(line, str(path)))
        return None if said is None else version(entry_of(said))
    except (ProjectError, KeyError, ValueError):
        return None


def _in_order(written: Iterable[Entry]) -> list[Entry]:
    """Entries in the order in which they were said; given as they were written.

    The outbox's of one key were written in that order, whatever the clocks say: a clock may be set
    back, and the database's host, which dates deletions, has another one than the application. None
    of them counts as older than one before it. What pulls and webhooks saw stands where its time
    puts it.
    """
    reached: dict[Key, datetime] = {}
    placed: list[tuple[datetime, int, Entry]] = []
    for number, entry in enumerate(written):
        at = entry.updated_at
        if entry.source == "outbox":
            at = reached[entry.key] = max(at, reached.get(entry.key, at))
        placed.append((at, number, entry))
    return [entry for _, _, entry in sorted(placed, key=lambda each: each[:2])]


def _standing(versions: list[Entry]) -> Entry:
    """Of the versions of one key, the last; restated ones with their first time."""
    first, *later = _in_order(versions)
    for entry in later:
        if not entry.restates(first):
            first = entry
    return first
