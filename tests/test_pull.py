"""Pull: the order shown undone, every version in the ledger, complete after any interruption."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from conftest import RunningArgilla as Argilla
from factories import connected_project, make_generated, make_project, submit

from annotate.accounts import add_users, list_users
from annotate.display import answer
from annotate.errors import ServerError
from annotate.guidelines import load_guideline
from annotate.ledger import Ledger
from annotate.pull import pull
from annotate.push import push
from annotate.runs import Project, Run, verify
from annotate.server import Server, connect


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def label(value: str) -> dict[str, Any]:
    return {"preference": {"value": value}}


def rows(run: Run, **wanted: object) -> list[dict[str, Any]]:
    found = run.read("responses").to_pylist()
    return [row for row in found if all(row[key] == value for key, value in wanted.items())]


def test_sides_are_undone(project: Project) -> None:
    """Everybody prefers the second model, wherever it stood: the table says so of its id."""
    source = make_generated(project, 20)
    pushed = push(project, source)
    model = {r["output_id"]: r["model"] for r in source.read("outputs").to_pylist()}
    answers = {}
    for item in pushed.read("items").to_pylist():
        first_is_worse = model[item["output_ids"][0]].startswith("llama")
        answers[item["item_id"]] = label("b_better" if first_is_worse else "a_better")
    assert {a["preference"]["value"] for a in answers.values()} == {"a_better", "b_better"}
    submit(project, pushed, "anna", answers)
    pulled = pull(project, pushed)
    values = [json.loads(row["value"]) for row in rows(pulled, question="preference")]
    assert len(values) == 20
    for value in values:
        assert value["a"] < value["b"]
        better = value["a"] if value["strength"] > 0 else value["b"]
        assert model[better].startswith("mistral")
        assert abs(value["strength"]) == 2
    asked = pushed.manifest["settings"]["guideline"]
    assert asked.startswith("preference@v")
    assert {row["guideline"] for row in rows(pulled)} == {asked}
    assert pulled.read("items") == pushed.read("items")


def test_rankings_keep_their_ranks_and_ties(project: Project) -> None:
    pushed = push(project, make_generated(project, 2, 4), guideline="ranking")
    rules = load_guideline(project.root, "ranking")
    said, sent = {}, {}
    for item in pushed.read("items").to_pylist():
        ids = sorted(item["output_ids"])
        given = [
            ("ranking", {"ranks": {ids[0]: 2, ids[1]: 1, ids[2]: 3, ids[3]: 1}}),
            ("rating", {"output": ids[3], "rating": 5}),
            ("rating", {"output": ids[0], "rating": 1}),
            ("both_bad", True),
            ("flags", {"output": ids[2], "flags": ["unsafe", "untrue"]}),
            ("correction", {"text": "Better so."}),
        ]
        said[item["item_id"]] = given
        sent[item["item_id"]] = answer(given, item, rules)
    submit(project, pushed, "anna", sent)
    pulled = pull(project, pushed)
    for item_id, given in said.items():
        got = [(r["question"], json.loads(r["value"])) for r in rows(pulled, item_id=item_id)]
        assert {json.dumps(row, sort_keys=True) for row in got} == {
            json.dumps(row, sort_keys=True) for row in given
        }


def test_drafts_and_discards_are_marked(project: Project) -> None:
    pushed = push(project, make_generated(project, 4))
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "anna", {ids[0]: label("a_better")})
    submit(project, pushed, "anna", {ids[1]: label("b_better")}, "draft")
    submit(project, pushed, "anna", {ids[2]: {}}, "discarded")
    submit(project, pushed, "ben", {ids[3]: label("b_better")}, "draft")  # who submitted nothing
    pulled = pull(project, pushed)
    found = {row["item_id"]: (row["status"], row["question"]) for row in rows(pulled)}
    assert found == {
        ids[0]: ("submitted", "preference"),
        ids[1]: ("draft", "preference"),
        ids[2]: ("discarded", None),
        ids[3]: ("draft", "preference"),
    }
    noted = pulled.metrics
    assert (noted["submitted"], noted["drafts"], noted["discarded"]) == (1, 2, 1)
    assert (noted["items"], noted["answered"], noted["annotators"]) == (4, 1, 1)


def test_an_edit_is_a_new_entry_and_nothing_new_is_the_same_run(project: Project) -> None:
    pushed = push(project, make_generated(project, 2))
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "anna", {i: label("a_better") for i in ids})
    first = pull(project, pushed)
    assert pull(project, pushed) == first
    assert pull(project, pushed, again=True) != first
    submit(project, pushed, "anna", {ids[0]: label("no_difference")})
    second = pull(project, pushed)
    assert second.id != first.id
    history = Ledger.of(project).history([ids[0]])
    assert [e.values["preference"]["value"] for e in history] == ["a_better", "no_difference"]
    assert len(Ledger.of(project).history([ids[1]])) == 1
    (row,) = rows(second, item_id=ids[0])
    assert json.loads(row["value"])["strength"] == 0
    assert verify(project) == []


def test_what_argilla_loses_the_ledger_keeps(project: Project) -> None:
    pushed = push(project, make_generated(project, 2))
    ids = pushed.read("items")["item_id"].to_pylist()
    name = f"leaver-{project.root.parent.name.replace('_', '-')}"
    submit(project, pushed, name, {i: label("a_better") for i in ids})
    first = pull(project, pushed)
    with connect(project) as server:
        (user,) = [u for u in server.request("GET", "users")["items"] if u["username"] == name]
        server.request("DELETE", f"users/{user['id']}")
        assert list(server.responses(server.batches()[0])) == []
    assert pull(project, pushed) == first
    assert len(rows(pull(project, pushed, again=True), annotator=name)) == 2


def test_what_cannot_be_read_is_quarantined_and_the_rest_stands(project: Project) -> None:
    pushed = push(project, make_generated(project, 1))
    (item,) = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "anna", {item: {**label("a_better"), "reason": {"value": "so"}}})
    pull(project, pushed)
    ledger = Ledger.of(project)
    (entry,) = ledger
    odd = {**entry.values, "preference": {"value": "worst"}, "mood": {"value": "good"}}
    ledger.append([dataclasses.replace(entry, annotator="older", values=odd)])
    pulled = pull(project, pushed)
    quarantine = pulled.read("quarantine").to_pylist()
    assert [row["id"] for row in quarantine] == [item, item]
    assert "older: unknown question 'mood'" in [row["reason"] for row in quarantine]
    assert any("'worst' is none of" in row["reason"] for row in quarantine)
    assert [row["question"] for row in rows(pulled, annotator="older")] == ["reason"]
    assert pulled.metrics["quarantined"] == 2


def test_a_server_without_the_batch_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(project, make_generated(project, 1))
    monkeypatch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"{os.getpid()}-empty")
    with pytest.raises(ServerError, match=r"not on this server.*handloom push"):
        pull(project, pushed)


@pytest.fixture(scope="module")
def served(argilla_server: Argilla) -> Project:
    """The project in whose folder the server itself lives: both write one ledger."""
    return make_project(argilla_server.home.parent.parent)


@pytest.fixture
def own(served: Project, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    """That project, with a workspace of its own for each test."""
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", argilla_server.url)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", argilla_server.api_key)
    monkeypatch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"own-{uuid.uuid4().hex[:12]}")
    return served


def test_the_embedded_server_writes_every_version_and_a_pull_tables_what_counts(
    own: Project,
) -> None:
    pushed = push(own, make_generated(own, 4), batch=f"own-{uuid.uuid4().hex}", overlap=1)
    a, b, c, d = pushed.read("items")["item_id"].to_pylist()
    leaver = f"leaver-{uuid.uuid4().hex[:8]}"
    for value in ("a_better", "b_better"):
        submit(own, pushed, "anna", {item: label(value) for item in (a, b)})
    submit(own, pushed, "ben", {a: label("b_better"), c: label("a_better")})
    submit(own, pushed, leaver, {d: label("a_better")})
    with connect(own) as server:
        server.flush()
        batch = pushed.metrics["batches"][0]
        before = [e for e in Ledger.of(own) if e.batch == batch]
        assert {e.source for e in before} == {"outbox"}
        assert [e.values["preference"]["value"] for e in before if e.key == (batch, a, "anna")] == [
            "a_better",
            "b_better",
        ]
        withdraw(server, batch, c, "ben")
        (user,) = [u for u in list_users(server) if u.name == leaver]
        server.request("DELETE", f"users/{user.id}")
    pulled = pull(own, pushed)
    noted = pulled.metrics
    assert (noted["submitted"], noted["extra"], noted["answered"]) == (4, 1, 3)
    assert (noted["new_in_ledger"], noted["sources"]) == (0, {"outbox": 4})
    assert rows(pulled, item_id=c) == []  # withdrawn by ben himself
    assert len(rows(pulled, annotator=leaver)) == 1  # gone with the account
    gone = [(e.item_id, e.cause) for e in Ledger.of(own) if e.batch == batch and e.cause]
    assert sorted(gone) == sorted([(c, "response"), (d, "user")])
    assert pull(own, pushed) == pulled


def withdraw(server: Server, batch: str, item: str, name: str) -> None:
    """Delete a response, as the annotator's page does."""
    (user,) = [u for u in list_users(server) if u.name == name]
    records = server._records(server.batch(batch), include="responses")
    (record,) = [r for r in records if r["external_id"] == item]
    (response,) = [r for r in record["responses"] if r["user_id"] == user.id]
    with server.as_user(user) as desk:
        desk.request("DELETE", f"responses/{response['id']}")


