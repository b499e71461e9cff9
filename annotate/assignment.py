"""Items for named people: each group has a workspace of its own, and in it its own data set.

Argilla shows a data set to all members of its workspace, and its overlap is the data set's. So
people are given their own items by being the only annotators of a workspace. A group is a workspace
of the file that `handloom users add --file` takes too:

    name,workspace
    maria,german
    jonas,german
    li,chinese
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from annotate.accounts import list_users
from annotate.errors import InputError
from annotate.paused import paused_people
from annotate.people_file import read_people
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import User

_MAX_NAME = 60
_ODD = re.compile(r"[^A-Za-z0-9_-]+")


def workspace_for(people: Sequence[str]) -> str:
    """The name of the workspace that these people, in whatever order, have to themselves."""
    names = sorted(set(people))
    name = "for-" + "-".join(names)
    plain = _ODD.sub("_", name)
    if plain == name and len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{plain[: _MAX_NAME - 9]}-{digest}"


def read_groups(path: Path) -> dict[str, list[str]]:
    """Workspace → the people who are to share its items, from a file of people.

    Raises:
        InputError: the file or a line of it cannot be used, or somebody is in no group.
    """
    people, bad = read_people(path)
    if bad:
        raise InputError(bad[0].reason, where=f"{path}:{bad[0].line}")
    groups: dict[str, list[str]] = {}
    for person in people:
        if not person.workspaces:
            raise InputError(
                f"{person.name} has no workspace",
                where=str(path),
                remedy="Name one for each person: people with the same one share their items",
            )
        for workspace in person.workspaces:
            groups.setdefault(workspace, []).append(person.name)
    if not groups:
        raise InputError("it names nobody", where=str(path))
    return {workspace: sorted(names) for workspace, names in sorted(groups.items())}


def check_capacity(items: int, overlap: int, people: Sequence[str] | None, cap: int | None) -> None:
    """Refuse items that the named people cannot finish.

    Raises:
        InputError: fewer people than an item needs, or more answers than their caps allow.
    """
    if people is None:
        return
    if len(people) < overlap:
        raise InputError(
            f"{overlap} people must answer each item, and {len(people)} are named "
            f"({', '.join(people)})",
            remedy="Name more people, or lower --overlap",
        )
    if cap is not None and items * overlap > cap * len(people):
        raise InputError(
            f"{items} items by {overlap} people are {items * overlap} answers, and {len(people)} "
            f"people may give {cap} each, {cap * len(people)} in all",
            remedy="Name more people, raise --cap, or show fewer items",
        )


def reserve(project: Project, server: Server, people: Sequence[str]) -> None:
    """Make these people the only annotators of the server's workspace. May be repeated.

    Raises:
        InputError: somebody has no account or is paused, or the workspace has others already.
    """
    users = require_people(project, server, people)
    path = f"workspaces/{server.workspace_id}/users"
    there = {str(item["username"]) for item in server.request("GET", path)["items"]}
    roles = {name: users[name].role for name in there if name in users}
    others = sorted(n for n, role in roles.items() if role == "annotator" and n not in people)
    if others:
        raise InputError(
            f"the workspace {server.workspace} is {others[0]}'s too",
            remedy="Choose another --workspace: these items would be theirs as well",
        )
    for name in sorted(set(people) - there):
        server.create(path, {"user_id": users[name].id})


def require_people(project: Project, server: Server, people: Sequence[str]) -> dict[str, User]:
    """The server's users by name.

    Raises:
        InputError: one of `people` has no account, or is paused.
    """
    users = {user.name: user for user in list_users(server)}
    if missing := [name for name in people if name not in users]:
        raise InputError(
            "no such account on this server",
            where=missing[0],
            remedy=f"`handloom users add {' '.join(missing)}`",
        )
    paused = paused_people(project)
    if resting := [name for name in people if name in paused]:
        raise InputError("is paused", where=resting[0], remedy="Resume them, or name others")
    return users
