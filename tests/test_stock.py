"""A stock Argilla by address and key: everything works that does on the embedded server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from factories import connected_project, make_generated, submit
from receiver import eventually
from stock import StockArgilla

from align.cli import main
from annotate.accounts import find_user
from annotate.judge import judge
from annotate.ledger import Ledger
from annotate.pull import pull
from annotate.push import push
from annotate.runs import Project
from annotate.server import Server, connect


@pytest.fixture
def project(
    tmp_path: Path, stock_argilla: StockArgilla, monkeypatch: pytest.MonkeyPatch
) -> Project:
    project = connected_project(tmp_path / "project", stock_argilla, monkeypatch)
    monkeypatch.chdir(project.root)
    return project


def label(value: str) -> dict[str, Any]:
    return {"preference": {"value": value}}


def handloom(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_not_patched(stock_argilla: StockArgilla) -> None:
    """Else these tests would say nothing."""
    answer = httpx.get(f"{stock_argilla.url}/sign-in").raise_for_status()
    assert "content-security-policy" not in answer.headers


def test_push_answer_pull_judge(project: Project) -> None:
    pushed = push(project, make_generated(project, 8), overlap=2)
    assert push(project, project.latest("generate"), overlap=2) == pushed
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "ann", {i: label("a_better") for i in ids})
    submit(project, pushed, "bob", {i: label("a_better") for i in ids[:5]})
    submit(project, pushed, "eve", {ids[0]: label("b_better"), ids[7]: label("b_better")})
    submit(project, pushed, "eve", {ids[1]: label("b_better")}, "draft")
    submit(project, pushed, "eve", {ids[2]: {}}, "discarded")
    pulled = pull(project, pushed)
    noted = pulled.metrics
    assert (noted["submitted"], noted["drafts"], noted["discarded"]) == (15, 1, 1)
    assert pull(project, pushed) == pulled
    assert judge(project, pulled).read("judgements").num_rows == 8
    submit(project, pushed, "bob", {ids[0]: label("no_difference")})
    pull(project, pushed)
    history = [e for e in Ledger.of(project).history([ids[0]]) if e.annotator == "bob"]
    assert [e.values["preference"]["value"] for e in history] == ["a_better", "no_difference"]


def test_people_come_and_go_and_their_answers_stay(project: Project) -> None:
    name = f"leaver-{os.getpid()}"
    pushed = push(project, make_generated(project, 3))
    handloom("users", "add", name)
    assert name in handloom("users", "list")
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, name, {i: label("a_better") for i in ids})
    with connect(project) as server, server.as_user(find_user(server, name)) as desk:
        handloom("users", "pause", name)
        assert desk.request("GET", "me/datasets")["items"] == []
        handloom("users", "resume", name)
        assert len(desk.request("GET", "me/datasets")["items"]) == 1
    handloom("users", "remove", name, "--yes")
    assert name not in handloom("users", "list")
    kept = [entry for entry in Ledger.of(project).history(ids) if entry.annotator == name]
    assert {entry.item_id for entry in kept if entry.status == "submitted"} == set(ids)


def test_a_deleted_data_set_comes_back_with_everybodys_answers(project: Project) -> None:
    pushed = push(project, make_generated(project, 4), overlap=1)
    ids = pushed.read("items")["item_id"].to_pylist()
    for name in ("ann", "bob", "eve"):
        submit(project, pushed, name, {i: label("a_better") for i in ids[:3]})
    pulled = pull(project, pushed)
    assert pulled.metrics["submitted"] == 9
    handloom("ledger", "diff")
    with connect(project) as server:
        (batch,) = server.batches()
        server.request("DELETE", f"datasets/{batch.id}")
    assert CliRunner().invoke(main, ["ledger", "diff"]).exit_code == 1
    handloom("restore")
    handloom("ledger", "diff")
    assert pull(project, pushed) == pulled


def progress(server: Server) -> dict[str, int]:
    (batch,) = server.batches()
    found: dict[str, int] = server.request("GET", f"datasets/{batch.id}/progress")
    return found


def test_the_worker_follows_a_change_of_the_overlap(project: Project) -> None:
    pushed = push(project, make_generated(project, 4), overlap=1)
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(project, pushed, "ann", {i: label("a_better") for i in ids[:3]})
    with connect(project) as server:
        (batch,) = server.batches()
        assert progress(server)["completed"] == 3
        for overlap, completed in ((2, 0), (1, 3)):
            distribution = {"strategy": "overlap", "min_submitted": overlap}
            server.request("PATCH", f"datasets/{batch.id}", json={"distribution": distribution})
            assert eventually(lambda: progress(server)["completed"] == completed, 60)  # noqa: B023


@pytest.fixture
def listener(project: Project) -> Iterator[Path]:
    """`handloom ledger listen` at work; its output."""
    said = project.root / "listener.out"
    command = "import sys; from align.cli import main; main(sys.argv[1:])"
    with (
        said.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-u", "-c", command, "ledger", "listen", "--port", "0"],
            cwd=project.root,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        assert eventually(lambda: b"listening to" in said.read_bytes()), said.read_text()
        yield said
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_webhooks_bring_every_version_into_the_ledger(project: Project, listener: Path) -> None:
    pushed = push(project, make_generated(project, 2))
    ids = pushed.read("items")["item_id"].to_pylist()
    for value in ("a_better", "b_better", "no_difference"):
        submit(project, pushed, "ann", {ids[0]: label(value)})

    def versions() -> list[str]:
        history = Ledger.of(project).history([ids[0]])
        return [entry.values["preference"]["value"] for entry in history]

    assert eventually(lambda: len(versions()) == 3, 60), listener.read_text()
    assert versions() == ["a_better", "b_better", "no_difference"]
    pull(project, pushed)  # which finds the last of them, and writes nothing twice
    assert len(versions()) == 3
