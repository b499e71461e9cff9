"""`handloom ledger` as a user types it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from factories import Argilla, connected_project, make_generated, submit

from align.cli import main
from annotate.accounts import add_users, list_users
from annotate.ledger import Ledger
from annotate.pull import pull
from annotate.push import push
from annotate.runs import Project, Run
from annotate.server import connect
from annotate.server_types import Submission


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(project.root)
    return project


def handloom(*arguments: str, said: str | None = None) -> Result:
    return CliRunner().invoke(main, ["ledger", *arguments], input=said)


def label(value: str) -> dict[str, Any]:
    return {"preference": {"value": value}}


LEAVER = "leaver"
"""Not a name of other tests', on the same server."""


def answered(project: Project) -> tuple[Run, list[str]]:
    pushed = push(project, make_generated(project, 3))
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "anna", {item: label("a_better") for item in ids})
    submit(project, pushed, LEAVER, {ids[0]: label("b_better")})
    pull(project, pushed)
    return pushed, ids


def test_verify_says_what_is_there_and_what_is_wrong(project: Project) -> None:
    answered(project)
    well = handloom("verify")
    assert well.exit_code == 0, well.output
    assert "ledger.jsonl: intact, 4 lines" in well.output
    head = json.loads(handloom("verify", "--json").output)["head"]
    assert handloom("verify", "--head", head).exit_code == 0
    path = Ledger.of(project).path
    whole = path.read_text()
    path.write_text(whole.replace("b_better", "a_better"))
    changed = handloom("verify")
    assert changed.exit_code == 1
    assert "was changed" in changed.output
    assert "ledger.jsonl: damaged, 4 lines" in changed.output
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert handloom("verify").exit_code == 0  # nothing shows within the file
    cut = handloom("verify", "--head", head)
    assert cut.exit_code == 1
    assert "cut off or rewritten" in cut.output


def test_a_ledger_that_is_gone_is_not_intact(project: Project) -> None:
    pushed = push(project, make_generated(project, 2))
    assert handloom("verify").exit_code == 0  # nobody has answered
    pull(project, pushed)
    new = CliRunner().invoke(main, ["pull"])
    assert (new.exit_code, new.stderr) == (0, "")
    (item, _) = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "anna", {item: label("a_better")})
    pulled = pull(project, pushed)
    Ledger.of(project).path.unlink()
    gone = handloom("verify")
    assert gone.exit_code == 1
    said = f"there is no ledger here, and {pulled.id} was made from one"
    assert said in gone.output
    assert "ledger.jsonl: gone, 0 lines" in gone.output
    assert "handloom restore --from BACKUP" in gone.output
    assert json.loads(handloom("verify", "--json").output)["problems"] == [said]
    whole = CliRunner().invoke(main, ["verify"])
    assert whole.exit_code == 1
    assert said in whole.stderr
    begun = CliRunner().invoke(main, ["pull"])
    assert begun.exit_code == 0, begun.output
    assert begun.stderr.count("\n") == 1
    assert f"{said}; this pull begins a new one" in begun.stderr
    assert handloom("verify").exit_code == 0


def test_diff_names_what_is_missing_and_what_differs(project: Project) -> None:
    pushed, ids = answered(project)
    agreed = handloom("diff")
    assert agreed.exit_code == 0, agreed.output
    assert "agree" in agreed.output
    submit(project, pushed, "anna", {ids[1]: label("no_difference")})  # edited since
    with connect(project) as server:
        (leaver,) = [user for user in list_users(server) if user.name == LEAVER]
        server.request("DELETE", f"users/{leaver.id}")
        add_users(project, server, ["eva"])
    submit(project, pushed, "eva", {ids[2]: label("a_better")}, "draft")
    differing = handloom("diff")
    assert differing.exit_code == 1
    batch = pushed.metrics["batches"][0]
    for kind, who in (
        ("different", "anna"),
        ("missing on the server", LEAVER),
        ("missing in the ledger", "eva"),
    ):
        assert f"1 {kind}: {batch}, {who}" in differing.output, differing.output
    found = json.loads(handloom("diff", "--json").output)
    assert {(d["kind"], d["item_id"], d["annotator"]) for d in found} == {
        ("different", ids[1], "anna"),
        ("missing on the server", ids[0], LEAVER),
        ("missing in the ledger", ids[2], "eva"),
    }
    assert handloom("diff", "--batch", batch).exit_code == 1
    pull(project, pushed)
    left = json.loads(handloom("diff", "--json").output)
    assert [d["annotator"] for d in left] == [LEAVER]


def test_diff_looks_into_every_workspace_and_refuses_unknown_batches(project: Project) -> None:
    answered(project)
    team = f"team-{uuid.uuid4().hex[:8]}"
    pushed = push(project, make_generated(project, 2), batch="elsewhere", workspace=team)
    with connect(project, team) as there:
        (anna,) = [user for user in list_users(there) if user.name == "anna"]
        there.create(f"workspaces/{there.workspace_id}/users", {"user_id": anna.id})
        ids = there.record_ids(there.batch("elsewhere"))
        with there.as_user(anna) as desk:
            desk.submit([Submission(at, label("a_better")) for at in ids.values()])
    pull(project, pushed)
    agreed = handloom("diff")
    assert agreed.exit_code == 0, agreed.output
    assert f"workspace {team}: 0 of 2 responses in 1 batch differ" in agreed.output
    assert "0 of 4 responses in 1 batch differ" in agreed.output  # of the project's own workspace
    misspelt = handloom("diff", "--batch", "elsewere")
    assert misspelt.exit_code == 1
    assert "elsewere: no such batch. Did you mean elsewhere?" in misspelt.stderr
    with connect(project, team) as there:
        there.request("DELETE", f"datasets/{there.batch('elsewhere').id}")
    lost = handloom("diff")
    assert lost.exit_code == 1
    assert "2 missing on the server: elsewhere, anna" in lost.output
    assert f"workspace {team}: 2 of 2 responses in 1 batch differ" in lost.output
    found = json.loads(handloom("diff", "--batch", "elsewhere", "--json").output)
    assert [each["workspace"] for each in found] == [team, team]


