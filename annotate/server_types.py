"""What goes to Argilla and comes from it: batches, records, users, responses, submissions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from annotate.errors import InputError

CAP = "handloom_cap"
"""In a data set's metadata: records that one person may answer."""

WORKSPACE_RULE = "A workspace's name has only letters (a to z, A to Z), digits, - and _"
_WORKSPACE = re.compile(r"[A-Za-z0-9_-]+")


def is_workspace_name(name: str) -> bool:
    """Whether Argilla's SDK takes it; its server takes any, and then no data set can be made."""
    return _WORKSPACE.fullmatch(name) is not None


def check_workspace(name: str, where: str) -> str:
    """The name, if a workspace can have it.

    Args:
        where: the option or variable that said it.

    Raises:
        InputError: the SDK would refuse it.
    """
    if not is_workspace_name(name):
        what = f"{name!r} cannot be a workspace's name"
        raise InputError(what, where=where, remedy=WORKSPACE_RULE)
    return name


@dataclass(frozen=True)
class Batch:
    """An Argilla data set: the items of one push (or of several to the same name)."""

    id: str
    name: str
    ready: bool
    """Published: before that it has no records, and after a crash perhaps not all questions."""
    guideline_text: str
    overlap: int

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Batch:
        """From Argilla's JSON."""
        return cls(
            id=answer["id"],
            name=answer["name"],
            ready=answer["status"] == "ready",
            guideline_text=answer["guidelines"] or "",
            overlap=answer["distribution"]["min_submitted"],
        )


@dataclass(frozen=True)
class Suggestion:
    """An answer that a model proposes."""

    value: Any
    score: float | Sequence[float] | None = None
    """Between 0 and 1; several for several values."""
    agent: str | None = None


@dataclass(frozen=True)
class Answer:
    """A response to put on the server in somebody's name."""

    annotator: str
    values: Mapping[str, Any]
    """Question → {"value": …}."""
    status: str = "submitted"
    """submitted, draft or discarded."""


@dataclass(frozen=True)
class Record:
    """An item as Argilla takes it and gives it back."""

    item_id: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]
    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    """By question."""
    vectors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    responses: Sequence[Answer | Response] = ()
    """At most one of each annotator; as it comes back, with ids and times."""


@dataclass(frozen=True)
class Placed:
    """A record on the server."""

    record_id: str
    since: datetime
    """When it was put there."""

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Placed:
        """From Argilla's JSON."""
        return cls(answer["id"], _utc(answer["inserted_at"]))


@dataclass(frozen=True)
class User:
    """An account on the server."""

    id: str
    name: str
    role: str
    api_key: str = field(repr=False)
    since: datetime
    """When the account was made."""

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> User:
        """From Argilla's JSON."""
        since = _utc(answer["inserted_at"])
        return cls(answer["id"], answer["username"], answer["role"], answer["api_key"], since)


@dataclass(frozen=True)
class Response:
    """What one annotator holds of one item at the moment of asking."""

    item_id: str
    annotator: str
    status: str
    """submitted, draft or discarded."""
    values: Mapping[str, Any]
    """Asked question → {"value": …}, the display not undone."""
    inserted_at: datetime
    updated_at: datetime

    @classmethod
    def read(cls, item_id: str, annotator: str, answer: Mapping[str, Any]) -> Response:
        """From Argilla's JSON, which names record and user by ids of its own."""
        return cls(
            item_id=item_id,
            annotator=annotator,
            status=answer["status"],
            values=answer["values"] or {},
            inserted_at=_utc(answer["inserted_at"]),
            updated_at=_utc(answer["updated_at"]),
        )


@dataclass(frozen=True)
class Submission:
    """An answer to send."""

    record_id: str
    """Argilla's, from `Server.record_ids`."""
    values: Mapping[str, Any]
    status: str = "submitted"
    """submitted, draft or discarded."""


def _utc(text: str) -> datetime:
    """Argilla's times are UTC and do not say so."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
