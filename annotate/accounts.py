"""Annotators' accounts in Argilla: who may log in, and who is a member of what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from annotate.errors import InputError, ServerError
from annotate.passwords import changed_password, ensure_passwords, known_passwords
from annotate.paused import paused_people, remember_pauses
from annotate.people_file import NAME, NAME_RULE, Person
from annotate.progress import progress
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import User, check_workspace
from annotate.transport import StatusError


@dataclass(frozen=True)
class Account:
    """An annotator: who, and the password if this project made it."""

    name: str
    role: str
    password: str | None = field(repr=False)
    workspaces: tuple[str, ...] = ()
    responses: int = 0
    """On the server now, drafts and discards too."""
    paused: str = ""
    """Since when, in ISO 8601, if they are."""


@dataclass(frozen=True)
class Added:
    """What `add_people` did for one person."""

    user: User
    made: bool
    joined: tuple[str, ...]
    """Workspaces they were not a member of before; none while they are paused."""


def list_users(server: Server) -> list[User]:
    """Every account of the server, by name; takes an owner's key."""
    items = server.request("GET", "users")["items"]
    return sorted(map(User.read, items), key=lambda user: user.name)


def find_user(server: Server, name: str) -> User:
    """The account of this name.

    Raises:
        InputError: there is none.
    """
    for user in list_users(server):
        if user.name == name:
            return user
    raise InputError("no such account on this server", where=name, remedy="`handloom users list`")


def add_users(project: Project, server: Server, names: Sequence[str]) -> list[User]:
    """Annotators of these names in the server's workspace, made where they are missing.

    Raises:
        InputError: a name that no account can have.
    """
    check_names(names)
    added = add_people(project, server, [Person(name) for name in dict.fromkeys(names)])
    return [each.user for each in added]


def check_names(names: Iterable[str]) -> None:
    """Refuse a name that we give to nobody, although Argilla may know such.

    Raises:
        InputError: a name that no account can have.
    """
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot be a user's name", remedy=NAME_RULE)


def add_people(
    project: Project, server: Server, people: Sequence[Person], workspaces: Sequence[str] = ()
) -> list[Added]:
    """Have these people be members of workspaces, with accounts made where they are missing.

    An account that is there keeps its names, role and password. Who is paused joins nothing now:
    the workspaces are remembered for their return. May be repeated after a crash.

    Args:
        people: each once; those who name no workspace join `workspaces`.
        workspaces: for everybody; the server's own if neither they nor the person names any.

    Raises:
        InputError: a name that no workspace can have.
        ServerError: the server refuses.
    """
    for workspace in workspaces:
        check_workspace(workspace, "--workspace")
    made = make_accounts(project, server, people)
    users = {user.name: user for user in list_users(server)}
    pauses = paused_people(project)
    joined = _join(server, users, [p for p in people if p.name not in pauses], tuple(workspaces))
    waiting = [person for person in people if person.name in pauses]
    own = {p.name: _own_workspaces(server, p, tuple(workspaces)) for p in waiting}
    for workspace in {name for names in own.values() for name in names}:
        ensure_workspace(server, workspace)
    remember_pauses(project, own)
    return [Added(users[p.name], p.name in made, tuple(joined.get(p.name, ()))) for p in people]


def make_accounts(project: Project, server: Server, people: Sequence[Person]) -> set[str]:
    """Make the accounts that are missing, members of nothing yet; the names of these.

    Raises:
        ServerError: the server refuses.
    """
    known = {user.name for user in list_users(server)}
    missing = [person for person in people if person.name not in known]
    passwords = ensure_passwords(project, [person.name for person in missing])
    with progress("accounts", len(missing)) as advance:
        for person in missing:
            _create(server, person, passwords[person.name])
            advance(1)
    return {person.name for person in missing}


def members(server: Server) -> set[str]:
    """Names of the members of the server's workspace."""
    items = server.request("GET", f"workspaces/{server.workspace_id}/users")["items"]
    return {str(item["username"]) for item in items}


def seen_by(server: Server) -> set[str]:
    """Members of the server's workspace beside owners, who see every workspace anyway."""
    owners = {user.name for user in list_users(server) if user.role == "owner"}
    return members(server) - owners