def test_who_was_removed_on_purpose_is_no_difference(project: Project) -> None:
    pushed, ids = answered(project)
    who = f"leaver-{uuid.uuid4().hex[:8]}"  # who has answered nothing else
    submit(project, pushed, who, {ids[0]: label("no_difference")})
    gone = CliRunner().invoke(main, ["users", "remove", who, "--yes"])
    assert f"{who}: removed; the ledger keeps 1 responses" in gone.output
    assert "handloom restore makes the account again" in gone.output
    assert "handloom ledger erase --annotator NAME" in gone.output
    agreed = handloom("diff")
    assert agreed.exit_code == 0, agreed.output
    assert f"{who} was removed: 1 responses in the ledger only" in agreed.output
    assert " 0 of 5 responses in 1 batch differ" in agreed.output
    (told,) = json.loads(handloom("diff", "--json").output)
    assert (told["kind"], told["annotator"]) == ("removed", who)
    assert "deleted with the account, which was removed" in handloom("show", ids[0]).output
    assert pull(project, pushed).metrics["submitted"] == 5  # they still count
    # Put back, and then lost by accident: that is a difference again.
    assert CliRunner().invoke(main, ["restore"]).exit_code == 0
    assert "was removed" not in handloom("diff").output
    with connect(project) as server:
        (leaver,) = [user for user in list_users(server) if user.name == who]
        server.request("DELETE", f"users/{leaver.id}")
    lost = handloom("diff")
    assert lost.exit_code == 1
    assert f"1 missing on the server: {pushed.metrics['batches'][0]}, {who}" in lost.output


def test_show_gives_every_version(project: Project) -> None:
    pushed, ids = answered(project)
    submit(project, pushed, "anna", {ids[0]: label("no_difference")})
    pull(project, pushed)
    shown = handloom("show", ids[0])
    assert shown.exit_code == 0, shown.output
    order = ["a_better", "b_better", "no_difference"]
    places = [shown.output.index(f'preference: "{value}"') for value in order]
    assert places == sorted(places)
    versions = json.loads(handloom("show", ids[0], "--json").output)
    assert [version["annotator"] for version in versions] == ["anna", LEAVER, "anna"]
    nothing = handloom("show", "i-none")
    assert nothing.exit_code == 1
    assert "the ledger has nothing of this item" in nothing.output


def test_erase_asks_and_says_what_it_does_not_reach(project: Project) -> None:
    pushed, _ = answered(project)
    assert handloom("erase", "--reason", "asked").exit_code == 1
    declined = handloom("erase", "--annotator", "anna", "--reason", "asked", said="n\n")
    assert declined.exit_code == 1
    assert len(list(Ledger.of(project))) == 4
    erased = handloom("erase", "--annotator", "anna", "--reason", "she asked", "--yes")
    assert erased.exit_code == 0, erased.output
    assert "3 entries erased" in erased.output
    for said in (erased.stderr, declined.stderr):  # before it is done
        assert "anna still has an account, and the next pull writes down again" in said
        assert "`handloom users remove anna` first" in said
    assert "next handloom users remove anna, then this command again" in erased.stdout
    assert "runs keep their own copies: " in erased.output
    assert {entry.annotator for entry in Ledger.of(project)} == {LEAVER}
    verified = handloom("verify")
    assert "intact, 5 lines, 3 of them erased" in verified.output
    assert verified.exit_code == 0
    pull(project, pushed, again=True)
    assert len(list(Ledger.of(project))) == 4  # the server still had them


def test_erase_refuses_what_is_not_there_and_a_reason_that_names_somebody(project: Project) -> None:
    _, ids = answered(project)
    before = Ledger.of(project).path.read_bytes()
    for arguments, said in (
        (
            ["--annotator", "ana", "--reason", "asked"],
            "nothing of this annotator. Did you mean anna",
        ),
        (["--annotator", "xyzzy", "--reason", "asked"], "Known: anna, leaver"),
        (["--item", ids[0][:-1], "--reason", "asked"], "nothing of this item. Did you mean i-"),
        (["--item", "?", "--reason", "asked"], "`handloom trace` finds an item's id"),
        (["--annotator", LEAVER, "--item", ids[1], "--reason", "asked"], f"nothing of {LEAVER}"),
        (["--annotator", "anna", "--reason", "Anna's wish"], "the reason names anna"),
        (["--item", ids[0], "--reason", "by leaver, 17"], "Name nobody in it"),
    ):
        refused = handloom("erase", *arguments, "--yes")
        assert refused.exit_code == 1, arguments
        assert refused.stderr.count("\n") == 1
        assert said in refused.stderr, refused.stderr
    assert Ledger.of(project).path.read_bytes() == before
    with connect(project) as server:
        (leaver,) = [user for user in list_users(server) if user.name == LEAVER]
        server.request("DELETE", f"users/{leaver.id}")
    done = handloom("erase", "--annotator", LEAVER, "--reason", "Annals, no name", "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "next handloom ledger verify" in done.output
