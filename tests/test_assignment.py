"""Items for named people: workspaces of their own, shares, caps that the real server keeps."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import RunningArgilla
from factories import Argilla, connected_project, make_generated, submit
from page_client import PageClient

from align.cli import main
from annotate.accounts import add_users, members
from annotate.assignment import check_capacity, read_groups, workspace_for
from annotate.errors import InputError
from annotate.pausing import pause_users
from annotate.push import push, push_to_groups
from annotate.runs import Project
from annotate.server import connect


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


@pytest.fixture
def team(project: Project) -> list[str]:
    """Three accounts under names that no other test uses."""
    names = [f"{name}-{time.time_ns()}" for name in ("ada", "ben", "cem")]
    with connect(project) as server:
        add_users(project, server, names)
    return names


def test_only_the_named_people_see_a_batch(project: Project, team: list[str]) -> None:
    run = make_generated(project, 6)
    pushed = push(project, run, overlap=2, to=team[:2])
    assert pushed.manifest["settings"]["to"] == sorted(team[:2])
    assert push(project, run, overlap=2, to=team[:2]) == pushed
    workspace = pushed.metrics["workspace"]
    assert workspace == workspace_for(team[:2]) == workspace_for(team[1::-1])
    with connect(project, workspace) as server:
        assert members(server) - {"argilla"} <= {*team[:2], *owners(server)}
        assert {*team[:2]} <= members(server)
    with pytest.raises(InputError, match="'s too"):
        push(project, run, overlap=1, to=[team[2]], workspace=workspace)


def owners(server: object) -> set[str]:
    items = server.request("GET", "users")["items"]  # type: ignore[attr-defined]
    return {item["username"] for item in items if item["role"] == "owner"}


@pytest.mark.parametrize(
    ("to", "options", "said"),
    [
        (["nobody-here"], {"overlap": 1}, "`handloom users add nobody-here`"),
        (["nobody-here"], {}, "2 people must answer each item, and 1 are named"),
        (
            ["nobody-1", "nobody-2"],
            {"cap": 5, "overlap": 2},
            "nobody-1: no such account",
        ),
    ],
)
def test_people_who_cannot_answer_are_refused(
    project: Project, to: list[str], options: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError) as error:
        push(project, make_generated(project, 6), to=to, **options)
    assert said in str(error.value)
    assert project.unfinished() == []


def test_more_than_the_caps_allow_is_refused_with_the_sum(
    project: Project, team: list[str]
) -> None:
    # 6 items by 2 people are 12 answers; 2 people may give 5 each, 10.
    with pytest.raises(InputError, match="are 12 answers, and 2 people may give 5 each, 10"):
        push(project, make_generated(project, 6), overlap=2, to=team[:2], cap=5)
    assert project.unfinished() == []
    check_capacity(6, 2, team[:2], 6)
    check_capacity(6, 2, None, 1)


def test_somebody_who_is_paused_is_not_given_work(project: Project, team: list[str]) -> None:
    with connect(project) as server:
        pause_users(project, server, [team[0]])
    with pytest.raises(InputError, match="is paused"):
        push(project, make_generated(project, 2), overlap=1, to=[team[0]])


def test_prompts_are_shared_out_among_groups_in_proportion(
    project: Project, team: list[str]
) -> None:
    run = make_generated(project, 30, 3)
    groups = {f"two-{team[0]}": team[:2], f"one-{team[2]}": team[2:]}
    pushes = push_to_groups(project, run, groups, overlap=1)
    prompts = [set(pushed.read("items")["prompt_id"].to_pylist()) for pushed in pushes]
    assert [len(part) for part in prompts] == [20, 10]
    assert not prompts[0] & prompts[1]
    assert [pushed.metrics["items"] for pushed in pushes] == [60, 30]
    assert push_to_groups(project, run, groups, overlap=1) == pushes


def test_a_file_of_people_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("name,workspace\nmaria,german\nli,chinese\njonas,german chinese\n")
    assert read_groups(path) == {"chinese": ["jonas", "li"], "german": ["jonas", "maria"]}
    path.write_text("name,workspace\nmaria,\n")
    with pytest.raises(InputError, match="maria has no workspace"):
        read_groups(path)
    path.write_text("name,workspace\n!,german\n")
    with pytest.raises(InputError, match=r"people\.csv:2"):
        read_groups(path)


def test_names_of_workspaces_are_argillas(tmp_path: Path) -> None:
    assert workspace_for(["ben", "ada"]) == "for-ada-ben"
    odd = workspace_for(["ada@example.org"])
    assert odd.startswith("for-ada_example_org-")
    assert odd != workspace_for(["ada_example.org"])
    assert len(workspace_for([f"person-{n}" for n in range(40)])) <= 60


def test_the_server_gives_nobody_more_than_their_cap(
    project: Project, team: list[str], argilla_server: RunningArgilla
) -> None:
    pushed = push(
        project, make_generated(project, 20), guideline="preference@v1", overlap=2, to=team, cap=14
    )
    (name,) = pushed.metrics["batches"]
    with connect(project, pushed.metrics["workspace"]) as server:
        batch = server.batch(name)
        users = {user.name: user for user in add_users(project, server, team)}
    said = {"preference": {"value": "a_better"}}
    pages = [
        PageClient(argilla_server.url, batch.id, users[who].api_key, values=said) for who in team
    ]
    first = pages[0]
    assert len(first.load()) <= 10
    assert first.total <= 14
    done = [page.work() for page in pages]
    assert done[:2] == [14, 14]
    assert 6 <= done[2] <= 12  # of 20 items 6 to 12 still lack an answer, and she gives one to each
    assert [page.load() for page in pages] == [[], [], []]


def test_assign_prints_a_push_for_each_group_and_pull_fetches_them_all(
    project: Project, team: list[str], tmp_path: Path
) -> None:
    make_generated(project, 6)
    path = tmp_path / "people.csv"
    path.write_text("name,workspace\n" + "".join(f"{who},own-{who}\n" for who in team))

    def handloom(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["-C", str(project.root), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    said = handloom(
        "push",
        "--guideline",
        "preference@v1",
        "--assign",
        str(path),
        "--overlap",
        "1",
        "--batch",
        f"b{team[0]}",
    )
    assert said.count("2 items in ") == 3
    pushes = [run for run in project.all_runs() if run.step == "push"]
    for run in pushes:
        (who,) = run.manifest["settings"]["to"]
        items = run.read("items")["item_id"].to_pylist()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"own-{who}")
            submit(
                project,
                run,
                who,
                {item: {"preference": {"value": "no_difference"}} for item in items},
            )
    assert handloom("pull").count("2 submitted responses of 1 annotators") == 3
    refused = CliRunner().invoke(
        main, ["-C", str(project.root), "push", "--assign", str(path), "--to", "x"]
    )
    assert refused.exit_code == 1
    assert "leave out --to" in refused.output
