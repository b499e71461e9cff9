"""`handloom restore --from BACKUP`: a project as it was, without losing what came since.

The archive is checked as a whole, then unpacked beside the project and completed there with what is
newer in the present one: runs and guidelines that the backup lacks, trained weights that it left
out, and the ledger where it continues the backup's, with the answers that a killed server has left
in its outbox. Then a note is written, a PostgreSQL database is loaded, and each part of the project
is moved aside and its successor into its place. A kill before the note leaves the project as it
was; after it every command refuses, and the same command goes on. Nothing is deleted: the present
state lies in a folder beside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from annotate.backup import DATABASE, DUMP, LEDGER, run_client
from annotate.backup_archive import PARTS, check, extract
from annotate.embedded import home as server_home
from annotate.embedded.database import VARIABLE, Database, choose, connect, held
from annotate.errors import HandloomError, InputError, ProjectError, ServerError
from annotate.ledger import Entry, Ledger
from annotate.project_init import keep_from_git
from annotate.runs import INTERRUPTED

_STAGE = ".handloom-restoring"
_LOCK_LINES = Path("guidelines/published.lock")


@dataclass(frozen=True)
class BroughtBack:
    """What was put in place."""

    root: Path
    made: str
    """When the backup was made."""
    aside: Path | None
    """Where the state before lies; None if there was none."""
    newer_responses: bool
    """Whether the ledger goes on beyond the backup: `handloom restore` brings those back too."""
    ledger_note: str
    """Why the present ledger was not kept; empty if it was, or there was none."""
    outbox_note: str = ""
    """Why it is not known which answers the present database had not given to the ledger yet."""


def project_root(start: Path) -> Path:
    """The project that a folder lies in, whole or interrupted; itself if it is empty.

    Raises:
        InputError: it is neither.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / INTERRUPTED).is_file() or (
            (folder / "runs").is_dir() and (folder / "guidelines").is_dir()
        ):
            return folder
    others = [path.name for path in start.iterdir() if path.suffix != ".tar"]
    if set(others) - {_STAGE}:
        raise InputError(
            "no project here or above, and the folder is not empty",
            where=str(start),
            remedy="Give the command in an empty folder, or in the project",
        )
    return start


def is_replacing(root: Path) -> bool:
    """Whether something would be moved aside."""
    return any((root / part).exists() for part in PARTS)


def bring_back(root: Path, archive: Path) -> BroughtBack:
    """Put a backup in the place of a project, or into an empty folder; goes on after a kill.

    Needs space for the unpacked backup; what is kept of the present is linked, not copied, where
    the file system can.

    Raises:
        InputError: the archive is damaged or hostile; nothing was touched.
        ServerError: the project's server is running, or its database cannot be read or loaded;
            nothing was touched.
    """
    archive = archive.absolute()
    if (root / INTERRUPTED).is_file():
        note = json.loads((root / INTERRUPTED).read_text())
        check_same(note, archive)
        return _go_on(root, note)
    database = _postgresql(root, check(archive).database)
    with _no_server(root), _alone(database):
        stage = root / _STAGE
        made = _unpack(archive, stage)
        waiting, unread = _waiting(root, database)
        newer, why = _keep_longer_ledger(root, stage, waiting)
        _keep_what_is_newer(root, stage)
        aside = f"before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        note = {
            "archive": str(archive),
            "made": made,
            "aside": aside if is_replacing(root) or database is not None else "",
            "newer": newer,
            "why": why,
            "unread": unread,
            "database": "" if database is None else database.shown,
        }
        if database is not None:
            _dump_aside(database, root / aside, stage)
        _write_note(root, note)
        return _finish(root, note, database)


def _unpack(archive: Path, stage: Path) -> str:
    """Unpack a backup into a folder of its own; when the backup was made."""
    if stage.exists():  # of an attempt that was killed before anything was touched
        shutil.rmtree(stage)
    stage.mkdir(mode=0o700)
    for part in PARTS:
        (stage / part).mkdir(mode=0o700 if part.startswith(".") else 0o777)
    return extract(archive, stage).made


def _go_on(root: Path, note: Mapping[str, str]) -> BroughtBack:
    """Finish what was cut off; a dump that still lies there has not been loaded."""
    database = _postgresql(root, "postgresql") if (root / _STAGE / DUMP).exists() else None
    if database is not None and database.shown != note["database"]:
        raise InputError(
            "this backup is half in place, in another database",
            where=note["database"],
            remedy=f"Set {VARIABLE} to that one and give the command again",
        )
    with _no_server(root), _alone(database):
        return _finish(root, note, database)


