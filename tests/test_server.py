"""The client of Argilla: retries, errors in one line, batches made once, nothing secret shown."""

from __future__ import annotations

import dataclasses
import json
import os
import socketserver
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import argilla as rg
import httpx
import pytest
from factories import Argilla, connected_project, make_project

from annotate import transport
from annotate.accounts import accounts, add_users
from annotate.errors import InputError, ServerError
from annotate.guidelines import load_guideline
from annotate.passwords import users_file
from annotate.runs import Project
from annotate.server import Server, connect
from annotate.server_types import Answer, Batch, Record, Submission, Suggestion
from annotate.transport import StatusError, Transport, one_ahead

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


@pytest.fixture
def full_batch(server: Server) -> Batch:
    """A data set of every part that a record can have, published."""
    settings = rg.Settings(
        fields=[rg.TextField("text"), rg.ChatField("chat", required=False)],
        questions=[
            rg.LabelQuestion("label", labels=["a", "b"]),
            rg.MultiLabelQuestion("labels", labels=["a", "b"], required=False),
            rg.RankingQuestion("ranking", values=["a", "b"], required=False),
        ],
        metadata=[rg.TermsMetadataProperty("source"), rg.FloatMetadataProperty("score")],
        vectors=[rg.VectorField("embedding", dimensions=3)],
        distribution=rg.TaskDistribution(min_submitted=2),
    )
    assert server.workspace_id
    client = rg.Argilla(api_url=server.url, api_key=server._key)
    rg.Dataset("full", workspace=server.workspace, settings=settings, client=client).create()
    client.http_client.close()
    return server.batch("full")


def full_record(number: int, annotators: list[str]) -> Record:
    ranking = [{"value": "a", "rank": 1}, {"value": "b", "rank": 1}]
    answers = [
        Answer(annotators[0], {"label": {"value": "a"}, "ranking": {"value": ranking}}),
        Answer(annotators[1], {}, "discarded"),
    ]
    return Record(
        f"i-{number:04}",
        {"text": f"Grüße {number}", "chat": [{"role": "user", "content": "“hello”"}]},
        {"source": "web", "score": number / 7},
        suggestions={
            "label": Suggestion("b", 0.25, "model"),
            "labels": Suggestion(["a", "b"], [0.5, 1.0]),
        },
        vectors={"embedding": [0.1, -2e-7, float(number)]},
        responses=answers[: number % 3],
    )


def test_a_record_comes_back_with_all_that_belongs_to_it(
    server: Server, project: Project, full_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [user.name for user in add_users(project, server, ["anna", "ben"])]
    sent = [full_record(number, names) for number in range(23)]
    monkeypatch.setattr("annotate.server.RECORDS_A_REQUEST", 4)
    monkeypatch.setattr("annotate.server.RECORDS_A_PAGE", 7)
    done: list[int] = []
    assert server.publish(full_batch, sent[:9]) == 9
    assert server.publish(full_batch, sent, done.append) == 14
    assert done == [4, 4, 4, 4, 4, 3]
    done.clear()
    found = sorted(server.records(full_batch, done.append), key=lambda record: record.item_id)
    assert sum(done) == 23
    assert [dataclasses.replace(record, responses=()) for record in found] == [
        dataclasses.replace(record, responses=()) for record in sent
    ]
    for record, original in zip(found, sent, strict=True):
        assert [(r.annotator, r.values, r.status) for r in record.responses] == [
            (r.annotator, r.values, r.status) for r in original.responses
        ]
    progress = server.request("GET", f"datasets/{full_batch.id}/progress")
    assert (progress["total"], progress["completed"]) == (23, 0)


def test_what_the_server_does_not_know_is_named(server: Server, full_batch: Batch) -> None:
    fields = {"text": "x"}
    with pytest.raises(InputError, match="no user nobody on the server"):
        server.publish(full_batch, [Record("a", fields, {}, responses=[Answer("nobody", {})])])
    with pytest.raises(InputError, match="no question taste on the server"):
        asked = {"taste": Suggestion("sweet")}
        server.publish(full_batch, [Record("a", fields, {}, suggestions=asked)])
    assert server.count(full_batch) == 0


def test_one_ahead_keeps_the_order_and_stops_at_the_first_fault() -> None:
    called: list[int] = []

    def call(number: int) -> int:
        called.append(number)
        if number == 3:
            raise ServerError("three")
        return number * 10

    assert list(one_ahead(call, [])) == []
    assert list(one_ahead(call, [], ["x"])) == ["x"]
    assert list(one_ahead(call, [1, 2], ["x"])) == ["x", 10, 20]
    results = one_ahead(call, range(1, 100))
    assert [next(results), next(results)] == [10, 20]
    with pytest.raises(ServerError, match="three"):
        next(results)
    assert max(called) <= 4
