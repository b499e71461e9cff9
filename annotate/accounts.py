"""Annotators' accounts in Argilla, and the passwords made up for them.

`<state>/users.json` (mode 0600) holds name → password, so that whoever runs the project can hand
them out. It is written before the account is made: a crash between the two leaves a password
without an account, which the next attempt makes, and never an account nobody can enter. Keys are
not kept: an owner asks Argilla for them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotate.errors import InputError, ProjectError
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import User

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Account:
    """An annotator: who, and the password if this project made it."""

    name: str
    role: str
    password: str | None = field(repr=False)


def users_file(project: Project) -> Path:
    """Where the passwords are kept."""
    return project.state_dir / "users.json"


def list_users(server: Server) -> list[User]:
    """Every account of the server, by name; takes an owner's key."""
    items = server.request("GET", "users")["items"]
    return sorted(map(User.read, items), key=lambda user: user.name)


def add_users(project: Project, server: Server, names: Sequence[str]) -> list[User]:
    """Annotators of these names in the project's workspace, made where they are missing.

    Raises:
        InputError: a name that no account can have.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot be a user's name",
                remedy="Use letters, digits, dots, dashes and underscores, 64 at most",
            )
    known = {user.name: user for user in list_users(server)}
    missing = [name for name in dict.fromkeys(names) if name not in known]
    passwords = _passwords(project, missing)
    for name in missing:
        server.create(
            "users",
            {
                "username": name,
                "first_name": name,
                "role": "annotator",
                "password": passwords[name],
            },
        )
    if missing:
        known = {user.name: user for user in list_users(server)}
    members_path = f"workspaces/{server.workspace_id}/users"
    members = {item["username"] for item in server.request("GET", members_path)["items"]}
    for name in dict.fromkeys(names):
        if name not in members:
            server.create(members_path, {"user_id": known[name].id})
    return [known[name] for name in dict.fromkeys(names)]


def accounts(project: Project, server: Server) -> list[Account]:
    """Every account of the server, with the password where this project made it."""
    passwords = _read(users_file(project))
    return [Account(user.name, user.role, passwords.get(user.name)) for user in list_users(server)]


def _passwords(project: Project, names: Sequence[str]) -> Mapping[str, str]:
    """The passwords on file, those of `names` made up if need be."""
    path = users_file(project)
    passwords = _read(path)
    new = {name: secrets.token_urlsafe(12) for name in names if name not in passwords}
    if new:
        passwords |= new
        _write_private(path, passwords)
    return passwords


def _read(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ProjectError("this file is damaged", where=str(path), remedy="Move it away") from None
    return {str(name): str(password) for name, password in content.items()}


def _write_private(path: Path, content: Mapping[str, str]) -> None:
    """Replace a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