def check_same(note: Mapping[str, str], archive: Path) -> None:
    """Refuse to go on with another backup than the one that was interrupted."""
    if note["archive"] != str(archive):
        raise ProjectError(
            "another backup is half in place", remedy=f"`handloom restore --from {note['archive']}`"
        )


@contextlib.contextmanager
def _no_server(root: Path) -> Iterator[None]:
    """Keep the project's server from running meanwhile."""
    home = root / ".handloom" / "argilla"
    if home.is_dir():
        with server_home.locked(home):
            yield
    else:
        yield


def _alone(database: Database | None) -> contextlib.AbstractContextManager[object]:
    """Keep every server off a PostgreSQL database, wherever it runs."""
    return contextlib.nullcontext() if database is None else held(database)


def _finish(root: Path, note: Mapping[str, str], database: Database | None) -> BroughtBack:
    """Load the database and move the parts: what is done already is passed over."""
    stage, aside = root / _STAGE, root / note["aside"] if note["aside"] else None
    if database is not None:
        _load_dump(database, root, stage)
    for part in PARTS:
        if not (stage / part).exists():
            continue
        if (root / part).exists():
            if aside is None:
                raise ProjectError("appeared meanwhile", where=str(root / part))
            aside.mkdir(exist_ok=True, mode=0o700)
            (root / part).rename(_free(aside / part))
            _fsync(aside)
        (stage / part).rename(root / part)
        _fsync(root)
    if aside is None:
        keep_from_git(root)
    (root / INTERRUPTED).unlink()
    shutil.rmtree(stage, ignore_errors=True)
    _fsync(root)
    told = note["why"], note.get("unread", "")
    return BroughtBack(root, note["made"], aside, bool(note["newer"]), *told)


def _free(path: Path) -> Path:
    """The path, or the first like it that is not taken: a process may have made the part anew."""
    count = 1
    while path.exists():
        count += 1
        path = path.with_name(f"{path.name}-{count}")
    return path


