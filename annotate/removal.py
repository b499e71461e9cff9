"""Somebody leaves: the account goes, every response stays in the ledger.

Argilla deletes a person's responses with the account. So the person is first taken out of every
workspace, which ends their answering; then all that the server holds of every batch is written into
the ledger, and that theirs goes on purpose; only then the account is deleted. What fails before
that puts the memberships back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from annotate.accounts import find_user, responses_by_data_set
from annotate.batches import pushed_batches, write_down_all
from annotate.errors import InputError
from annotate.ledger import Ledger
from annotate.passwords import forget_password
from annotate.paused import forget_pauses
from annotate.pausing import Left, end_memberships, memberships
from annotate.runs import Project
from annotate.server import Server
from annotate.server_types import User
from annotate.transport import StatusError


@dataclass(frozen=True)
class Removed:
    """An account that is gone."""

    name: str
    kept: int
    """Their responses that the ledger keeps, drafts and discards too."""
    lost: int
    """Those that went with it: to data sets that are not of this project."""


def remove_users(
    project: Project, server: Server, names: Sequence[str], *, lose_others: bool = False
) -> list[Removed]:
    """Delete accounts once every response of theirs to this project is in the ledger.

    Reads every batch of the project that is on the server once, and the ledger once.

    Args:
        lose_others: delete although the person answered data sets that this project did not push
            (or whose push is unfinished): those responses go with the account.

    Raises:
        InputError: no such account, one's own, or answers to data sets that are not of this
            project; nothing was changed.
        ServerError, ProjectError, ResourceError: the ledger could not be brought up to date, and
            nobody was removed.
    """
    ledger = Ledger.of(project)
    ledger.require_intact()  # the account takes along what only the server still says rightly
    users = [find_user(server, name) for name in dict.fromkeys(names)]
    own = server.check()
    if any(user.id == own.id for user in users):
        raise InputError("this account is the one in use", where=own.name)
    lost = {user.name: _answers_elsewhere(project, server, user.name) for user in users}
    if not lose_others:
        _require_none(lost)
    left = memberships(server, users)
    try:
        end_memberships(server, left)
        server.flush()
        write_down_all(project, server, ledger)
        kept = _on_record(ledger, {user.name for user in users})
    except BaseException:  # Ctrl-C too
        _put_back(server, left)
        raise
    for user in users:
        _delete(server, user)
        forget_password(project, user.name)
    forget_pauses(project, [user.name for user in users])
    return [Removed(u.name, kept[u.name], sum(lost[u.name].values())) for u in users]


def _require_none(lost: Mapping[str, Mapping[str, int]]) -> None:
    for name, others in lost.items():
        if others:
            sets = ", ".join(f"{count} to {data_set}" for data_set, count in others.items())
            raise InputError(
                f"has answers to data sets that no finished push of this project made ({sets})",
                where=name,
                remedy="Finish that push, or lose them with the account: --lose-others",
            )


def _answers_elsewhere(project: Project, server: Server, name: str) -> dict[str, int]:
    """Data set → this person's responses, of those that are no batch of this project."""
    ours = {(b.workspace or server.workspace, b.name) for b in pushed_batches(project)}
    return {
        data_set: said[name]
        for (workspace, data_set), said in responses_by_data_set(server).items()
        if said.get(name) and (workspace, data_set) not in ours
    }


def _put_back(server: Server, left: Sequence[Left]) -> None:
    for one in left:
        server.create(f"workspaces/{one.workspace_id}/users", {"user_id": one.user.id})


def _delete(server: Server, user: User) -> None:
    _request_gone(server, f"users/{user.id}")


def _request_gone(server: Server, path: str) -> None:
    """DELETE something that a dropped connection may have deleted already."""
    try:
        server.request("DELETE", path)
    except StatusError as error:
        if error.status != 404:
            raise


def _on_record(ledger: Ledger, names: set[str]) -> dict[str, int]:
    """Write down that these people's responses go on purpose, which `compare` tells from a loss.

    Returns:
        Responses of these people that the ledger keeps, by person.
    """
    batches = {entry.batch for entry in ledger if entry.annotator in names}
    standing = ledger.standing(batches).values()
    theirs = [e for e in standing if e.annotator in names and e.status != "deleted"]
    now = datetime.now(UTC)
    ledger.append(
        replace(
            entry,
            status="deleted",
            cause="removed",
            updated_at=now,
            seconds=None,
            source="pull",
            event=None,
            seen_at=None,
        )
        for entry in theirs
    )
    kept = dict.fromkeys(names, 0)
    for entry in theirs:
        kept[entry.annotator] += 1
    return kept
