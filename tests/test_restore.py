"""The ledger restores every response of every annotator, whatever Argilla lost."""

from __future__ import annotations

import dataclasses
import fcntl
import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import argilla as rg
import httpx
import pytest
from click.testing import CliRunner, Result
from conftest import RunningArgilla, run_argilla
from factories import Argilla, connected_project, make_generated, submit

from align.cli import main
from annotate.accounts import list_users, members
from annotate.embedded.process import stop
from annotate.errors import ProjectError
from annotate.ledger import Entry, Ledger
from annotate.pull import pull
from annotate.push import push
from annotate.restore import Restored, restore
from annotate.restore_writing import Writer
from annotate.runs import Project, Run
from annotate.server import connect

Said = dict[tuple[str, str], tuple[str, Any]]
"""(item, person) → status and values."""


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArgilla]:
    """A server that knows nobody."""
    home = tmp_path_factory.mktemp("empty") / ".handloom" / "argilla"
    yield run_argilla(home)
    stop(home)


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def label(value: str) -> dict[str, Any]:
    return {"preference": {"value": value}}


def annotated(project: Project, n: int = 6) -> tuple[Run, list[str]]:
    """A push that three people answered, more than its overlap of two; drafts and discards too."""
    pushed = push(project, make_generated(project, n))
    ids = pushed.read("items")["item_id"].to_pylist()
    people = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("anna", "ben", "carla")]
    for number, name in enumerate(people):
        words = ("a_better", "b_better", "no_difference")
        answers = {item: label(words[(at + number) % 3]) for at, item in enumerate(ids[:-2])}
        submit(project, pushed, name, answers)
    submit(project, pushed, people[0], {ids[-2]: label("a_better")}, "draft")
    submit(project, pushed, people[1], {ids[-2]: {}}, "discarded")
    return pushed, people


def on_server(project: Project, pushed: Run) -> Said:
    found: Said = {}
    with connect(project) as server:
        for name in pushed.metrics["batches"]:
            for response in server.responses(server.batch(name)):
                key = response.item_id, response.annotator
                assert key not in found
                found[key] = response.status, response.values
    return found


def run_restore(project: Project) -> Restored:
    with connect(project) as server:
        return restore(project, server)


def delete_user(project: Project, name: str) -> None:
    with connect(project) as server:
        (user,) = [user for user in list_users(server) if user.name == name]
        server.request("DELETE", f"users/{user.id}")


def delete_batch(project: Project, pushed: Run) -> None:
    with connect(project) as server:
        for name in pushed.metrics["batches"]:
            server.request("DELETE", f"datasets/{server.batch(name).id}")


def test_a_healthy_server_is_left_alone(project: Project) -> None:
    pushed, _ = annotated(project)
    pulled = pull(project, pushed)
    entries = len(list(Ledger.of(project)))
    done = handloom("restore")
    assert done.exit_code == 0, done.output
    assert "14 of 14 responses were there" in done.output
    assert "nothing was missing" in done.output
    assert len(list(Ledger.of(project))) == entries
    assert pull(project, pushed) == pulled


def test_a_deleted_user_comes_back_with_every_response(project: Project) -> None:
    pushed, (anna, *_) = annotated(project)
    before = on_server(project, pushed)
    pulled = pull(project, pushed)
    delete_user(project, anna)
    assert len(on_server(project, pushed)) == 14 - 5
    done = handloom("restore")
    assert done.exit_code == 0, done.output
    assert "9 of 14 responses were there; put back 5 responses and 0 records" in done.output
    with connect(project) as server:
        assert anna in members(server)
    assert f"accounts made for {anna}; passwords in .handloom/users.json" in done.output
    assert on_server(project, pushed) == before
    assert pull(project, pushed) == pulled


def test_a_deleted_data_set_comes_back_with_every_response(project: Project) -> None:
    pushed, _ = annotated(project)
    before = on_server(project, pushed)
    pulled = pull(project, pushed)
    delete_batch(project, pushed)
    done = run_restore(project)
    assert [(b.records, b.restored, b.missing) for b in done.batches] == [(6, 14, 0)]
    assert on_server(project, pushed) == before
    assert pull(project, pushed) == pulled
    assert not run_restore(project).changed


