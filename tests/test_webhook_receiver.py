"""The webhook receiver: only what Argilla signed, on the disk before it is acknowledged."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import RunningArgilla
from factories import connected_project, make_generated, submit
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from annotate.accounts import list_users
from annotate.errors import ServerError
from annotate.ledger import Ledger
from annotate.push import push
from annotate.server import connect
from annotate.webhook_receiver import (
    TOLERANCE_SECONDS,
    Receiver,
    RefusedError,
    registered,
    verify_signature,
)

SECRET = base64.b64encode(b"s" * 64).decode()
NOW = 1_800_000_000.0


def signed(
    body: bytes, *, secret: str = SECRET, at: float = NOW, id_: str = "msg_1"
) -> dict[str, str]:
    """Headers as the specification's own library makes them."""
    when = datetime.fromtimestamp(at, UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": Webhook(secret).sign(id_, when, body.decode()),
    }


@given(text=st.text(st.characters(codec="utf-8")), key=st.binary(min_size=1, max_size=64))
def test_what_the_specifications_library_signs_is_accepted(text: str, key: bytes) -> None:
    body, secret = text.encode(), base64.b64encode(key).decode()
    headers = signed(body, secret=secret)
    verify_signature(secret, headers, body, NOW)
    verify_signature(f"whsec_{secret}", headers, body, NOW)
    several = {**headers, "webhook-signature": f"v1,AAAA v2,x {headers['webhook-signature']}"}
    verify_signature(secret, several, body, NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: {**h, "webhook-id": "msg_2"},
        lambda h: {**h, "webhook-timestamp": str(int(NOW) + 1)},
        lambda h: {**h, "webhook-timestamp": "now"},
        lambda h: {**h, "webhook-signature": "v1,AAAA"},
        lambda h: {**h, "webhook-signature": "v1,é"},
        lambda h: {**h, "webhook-signature": h["webhook-signature"].replace("v1,", "v2,")},
        lambda h: {name: value for name, value in h.items() if name != "webhook-signature"},
        lambda _: {},
    ],
)
def test_what_is_not_signed_so_is_refused(
    change: Callable[[dict[str, str]], dict[str, str]],
) -> None:
    with pytest.raises(RefusedError):
        verify_signature(SECRET, change(signed(b"{}")), b"{}", NOW)


def test_another_body_secret_or_time_is_refused() -> None:
    headers = signed(b"{}")
    other = base64.b64encode(b"t" * 64).decode()
    for secret, body, now in (
        (SECRET, b"{ }", NOW),
        (other, b"{}", NOW),
        (SECRET, b"{}", NOW + TOLERANCE_SECONDS + 1),
        (SECRET, b"{}", NOW - TOLERANCE_SECONDS - 1),
    ):
        with pytest.raises(RefusedError):
            verify_signature(secret, headers, body, now)


def event(kind: str = "response.created", **changes: Any) -> bytes:
    """An event as Argilla 2.8 writes it, as far as it is read here."""
    data = {
        "values": {"preference": {"value": "a_better"}},
        "status": "submitted",
        "record": {
            "id": str(uuid.UUID(int=1)),
            "external_id": "i-1",
            "metadata": {"guideline": "preference@v1"},
            "dataset": {"name": "b", "workspace": {"name": "w"}},
        },
        "user": {"username": "anna"},
        "inserted_at": "2026-01-01T12:00:00.000001",
        "updated_at": "2026-01-01T12:00:00.000002",
    }
    content = {"type": kind, "version": 1, "timestamp": "2026-01-01T12:00:05.000000Z"}
    return json.dumps({**content, "data": {**data, **changes}}).encode()


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    made = Receiver(Ledger(tmp_path / "ledger.jsonl"), "127.0.0.1", 0)
    made.secret = SECRET
    return made


def send(receiver: Receiver, body: bytes, headers: dict[str, str] | None = None) -> int:
    headers = signed(body, at=time.time()) if headers is None else headers
    url = f"http://127.0.0.1:{receiver.port}/"
    return httpx.post(url, content=body, headers=headers).status_code


