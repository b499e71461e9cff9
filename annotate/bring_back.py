"""`handloom restore --from BACKUP`: a project as it was, without losing what came since.

The archive is checked as a whole, then unpacked beside the project and completed there with what is
newer in the present one: runs and guidelines that the backup lacks, trained weights that it left
out, and the ledger where it continues the backup's. Then a note is written, and each part of the
project is moved aside and its successor into its place. A kill before the note leaves the project
as it was; after it every command refuses, and the same command goes on. Nothing is deleted: the
present state lies in a folder beside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from annotate.backup import DUMP, LEDGER, run_client
from annotate.backup_archive import PARTS, Manifest, check, extract
from annotate.embedded import home as server_home
from annotate.embedded.database import VARIABLE, Database, choose
from annotate.errors import HandloomError, InputError, ProjectError
from annotate.ledger import Ledger
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
        ServerError: the project's server is running; nothing was touched.
    """
    archive = archive.absolute()
    if (root / INTERRUPTED).is_file():
        note = json.loads((root / INTERRUPTED).read_text())
        check_same(note, archive)
        return _finish(root, note)
    manifest = check(archive)
    with _no_server(root):
        database = _postgresql(root, manifest)
        stage = root / _STAGE
        if stage.exists():  # of an attempt that was killed before anything was touched
            shutil.rmtree(stage)
        stage.mkdir(mode=0o700)
        for part in PARTS:
            (stage / part).mkdir(mode=0o700 if part.startswith(".") else 0o777)
        extract(archive, stage)
        newer, why = _keep_longer_ledger(root, stage)
        _keep_what_is_newer(root, stage)
        aside = f"before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        note = {
            "archive": str(archive),
            "made": manifest.made,
            "aside": aside if is_replacing(root) or database is not None else "",
            "newer": newer,
            "why": why,
        }
        if database is not None:
            _load_dump(database, root, stage, aside)
        _write_note(root, note)
        return _finish(root, note)


def check_same(note: dict[str, str], archive: Path) -> None:
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


def _finish(root: Path, note: dict[str, str]) -> BroughtBack:
    """Move the parts: what is moved already is passed over."""
    stage, aside = root / _STAGE, root / note["aside"] if note["aside"] else None
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
    return BroughtBack(root, note["made"], aside, bool(note["newer"]), note["why"])


def _free(path: Path) -> Path:
    """The path, or the first like it that is not taken: a process may have made the part anew."""
    count = 1
    while path.exists():
        count += 1
        path = path.with_name(f"{path.name}-{count}")
    return path


def _write_note(root: Path, note: dict[str, object]) -> None:
    _fsync_tree(root / _STAGE)
    partial = root / f"{INTERRUPTED}.partial"
    with partial.open("w") as file:
        json.dump(note, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(root / INTERRUPTED)
    _fsync(root)


def _keep_longer_ledger(root: Path, stage: Path) -> tuple[str, str]:
    """Take the present ledger if it continues the backup's.

    Returns:
        "newer" if it holds more, and why it was not taken; either may be empty.
    """
    present, saved = Ledger(root / LEDGER), Ledger(stage / LEDGER)
    if not present.path.exists():
        return "", ""
    before = saved.verdict()
    try:
        now = present.verdict(before.head)
    except HandloomError as error:
        return "", str(error)
    if now.problems:
        return "", now.problems[0]
    shutil.copy2(present.path, saved.path)  # it will be appended to
    return ("newer" if now.lines > before.lines else ""), ""


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


def _postgresql(root: Path, manifest: Manifest) -> Database | None:
    """The PostgreSQL database that the backup is to be loaded into; None for SQLite."""
    url = os.environ.get(VARIABLE)
    if manifest.database == "postgresql" and not url:
        raise InputError(
            "this backup is of a PostgreSQL database", remedy=f"Set {VARIABLE} to where it is to go"
        )
    if manifest.database == "sqlite" and url:
        raise InputError(f"this backup is of SQLite, and {VARIABLE} is set", remedy="Unset it")
    if manifest.database != "postgresql":
        return None
    return choose(root / ".handloom" / "argilla", url)


def _load_dump(database: Database, root: Path, stage: Path, aside: str) -> None:
    """Load the database, in one transaction, after what it holds now was dumped aside."""
    environment = {k: v for k, v in database.environment.items() if k.startswith("PG")}
    kept = root / aside / "database-before.dump"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    run_client(
        ["pg_dump", "--format=custom", "--no-owner", f"--file={kept}"], environment, database
    )
    command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction"]
    name = environment["PGDATABASE"]
    run_client([*command, f"--dbname={name}", str(stage / DUMP)], environment, database)
    (stage / DUMP).unlink()


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