def test_an_empty_server_gets_everything(
    project: Project, empty: RunningArgilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several data sets, rankings, a team's workspace, and people who have answered nothing."""
    pushed, people = annotated(project)
    team = f"team-{uuid.uuid4().hex[:8]}"
    source = make_generated(project, 2, 4)
    ranked = push(project, source, guideline="ranking", workspace=team)
    (item, _) = ranked.read("items")["item_id"].to_pylist()
    order = [
        {"value": f"response_{x}", "rank": n} for x, n in zip("abcd", (2, 1, 1, 4), strict=True)
    ]
    with connect(project, team) as there:
        (batch,) = there.batches()
        path = f"records/{there.record_ids(batch)[item]}/responses"
        (anna,) = [user for user in list_users(there) if user.name == people[0]]
        there.create(f"workspaces/{there.workspace_id}/users", {"user_id": anna.id})
        with there.as_user(anna) as desk:
            content = {"status": "draft", "values": {"ranking": {"value": order}}}
            desk.request("POST", path, json=content)
    idle = f"idle-{uuid.uuid4().hex[:8]}"
    handloom("users", "add", idle)
    before = on_server(project, pushed)
    pulls = [pull(project, run) for run in (pushed, ranked)]
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", empty.url)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", empty.api_key)
    done = run_restore(project)
    assert done.complete
    assert sorted(done.accounts) == sorted([*people, idle])
    assert on_server(project, pushed) == before
    with connect(project, team) as there:
        (response,) = there.responses(there.batch(ranked.metrics["batches"][0]))
        assert response.values["ranking"]["value"] == order
        assert response.status == "draft"
    assert [pull(project, run) for run in (pushed, ranked)] == pulls
    assert "nothing was missing" in handloom("restore").output


