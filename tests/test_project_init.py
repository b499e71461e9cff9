"""`handloom init`: a project with what comes with Handloom, nothing overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import make_generated

from annotate.errors import HandloomError
from annotate.guidelines import load_guideline
from annotate.project_init import init_project
from annotate.runs import Project


def test_a_new_project_is_found_and_holds_guidelines_and_recipes(tmp_path: Path) -> None:
    project, written = init_project(tmp_path / "new")
    assert Project.find(project.root / "guidelines") == project
    assert load_guideline(project.root, "preference").name == "preference@v2"
    assert load_guideline(project.root, "ranking").name == "ranking@v1"
    assert list((project.root / "recipes").glob("*.yaml"))
    assert not list(project.root.rglob("*.py"))
    ignored = (project.root / ".gitignore").read_text().splitlines()
    assert {"/.handloom/", "*.tar"} <= set(ignored)
    assert all(path.is_file() for path in written)


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "guidelines" / "preference" / "v1.md"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    _, written = init_project(tmp_path)
    assert mine.read_text() == "mine"
    assert mine not in written
    assert init_project(tmp_path)[1] == []


def test_where_no_project_can_be_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HandloomError, match="cannot be made a project"):
        init_project(tmp_path / "file")
    project, _ = init_project(tmp_path / "p")
    run = make_generated(project, 1)
    with pytest.raises(HandloomError, match="inside a run"):
        init_project(run.path / "x")
