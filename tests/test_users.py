"""Annotators as people: accounts, workspaces, passwords, and who leaves."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from factories import Argilla, connected_project, make_generated, submit

from align.cli import main
from annotate.accounts import (
    accounts,
    add_people,
    add_users,
    list_users,
    renew_password,
    workspaces_of,
)
from annotate.errors import InputError, ServerError
from annotate.guidelines import load_guideline
from annotate.ledger import Ledger
from annotate.passwords import users_file
from annotate.people_file import Person
from annotate.pull import pull
from annotate.push import push
from annotate.removal import remove_users
from annotate.runs import Project
from annotate.server import Server, connect
from annotate.transport import StatusError


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(made.root)
    return made


def name(of: str = "anna") -> str:
    """A name that no other test has used on the same server."""
    return f"{of}-{uuid.uuid4().hex[:8]}"


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def logs_in(argilla: Argilla, user: str, password: str) -> bool:
    answer = httpx.post(
        f"{argilla.url}/api/v1/token", data={"username": user, "password": password}
    )
    return answer.status_code == 201


def label(value: str = "a_better") -> dict[str, dict[str, str]]:
    return {"preference": {"value": value}}


def test_a_file_of_many_is_added(project: Project, argilla_server: Argilla) -> None:
    lena, jonas, ida = name("lena"), name("jonas"), name("ida")
    Path("people.csv").write_text(
        "name,first_name,last_name,workspace,role\n"
        f"{lena},Lena,Öz,{lena}-round2,annotator\n"
        f"{jonas},,,,\n"
        "two words,,,,\n"
    )
    done = handloom("users", "add", ida, "--file", "people.csv", "--workspace", f"{ida}-team")
    assert done.exit_code == 0, done.output
    assert "people.csv:4: 'two words' cannot be a name" in done.stderr
    assert "3 annotators may log in" in done.stdout
    passwords = json.loads(users_file(project).read_text())
    assert users_file(project).stat().st_mode & 0o777 == 0o600
    assert logs_in(argilla_server, lena, passwords[lena])
    with connect(project) as server:
        found = {account.name: account for account in accounts(project, server)}
        (told,) = [u for u in server.request("GET", "users")["items"] if u["username"] == lena]
        assert [a.name for a in accounts(project, server, f"{lena}-round2")] == [lena]
        with pytest.raises(InputError, match="no such workspace"):
            accounts(project, server, "nowhere-at-all")
    assert found[lena].workspaces == (f"{ida}-team", f"{lena}-round2")
    assert found[jonas].workspaces == found[ida].workspaces == (f"{ida}-team",)
    assert (told["first_name"], told["last_name"]) == ("Lena", "Öz")
    again = handloom("users", "add", "--file", "people.csv", "--workspace", f"{ida}-team")
    assert "2 annotators may log in" in again.stdout
    assert "0 of them new" in again.stdout
    assert "joined" not in again.stdout
    assert json.loads(users_file(project).read_text()) == passwords


def test_who_is_added_is_counted_by_role(project: Project) -> None:
    lena, jonas, ida, ben = name("lena"), name("jonas"), name("ida"), name("ben")
    Path("people.csv").write_text(
        f"name,role\n{lena},admin\n{jonas},annotator\n{ida},\n{ben},owner\n"
    )
    try:
        said = handloom("users", "add", "--file", "people.csv").stdout
        assert said.startswith("2 annotators, 1 admin, 1 owner may log in at http")
        assert handloom("users", "add", lena).stdout.startswith("1 admin may log in")
        assert handloom("users", "add", jonas).stdout.startswith("1 annotator may log in")
    finally:
        handloom("users", "remove", ben, "--yes")


def test_a_push_that_nobody_can_see_says_so(project: Project) -> None:
    make_generated(project, 2)
    team, boss, anna = name("round9"), name("boss"), name()
    Path("people.csv").write_text(f"name,role,workspace\n{boss},owner,{team}\n")
    words = ("push", "--workspace", team, "--guideline", "preference@v1")
    try:
        for _ in range(2):  # at first it is made; then an owner is its member, who sees all anyway
            said = handloom(*words).stdout
            assert "nobody but the owner can see them yet\n" in said
            assert f"  next handloom users add NAME --workspace {team}; handloom pull" in said
            handloom("users", "add", "--file", "people.csv")
        handloom("users", "add", anna, "--workspace", team)
        assert "nobody" not in handloom(*words).stdout
        said = handloom("push").stdout  # in the project's own workspace
        assert "  next handloom users add NAME; handloom pull" in said
    finally:
        handloom("users", "remove", boss, "--yes")


def test_a_push_says_which_version_of_the_guideline_it_used(project: Project) -> None:
    make_generated(project, 2)
    newest = load_guideline(project.root, "preference").name
    assert newest != "preference@v1"
    assert f" under {newest}\n" in handloom("push").stdout
    assert " under preference@v1\n" in handloom("push", "--guideline", "preference@v1").stdout


def test_a_file_without_a_usable_line_is_an_error(project: Project) -> None:
    Path("people.csv").write_text("name\ntwo words\n")
    done = handloom("users", "add", "--file", "people.csv")
    assert done.exit_code == 1
    assert "people.csv:2: 'two words'" in done.stderr
    assert "no line can be used" in done.stderr
    assert "nobody is named" in handloom("users", "add").stderr


def test_a_teams_workspace_is_found_again_without_being_told(project: Project) -> None:
    run = make_generated(project, 2)
    team = f"team-{uuid.uuid4().hex[:8]}"
    pushed = push(project, run, workspace=team)
    other = push(project, run)
    assert pushed.id != other.id
    assert pushed.manifest["settings"]["workspace"] == team
    with connect(project) as server:
        assert pushed.metrics["batches"][0] not in [batch.name for batch in server.batches()]
        with server.in_workspace(team) as there:
            assert [batch.name for batch in there.batches()] == pushed.metrics["batches"]
            (member,) = add_people(project, there, [Person(name())])
            (batch,) = there.batches()
            ids = there.record_ids(batch)
            path = f"records/{next(iter(ids.values()))}/responses"
            with there.as_user(member.user) as desk:
                desk.request("POST", path, json={"values": label(), "status": "submitted"})
    assert pull(project, pushed).metrics["submitted"] == 1
    assert pull(project, other).metrics["submitted"] == 0


@pytest.mark.parametrize("odd", ["Team A", "München", "hand/loom", "round9\n", " "])
def test_a_name_that_no_workspace_can_have_is_refused(
    project: Project, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_generated(project, 2)
    who = name()
    Path("people.csv").write_text(f"name,workspace\n{who},hand/loom\n")
    with connect(project) as server:
        before = workspaces_of(server)
    refused = [
        ("--workspace", handloom("users", "add", who, "--workspace", odd)),
        ("--workspace", handloom("push", "--workspace", odd)),
        ("--workspace", handloom("push", "--to", who, "--workspace", odd)),
        ("people.csv:2", handloom("push", "--assign", "people.csv")),
        ("people.csv:2", handloom("users", "add", "--file", "people.csv")),
    ]
    with monkeypatch.context() as patch:
        patch.setenv("HANDLOOM_ARGILLA_WORKSPACE", odd)
        refused += [
            ("HANDLOOM_ARGILLA_WORKSPACE", handloom(*words))
            for words in (("push",), ("users", "add", who))
        ]
    for where, done in refused:
        assert done.exit_code == 1, done.output
        said = done.stderr
        assert f"{where}: " in said
        assert "cannot be a workspace's name" in said
        assert "digits, - and _" in said
    with connect(project) as server:
        assert workspaces_of(server) == before
        assert who not in [user.name for user in list_users(server)]


def test_a_workspace_of_others_with_such_a_name_is_in_nobodys_way(project: Project) -> None:
    """Argilla's server takes any name; its SDK refuses to read a list that has an odd one."""
    odd = f"Team {name('ü')}"
    with connect(project) as server:
        server.create("workspaces", {"name": odd})
        try:
            assert push(project, make_generated(project, 2)).metrics["items"] == 2
        finally:
            server.request("DELETE", f"workspaces/{workspaces_of(server)[odd]}")


