"""Runs: deterministic ids, all or nothing, verifiable, resumable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from annotate.errors import HandloomError, ProjectError
from annotate.listing import print_runs
from annotate.records import table_from_rows
from annotate.runs import Project, Run, RunPlan, verify


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "runs").mkdir()
    (tmp_path / "guidelines").mkdir()
    return Project(tmp_path)


def make_run(
    project: Project,
    step: str = "import",
    parents: tuple[Run, ...] = (),
    settings: dict[str, object] | None = None,
) -> Run:
    plan = RunPlan(step, round=1, parents=parents, settings=settings or {}, seed=0)
    with project.draft(plan) as draft:
        draft.write("prompts", table_from_rows("prompts", [{"prompt_id": "p"}]))
        draft.note(n=1)
    return draft.run


def test_a_project_is_found_from_a_folder_within(project: Project) -> None:
    inner = project.root / "runs" / "x"
    inner.mkdir()
    assert Project.find(inner) == project
    with pytest.raises(ProjectError, match="handloom init"):
        Project.find(Path("/"))


def test_the_same_plan_has_the_same_id_and_another_setting_another(project: Project) -> None:
    parent = make_run(project)
    plans = [RunPlan("push", 1, (parent,), {"overlap": n}, seed=0) for n in (2, 2, 3)]
    ids = [plan.run_id for plan in plans]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0].startswith("r1-push-")
    assert RunPlan("push", 1, (parent,), {"overlap": 2}, seed=1).run_id != ids[0]


def test_a_finished_run_is_found_and_again_makes_another(project: Project) -> None:
    run = make_run(project)
    plan = RunPlan("import", round=1, seed=0)
    assert project.finished(plan) == run
    other = project.again(plan)
    assert other.run_id != run.id
    with project.draft(other):
        pass
    assert project.again(plan).run_id not in (run.id, other.run_id)


def test_the_manifest_accounts_for_every_file(project: Project) -> None:
    run = make_run(project)
    entry = run.manifest["files"]["prompts.parquet"]
    assert entry["rows"] == 1
    assert entry["bytes"] == (run.path / "prompts.parquet").stat().st_size
    assert run.metrics == {"n": 1}
    assert verify(project) == []


def test_an_error_leaves_the_project_as_it_was_and_the_draft_to_resume(project: Project) -> None:
    plan = RunPlan("import", round=1)
    with pytest.raises(RuntimeError), project.draft(plan) as draft:
        draft.write_text("shard-0", "half")
        raise RuntimeError("half-way")
    assert project.all_runs() == []
    assert project.unfinished() == [plan.run_id]
    with project.draft(plan) as draft:
        assert (draft.path / "shard-0").read_text() == "half"
    assert project.unfinished() == []


def test_an_attempt_that_wrote_nothing_leaves_nothing(project: Project) -> None:
    with pytest.raises(ProjectError), project.draft(RunPlan("push", round=1)):
        raise ProjectError("nothing to show")
    assert list(project.runs_dir.iterdir()) == []


@pytest.mark.parametrize("damage", [b"{", b"3", b"{}", b"\xff", None])
def test_a_damaged_manifest_is_one_error_and_verify_names_it(
    project: Project, damage: bytes | None
) -> None:
    run, other = make_run(project), make_run(project, settings={"x": 1})
    (other.path / "prompts.parquet").unlink()
    if damage is None:
        (run.path / "manifest.json").unlink()
    else:
        (run.path / "manifest.json").write_bytes(damage)
        with pytest.raises(ProjectError, match="manifest cannot be read"):
            project.all_runs()
    assert [named for named, _ in verify(project)] == sorted([run.id, other.id])


def test_a_run_of_another_step_is_refused(project: Project) -> None:
    run = make_run(project)
    run.require("import")
    with pytest.raises(ProjectError, match="a run of import, not of push"):
        run.require("push")


def test_verify_names_what_was_tampered_with(project: Project) -> None:
    parent = make_run(project)
    child = make_run(project, "push", (parent,))
    (child.path / "extra.txt").write_text("x")
    (parent.path / "prompts.parquet").write_bytes(b"x")
    manifest = json.loads((parent.path / "manifest.json").read_text())
    (parent.path / "manifest.json").write_text(json.dumps(manifest))
    problems = dict(verify(project, [child])), dict(verify(project, [parent]))
    assert "changed" in problems[0][child.id]
    assert "prompts.parquet was changed" in problems[1][parent.id]
    (parent.path / "prompts.parquet").unlink()
    assert "missing" in verify(project, [parent])[0][1]


def test_ancestors_come_nearest_first_and_once(project: Project) -> None:
    a = make_run(project)
    b = make_run(project, "push", (a,))
    c = make_run(project, "judge", (b, a))
    assert [run.id for run in c.ancestors()] == [b.id, a.id]
    assert c.ancestor("import") == a
    with pytest.raises(ProjectError, match="not made from a train run"):
        c.ancestor("train")


def test_a_run_is_resolved_by_a_beginning_and_ambiguity_is_said(project: Project) -> None:
    run = make_run(project)
    assert project.resolve(run.id[:-3]) == run
    make_run(project, settings={"x": 1})
    with pytest.raises(ProjectError, match="2 runs begin so"):
        project.resolve("r1-import")
    with pytest.raises(ProjectError, match="no such run"):
        project.resolve("../runs")


def test_two_writers_of_one_run_are_kept_apart(project: Project) -> None:
    plan = RunPlan("import", round=1)
    with (
        project.draft(plan),
        pytest.raises(ProjectError, match="another process"),
        project.draft(plan),
    ):
        pass


WRITER = """
import sys, os, signal
from pathlib import Path
from annotate.records import table_from_rows
from annotate.runs import Project, RunPlan, _fsync
import annotate.runs as runs
count, stop = 0, int(sys.argv[2])
def dying(path):
    global count
    count += 1
    if count == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    _fsync(path)
runs._fsync = dying
with Project(Path(sys.argv[1])).draft(RunPlan("import", round=1)) as draft:
    draft.write("prompts", table_from_rows("prompts", [{"prompt_id": "p"}]))
"""


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_killed_at_any_fsync_a_run_is_whole_or_absent(project: Project, stop: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(project.root), str(stop)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    runs = project.all_runs()
    assert len(runs) == (stop == 4)  # the fourth comes after the rename
    assert verify(project) == []
    if not runs:
        with project.draft(RunPlan("import", round=1)) as draft:
            draft.write("prompts", table_from_rows("prompts", [{"prompt_id": "p"}]))
        assert verify(project) == []


def test_a_full_disk_is_one_clear_line(project: Project) -> None:
    with (
        pytest.raises(HandloomError, match="the disk is full"),
        project.draft(RunPlan("import", round=1)),
    ):
        raise OSError(28, os.strerror(28))
    assert project.all_runs() == []


def test_the_list_says_of_a_run_what_it_holds_or_what_its_step_says(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_run(project)
    make_run(project, "train", (source,))
    print_runs(project, {"train": lambda run: f"model {run.metrics['n']}"})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  1 prompts")
    assert second.endswith(f"  model 1  from {source.id}")
