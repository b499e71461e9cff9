"""The ledger: append-only, chained, one writer, repaired after a crash."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from factories import run_on_small_disk
from hypothesis import given
from hypothesis import strategies as st

from annotate.errors import ProjectError, ResourceError
from annotate.ledger import FIRST, TABLE, Entry, Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entry(item: str = "i-1", who: str = "anna", label: str = "a_better", minute: int = 0) -> Entry:
    when = NOON + timedelta(minutes=minute)
    values = {"preference": {"value": label}}
    return Entry("b", item, who, "preference@v1", "submitted", values, NOON, when)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def test_a_response_is_written_once_and_an_edit_again(ledger: Ledger) -> None:
    assert ledger.append([entry(), entry("i-2")]) == 2
    assert ledger.append([entry(), entry("i-2")]) == 0
    edited = entry(label="b_better", minute=5)
    assert ledger.append([edited]) == 1
    assert [e.values["preference"]["value"] for e in ledger.history(["i-1"])] == [
        "a_better",
        "b_better",
    ]
    assert ledger.latest(["b"])["b", "i-1", "anna"].same_response(edited)
    assert ledger.latest(["other"]) == {}


def test_a_changed_status_and_a_repeated_submission_are_entries(ledger: Ledger) -> None:
    first = entry()
    changes = [replace(first, status="discarded"), replace(first, status="draft", values={})]
    assert ledger.append([first]) == 1
    assert [ledger.append([change]) for change in changes] == [1, 1]
    assert ledger.append([replace(changes[1], updated_at=NOON + timedelta(seconds=1))]) == 1
    assert [e.status for e in ledger] == ["submitted", "discarded", "draft", "draft"]


def test_every_line_holds_the_hash_of_the_line_before(ledger: Ledger) -> None:
    ledger.append([entry(f"i-{n}") for n in range(3)])
    ledger.append([entry("i-3")])
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3]
    assert [line["prev"] for line in lines] == [FIRST, *(line["hash"] for line in lines[:3])]
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (
            lambda lines: [lines[0], lines[1].replace("a_better", "b_better"), lines[2]],
            "2 was chan",
        ),
        (lambda lines: [lines[0], lines[2]], "line 2 does not follow"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1 does not follow"),
        (lambda lines: [lines[0], "[]\n", lines[2]], "line 2 is not an entry"),
        (lambda lines: [*lines, lines[2]], "line 4 does not follow"),
    ],
    ids=["changed", "removed", "swapped", "overwritten", "repeated"],
)
def test_tampering_is_found(ledger: Ledger, tamper, found: str) -> None:
    ledger.append([entry(f"i-{n}") for n in range(3)])
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(tamper(lines)))
    assert found in ledger.verify()[0]


@given(cut=st.integers(min_value=0))
def test_torn_anywhere_it_is_repaired_and_loses_no_whole_line(cut: int, tmp_path_factory) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("torn") / "ledger.jsonl")
    entries = [entry(f"i-{n}") for n in range(3)]
    ledger.append(entries)
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[: cut % (len(content) + 1)])
    whole = ledger.path.read_bytes().count(b"\n")
    torn = ledger.path.read_bytes().rpartition(b"\n")[2]
    assert len(list(ledger)) == whole
    assert any("torn" in problem for problem in ledger.verify()) == bool(torn)
    assert ledger.append(entries) == 3 - whole
    assert ledger.verify() == []
    assert len(list(ledger)) == 3
    aside = ledger.path.with_name("ledger.torn")
    assert (aside.read_bytes() if torn else b"\n").startswith(torn)


def test_an_alien_end_is_refused(ledger: Ledger) -> None:
    ledger.path.write_text("not an entry\n")
    with pytest.raises(ProjectError, match="the ledger is damaged"):
        ledger.append([entry()])
    assert ledger.path.read_text() == "not an entry\n"


def append_some(arguments: tuple[Path, str]) -> int:
    path, who = arguments
    return sum(
        Ledger(path).append([entry(f"i-{n}", who), entry(f"i-{n}", "all")]) for n in range(30)
    )


def test_writers_take_turns(ledger: Ledger) -> None:
    with ProcessPoolExecutor(3) as pool:
        counts = list(pool.map(append_some, [(ledger.path, w) for w in ("anna", "ben", "eva")]))
    assert sum(counts) == 4 * 30  # the response that all three saw is there once
    assert ledger.verify() == []
    assert len(ledger.latest(["b"])) == 4 * 30


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import entry
from annotate.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
for n in range(100_000):
    ledger.append([entry(f"i-{n}-{k}", "x" * 50_000) for k in range(3)])
    print(n, flush=True)
"""


@pytest.mark.parametrize(
    "rounds", [pytest.param(2, id="fast"), pytest.param(40, marks=pytest.mark.slow, id="slow")]
)
def test_killed_while_writing_it_keeps_all_that_was_acknowledged(
    tmp_path: Path, rounds: int
) -> None:
    for attempt in range(rounds):
        path = tmp_path / f"ledger-{attempt}.jsonl"
        command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            acknowledged = 0
            for line in child.stdout:
                acknowledged = int(line) + 1 if line.strip().isdigit() else 0
                if acknowledged > 2 + attempt % 5:
                    break
            os.kill(child.pid, signal.SIGKILL)
        ledger = Ledger(path)
        ledger.append([entry("last")])
        assert ledger.verify() == []
        items = {e.item_id for e in ledger}
        assert {f"i-{n}-{k}" for n in range(acknowledged) for k in range(3)} <= items


def test_a_file_that_cannot_grow_is_left_as_it_was(ledger: Ledger) -> None:
    ledger.append([entry()])
    before = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(ResourceError, match="the disk is full"):
            ledger.append([entry("i-2", who="x" * 5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.path.read_bytes() == before
    assert ledger.append([entry("i-2")]) == 1
    assert ledger.verify() == []


FILLER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import entry
from annotate.errors import ResourceError
from annotate.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]) / "ledger.jsonl")
written = 0
try:
    while True:
        written += ledger.append([entry(f"i-{written}", "x" * 3000)])
except ResourceError as error:
    print(error)
assert len(list(ledger)) == written > 3, written
assert ledger.verify() == []
"""


def test_on_a_full_disk_nothing_is_half_written(tmp_path: Path) -> None:
    done = run_on_small_disk(tmp_path, "64k", FILLER, str(Path(__file__).parent))
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout
    assert "Free some space" in done.stdout


def test_read_gives_the_whole_ledger_as_a_table(ledger: Ledger) -> None:
    assert ledger.read().num_rows == 0
    ledger.append([entry(f"i-{n}") for n in range(5)])
    table = ledger.read()
    assert table.schema == TABLE
    assert table["seq"].to_pylist() == [0, 1, 2, 3, 4]
    assert json.loads(table["values"][0].as_py()) == {"preference": {"value": "a_better"}}
