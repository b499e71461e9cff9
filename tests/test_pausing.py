"""A pause: nothing to see, nothing lost, and back to where one was. On the embedded server, by the
requests that any Argilla knows."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from factories import Argilla, connected_project, make_generated, submit

from align.cli import main
from annotate.accounts import accounts, add_users, find_user
from annotate.errors import InputError, ProjectError
from annotate.paused import paused_file, paused_people, remember_pauses
from annotate.pausing import memberships, pause_users, resume_users
from annotate.pull import pull
from annotate.push import push
from annotate.removal import remove_users
from annotate.runs import Project, Run
from annotate.server import Server, connect
from annotate.transport import StatusError


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(made.root)
    return made


def name(of: str) -> str:
    return f"{of}-{uuid.uuid4().hex[:8]}"


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def answered(project: Project, anna: str) -> Run:
    """A push of two items, one of which anna has answered."""
    pushed = push(project, make_generated(project, 2))
    item = pushed.read("items")["item_id"].to_pylist()[0]
    submit(project, pushed, anna, {item: {"preference": {"value": "a_better"}}})
    return pushed


def seen_by(server: Server, anna: str) -> list[str]:
    """The data sets that a person finds."""
    with server.as_user(find_user(server, anna)) as desk:
        return [item["name"] for item in desk.request("GET", "me/datasets")["items"]]


def test_who_is_paused_sees_no_item_and_loses_no_response(project: Project) -> None:
    anna = name("anna")
    pushed = answered(project, anna)
    with connect(project) as server:
        assert seen_by(server, anna) == pushed.metrics["batches"]
        done = handloom("users", "pause", anna)
        assert done.exit_code == 0, done.output
        assert f"{anna}: paused; left {server.workspace}" in done.output
        assert f"next handloom users resume {anna}" in done.output
        assert seen_by(server, anna) == []
        (batch,) = server.batches()
        record = next(iter(server.record_ids(batch).values()))
        with server.as_user(find_user(server, anna)) as desk:
            for path in (f"datasets/{batch.id}/records", f"records/{record}"):
                with pytest.raises(StatusError) as refused:
                    desk.request("GET", path)
                assert refused.value.status in (403, 404)
        listed = handloom("users", "list").output
        line = next(line for line in listed.splitlines() if anna in line)
        assert "paused since 20" in line
        assert "1 responses" in line
        assert pull(project, pushed).metrics["submitted"] == 1
        done = handloom("users", "resume", anna)
        assert f"{anna}: back in {server.workspace}" in done.output
        assert seen_by(server, anna) == pushed.metrics["batches"]
    assert anna not in paused_people(project)
    assert "paused" not in handloom("users", "list").output


def test_joining_a_team_while_paused_waits_for_the_return(project: Project) -> None:
    anna, team = name("anna"), name("team")
    with connect(project) as server:
        add_users(project, server, [anna])
        pause_users(project, server, [anna])
        done = handloom("users", "add", anna, "--workspace", team)
        assert "joined" not in done.output
        assert memberships(server, [find_user(server, anna)]) == []
        assert paused_people(project)[anna].workspaces == (server.workspace, team)
        (account,) = (a for a in accounts(project, server) if a.name == anna)
        assert account.paused
        (back,) = resume_users(project, server, [anna])
        assert (back.workspaces, back.gone) == ((server.workspace, team), ())
        pause_users(project, server, [anna])
        remember_pauses(project, {anna: ["no-more"]})
        (back,) = resume_users(project, server, [anna])
        assert (set(back.workspaces), back.gone) == ({server.workspace, team}, ("no-more",))


def test_a_pause_that_was_cut_off_is_finished_by_another(project: Project) -> None:
    anna, team = name("anna"), name("team")
    with connect(project) as server:
        handloom("users", "add", anna, "--workspace", team, "--workspace", server.workspace)
        user = find_user(server, anna)
        # Killed after the first of two memberships ended: the file knows both.
        standing = memberships(server, [user])
        remember_pauses(project, {anna: [left.workspace for left in standing]})
        left = standing[0]
        server.request("DELETE", f"workspaces/{left.workspace_id}/users/{user.id}")
        pause_users(project, server, [anna])
        assert memberships(server, [user]) == []
        resume_users(project, server, [anna])
        assert {left.workspace for left in memberships(server, [user])} == {team, server.workspace}


def test_who_cannot_be_paused_or_resumed_is_told(project: Project) -> None:
    anna = name("anna")
    with connect(project) as server:
        add_users(project, server, [anna])
        own = server.check().name
        with pytest.raises(InputError, match="the one in use"):
            pause_users(project, server, [anna, own])
        with pytest.raises(InputError, match=rf"{anna}.*is not paused"):
            resume_users(project, server, [anna])
        boss = name("boss")
        Path("people.csv").write_text(f"name,role\n{boss},owner\n")
        handloom("users", "add", "--file", "people.csv")
        with pytest.raises(InputError, match="an owner sees every workspace"):
            pause_users(project, server, [boss])
        assert "no such account" in handloom("users", "pause", name("nobody")).stderr
        assert memberships(server, [find_user(server, anna)])
        assert paused_people(project) == {}


def test_who_leaves_for_good_is_paused_no_more(project: Project) -> None:
    anna = name("anna")
    answered(project, anna)
    with connect(project) as server:
        pause_users(project, server, [anna])
        (gone,) = remove_users(project, server, [anna])
    assert gone.kept == 1
    assert paused_people(project) == {}


def test_a_damaged_file_of_pauses_is_told(project: Project) -> None:
    for content in ("[]", '{"anna": 3}', "{"):
        paused_file(project).write_text(content)
        with pytest.raises(ProjectError, match="damaged"):
            paused_people(project)
    paused_file(project).write_text(json.dumps({}))
    assert paused_people(project) == {}