def test_argillas_own_import_keeps_one_of_three_and_the_ledger_all(
    tmp_path: Path,
    project: Project,
    argilla_server: Argilla,
    empty: RunningArgilla,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Export with the SDK, import with its `from_hub` where nobody is known, then restore."""
    pushed, people = annotated(project)
    before = on_server(project, pushed)
    pulled = pull(project, pushed)
    (name,) = pushed.metrics["batches"]
    with connect(project) as server:
        old = rg.Argilla(api_url=server.url, api_key=argilla_server.api_key)
        data_set = old.datasets(name, workspace=server.workspace)
        (tmp_path / "hub").mkdir()
        data_set.records.to_datasets().to_parquet(tmp_path / "hub" / "train.parquet")
        data_set.settings.to_json(tmp_path / "settings.json")
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", empty.url)
    monkeypatch.setenv("HANDLOOM_ARGILLA_API_KEY", empty.api_key)
    with connect(project) as server:
        server.workspace_id  # noqa: B018 - makes it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rg.Argilla(api_url=empty.url, api_key=empty.api_key)  # now the SDK's default
        rg.Dataset.from_hub(
            str(tmp_path / "hub"),
            name=name,
            settings=rg.Settings.from_json(tmp_path / "settings.json"),
            cache_dir=str(tmp_path / "cache"),
        )
    imported = on_server(project, pushed)
    assert {who for _, who in imported} == {"owner"}
    assert len(imported) < len(before)

    done = handloom("restore")
    assert done.exit_code == 0, done.output
    restored = on_server(project, pushed)
    assert {key: said for key, said in restored.items() if key[1] != "owner"} == before
    assert "`handloom restore --withdraw owner`" in done.output
    gone = handloom("restore", "--withdraw", "owner")
    assert "responses withdrawn" in gone.output
    assert on_server(project, pushed) == before
    rows = pull(project, pushed).read("responses").to_pylist()
    assert [row for row in rows if row["status"] != "deleted"] == pulled.read(
        "responses"
    ).to_pylist()
    assert Ledger.of(project).verify() == []
    assert {who for _, who in before} == set(people)


def test_what_the_server_says_later_stands_and_what_it_says_earlier_is_replaced(
    project: Project,
) -> None:
    pushed, (anna, ben, _) = annotated(project)
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, anna, {ids[0]: label("b_better")})  # not yet in any pull
    done = run_restore(project)
    assert not done.changed
    assert on_server(project, pushed)[ids[0], anna] == ("submitted", label("b_better"))
    # A server set back to what it held before ben's last edit.
    submit(project, pushed, ben, {ids[1]: label("b_better")})
    pull(project, pushed)
    entry = Ledger.of(project).standing(pushed.metrics["batches"])
    later = next(e for key, e in entry.items() if key[1:] == (ids[1], ben))
    Ledger.of(project).append([_edited_later(later)])
    assert [b.updated for b in run_restore(project).batches] == [1]
    assert on_server(project, pushed)[ids[1], ben] == ("submitted", label("a_better"))


@pytest.mark.parametrize("seen", [False, True], ids=["absent before", "older before"])
def test_who_answers_while_it_is_restored_is_not_overwritten(project: Project, seen: bool) -> None:
    """The answer comes after the restore has looked, and before it writes."""
    pushed, (anna, *_) = annotated(project, 3)
    pull(project, pushed)
    (name,) = pushed.metrics["batches"]
    (entry,) = [e for e in Ledger.of(project).standing([name]).values() if e.annotator == anna][:1]
    with connect(project) as server:
        batch = server.batch(name)
        held = {(name, r.item_id, r.annotator): r for r in server.responses(batch)} if seen else {}
        users = {user.name: user for user in list_users(server)}
        submit(project, pushed, anna, {entry.item_id: label("b_better")})
        writer = Writer(server, users, set(), held, lambda count: None)
        writer.answer(batch, [entry], server.placed(batch))
    assert (writer.restored, writer.updated, writer.refused) == (0, 0, [])
    assert on_server(project, pushed)[entry.item_id, anna] == ("submitted", label("b_better"))


def test_an_answer_lost_on_the_way_does_not_cost_what_was_said_since(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argilla took records and responses, the connection broke, and anna answered anew."""
    pushed, (anna, *_) = annotated(project, 3)
    pull(project, pushed)
    before = on_server(project, pushed)
    item = next(item for item, name in before if name == anna)
    delete_batch(project, pushed)
    send, lost = httpx.Client.request, []

    def losing(client: httpx.Client, method: str, url: str, **what: Any) -> httpx.Response:
        answer = send(client, method, url, **what)
        if method == "PUT" and url.endswith("records/bulk") and not lost:
            lost.append(answer.status_code)
            submit(project, pushed, anna, {item: label("b_better")})
            raise httpx.RemoteProtocolError("gone")
        return answer

    monkeypatch.setattr(httpx.Client, "request", losing)
    run_restore(project)
    assert lost == [200]
    assert on_server(project, pushed) == {**before, (item, anna): ("submitted", label("b_better"))}


def _edited_later(entry: Entry) -> Entry:
    later = entry.updated_at + timedelta(milliseconds=1)
    return dataclasses.replace(entry, values=label("a_better"), updated_at=later, seq=None)


def test_what_its_author_withdrew_is_not_restored(project: Project) -> None:
    pushed, (anna, *_) = annotated(project)
    pull(project, pushed)
    ids = pushed.read("items")["item_id"].to_pylist()
    with connect(project) as server:
        (batch,) = server.batches()
        record = server.request("GET", f"records/{server.record_ids(batch)[ids[0]]}")
        (user,) = [user for user in list_users(server) if user.name == anna]
        (mine,) = [r for r in record["responses"] if r["user_id"] == user.id]
        with server.as_user(user) as desk:
            desk.request("DELETE", f"responses/{mine['id']}")
    ledger = Ledger.of(project)
    stands = ledger.standing([batch.name])[batch.name, ids[0], anna]
    ledger.append(
        [
            dataclasses.replace(
                stands, status="deleted", cause="response", updated_at=datetime.now(UTC), seq=None
            )
        ]
    )
    delete_batch(project, pushed)
    done = run_restore(project)
    assert done.complete
    assert [(b.standing, b.refused) for b in done.batches] == [(13, [])]
    restored = on_server(project, pushed)
    assert (ids[0], anna) not in restored
    assert len(restored) == 13


def test_a_ledger_changed_by_hand_is_neither_restored_nor_pulled(project: Project) -> None:
    pushed, (anna, *_) = annotated(project)
    pull(project, pushed)
    path = Ledger.of(project).path
    whole = path.read_text()
    at = next(n for n, line in enumerate(whole.splitlines()) if '"a_better"' in line)
    lines = whole.splitlines(keepends=True)
    lines[at] = lines[at].replace('"a_better"', '"b_better"')
    path.write_text("".join(lines))
    before = on_server(project, pushed)
    runs = len(project.all_runs())
    for refused in (
        handloom("restore"),
        handloom("restore", "--withdraw", anna),
        handloom("pull"),
        handloom("users", "remove", anna, "--yes"),
    ):
        assert refused.exit_code == 1
        assert refused.stderr.count("\n") == 1
        assert f"the ledger was changed by hand: line {at + 1} was changed" in refused.stderr
        assert "`handloom ledger verify`" in refused.stderr
        assert "--from BACKUP" in refused.stderr
    assert on_server(project, pushed) == before
    assert len(project.all_runs()) == runs
    path.write_text(whole + '{"seq":')  # torn by a crash, which the next writer mends
    assert handloom("pull").exit_code == 0
    assert handloom("restore").exit_code == 0


def test_responses_to_items_of_no_push_are_told(project: Project) -> None:
    pushed, _ = annotated(project)
    pull(project, pushed)
    pushed.path.rename(project.root / "lost")
    for run in project.all_runs():
        if run.step == "pull":
            run.path.rename(project.root / "lost-pull")
    done = handloom("restore")
    assert done.exit_code == 1
    assert "14 responses in the ledger to items of no push here" in done.stderr
    assert "--from BACKUP" in done.stderr


def test_a_lost_source_run_is_told_and_other_batches_go_on(project: Project) -> None:
    pushed, (anna, *_) = annotated(project)
    other = push(project, make_generated(project, 2))
    (item, _) = other.read("items")["item_id"].to_pylist()
    submit(project, other, anna, {item: label("a_better")})
    for run in (pushed, other):
        pull(project, run)
        delete_batch(project, run)
    (source,) = pushed.parents
    source.path.rename(project.root / "lost")
    done = handloom("restore")
    assert done.exit_code == 1
    assert f"{pushed.metrics['batches'][0]}: {source.id}: no such run" in done.stderr
    assert f"{other.metrics['batches'][0]}: 0 of 1 responses were there; put back 1" in done.stdout


def test_only_one_restore_at_a_time(project: Project) -> None:
    with (project.state_dir / "restore.lock").open("w") as lock, connect(project) as server:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ProjectError, match="another restore is at work"):
            restore(project, server)


