"""`handloom import`: a file becomes a run; what cannot be used is accounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from factories import make_project, run_on_small_disk

from annotate.errors import InputError
from annotate.importing import import_file
from annotate.runs import Project, verify

GOOD = {"prompt": "p", "outputs": [{"model": "m", "text": "x"}, {"model": "n", "text": ""}]}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def lines(path: Path, *content: object) -> Path:
    path.write_text("".join(c if isinstance(c, str) else json.dumps(c) + "\n" for c in content))
    return path


def test_good_lines_are_read_and_bad_ones_quarantined_with_their_line(
    project: Project, tmp_path: Path
) -> None:
    path = lines(
        tmp_path / "in.jsonl",
        {**GOOD, "id": "a"},
        "not json\n",
        {**GOOD, "id": "a", "prompt": "another"},
        {**GOOD, "id": "a"},
        {**GOOD, "prompt": "  "},
        '{"prompt": "p", "outputs": [{"model": "m", "text": NaN}]}\n',
    )
    run = import_file(project, path, round=2, split="eval")
    assert run.id.startswith("r2-import-")
    assert run.metrics == {"prompts": 1, "outputs": 2, "merged": 1, "quarantined": 4}
    assert run.read("prompts")["split"].to_pylist() == ["eval"]
    found = {row["line"]: row["reason"] for row in run.read("quarantine").to_pylist()}
    assert sorted(found) == [2, 3, 5, 6]
    assert "other content" in found[3]
    assert "the prompt is empty" in found[5]
    assert "NaN is not JSON" in found[6]
    assert verify(project) == []


def test_the_same_file_is_the_same_run_and_another_content_another(
    project: Project, tmp_path: Path
) -> None:
    path = lines(tmp_path / "in.jsonl", GOOD)
    first = import_file(project, path)
    assert import_file(project, path) == first
    assert import_file(project, path, again=True) != first
    assert import_file(project, lines(path, {**GOOD, "prompt": "q"})) != first


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), ("", "the file is empty"), ("[]\n", "1: no usable line")],
)
def test_a_file_without_a_usable_line_makes_no_run(
    project: Project, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        import_file(project, path)
    assert project.all_runs() == []
    assert project.unfinished() == []


FILLED = """
import shutil, sys
from pathlib import Path
from click.testing import CliRunner
from align.cli import main
from annotate.runs import Project, verify
disk, file = Path(sys.argv[1]), sys.argv[2]
def handloom(*arguments):
    return CliRunner().invoke(main, ["-C", str(disk), *arguments])
assert handloom("init").exit_code == 0
(disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 50_000))
full = handloom("import", file)
print(full.output)
assert full.exit_code == 1 and Project(disk).all_runs() == []
(disk / "filler").unlink()
free = handloom("import", file)
assert free.exit_code == 0, free.output
assert len(Project(disk).all_runs()) == 1 and verify(Project(disk)) == []
assert Project(disk).unfinished() == []
"""


def test_a_full_disk_is_one_line_and_the_command_completes_when_it_is_not(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{random.Random(n).random()}", "outputs": GOOD["outputs"]} for n in range(9000)
    ]
    path = lines(tmp_path / "in.jsonl", *rows)
    disk = tmp_path / "disk"
    disk.mkdir()
    done = run_on_small_disk(disk, "1500k", FILLED, str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("error: ")
    assert "the disk is full" in done.stdout
    assert done.stdout.strip().count("\n") == 0
