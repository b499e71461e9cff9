"""`handloom backup`: everything a project knows, of a running server, in one file.

First the database, by its own means of consistent copying; then the ledger: what the outbox in that
copy no longer holds is in the ledger already, and what it still holds the server will bring there
when it is started on the copy. Runs are immutable, so the order does not matter for them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.backup_archive import ArchiveWriter, Manifest, check
from annotate.embedded.database import VARIABLE, Database, choose
from annotate.errors import InputError, ProjectError, ServerError
from annotate.ledger import Ledger
from annotate.progress import progress
from annotate.runs import Project, versions

DATABASE, DUMP = ".handloom/argilla/argilla.db", ".handloom/argilla/database.dump"
LEDGER = ".handloom/ledger.jsonl"

_OF_STATE = ("ledger.torn", "paused.json", "users.json")
_NOT_OF_HOME = ("index", "page", "lock", "server.json", "server.log", "server.log.1")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf"})


@dataclass(frozen=True)
class Backup:
    """A backup that was written and read again."""

    path: Path
    manifest: Manifest
    problems: list[str]
    """What was wrong with what was saved, one line each; it was saved as it is."""


def backup(project: Project, target: Path | None = None, *, with_models: bool = False) -> Backup:
    """Save a project, whether its server runs or not, and check what was written.

    Takes time and space in proportion to the project, twice the database for a while.

    Args:
        target: the file to write, or a folder to put one in; the working directory if None.
        with_models: trained weights too.

    Raises:
        InputError: the file is there already, or cannot be written.
        ServerError: the database cannot be copied.
        ProjectError: what was written is not what was read; the file is removed.
    """
    path = _free(target, project)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        database = _copied_database(project, Path(scratch), problems)
        ledger = _copied_ledger(project, Path(scratch), problems)
        partial = Path(scratch) / path.name
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            archive = ArchiveWriter(file)
            left_out = _add_all(project, archive, Path(scratch), with_models=with_models)
            archive.finish(
                made=datetime.now(UTC).isoformat(timespec="seconds"),
                database=database,
                ledger=ledger,
                versions=versions(),
                left_out=left_out,
            )
            file.flush()
            os.fsync(file.fileno())
        try:
            manifest = check(partial)
        except InputError as error:
            raise ProjectError(
                f"what was written cannot be read again ({error.what})",
                where=str(path),
                remedy="Is the disk in order? Try another one",
            ) from None
        partial.rename(path)
    _fsync_folder(path.parent)
    return Backup(path, manifest, problems)


def _free(target: Path | None, project: Project) -> Path:
    """The file to write, absolute; refused if there is one."""
    path = (target or Path.cwd()).absolute()
    if path.is_dir():
        name = f"handloom-{project.root.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar"
        path /= name.replace(" ", "-")
    if path.exists():
        raise InputError("this file is there already", where=str(path))
    if not os.access(path.parent, os.W_OK):
        raise InputError("this folder cannot be written to", where=str(path.parent))
    return path


def _copied_database(project: Project, scratch: Path, problems: list[str]) -> str | None:
    """Copy Argilla's database as of one moment; its kind, or None if it is not here."""
    home = project.state_dir / "argilla"
    database = choose(home, os.environ.get(VARIABLE))
    if database.kind == "postgresql":
        _dump(database, scratch / "database.dump")
        return database.kind
    source, copy = home / "argilla.db", scratch / "argilla.db"
    if not source.exists():
        return None
    try:
        with closing(sqlite3.connect(source, timeout=30)) as db, closing(_private(copy)) as to:
            db.backup(to)
            to.execute("PRAGMA journal_mode = DELETE")
            found = [str(row[0]) for row in to.execute("PRAGMA integrity_check")]
    except sqlite3.Error as error:
        raise ServerError(
            f"the database cannot be copied ({error})",
            where=str(source),
            remedy="If it is damaged: `handloom restore --from BACKUP`, or move it away, start "
            "the server and `handloom restore`",
        ) from None
    problems += [f"{source}: {line}" for line in found if line != "ok"]
    return database.kind


def _private(path: Path) -> sqlite3.Connection:
    path.touch(0o600)
    return sqlite3.connect(path)


def _dump(database: Database, path: Path) -> None:
    """pg_dump in its custom format; address and password go by the environment."""
    environment = {k: v for k, v in database.environment.items() if k.startswith("PG")}
    command = ["pg_dump", "--format=custom", "--no-owner", f"--file={path}"]
    run_client(command, environment, database)


def run_client(command: list[str], environment: dict[str, str], database: Database) -> None:
    """Run a program of PostgreSQL's client.

    Raises:
        ServerError: it is not installed, or failed.
    """
    program = shutil.which(command[0])
    if program is None:
        raise ServerError(
            f"{command[0]} is not installed, which PostgreSQL needs for this",
            remedy="Install PostgreSQL's client programs, of the server's version or newer",
        )
    done = subprocess.run(
        [program, *command[1:]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[:300]
        raise ServerError(f"{command[0]} failed ({said})", where=database.shown)


def _copied_ledger(project: Project, scratch: Path, problems: list[str]) -> dict[str, Any]:
    """Copy the ledger's whole lines; how many, and the hash of the last."""
    ledger, copy = Ledger.of(project), scratch / "ledger.jsonl"
    if ledger.path.exists():
        with ledger.path.open("rb") as source, copy.open("xb") as to:
            shutil.copyfileobj(source, to)
        _cut_torn_end(copy)
    verdict = Ledger(copy).verdict()
    problems += [f"{ledger.path}: {line}" for line in verdict.problems]
    return {"lines": verdict.lines, "head": verdict.head}


def _cut_torn_end(path: Path) -> None:
    """Take off what was being written while it was copied: it is in the next backup."""
    with path.open("r+b") as file:
        at = file.seek(0, os.SEEK_END)
        while at:
            start = max(0, at - 65536)
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            at = start
        file.truncate(0)


def _add_all(
    project: Project, archive: ArchiveWriter, scratch: Path, *, with_models: bool
) -> list[str]:
    """Put everything into the archive; what was left out."""
    files = list(_files(project, scratch))
    left_out = [name for name, _ in files if not with_models and _is_weights(name)]
    with progress("backup", len(files)) as advance:
        for name, path in files:
            if with_models or not _is_weights(name):
                archive.add(name, path)
            advance(1)
    return left_out


def _is_weights(name: str) -> bool:
    return name.startswith("runs/") and Path(name).suffix in _WEIGHTS


def _files(project: Project, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Every file that belongs into a backup: name in the archive, and where it lies."""
    for name, copy in ((DATABASE, "argilla.db"), (DUMP, "database.dump"), (LEDGER, "ledger.jsonl")):
        if (scratch / copy).exists():
            yield name, scratch / copy
    state = project.state_dir
    for name in _OF_STATE:
        if (state / name).is_file():
            yield f".handloom/{name}", state / name
    home = state / "argilla"
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        ours = path.name in _NOT_OF_HOME or path.name.startswith((".", "argilla.db"))
        if path.is_file() and not ours:
            yield f".handloom/argilla/{path.name}", path
    folders = [project.root / "guidelines", project.root / "recipes"]
    for folder in [*folders, *(run.path for run in project.run_folders())]:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield path.relative_to(project.root).as_posix(), path


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
