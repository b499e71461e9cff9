"""The file a backup is in: a plain tar archive of which every byte is accounted for.

Its last member, MANIFEST.json, is `{"manifest": …, "sha256": hash of the manifest}`. The manifest
holds the SHA-256 and size of every file, and of all of the archive that stands before it; what
follows it can only be padding. So a change of any byte is found, and the file that it is in is
named. Any tar program can read the archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from annotate.errors import InputError, ResourceError

FORMAT = 1
MANIFEST = "MANIFEST.json"
PARTS = (".handloom", "guidelines", "recipes", "runs")
"""What may stand in the archive, and so what a backup may put in place."""

_PIECE = 1 << 20
_ERRORS = (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, OverflowError)
_REMEDY = "Use another backup"


@dataclass(frozen=True)
class Stored:
    """One file of the archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an archive says of itself."""

    made: str
    """When, ISO 8601, UTC."""
    database: str | None
    """sqlite, postgresql, or None where the answers are on another server."""
    ledger: Mapping[str, Any]
    """`lines`, and `head`, the hash of the last."""
    versions: Mapping[str, str]
    left_out: list[str]
    """Trained weights, by path."""
    files: Mapping[str, Stored] = field(repr=False)


class ArchiveWriter:
    """Writes an archive; `finish` makes it one.

    Args:
        file: open for writing and empty.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _Hashing(file)
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]
        self._files: dict[str, Stored] = {}

    def add(self, name: str, source: Path) -> None:
        """Put a file into the archive as it is now.

        Raises:
            ResourceError: it grew shorter meanwhile.
        """
        with source.open("rb") as file:
            state = os.fstat(file.fileno())
            info = _info(name, state.st_size, state.st_mode)
            info.mtime = int(state.st_mtime)
            hashing = _HashingReader(file, state.st_size)
            try:
                self._tar.addfile(info, hashing)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise ResourceError("was changed while it was saved", where=str(source)) from None
        self._files[name] = Stored(state.st_size, hashing.digest.hexdigest())

    def finish(self, **about: Any) -> None:
        """Write the manifest and the end; `about` are the members of `Manifest` but `files`."""
        content = {
            "format": FORMAT,
            **about,
            "files": {name: vars(stored) for name, stored in sorted(self._files.items())},
            "before": {"bytes": self._file.tell(), "sha256": self._file.digest.hexdigest()},
        }
        text = _sealed(content)
        info = _info(MANIFEST, len(text), 0o600)
        self._file.write(_end_of_archive(info, text, self._file.tell()))