def _write_note(root: Path, note: Mapping[str, str]) -> None:
    _fsync_tree(root / _STAGE)
    partial = root / f"{INTERRUPTED}.partial"
    with partial.open("w") as file:
        json.dump(note, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(root / INTERRUPTED)
    _fsync(root)


def _waiting(root: Path, database: Database | None) -> tuple[list[Entry], str]:
    """Answers that the present database holds for the ledger, and why they cannot be read.

    A server that was killed, or stopped while the disk was full, acknowledged them and leaves them
    in its outbox. One of the two is empty.

    Raises:
        ServerError: they cannot be read now, though the database is not damaged.
    """
    import sqlalchemy as sa

    from annotate.embedded import outbox_sql

    file = root / DATABASE
    if database is None and not file.exists():
        return [], ""
    engine = sa.create_engine(
        "sqlite://" if database is None else "postgresql+psycopg2://",
        creator=lambda: sqlite3.connect(file) if database is None else connect(database),
        poolclass=sa.NullPool,
    )
    try:
        with engine.connect() as connection:
            return outbox_sql.waiting(connection), ""
    except (sa.exc.DBAPIError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if _is_damage(error):  # often why a backup is wanted
            return [], reason
        raise ServerError(
            f"answers that are not yet in the ledger cannot be read ({reason})",
            where=str(file) if database is None else database.shown,
            remedy="Mend that first; they would be lost",
        ) from None


def _is_damage(error: Exception) -> bool:
    """Whether a database was not as SQLite wrote it, and not only locked, or out of reach."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if code is None:
        return isinstance(error, ValueError)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _keep_longer_ledger(root: Path, stage: Path, waiting: Sequence[Entry]) -> tuple[str, str]:
    """Take the present ledger, with what waited for it, if it continues the backup's.

    Otherwise what waited goes to the backup's, placed by its time: the backup's database may hold
    older answers that the ledger will get only later.

    Returns:
        "newer" if it holds more, and why it was not taken; either may be empty.
    """
    present, saved = Ledger(root / LEDGER), Ledger(stage / LEDGER)
    before, why = saved.verdict(), ""
    if present.path.exists():
        try:
            present.append(waiting)  # mends a torn end, too
            now = present.verdict(before.head)
            why = "; ".join(now.problems[:1])
        except ProjectError as error:
            why = str(error)
        if not why:
            shutil.copy2(present.path, saved.path)  # it will be appended to
            return ("newer" if now.lines > before.lines else ""), ""
    added = saved.append(replace(entry, source="pull") for entry in waiting) if waiting else 0
    return ("newer" if added else ""), why


def _keep_what_is_newer(root: Path, stage: Path) -> None:
    """Complete the stage with what only the present project has.

    Runs and files that the backup lacks; passwords of people whom it does not know.
    """
    for part in ("guidelines", "recipes", "runs"):
        for path in sorted((root / part).rglob("*")):
            target = stage / path.relative_to(root)
            if not path.is_file() or path.is_symlink() or target.exists():
                continue
            if part == "runs" and not _belongs(path, root, stage):
                continue
            _keep(path, target, immutable=part == "runs")
    _merge_lines(root / _LOCK_LINES, stage / _LOCK_LINES)
    _merge_passwords(root / ".handloom" / "users.json", stage / ".handloom" / "users.json")


def _belongs(path: Path, root: Path, stage: Path) -> bool:
    """Whether a file of the present runs completes a run: a new one, or one that is the same."""
    run = path.relative_to(root).parts[1]
    saved, present = stage / "runs" / run / "manifest.json", root / "runs" / run / "manifest.json"
    if not saved.exists():
        return True
    return present.is_file() and present.read_bytes() == saved.read_bytes()


def _merge_lines(present: Path, saved: Path) -> None:
    """Published versions of both: a name stands for what the backup says of it."""
    if not present.is_file() or not saved.is_file():
        return
    text = saved.read_text(encoding="utf-8")
    known = {line.split()[-1] for line in text.splitlines() if line.strip()}
    lines = present.read_text(encoding="utf-8").splitlines()
    newer = [line for line in lines if line.strip() and line.split()[-1] not in known]
    if newer:
        saved.write_text(text + "".join(f"{line}\n" for line in newer), encoding="utf-8")


def _merge_passwords(present: Path, saved: Path) -> None:
    """Passwords of both: the database is the backup's, and so are its people's passwords."""
    try:
        now = json.loads(present.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none, or damaged: it is kept aside
        return
    then = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    if now.keys() - then.keys():
        server_home.write_private(saved, {**now, **then})


def _keep(source: Path, target: Path, *, immutable: bool) -> None:
    """The same file under another name, where the file system can, else a copy.

    What may be edited is copied, so that the state kept aside stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if immutable:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _postgresql(root: Path, kind: str | None) -> Database | None:
    """The PostgreSQL database that a backup of this kind is to be loaded into; None for SQLite."""
    url = os.environ.get(VARIABLE)
    if kind == "postgresql" and not url:
        raise InputError(
            "this backup is of a PostgreSQL database", remedy=f"Set {VARIABLE} to where it is to go"
        )
    if kind == "sqlite" and url:
        raise InputError(f"this backup is of SQLite, and {VARIABLE} is set", remedy="Unset it")
    if kind != "postgresql":
        return None
    return choose(root / ".handloom" / "argilla", url)


def _dump_aside(database: Database, aside: Path, stage: Path) -> None:
    """Dump what the database holds now, and see that the backup's dump can be read."""
    run_client(["pg_restore", "--list", str(stage / DUMP)], {}, database)
    aside.mkdir(mode=0o700, exist_ok=True)
    partial = aside / "database-before.partial"
    command = ["pg_dump", "--format=custom", "--no-owner", f"--file={partial}"]
    run_client(command, _variables(database), database)
    _fsync(partial)
    partial.rename(aside / "database-before.dump")
    _fsync(aside)


def _load_dump(database: Database, root: Path, stage: Path) -> None:
    """Load the database, in one transaction; loading it again changes nothing.

    If it cannot be loaded the project is as it was: this comes before any part is moved.
    """
    command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction"]
    environment = _variables(database)
    name = environment.get("PGDATABASE", "")  # without one, as libpq chooses it
    try:
        run_client([*command, f"--dbname={name}", str(stage / DUMP)], environment, database)
    except HandloomError:
        (root / INTERRUPTED).unlink()
        raise
    (stage / DUMP).unlink()
    _fsync((stage / DUMP).parent)


def _variables(database: Database) -> dict[str, str]:
    """Address and password, for PostgreSQL's client programs."""
    return {k: v for k, v in database.environment.items() if k.startswith("PG")}


def _fsync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