def _create(server: Server, person: Person, password: str) -> None:
    server.create(
        "users",
        {
            "username": person.name,
            "first_name": person.first_name or person.name,
            "last_name": person.last_name or None,
            "role": person.role or "annotator",
            "password": password,
        },
    )


def _join(
    server: Server, users: Mapping[str, User], people: Sequence[Person], everybody: tuple[str, ...]
) -> dict[str, list[str]]:
    """Make people members, of workspaces made where they are missing; name → those joined now."""
    wanted: dict[str, list[str]] = {}
    for person in people:
        for workspace in _own_workspaces(server, person, everybody):
            wanted.setdefault(workspace, []).append(person.name)
    joined: dict[str, list[str]] = {person.name: [] for person in people}
    for workspace, names in wanted.items():
        path = f"workspaces/{ensure_workspace(server, workspace)}/users"
        members = {item["username"] for item in server.request("GET", path)["items"]}
        for name in names:
            if name not in members:
                server.create(path, {"user_id": users[name].id})
                joined[name].append(workspace)
    return joined


def _own_workspaces(server: Server, person: Person, everybody: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*person.workspaces, *everybody))) or (server.workspace,)


def workspaces_of(server: Server) -> dict[str, str]:
    """Every workspace of the server, name → id; takes an owner's key."""
    items = server.request("GET", "me/workspaces")["items"]
    return {str(item["name"]): str(item["id"]) for item in items}


def ensure_workspace(server: Server, name: str) -> str:
    """The id of a workspace, which is made if it is not there."""
    with server.in_workspace(name) as there:
        return there.workspace_id


def accounts(project: Project, server: Server, workspace: str | None = None) -> list[Account]:
    """Every account of the server, or the members of a workspace, by name.

    A few requests and one for each workspace and data set.

    Raises:
        InputError: the server has no such workspace.
    """
    known = workspaces_of(server)
    if workspace is not None and workspace not in known:
        raise InputError(
            "no such workspace on this server",
            where=workspace,
            remedy=f"It has {', '.join(sorted(known)) or 'none'}",
        )
    members = {
        name: {m["username"] for m in server.request("GET", f"workspaces/{at}/users")["items"]}
        for name, at in sorted(known.items())
    }
    counts: dict[str, int] = {}
    for said in responses_by_data_set(server).values():
        for name, count in said.items():
            counts[name] = counts.get(name, 0) + count
    passwords = known_passwords(project)
    pauses = paused_people(project)
    return [
        Account(
            user.name,
            user.role,
            passwords.get(user.name),
            tuple(name for name, names in members.items() if user.name in names),
            counts.get(user.name, 0),
            pauses[user.name].since if user.name in pauses else "",
        )
        for user in list_users(server)
        if workspace is None or user.name in members[workspace]
    ]


def responses_by_data_set(server: Server) -> dict[tuple[str, str], dict[str, int]]:
    """(workspace, data set) → user → responses there now, of every status; takes an owner's key."""
    names = {at: name for name, at in workspaces_of(server).items()}
    found = {}
    for item in server.request("GET", "me/datasets")["items"]:
        rows = server.request("GET", f"datasets/{item['id']}/users/progress")["users"]
        found[names.get(item["workspace_id"], ""), str(item["name"])] = {
            str(row["username"]): sum(
                count for status in ("completed", "pending") for count in row[status].values()
            )
            for row in rows
        }
    return found


def renew_password(project: Project, server: Server, name: str) -> None:
    """Make up a new password for an account; the old one no longer logs in.

    Raises:
        InputError: there is no such account.
        ServerError: the server refuses; the password is as it was.
    """
    user = find_user(server, name)
    with changed_password(project, name) as new:
        server.request("PATCH", f"users/{user.id}", json={"password": new})


def renew_key(server: Server, name: str) -> str:
    """Give an account a new API key; the old one is refused from now on. A password stays.

    Raises:
        InputError: there is no such account.
        ServerError: the account is the one in use, or this is not the embedded server.
    """
    user = find_user(server, name)
    try:
        answer = server.request("POST", f"{server.url}/api/handloom/users/{user.id}/key")
    except StatusError as error:
        if error.status not in (404, 405):
            raise
        raise ServerError(
            "only the embedded server can renew a key, not this Argilla",
            where=server.url,
            remedy="`handloom users remove`, `handloom users add` and `handloom restore` make the "
            "account anew with its responses",
        ) from None
    return str(answer["api_key"])