def test_an_event_is_in_the_ledger_once_when_it_is_acknowledged(receiver: Receiver) -> None:
    with receiver.serving():
        assert [send(receiver, event()) for _ in range(3)] == [200, 200, 200]
        assert send(receiver, event("response.deleted")) == 200
        assert send(receiver, event("record.created")) == 200
        kept, deleted = receiver.ledger
        assert kept.key == ("b", "i-1", "anna")
        assert (kept.source, kept.workspace, kept.guideline) == ("webhook", "w", "preference@v1")
        assert kept.updated_at == datetime(2026, 1, 1, 12, 0, 0, 2, tzinfo=UTC)
        assert (deleted.status, deleted.cause) == ("deleted", "response")
        assert deleted.updated_at == datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)
    assert (receiver.written, receiver.known) == (2, 2)


def test_what_is_not_from_argilla_is_refused_and_changes_nothing(receiver: Receiver) -> None:
    with receiver.serving():
        assert send(receiver, event(), {}) == 401
        assert send(receiver, b"[]") == 400
        assert send(receiver, event(record=None)) == 400
        assert send(receiver, event(updated_at="yesterday")) == 400
        receiver.secret = ""
        assert send(receiver, event()) == 503
        assert httpx.get(f"http://127.0.0.1:{receiver.port}/").status_code == 501
    assert list(receiver.ledger) == []
    assert receiver.refused == 5


def test_what_cannot_be_written_is_not_acknowledged(receiver: Receiver) -> None:
    receiver.ledger.path.mkdir()
    with receiver.serving():
        assert send(receiver, event()) == 503
        receiver.ledger.path.rmdir()
        assert send(receiver, event()) == 200


def test_a_taken_port_is_one_line(receiver: Receiver) -> None:
    with receiver.serving(), pytest.raises(ServerError, match="cannot listen there"):
        Receiver(receiver.ledger, "127.0.0.1", receiver.port)


def test_it_hears_argilla_and_leaves_nothing_behind(
    tmp_path: Path, argilla_server: RunningArgilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user starts it, against a running server whose own ledger is another project's."""
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    pushed = push(project, make_generated(project, 2))
    first, second = pushed.read("items")["item_id"].to_pylist()
    project.state_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "align", "ledger", "listen", "--port", "0"]
    with subprocess.Popen(
        command, cwd=project.root, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as listener:
        assert listener.stdout is not None
        said = listener.stdout.readline()
        assert "listening to" in said
        for value in ("a_better", "b_better"):
            submit(project, pushed, "anna", {first: answer(value), second: answer(value)})
        wait_for(project, 4)
        with connect(project) as server:
            (anna,) = [u for u in list_users(server) if u.name == "anna"]
            records = server._records(server.batches()[0], include="responses")
            responses = [r["id"] for record in records for r in record["responses"]]
            with server.as_user(anna) as desk:
                desk.request("DELETE", f"responses/{responses[0]}")
            wait_for(project, 5)
            url = said.split(": ")[0]
            hooks = server.request("GET", "webhooks")["items"]
            assert [hook["events"] for hook in hooks if hook["url"] == url]
            listener.send_signal(signal.SIGTERM)
            assert (
                "5 versions written, 0 known already, 0 requests refused"
                in listener.communicate(timeout=30)[0]
            )
            hooks = server.request("GET", "webhooks")["items"]
            assert [hook for hook in hooks if hook["url"] == url] == []
            seen = list(Ledger.of(project))
            assert {e.source for e in seen} == {"webhook"}
            assert {e.guideline for e in seen} == {"preference@v2"}
            assert [e.cause for e in seen if e.cause] == ["response"]
            known = {(e.item_id, e.updated_at) for e in seen}
            there = server.responses(server.batches()[0])
            assert {(r.item_id, r.updated_at) for r in there} <= known


def answer(value: str) -> dict[str, Any]:
    return {"preference": {"value": value}}


def wait_for(project: Any, versions: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(Ledger.of(project))) < versions:
        assert time.monotonic() < deadline, list(Ledger.of(project))
        time.sleep(0.05)


def test_what_a_killed_listener_left_is_taken_over(
    tmp_path: Path,
    argilla_server: RunningArgilla,
    monkeypatch: pytest.MonkeyPatch,
    receiver: Receiver,
) -> None:
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    url = f"http://127.0.0.1:{receiver.port}/"
    with connect(project) as server:
        content = {"url": url, "events": ["response.created"], "description": "Handloom's ledger"}
        left = server.request("POST", "webhooks", json=content)
        with receiver.serving(), registered(server, receiver, url):
            assert receiver.secret == left["secret"]
            (hook,) = [h for h in server.request("GET", "webhooks")["items"] if h["url"] == url]
            assert len(hook["events"]) == 3
        assert [h for h in server.request("GET", "webhooks")["items"] if h["url"] == url] == []
