"""The ledger: append-only, chained, one writer, repaired after a crash."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from factories import run_on_small_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.errors import ProjectError, ResourceError
from annotate.known_versions import KnownVersions
from annotate.ledger import TABLE, Entry, Ledger
from annotate.ledger_chain import FIRST

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
    assert ledger.standing(["b"])["b", "i-1", "anna"].values == edited.values
    assert ledger.standing(["other"]) == {}


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
        (lambda lines: [lines[0], emptied_by_hand(lines[1]), lines[2]], "line 2 was emptied"),
        (lambda lines: [lines[0], lines[1].replace('"salt":"', '"salt":"0'), lines[2]], "line 2"),
        (lambda lines: lines[:2], "no line has the hash"),
    ],
    ids=["changed", "gone", "swapped", "overwritten", "repeated", "emptied", "salt", "cut off"],
)
def test_tampering_is_found_and_reported_once(ledger: Ledger, tamper, found: str) -> None:
    ledger.append([entry(f"i-{n}") for n in range(3)])
    head = ledger.verdict().head
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(tamper(lines)))
    problems = ledger.verdict(head).problems
    assert found in problems[0]
    swapped = "line 1 does not" in found  # and so all three stand wrong
    assert len(problems) == (3 if swapped else 1)


def emptied_by_hand(line: str) -> str:
    """A line as an erasure leaves it, without the record of one."""
    content = json.loads(line)
    kept = {name: content[name] for name in ("seq", "prev", "digest", "hash")}
    return json.dumps({**kept, "erased": {"time": "now", "reason": "none"}}) + "\n"


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


def test_damage_before_the_end_keeps_nobody_from_writing(ledger: Ledger) -> None:
    ledger.append([entry("i-1"), entry("i-2"), entry("i-3")])
    lines = ledger.path.read_text().splitlines(keepends=True)
    for damaged in ("rubbish\n", '{"version":"zz"}\n', '{"seq":1,"prev":"","hash":""}\n'):
        ledger.path.write_text("".join([lines[0], damaged, lines[2]]))
        again = Ledger(ledger.path)
        assert again.append([entry("i-1"), entry("i-2"), entry("i-3"), entry("i-4")]) == 2
        assert len(again.verify()) == 1
        with pytest.raises(ProjectError, match=r"jsonl:2: .*damaged"):
            list(again)


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
    assert len(ledger.standing(["b"])) == 4 * 30


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


def test_pull_and_outbox_write_a_version_once_whatever_the_order(ledger: Ledger) -> None:
    seen_by_pull = entry()
    from_outbox = replace(seen_by_pull, source="outbox", event="e1", seconds=12.5, workspace="w")
    assert ledger.append([from_outbox]) == 1
    assert Ledger(ledger.path).append([seen_by_pull]) == 0
    assert ledger.append([replace(from_outbox, event="e2")]) == 0
    (kept,) = ledger
    assert kept == replace(from_outbox, seen_at=kept.seen_at, seq=0)


def test_what_counts_is_the_newest_by_time_whatever_the_order_written(ledger: Ledger) -> None:
    ledger.append([entry(label="b_better", minute=5), entry(label="a_better", minute=1)])
    assert ledger.standing(["b"])["b", "i-1", "anna"].values["preference"]["value"] == "b_better"
    assert [e.updated_at.minute for e in ledger.history(["i-1"])] == [1, 5]


def test_what_the_outbox_noted_counts_in_its_own_order(ledger: Ledger) -> None:
    """Edited after the clock was set back, and withdrawn by a database whose clock is behind."""
    outbox = [
        replace(entry(label=label, minute=minute), source="outbox")
        for label, minute in (("a_better", 9), ("b_better", 4), ("tie", 5))
    ]
    ledger.append(outbox)
    assert ledger.standing(["b"])["b", "i-1", "anna"].values["preference"]["value"] == "tie"
    seen = [entry(label="seen before", minute=8), entry(label="seen after", minute=10)]
    ledger.append([seen[0]])
    assert ledger.standing(["b"])["b", "i-1", "anna"].values["preference"]["value"] == "tie"
    ledger.append([seen[1]])
    values = [e.values["preference"]["value"] for e in ledger.history(["i-1"])]
    assert values == ["seen before", "a_better", "b_better", "tie", "seen after"]
    withdrawn = replace(entry("i-2", minute=3), status="deleted", cause="response", source="outbox")
    ledger.append([replace(entry("i-2", minute=6), source="outbox"), withdrawn])
    assert ledger.standing(["b"])["b", "i-2", "anna"].status == "deleted"


def gone(cause: Literal["response", "user", "record"], minute: int) -> Entry:
    return replace(entry(minute=minute), status="deleted", cause=cause)


def test_what_went_with_its_user_or_record_still_counts(ledger: Ledger) -> None:
    ledger.append([entry(), gone("user", 1), entry("i-2"), entry("i-3")])
    ledger.append([replace(gone("record", 2), item_id="i-2")])
    ledger.append([replace(gone("response", 3), item_id="i-3")])
    standing = ledger.standing(["b"])
    assert [standing["b", f"i-{n}", "anna"].status for n in (1, 2, 3)] == [
        "submitted",
        "submitted",
        "deleted",
    ]


def test_a_restored_server_changes_nothing_that_counts(ledger: Ledger) -> None:
    ledger.append([entry(minute=1), entry(label="b_better", minute=2)])
    before = ledger.standing(["b"])
    ledger.append([gone("record", 3), entry(label="b_better", minute=60)])
    assert ledger.standing(["b"]) == before
    ledger.append([entry(label="a_better", minute=61)])  # back to an earlier answer is an edit
    assert ledger.standing(["b"])["b", "i-1", "anna"].updated_at == NOON + timedelta(minutes=61)


OLD = """{"seq": 0, "prev": "%s", "seen_at": "2026-01-01T12:00:00+00:00", "batch": "b", \
"item_id": "i-1", "annotator": "anna", "guideline": "preference@v1", "status": "submitted", \
"values": {"preference": {"value": "a_better"}}, "inserted_at": "2026-01-01T12:00:00+00:00", \
"updated_at": "2026-01-01T12:00:00+00:00", "hash": "%s"}
""" % (FIRST, "#")  # noqa: UP031 - braces


def old_line() -> str:
    """A line as Handloom wrote it before payloads stood apart."""
    content = json.loads(OLD)
    del content["hash"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return OLD.replace("#", hashlib.sha256(text.encode()).hexdigest())


def test_lines_of_the_first_format_are_read_verified_continued_and_erased(ledger: Ledger) -> None:
    ledger.path.write_text(old_line())
    assert ledger.verify() == []
    assert ledger.append([entry(), entry("i-2")]) == 1  # the first is known
    assert ledger.standing(["b"]).keys() == {("b", "i-1", "anna"), ("b", "i-2", "anna")}
    assert ledger.verify() == []
    assert ledger.erase(item_id="i-1", reason="asked") == 1
    assert ledger.verify() == []
    assert [e.item_id for e in ledger] == ["i-2"]
    ledger.path.write_text(old_line().replace("a_better", "b_better"))
    assert ledger.verify() == ["line 1 was changed"]


def test_what_is_erased_is_gone_and_the_chain_holds(ledger: Ledger) -> None:
    ledger.append([entry(f"i-{n}", who) for n in range(3) for who in ("anna", "ben")])
    head = ledger.verdict().head
    ledger.path.with_name("ledger.torn").write_text("half a line of anna's")
    assert ledger.erase(annotator="anna", reason="she asked") == 3
    assert b"anna" not in ledger.path.read_bytes()
    assert not ledger.path.with_name("ledger.torn").exists()
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    found = ledger.verdict(head)
    assert (found.problems, found.lines, found.erased) == ([], 7, 3)
    assert {e.annotator for e in ledger} == {"ben"}
    assert ledger.erase(annotator="anna", reason="again") == 0
    assert ledger.verdict().lines == 7
    assert ledger.append([entry("i-9", "ben"), entry("i-1", "ben")]) == 1
    assert ledger.verify() == []
    assert ledger.read().num_rows == 4


def test_a_writer_that_waited_during_an_erasure_writes_to_the_new_file(ledger: Ledger) -> None:
    """It opened the old file before the erasure replaced it, and gets its lock only after."""
    ledger.append([entry("i-1"), entry("i-2", "ben")])
    waiting = Ledger(ledger.path)
    with ThreadPoolExecutor(2) as pool:
        with ledger._file.writing():
            erasing = pool.submit(Ledger(ledger.path).erase, annotator="anna", reason="asked")
            time.sleep(0.2)  # both wait for the lock, first come first served
            late = pool.submit(waiting.append, [entry("i-3", "ben")])
            time.sleep(0.2)
        assert (late.result(30), erasing.result(30)) == (1, 1)
    assert {e.item_id for e in ledger} == {"i-2", "i-3"}
    assert ledger.verify() == []


@settings(max_examples=40)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.tuples(*[st.integers(0, 3)] * 4), max_size=5)),
            st.tuples(st.just("erase"), st.integers(0, 3)),
            st.tuples(st.just("reopen"), st.none()),
        ),
        max_size=12,
    )
)
def test_any_order_of_appends_and_erasures_keeps_all_the_rest(
    actions: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a list in memory: every version once, in order, less what was erased."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    expected: list[tuple[str, str, str, int]] = []
    for action, content in actions:
        if action == "reopen":
            ledger = Ledger(ledger.path)
        elif action == "erase":
            named = [e for e in expected if e[1] == f"who-{content}"]
            assert ledger.erase(annotator=f"who-{content}", reason='"version":"x"') == len(named)
            expected = [e for e in expected if e not in named]
        else:
            new = [entry(f"i-{i}", f"who-{w}", f'"version":"{v}', m) for i, w, v, m in content]
            ids = [(f"i-{i}", f"who-{w}", f'"version":"{v}', m) for i, w, v, m in content]
            fresh = [e for e in dict.fromkeys(ids) if e not in expected]
            assert ledger.append(new) == len(fresh)
            expected += fresh
        assert ledger.verify() == []
        found = [
            (e.item_id, e.annotator, e.values["preference"]["value"], e.updated_at.minute)
            for e in ledger
        ]
        assert found == expected


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=40), st.binary(min_size=16))
def test_known_versions_are_a_set(digests: list[bytes], other: bytes) -> None:
    known = KnownVersions()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotate.known_versions._RECENT", 4)
        for digest in digests:
            if digest not in known:
                known.add(digest)
    assert len(known) == len(set(digests))
    assert all(digest in known for digest in digests)
    assert (other[:16] in known) == (other[:16] in digests)


def test_read_gives_the_whole_ledger_as_a_table(ledger: Ledger) -> None:
    assert ledger.read().num_rows == 0
    ledger.append([entry(f"i-{n}") for n in range(5)])
    table = ledger.read()
    assert table.schema == TABLE
    assert table["seq"].to_pylist() == [0, 1, 2, 3, 4]
    assert json.loads(table["values"][0].as_py()) == {"preference": {"value": "a_better"}}
