"""The passwords that were made up for annotators' accounts: `<state>/users.json`.

The file (mode 0600) holds name → password, so that whoever runs the project can hand them out. It
is written before the account is made: a crash between the two leaves a password without an account,
which the next attempt makes, and never an account nobody can enter. Keys are not kept: an owner
asks Argilla for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from annotate.errors import ProjectError
from annotate.runs import Project
from annotate.transport import StatusError


def users_file(project: Project) -> Path:
    """Where the passwords are kept."""
    return project.state_dir / "users.json"


def known_passwords(project: Project) -> dict[str, str]:
    """Name → password, of the accounts that this project made.

    Raises:
        ProjectError: the file is damaged.
    """
    return _read(users_file(project))


def ensure_passwords(project: Project, names: Iterable[str]) -> Mapping[str, str]:
    """The passwords on file, those of `names` made up if need be."""
    with _locked(project):
        passwords = _read(users_file(project))
        new = {name: _made_up() for name in names if name not in passwords}
        if new:
            passwords |= new
            _write_private(users_file(project), passwords)
    return passwords


@contextlib.contextmanager
def changed_password(project: Project, name: str) -> Iterator[str]:
    """A new password for `name`, on file already; the old one again if the server refuses."""
    with _locked(project):
        before = _read(users_file(project))
        new = _made_up()
        _write_private(users_file(project), {**before, name: new})
        try:
            yield new
        except StatusError:  # after a dropped connection the server may have it
            _write_private(users_file(project), before)
            raise


def forget_password(project: Project, name: str) -> None:
    """Take a password out of the file, if it is there."""
    with _locked(project):
        passwords = _read(users_file(project))
        if passwords.pop(name, None) is not None:
            _write_private(users_file(project), passwords)


def _made_up() -> str:
    return secrets.token_urlsafe(12)


@contextlib.contextmanager
def _locked(project: Project) -> Iterator[None]:
    """Let one process at a time change the file of passwords."""
    with users_file(project).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ProjectError("this file is damaged", where=str(path), remedy="Move it away") from None
    return {str(name): str(password) for name, password in content.items()}


def _write_private(path: Path, content: Mapping[str, str]) -> None:
    """Replace a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
