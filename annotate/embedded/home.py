"""The server's folder: its lock, address and secrets. Imports nothing of Argilla.

<home>/argilla.db         Argilla's database: everything people did
<home>/index/             search indexes, rebuilt when missing or behind
<home>/credentials.json   the owner's password and key, and the key that signs sessions
<home>/server.json        address and process of the running server
<home>/server.log         what it says
<home>/lock               held while a server runs; the system frees it when a process dies
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from annotate.errors import ServerError

# Who only looks whether a server runs holds the lock for an instant: try again before refusing.
LOCK_TRIES = 10
LOCK_WAIT_SECONDS = 0.05

START_REMEDY = "Start it with `handloom up`"


@dataclass(frozen=True)
class ServerAddress:
    """Where a server answers, and its process."""

    url: str
    pid: int
    port: int


@dataclass(frozen=True)
class Credentials:
    """The owner of the embedded server. Secrets do not show in `repr`."""

    url: str
    username: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


@dataclass(frozen=True)
class Secrets:
    """What a first start makes up: the owner's, and the key that signs web sessions."""

    username: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)
    session_key: str = field(repr=False)


def prepare(home: Path) -> None:
    """Make the folder, for its owner only."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.chmod(0o700)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the folder for one server.

    Raises:
        ServerError: another process holds it.
    """
    with (home / "lock").open("a+") as lock:
        for patience in reversed(range(LOCK_TRIES)):
            if _try_lock(lock):
                break
            if not patience:
                raise ServerError(
                    "another server is running on this project",
                    where=str(home),
                    remedy="Use it, or stop it with `handloom down`",
                )
            time.sleep(LOCK_WAIT_SECONDS)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(home: Path) -> int | None:
    """Process that holds the folder; None if no server runs, or it died."""
    path = home / "lock"
    if not path.exists():
        return None
    with path.open("r+") as lock:
        if _try_lock(lock):
            return None
        text = lock.read()
        return int(text) if text else None


def address(home: Path) -> ServerAddress | None:
    """The running server's address; None while there is none, or it is still starting."""
    pid = holder(home)
    record = _read(home / "server.json")
    if pid is None or record is None or record["pid"] != pid:
        return None
    return ServerAddress(**record)


def announce(home: Path, where: ServerAddress) -> None:
    """Write down the address for other processes."""
    write_private(home / "server.json", {"url": where.url, "pid": where.pid, "port": where.port})


def secrets_of(home: Path) -> Secrets:
    """The folder's secrets, made up at the first call."""
    path = home / "credentials.json"
    if (found := _read(path)) is not None:
        return Secrets(**found)
    made = {
        "username": "owner",
        "password": secrets.token_urlsafe(18),
        "api_key": secrets.token_urlsafe(48),
        "session_key": secrets.token_hex(32),
    }
    write_private(path, made)
    return Secrets(**made)


def credentials(home: Path) -> Credentials:
    """How to log in as the owner of the running server.

    Raises:
        ServerError: no server runs on this folder.
    """
    where = address(home)
    if where is None:
        raise ServerError("Argilla is not running", where=str(home), remedy=START_REMEDY)
    own = secrets_of(home)
    return Credentials(where.url, own.username, own.password, own.api_key)


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that only its owner can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is no such file.

    Raises:
        ServerError: the file is damaged.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        content: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ServerError(
            "this file is damaged",
            where=str(path),
            remedy="Remove it and start the server again: a new one will be made",
        ) from None
    return content
