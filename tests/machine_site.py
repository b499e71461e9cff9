"""A data set on a real server, and what people and programs do to it, over REST."""

import os
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from conftest import RunningArgilla
from search_model import Json
from search_queries import AGENTS, FLAGS, LABELS, METADATA, Content

from annotate.embedded.home import holder
from annotate.embedded.process import running, start

SETTLE_SECONDS = 60.0

_OPTIONS = {
    "label": [{"value": value, "text": value} for value in LABELS],
    "flags": [{"value": value, "text": value} for value in FLAGS],
    "rank": [{"value": value, "text": value} for value in "ab"],
}
_FIELDS: Json = {
    "prompt": {"type": "text", "use_markdown": False},
    "reply": {"type": "text", "use_markdown": False},
    "chat": {"type": "chat", "use_markdown": False},
}
_QUESTIONS: Json = {
    "rating": {"type": "rating", "options": [{"value": value} for value in (1, 2, 3)]},
    "label": {"type": "label_selection", "options": _OPTIONS["label"]},
    "flags": {"type": "multi_label_selection", "options": _OPTIONS["flags"]},
    "reason": {"type": "text", "use_markdown": False},
    "rank": {"type": "ranking", "options": _OPTIONS["rank"]},
}

CORNERS = [
    Content(
        external_id="corner 0",
        fields={
            "prompt": "Card, (refund) 42",
            "chat": [
                {"role": "user", "content": "pay? Card"},  # no phrase goes on in the next turn
                {"role": "assistant", "content": "refund 42"},
            ],
        },
        metadata={"late": "x", "topic": ["billing", "card", "billing"], "score": -0.5},
        suggestions={
            "flags": {"value": ["unsafe", "other"], "score": [0.25, 1.0], "agent": AGENTS[0]}
        },
        vector=[1, 2, 0],
        responses={0: {"status": "submitted", "values": {"rating": {"value": 3}}}},
    ),
    Content(
        external_id="corner 1",
        fields={"prompt": "payment", "reply": None},
        metadata=None,
        suggestions={},
        vector=None,
        responses={
            0: {"status": "submitted", "values": {"rating": {"value": 1}}},
            1: {"status": "discarded", "values": None},
        },
    ),
]
"""Two records that complete in one bulk, and what came out wrong before."""


class Site:
    """A server, its owner and a workspace with two annotators; it may be killed and restarted."""

    def __init__(self, server: RunningArgilla, *, may_be_killed: bool = False) -> None:
        self.home, self.url, self.may_be_killed = server.home, server.url, may_be_killed
        self.owner = Person("", server.api_key)
        name = {"name": f"machine-{uuid.uuid4().hex[:8]}"}
        self.workspace = self.call(self.owner, "POST", "/v1/workspaces", json=name)["id"]
        self.people = [self._hire(), self._hire()]

    def call(self, person: "Person", method: str, path: str, **request: Any) -> Any:
        """The answer to a request, which must succeed."""
        answer = person.http.request(
            method,
            f"{self.url}/api{path}",
            headers={"X-Argilla-Api-Key": person.key},
            timeout=60,
            **request,
        )
        assert answer.is_success, (answer.status_code, answer.text, method, path, request)
        return answer.json() if answer.content else None

    def replace(self, who: int) -> None:
        """Delete an annotator and make a new one."""
        self.call(self.owner, "DELETE", f"/v1/users/{self.people[who].id}")
        self.people[who] = self._hire()

    def _hire(self) -> "Person":
        name = f"ann-{uuid.uuid4().hex[:8]}"
        body = {"first_name": "Ann", "username": name, "password": "a long password"}
        made = self.call(self.owner, "POST", "/v1/users", json=body)
        to = f"/v1/workspaces/{self.workspace}/users"
        self.call(self.owner, "POST", to, json={"user_id": made["id"]})
        return Person(made["id"], made["api_key"])

    def kill(self) -> None:
        """End the server as a power cut would."""
        where = running(self.home)
        assert where is not None
        os.kill(where.pid, signal.SIGKILL)
        assert eventually(lambda: holder(self.home) is None)

    def start(self) -> None:
        """Start the server again."""
        self.url = start(self.home, port=0).url


@dataclass
class Person:
    """A user and their key."""

    id: str
    key: str = field(repr=False)
    http: httpx.Client = field(
        default_factory=lambda: httpx.Client(limits=httpx.Limits(keepalive_expiry=1)), repr=False
    )


class Published:
    """A published data set with every kind of question that Argilla searches, and two others."""

    def __init__(self, site: Site) -> None:
        self.site = site
        body = {"name": f"set-{uuid.uuid4().hex[:8]}", "workspace_id": site.workspace}
        self.id = self._owner("POST", "/v1/datasets", json=body)["id"]
        for name, settings in _FIELDS.items():
            self._declare("fields", name, settings=settings, required=name == "prompt")
        self.questions = {
            name: self._declare("questions", name, settings=settings, required=name == "rating")
            for name, settings in _QUESTIONS.items()
        }
        self.metadata: dict[str, str] = {}
        for name in METADATA.keys() - {"late"}:
            self.declare_metadata(name)
        self._declare("vectors-settings", "meaning", dimensions=3)
        self._owner("PUT", f"/v1/datasets/{self.id}/publish")

    def _owner(self, method: str, path: str, **request: Any) -> Any:
        return self.site.call(self.site.owner, method, path, **request)

    def _declare(self, kind: str, name: str, **body: Any) -> str:
        made = self._owner(
            "POST", f"/v1/datasets/{self.id}/{kind}", json={"name": name, "title": name, **body}
        )
        return str(made["id"])

    def declare_metadata(self, name: str) -> None:
        """Have a metadata property searched."""
        settings = {"type": METADATA[name]}
        self.metadata[name] = self._declare(
            "metadata-properties", name, settings=settings, visible_for_annotators=True
        )

    def record(self, content: Content) -> Json:
        """A record's body, for making or upserting it."""
        body: Json = {
            "fields": dict(content.fields),
            "metadata": content.metadata,
            "suggestions": self.suggestions(content),
            "vectors": self.vectors(content),
            "responses": [
                {"user_id": self.site.people[who].id, **response}
                for who, response in content.responses.items()
            ],
        }
        return body | ({"external_id": content.external_id} if content.external_id else {})

    def suggestions(self, content: Content) -> list[Json]:
        """A record's suggestions, as bodies."""
        return [
            {"question_id": self.questions[name], **rest}
            for name, rest in content.suggestions.items()
        ]

    def vectors(self, content: Content) -> Json:
        """A record's vectors, by name."""
        return {"meaning": content.vector} if content.vector else {}

    def put(self, records: list[Json], *, upsert: bool) -> None:
        """Make records, or change those that there are."""
        path = f"/v1/datasets/{self.id}/records/bulk"
        self._owner("PUT" if upsert else "POST", path, json={"items": records})

    def search(self, person: Person, body: Json, offset: int = 0, limit: int = 1000) -> Json:
        """A page of what is found by an annotator, or by the owner, who sees all responses."""
        whose = "" if person is self.site.owner else "/me"
        page = {"offset": offset, "limit": limit}
        path = f"/v1{whose}/datasets/{self.id}/records/search"
        found: Json = self.site.call(person, "POST", path, json=body, params=page)
        return found

    def delete(self) -> None:
        """Remove all of it."""
        self._owner("DELETE", f"/v1/datasets/{self.id}")


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether something that jobs in the background bring about comes true in time."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