def check(path: Path) -> Manifest:
    """Read every byte of an archive and hold it against its manifest.

    Raises:
        InputError: it is damaged, not a backup, or holds what no backup may hold.
    """
    try:
        with path.open("rb") as file:
            return _checked(file, path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def extract(path: Path, folder: Path) -> Manifest:
    """Check an archive, then unpack its files under a folder without files, each fsynced.

    Raises:
        InputError: see `check`; nothing was written.
    """
    manifest = check(path)
    with path.open("rb") as file:
        for member, content in _members(file):
            if member.name == MANIFEST:
                continue
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            mode = 0o600 | (member.mode & 0o155 if not member.name.startswith(".") else 0)
            with os.fdopen(os.open(target, flags, mode), "wb") as written:
                while piece := content.read(_PIECE):
                    digest.update(piece)
                    written.write(piece)
                written.flush()
                os.fsync(written.fileno())
            if digest.hexdigest() != manifest.files[member.name].sha256:
                raise InputError("was changed while it was read", where=f"{path}, {member.name}")
    return manifest


def _checked(file: IO[bytes], path: Path) -> Manifest:
    found: dict[str, Stored] = {}
    last: tuple[tarfile.TarInfo, bytes] | None = None
    try:
        for member, content in _members(file):
            if last is not None:
                raise _bad(path, "something follows its manifest")
            if member.name == MANIFEST:
                last = member, content.read()
                continue
            if reason := _forbidden(member, found):
                raise _bad(path, f"{member.name!r} {reason}")
            digest = hashlib.sha256()
            while piece := content.read(_PIECE):
                digest.update(piece)
            found[member.name] = Stored(member.size, digest.hexdigest())
        if last is None:
            raise _bad(path, "it is cut off, damaged, or not a backup")
        content_of = _unsealed(last[1])
        files = {name: Stored(**stored) for name, stored in content_of["files"].items()}
        _compare(found, files, path)
        _check_rest(file, last[0], last[1], content_of["before"], path)
        return Manifest(
            made=str(content_of["made"]),
            database=content_of["database"],
            ledger=content_of["ledger"],
            versions=content_of["versions"],
            left_out=list(content_of["left_out"]),
            files=files,
        )
    except _ERRORS:
        raise _bad(path, "it is cut off, damaged, or not a backup") from None


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Every member with its content; of anything but a plain file an empty one."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.type == tarfile.REGTYPE else None
            yield member, content or open(os.devnull, "rb")  # noqa: SIM115, PTH123


def _forbidden(member: tarfile.TarInfo, found: Mapping[str, Stored]) -> str:
    """Why a member may not be in a backup; empty if it may."""
    name = PurePosixPath(member.name)
    if member.type != tarfile.REGTYPE or member.sparse is not None:
        return "is not a plain file"
    if name.is_absolute() or ".." in name.parts or str(name) != member.name or "\0" in member.name:
        return "would not lie within the project"
    if name.parts[0] not in PARTS or len(name.parts) < 2:
        return "is no part of a project"
    return "is there twice" if member.name in found else ""


def _compare(found: Mapping[str, Stored], said: Mapping[str, Stored], path: Path) -> None:
    for name in sorted(said.keys() | found.keys()):
        if name not in found:
            raise _bad(path, f"{name} is missing")
        if name not in said:
            raise _bad(path, f"{name} is not in its manifest")
        if found[name] != said[name]:
            raise _bad(path, f"{name} is damaged")


def _check_rest(
    file: IO[bytes], member: tarfile.TarInfo, text: bytes, before: Mapping[str, Any], path: Path
) -> None:
    """The archive as a whole, beyond its files: headers, padding, end."""
    file.seek(0)
    digest, left = hashlib.sha256(), int(before["bytes"])
    while left and (piece := file.read(min(_PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    start = int(before["bytes"])
    if left or digest.hexdigest() != before["sha256"]:
        raise _bad(path, "it is damaged outside of its files")
    expected = _end_of_archive(_info(MANIFEST, len(text), 0o600), text, start)
    if member.offset != start or file.read(len(expected) + 1) != expected:
        raise _bad(path, "its end is damaged")


def _bad(path: Path, what: str) -> InputError:
    return InputError(f"this backup cannot be used: {what}", where=str(path), remedy=_REMEDY)


def _info(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode & 0o755
    return info


def _end_of_archive(info: tarfile.TarInfo, text: bytes, start: int) -> bytes:
    """The manifest as a member that begins at `start`, and the archive's end."""
    end = info.tobuf(tarfile.USTAR_FORMAT) + text
    end += b"\0" * (-len(end) % tarfile.BLOCKSIZE) + b"\0" * 2 * tarfile.BLOCKSIZE
    return end + b"\0" * (-(start + len(end)) % tarfile.RECORDSIZE)


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, indent=1)


def _sealed(content: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_canonical(content).encode()).hexdigest()
    return (_canonical({"manifest": content, "sha256": digest}) + "\n").encode()


def _unsealed(text: bytes) -> dict[str, Any]:
    """The manifest of its member's text.

    Raises:
        ValueError: it is not what was written.
    """
    content: dict[str, Any] = json.loads(text)["manifest"]
    if _sealed(content) != text or content["format"] != FORMAT:
        raise ValueError("the manifest is damaged")
    return content


class _Hashing:
    """A file being written, with the hash of all that went into it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self._file.tell()


class _HashingReader:
    """The first bytes of a file being read, with their hash."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        self.digest.update(piece)
        return piece
