"""Every command that the documentation shows is run, page by page, in one project."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from align.cli import main
from annotate.runs import Project

ROOT = Path(__file__).parent.parent
# The loop first: the other pages work on what it leaves.
PAGES = (
    "loop.md",
    "ledger.md",
    "formats.md",
    "agreement.md",
    "guidelines.md",
    "filters.md",
    "train.md",
    "health.md",
    "generate.md",
    "dashboard.md",
    "queue.md",
    "argilla.md",
    "people.md",
    "backup.md",
)
# After the loop, in a project of their own: they train for minutes.
LONG_PAGES = ("preferences.md", "feedback.md", "sweep.md", "tune.md")
BLOCK = re.compile(r"^```console\n(.*?)^```", re.M | re.S)

# Small trainings instead of the shipped sizes, under the same names.
SMALL = {
    "sft-support-desk": {"n: 800": "n: 120"},
}


def commands(page: Path) -> list[str]:
    lines = [line for block in BLOCK.findall(page.read_text()) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder with the files that the pages speak of."""
    folder = with_files(tmp_path_factory.mktemp("docs"))
    yield folder
    handloom(folder, "handloom down")


def with_files(folder: Path) -> Path:
    (folder / "recipes").mkdir()
    for name, changes in SMALL.items():
        text = (ROOT / "align" / "recipes" / f"{name}.yaml").read_text()
        for old, new in changes.items():
            assert old in text, f"{name} no longer says {old!r}"
            text = text.replace(old, new)
        (folder / "recipes" / f"{name}.yaml").write_text(text)
    (folder / "labels.csv").write_text(
        "item,annotator,label\n"
        + "".join(f"{i},{a},{(i + (a == 'c')) % 2}\n" for i in range(9) for a in "abc")
    )
    (folder / "people.csv").write_text(
        "name,first_name,last_name,workspace,role\n"
        "maria,Maria,Sánchez,round1 round2,annotator\ntomas,,,,admin\n"
    )
    outputs = [{"model": "a-7b", "text": "One."}, {"model": "b-7b", "text": "Two."}]
    (folder / "outputs.jsonl").write_text(json.dumps({"prompt": "Why?", "outputs": outputs}))
    return folder


def handloom(folder: Path, line: str) -> str:
    """Run one documented command as a user does."""
    words = shlex.split(line)
    assert words[0] == "handloom"
    if words[1] == "dashboard":
        return dashboard(folder, words)
    done = subprocess.run(
        [sys.executable, "-m", "align", *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "ROW": ""},
        check=False,
    )
    assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
    assert done.stdout.strip(), f"{line} printed nothing"
    return done.stdout


def dashboard(folder: Path, words: list[str]) -> str:
    """It serves until Ctrl-C: see it say where, then end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "align", *words[1:]], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found, said
    # Streamlit loses a Ctrl-C that comes while it starts.
    deadline = time.monotonic() + 120
    while not answers(found[0]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    return said


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def training_row(folder: Path) -> str:
    build = Project(folder).latest("build")
    return str(build.read("preference")["row_id"][0].as_py())


def run_page(folder: Path, page: str) -> None:
    listed = commands(ROOT / "docs" / page)
    assert listed
    for line in listed:
        if "$ROW" in line:
            line = line.replace("$ROW", training_row(folder))
        if "$RUN" in line:
            line = line.replace("$RUN", Project(folder).latest("train").id)
        said = handloom(folder, line)
        if " trace " in line:
            assert "preference@v" in said
            assert "sim-" in said


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(folder: Path, page: str) -> None:
    run_page(folder, page)


@pytest.mark.slow
def test_every_command_of_the_long_pages_runs(tmp_path: Path) -> None:
    folder = with_files(tmp_path)
    for page in ("loop.md", *LONG_PAGES):
        run_page(folder, page)


def test_every_page_with_commands_is_run() -> None:
    pages = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if commands(page)]
    assert sorted(pages) == sorted(PAGES + LONG_PAGES)


def test_the_readme_names_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`handloom ([a-z]+)", text)) | set(
        re.findall(r"^handloom ([a-z]+)", text, re.M)
    )
    assert named
    assert named <= set(main.commands)


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