def test_only_the_owner_may_flush_and_another_argilla_has_nothing_to(own: Project) -> None:
    with connect(own) as server:
        (anna,) = add_users(own, server, ["anna"])
        assert isinstance(server.flush(), int)
        with server.as_user(anna) as desk, pytest.raises(ServerError, match="may not do that"):
            desk.flush()
        server.url = f"{server.url}/elsewhere"
        assert server.flush() is None


PULLER = """
import itertools, os, signal, sys
from pathlib import Path
import annotate.ledger_file as ledger_file, annotate.runs as runs, annotate.server as server
from annotate.pull import pull
from annotate.runs import Project
server.RECORDS_A_PAGE = 10
count, stop = itertools.count(1), int(sys.argv[2])
def dying(function):
    def wrapped(*args, **kwargs):
        if next(count) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
if stop > 0:
    ledger_file.os.fsync = dying(os.fsync)                   # before and within the ledger and run
    runs.Draft.write = dying(runs.Draft.write)
    server.Server.request = dying(server.Server.request)
project = Project(Path(sys.argv[1]))
pull(project, project.latest("push"))
"""


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([4, 9, 13], id="fast"),
        pytest.param(list(range(1, 30)), id="slow", marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_and_repeated_it_is_complete(project: Project, stops: list[int]) -> None:
    pushed = push(project, make_generated(project, 25))
    ids = pushed.read("items")["item_id"].to_pylist()
    killed = 0
    for number, stop in enumerate(stops):
        edit = "a_better" if number % 2 else "b_better"
        submit(project, pushed, "anna", {i: label(edit) for i in ids})
        command = [sys.executable, "-c", PULLER, str(project.root), str(stop)]
        killed += subprocess.run(command, check=False).returncode == -signal.SIGKILL
        pulled = pull(project, pushed)
        assert len(rows(pulled)) == 25
        ledger = Ledger.of(project)
        assert ledger.verify() == []
        assert len(list(ledger)) == 25 * (number + 1)
    assert killed >= min(len(stops), 3)
    assert verify(project) == []
