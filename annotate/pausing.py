"""Somebody pauses, and comes back: `handloom users pause` and `resume`.

Argilla has no such state. What an annotator sees is decided by membership in workspaces, on every
Argilla alike; so a pause ends all memberships and remembers them (`annotate.paused`), and resuming
makes them again. Account, password and responses stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annotate.accounts import find_user, workspaces_of
from annotate.errors import InputError
from annotate.paused import forget_pauses, paused_people, remember_pauses
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import User
from annotate.transport import StatusError


@dataclass(frozen=True)
class Left:
    """A membership that ended."""

    user: User
    workspace: str
    workspace_id: str


@dataclass(frozen=True)
class Resumed:
    """Somebody who is back."""

    name: str
    workspaces: tuple[str, ...]
    """That they are members of again."""
    gone: tuple[str, ...]
    """That they were members of, and that the server no longer has."""


def pause_users(project: Project, server: Server, names: Sequence[str]) -> dict[str, list[str]]:
    """Have these people see no item until they resume; name → the workspaces they left.

    May be repeated, also after a crash: what is remembered is only ever added to. Two requests, and
    one for each workspace and each membership.

    Raises:
        InputError: no such account, the one in use, or an owner, who sees every workspace whether
            a member or not; nothing was changed.
    """
    users = [find_user(server, name) for name in dict.fromkeys(names)]
    own = server.check()
    for user in users:
        if user.id == own.id:
            raise InputError("this account is the one in use", where=own.name)
        if user.role == "owner":
            raise InputError(
                "an owner sees every workspace, whether a member or not, and cannot be paused",
                where=user.name,
            )
    standing = memberships(server, users)
    found: dict[str, list[str]] = {user.name: [] for user in users}
    for membership in standing:
        found[membership.user.name].append(membership.workspace)
    remember_pauses(project, found)
    end_memberships(server, standing)
    return found


def resume_users(project: Project, server: Server, names: Sequence[str]) -> list[Resumed]:
    """Have paused people be members again of what they left, of what the server still has of it.

    Raises:
        InputError: no such account, or somebody who is not paused; nothing was changed.
    """
    pauses = paused_people(project)
    for name in names:
        if name not in pauses:
            raise InputError("is not paused", where=name, remedy="`handloom users list` shows who")
    users = [find_user(server, name) for name in dict.fromkeys(names)]
    known = workspaces_of(server)
    there = {(left.user.id, left.workspace) for left in memberships(server, users)}
    done = []
    for user in users:
        wanted = pauses[user.name].workspaces
        back = tuple(name for name in wanted if name in known)
        for workspace in back:
            if (user.id, workspace) not in there:  # a killed attempt may have come so far
                server.create(f"workspaces/{known[workspace]}/users", {"user_id": user.id})
        forget_pauses(project, [user.name])
        gone = tuple(name for name in wanted if name not in known)
        done.append(Resumed(user.name, back, gone))
    return done


def memberships(server: Server, users: Sequence[User]) -> list[Left]:
    """What these people are members of now; one request for each workspace."""
    found = []
    for name, workspace_id in workspaces_of(server).items():
        members = server.request("GET", f"workspaces/{workspace_id}/users")["items"]
        ids = {item["id"] for item in members}
        found += [Left(user, name, workspace_id) for user in users if user.id in ids]
    return found


def end_memberships(server: Server, standing: Sequence[Left]) -> None:
    """Take people out of workspaces; who is out already stays so."""
    for left in standing:
        try:
            server.request("DELETE", f"workspaces/{left.workspace_id}/users/{left.user.id}")
        except StatusError as error:
            if error.status != 404:  # a dropped connection may have ended it already
                raise
