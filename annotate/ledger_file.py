"""The ledger as a file: one writer at a time, durable, repaired after a crash, never half written.

`<state>/ledger.jsonl` holds one line of `annotate.ledger_chain` after another. One process writes
at a time (flock); a write is fsynced before it counts. A crash can only tear the last line: the
next writer moves what is left of it to `ledger.torn` and goes on; readers pass it over. An erasure
replaces the file as a whole, under the same lock; a writer that waited with the old file in its
hand opens the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from annotate.errors import ResourceError
from annotate.ledger_chain import FIRST, Verdict, emptied, erasure, parsed, payload, sealed, verdict

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Writer:
    """The file while this process alone may append to it."""

    def __init__(self, file: FileIO, path: Path) -> None:
        self.file = file
        self._path = path
        self._seq, self._prev = _repaired_end(file, path)

    def append(self, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Append and fsync, all or nothing.

        Raises:
            ResourceError: the disk is full; the file is as it was.
        """
        lines = []
        seq, prev = self._seq, self._prev
        for said in payloads:
            line, prev = sealed(said, seq, prev)
            lines.append(line)
            seq += 1
        if lines:
            _append_durably(self.file, b"".join(lines), self._path)
            self._seq, self._prev = seq, prev


class LedgerFile:
    """Chained lines in a file, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, numbered from 1; a torn last one is passed over."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # or the rest of it, if written meanwhile, would pass for a line
                yield number, line

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Wait until no other process writes, mend a torn end, and hold the file.

        Raises:
            ProjectError: the end of the file is not a line of a ledger.
        """
        while True:
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(file, self.path):  # replaced by an erasure while we waited
                    continue
                if new:
                    _fsync_folder(self.path.parent)
                yield Writer(file, self.path)
                return

    def erase(self, is_meant: Callable[[Mapping[str, Any]], bool], reason: str) -> int:
        """Empty the lines whose payload is meant, and record that; how many these were.

        The whole file is written anew beside the old one and takes its place at once. A torn line
        that was put aside earlier may hold what is to be erased and is removed.

        Raises:
            ProjectError: the file is damaged.
            ResourceError: the disk is full; the file is as it was.
        """
        time = datetime.now(UTC).isoformat()
        draft = self.path.with_name(f".{self.path.name}.erasing")
        with self.writing():
            draft.unlink(missing_ok=True)
            try:
                with open(draft, "xb", opener=_private) as new:
                    seqs = self._copy_without(is_meant, new, time, reason)
                if seqs:
                    draft.replace(self.path)
                    _fsync_folder(self.path.parent)
            except OSError as error:
                raise _full(error, self.path) from None
            finally:
                draft.unlink(missing_ok=True)
        self.path.with_name("ledger.torn").unlink(missing_ok=True)
        return len(seqs)

    def _copy_without(
        self, is_meant: Callable[[Mapping[str, Any]], bool], new: Any, time: str, reason: str
    ) -> list[int]:
        """Write the file's lines to `new`, those that are meant emptied, and the record of it."""
        seqs: list[int] = []
        seq, prev = -1, FIRST
        for number, line in self.lines():
            content = parsed(line, f"{self.path}:{number}")
            seq, prev = int(content["seq"]), str(content["hash"])
            said = payload(content)
            if said is not None and is_meant(said):
                line = emptied(content, time, reason)
                seqs.append(seq)
            new.write(line)
        new.write(sealed(erasure(seqs, time, reason), seq + 1, prev)[0])
        new.flush()
        os.fsync(new.fileno())
        return seqs

    def verify(self, known_head: str | None = None) -> Verdict:
        """Follow the chain; see `ledger_chain.verdict`."""
        found = verdict(self.lines(), known_head)
        if self._is_torn():
            found.problems.append(f"line {found.lines + 1} is torn; the next writer mends it")
        return found

    def broken(self) -> list[str]:
        """Where the chain does not hold, whatever the state of its end."""
        return verdict(self.lines()).problems

    def _is_torn(self) -> bool:
        """Whether a crash left half a line; what is just being written is waited for."""
        if not self.path.exists() or not _torn_bytes(self.path):
            return False
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return bool(_torn_bytes(self.path))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _repaired_end(file: FileIO, path: Path) -> tuple[int, str]:
    """The next `seq` and `prev`; a torn last line is moved aside and cut off first."""
    torn = _torn_bytes(path)
    if torn:
        with open(path.with_name("ledger.torn"), "ab", opener=_private) as aside:
            aside.write(torn + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        os.fsync(file.fileno())
    last = _tail(path).removesuffix(b"\n").rpartition(b"\n")[2]
    if not last:
        return 0, FIRST
    content = parsed(last, f"{path}, last line")
    return int(content["seq"]) + 1, str(content["hash"])


def _torn_bytes(path: Path) -> bytes:
    """What follows the last line break."""
    return _tail(path).rpartition(b"\n")[2]


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


def _append_durably(file: FileIO, content: bytes, path: Path) -> None:
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
        raise _full(error, path) from None


def _full(error: OSError, path: Path) -> Exception:
    """A full disk as an error the user can act on; any other as it is."""
    if error.errno not in _FULL:
        return error
    return ResourceError(
        "the disk is full",
        where=str(path),
        remedy="Free some space and run the same command again: it resumes",
    )


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