def test_one_batch_name_is_not_in_two_workspaces(project: Project) -> None:
    run = make_generated(project, 2)
    push(project, run, batch="mine", workspace=name("team"))
    with pytest.raises(InputError, match=r"mine is in the workspace team-.*another --batch"):
        push(project, run, batch="mine")


def test_who_leaves_is_forgotten_by_argilla_and_not_by_the_ledger(project: Project) -> None:
    pushed = push(project, make_generated(project, 3))
    ids = pushed.read("items")["item_id"].to_pylist()
    anna, ben = name("anna"), name("ben")
    submit(project, pushed, anna, {ids[0]: label(), ids[1]: label("b_better")})
    submit(project, pushed, anna, {ids[2]: label()}, "draft")
    submit(project, pushed, ben, {ids[0]: label()})
    listed = handloom("users", "list").output
    assert next(line for line in listed.splitlines() if anna in line).split()[1:4] == [
        "annotator",
        "3",
        "responses",
    ]
    assert handloom("users", "remove", anna).exit_code == 1  # asks, and nobody answers
    done = handloom("users", "remove", anna, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{anna}: removed; the ledger keeps 3 responses" in done.output
    with connect(project) as server:
        assert anna not in [user.name for user in list_users(server)]
    assert anna not in json.loads(users_file(project).read_text())
    pulled = pull(project, pushed)
    said = pulled.read("responses").to_pylist()
    assert sum(row["annotator"] == anna for row in said) == 3
    assert sum(row["annotator"] == ben for row in said) == 1
    told = json.loads(handloom("agreement", pulled.id, "--json").output)["questions"]["vote"]
    # Who left still counts: both answered the first item, alike, and anna the second.
    assert (told["annotators"], told["answers"], told["raw"]["n_pairable"]) == (2, 3, 1)
    assert told["raw"]["value"] == 1
    assert "no such account" in handloom("users", "remove", anna, "--yes").stderr


def test_nobody_is_removed_while_answers_would_be_lost(project: Project) -> None:
    """Answers to a data set that no finished push made, or a ledger that cannot be written."""
    pushed = push(project, make_generated(project, 1))
    (item,) = pushed.read("items")["item_id"].to_pylist()
    anna = name()
    submit(project, pushed, anna, {item: label()})
    hidden = project.root / "elsewhere"
    pushed.path.rename(hidden)
    with connect(project) as server:
        with pytest.raises(InputError, match=rf"{anna}.*no finished push.*--lose-others"):
            remove_users(project, server, [anna])
        hidden.rename(pushed.path)
        ledger = Ledger.of(project)
        ledger.path.mkdir()  # cannot be written
        with pytest.raises(OSError, match="directory"):
            remove_users(project, server, [anna])
        ledger.path.rmdir()
        members = server.request("GET", f"workspaces/{server.workspace_id}/users")["items"]
        assert anna in [member["username"] for member in members]
        assert len(list(server.responses(server.batches()[0]))) == 1
        own = server.check().name
        with pytest.raises(InputError, match="the one in use"):
            remove_users(project, server, [own])
        assert [gone.kept for gone in remove_users(project, server, [anna])] == [1]


def test_with_lose_others_they_go(project: Project) -> None:
    pushed = push(project, make_generated(project, 1))
    (item,) = pushed.read("items")["item_id"].to_pylist()
    anna = name()
    submit(project, pushed, anna, {item: label()})
    pushed.path.rename(project.root / "elsewhere")
    done = handloom("users", "remove", anna, "--yes", "--lose-others")
    assert "keeps 0 responses, 1 to other data sets are lost" in done.output


def test_a_password_is_renewed_and_a_key_is_shown(
    project: Project, argilla_server: Argilla
) -> None:
    anna = name()
    with connect(project) as server:
        (user,) = add_users(project, server, [anna])
    old = json.loads(users_file(project).read_text())[anna]
    done = handloom("users", "password", anna)
    new = json.loads(users_file(project).read_text())[anna]
    assert old not in done.output
    assert new not in done.output
    assert not logs_in(argilla_server, anna, old)
    assert logs_in(argilla_server, anna, new)
    assert handloom("users", "key", anna).output == f"{user.api_key}\n"
    with Server(argilla_server.url, user.api_key) as desk:
        assert desk.check().name == anna
    other = handloom("users", "key", anna, "--renew").output.strip()
    assert other != user.api_key
    with Server(argilla_server.url, other) as desk:
        assert desk.check().name == anna
    with Server(argilla_server.url, user.api_key) as desk, pytest.raises(StatusError):
        desk.check()
    with connect(project) as server:
        own = server.check().name
    assert "cannot be renewed with itself" in handloom("users", "key", own, "--renew").stderr
    assert "no such account" in handloom("users", "key", name("nobody")).stderr


def test_nobody_is_renamed(project: Project) -> None:
    """Whom the ledger knows by name: all their answers would count twice."""
    name = f"lena-{uuid.uuid4().hex[:8]}"
    with connect(project) as server:
        (user,) = add_users(project, server, [name])
        with pytest.raises(StatusError, match=f"422 .*username '{name}' stands in the ledger"):
            server.request("PATCH", f"users/{user.id}", json={"username": f"{name}-weiss"})
        same = {"username": name, "first_name": "Lena", "last_name": "Weiss"}
        assert server.request("PATCH", f"users/{user.id}", json=same)["last_name"] == "Weiss"
        assert name in {each.name for each in list_users(server)}


def test_a_refused_password_leaves_the_old_one(project: Project, argilla_server: Argilla) -> None:
    anna, ben = name("anna"), name("ben")
    with connect(project) as server:
        _, annotator = add_users(project, server, [anna, ben])
    before = users_file(project).read_text()
    with Server(argilla_server.url, annotator.api_key) as desk, pytest.raises(StatusError):
        renew_password(project, desk, anna)
    assert users_file(project).read_text() == before


def test_a_damaged_file_of_passwords_is_told(project: Project) -> None:
    users_file(project).write_text("[]")
    with connect(project) as server, pytest.raises(Exception, match="damaged"):
        add_users(project, server, [name()])


def test_without_a_server_it_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDLOOM_ARGILLA_URL")
    for words in (("add", "anna"), ("list",), ("remove", "anna", "--yes"), ("key", "anna")):
        done = handloom("users", *words)
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        assert "handloom up" in done.stderr
    with pytest.raises(ServerError):
        connect(project)