RESTORER = """
import itertools, os, signal, sys
from pathlib import Path
import annotate.restore_writing as restore_writing, annotate.server as server
from annotate.restore import restore
from annotate.runs import Project
from annotate.server import connect
restore_writing.RECORDS_A_REQUEST = 2
count, stop = itertools.count(1), int(sys.argv[2])
def dying(function):
    def wrapped(self, method, path, **kwargs):
        answer = function(self, method, path, **kwargs)
        if method != "GET" and next(count) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return wrapped
server.Server.request = dying(server.Server.request)
project = Project(Path(sys.argv[1]))
with connect(project) as own:
    restore(project, own)
"""


@pytest.mark.parametrize("loss", ["user", "data set"])
def test_killed_anywhere_and_repeated_it_is_complete(project: Project, loss: str) -> None:
    pushed, (anna, *_) = annotated(project)
    before = on_server(project, pushed)
    pulled = pull(project, pushed)
    lose: Callable[[], None] = (
        (lambda: delete_user(project, anna))
        if loss == "user"
        else (lambda: delete_batch(project, pushed))
    )
    lose()
    command = [sys.executable, "-c", RESTORER, str(project.root)]
    codes = [subprocess.run([*command, str(stop)], check=False).returncode for stop in (1, 2, 1, 0)]
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0
    assert on_server(project, pushed) == before
    assert pull(project, pushed) == pulled
    assert Ledger.of(project).verify() == []


def test_what_argilla_refuses_is_told(project: Project) -> None:
    """An older ledger may hold values that the questions of today do not take."""
    pushed, (anna, ben, _) = annotated(project)
    pull(project, pushed)
    ledger = Ledger.of(project)
    stands = ledger.standing(pushed.metrics["batches"])
    entry = next(e for e in stands.values() if e.annotator == anna and e.status == "submitted")
    ledger.append([dataclasses.replace(entry, annotator=f"old-{ben}", values=label("worst"))])
    delete_batch(project, pushed)
    done = handloom("restore")
    assert done.exit_code == 1
    assert f"of old-{ben}" in done.stderr
    assert "worst" in done.stderr
    assert "put back 14 responses and 6 records" in done.stdout
