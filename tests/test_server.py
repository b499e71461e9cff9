"""The client of Argilla: retries, errors in one line, batches made once, nothing secret shown."""

from __future__ import annotations

import json
import os
import socketserver
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from factories import Argilla, connected_project, make_project

from annotate import transport
from annotate.accounts import accounts, add_users, users_file
from annotate.errors import InputError, ServerError
from annotate.guidelines import load_guideline
from annotate.runs import Project
from annotate.server import Server, connect
from annotate.server_types import Record, Submission
from annotate.transport import StatusError, Transport

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    with connect(project) as server:
        yield server


@contextmanager
def answering(respond: Callable[[int, BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A real HTTP server whose n-th answer (from 0) is up to `respond`."""
    count = iter(range(10_000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(next(count), self)

        def log_message(self, *_: object) -> None:
            return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def send(handler: BaseHTTPRequestHandler, status: int, content: object) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


@pytest.mark.parametrize("fault", ["dropped", 500, 503, 429])
def test_what_may_pass_is_tried_again(fault: str | int, at_once: None) -> None:
    def respond(count: int, handler: BaseHTTPRequestHandler) -> None:
        if count >= 3:
            send(handler, 200, {"n": count})
        elif fault == "dropped":
            handler.connection.shutdown(2)
            handler.close_connection = True
        else:
            assert isinstance(fault, int)
            send(handler, fault, {"detail": "not now"})

    with answering(respond) as url:
        assert Transport(url, "k").request("GET", "me") == {"n": 3}


def test_what_will_not_pass_is_not_tried_again() -> None:
    with (
        answering(lambda count, handler: send(handler, 422, {"detail": f"no\n {count}"})) as url,
        pytest.raises(StatusError, match="answered 422 to GET me: no 0") as refused,
    ):
        Transport(url, "k").request("GET", "me")
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (500, {"detail": "x"}, "answered 500"),
        (401, {"detail": "x"}, "refuses the key.*HANDLOOM_ARGILLA_API_KEY"),
        (403, {"detail": "x"}, "may not do that.*owner's key"),
        (404, b"<html>", "answered 404.*Argilla 2.8"),
        (200, b"<html>", "what answers there is not Argilla"),
    ],
)
def test_each_refusal_is_one_line_with_a_remedy(
    status: int, content: object, said: str, at_once: None
) -> None:
    with (
        answering(lambda _, handler: send(handler, status, content)) as url,
        pytest.raises(ServerError, match=said) as error,
    ):
        Transport(url, "k", attempts=2).request("GET", "me")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:6900", "http://[", "ftp://x"])
def test_an_address_that_does_not_answer_names_the_remedy(url: str, at_once: None) -> None:
    with pytest.raises(ServerError, match=r"handloom up|HANDLOOM_ARGILLA_URL"):
        Server(url, "key").check()


def test_without_a_server_the_remedy_is_handloom_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HANDLOOM_ARGILLA_URL", raising=False)
    project = make_project(tmp_path / "p")
    with pytest.raises(ServerError, match=r"Argilla is not running.*handloom up"):
        connect(project)
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("HANDLOOM_ARGILLA_API_KEY", raising=False)
    with pytest.raises(ServerError, match="HANDLOOM_ARGILLA_API_KEY is not"):
        connect(project)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", "k")
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", "http://owner:hunter2@127.0.0.1:1")
    with pytest.raises(ServerError, match="holds a name or password") as refused:
        connect(project)
    assert "hunter2" not in str(refused.value)


def test_the_projects_own_server_is_found(argilla_server: object) -> None:
    state = argilla_server.home.parent  # type: ignore[attr-defined]
    with connect(Project(state.parent)) as server:
        assert server.check().role == "owner"


def test_a_wrong_key_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", "wrong")
    with pytest.raises(ServerError, match="refuses the key"):
        connect(project)


def test_no_key_shows(server: Server, argilla_server: Argilla, project: Project) -> None:
    name = f"{server.workspace}-anna"
    (user,) = add_users(project, server, [name])
    shown = repr([server, server._transport, user, server.as_user(user), accounts(project, server)])
    assert argilla_server.api_key not in shown
    assert user.api_key not in shown
    assert json.loads(users_file(project).read_text())[name] not in shown


def test_a_batch_is_made_once_and_a_half_made_one_anew(server: Server) -> None:
    rules = load_guideline(ROOT, "preference")
    half = {"name": "b", "workspace_id": server.workspace_id, "guidelines": "x"}
    server.request("POST", "datasets", json=half)  # as a crash leaves it: a draft without questions
    with pytest.raises(ServerError, match=r"not on this server.*handloom push"):
        server.batch("b")
    made = server.ensure_batch("b", rules, 2, multi_turn=False)
    assert made == server.ensure_batch("b", rules, 2, multi_turn=False) == server.batch("b")
    assert [batch.name for batch in server.batches()] == ["b"]
    assert made.overlap == rules.overlap
    assert not server.shows_chat(made)
    with pytest.raises(ServerError, match="another guideline"):
        server.ensure_batch("b", load_guideline(ROOT, "ranking"), 3, multi_turn=False)


def records(n: int, start: int = 0) -> list[Record]:
    fields = {"prompt": "p", "response_a": "a", "response_b": "b"}
    metadata = {"guideline": "preference@v1", "batch": "b"}
    return [Record(f"i-{number:04}", fields, metadata) for number in range(start, start + n)]


def test_records_and_responses_come_back_page_by_page_once_each(
    server: Server, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = server.ensure_batch("b", load_guideline(ROOT, "preference"), 2, multi_turn=False)
    assert server.publish(batch, records(30)) == 30
    assert server.publish(batch, records(30, start=20)) == 20
    monkeypatch.setattr("annotate.server.RECORDS_A_PAGE", 7)
    ids = server.record_ids(batch)
    assert sorted(ids) == [record.item_id for record in records(50)]
    (anna,) = add_users(project, server, ["anna"])
    values = {"preference": {"value": "a_better"}}
    with server.as_user(anna) as desk:
        problems = desk.submit(
            [
                Submission(ids["i-0000"], values),
                Submission(ids["i-0001"], {}, "draft"),
                Submission(ids["i-0002"], {}, "discarded"),
                Submission(ids["i-0003"], {"preference": {"value": "none of them"}}),
            ]
        )
    assert problems[:3] == ["", "", ""]
    assert "not a valid label" in problems[3]
    found = {response.item_id: response for response in server.responses(batch)}
    assert {key: (r.annotator, r.status, r.values) for key, r in found.items()} == {
        "i-0000": ("anna", "submitted", values),
        "i-0001": ("anna", "draft", {}),
        "i-0002": ("anna", "discarded", {}),
    }
    assert all(r.updated_at.utcoffset() is not None for r in found.values())


def test_users_are_made_once_with_a_password_that_only_the_owner_can_read(
    server: Server, project: Project, argilla_server: Argilla
) -> None:
    name = f"{server.workspace}-ben"
    first, second = add_users(project, server, [name, "anna", name])
    assert (first.name, second.name) == (name, "anna")
    assert add_users(project, server, [name]) == [first]
    path = users_file(project)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116
    password = json.loads(path.read_text())[name]
    login = {"username": name, "password": password}
    answer = httpx.post(f"{argilla_server.url}/api/v1/token", data=login)
    assert answer.status_code == 201
    mine = {account.name: account.password for account in accounts(project, server)}
    assert mine[name] == password
    assert mine["owner"] is None
    with server.as_user(first) as desk, pytest.raises(ServerError, match="may not do that"):
        desk.request("GET", "users")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65, "ä"])
def test_a_name_that_cannot_be_one_is_refused(name: str, server: Server, project: Project) -> None:
    with pytest.raises(InputError, match="cannot be a user's name"):
        add_users(project, server, ["ok", name])
    assert not users_file(project).exists()
