"""Nothing is lost when client and server are killed at random moments: records, responses, edits.

A push, then annotators who answer, then the same editing every answer twice, each phase with kills
of its own; a fixed seed draws the moments. What the server acknowledged to an annotator, whose
process may be killed too, must be in the ledger for good.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from factories import make_generated, make_project
from killed_at_random import MortalClient, MortalServer, endure, random_kills
from stubborn_annotators import Annotator, acknowledged, answer_to, journal_of, write_work

from annotate.accounts import add_users
from annotate.ledger import Entry, Ledger
from annotate.ledger_chain import canonical
from annotate.runs import Project, Run, verify
from annotate.server import Server, connect

PROCESSES = 3
EDITS = 2
LONGEST_DELAY = 2.0
"""Seconds between a moment of the push and its kill: it adds records 500 at a time."""
PATIENCE = 120
"""Seconds to wait for Argilla's jobs."""

GIVES_UP = r"error: .*(Argilla is not running|Argilla cannot be reached|batch cannot be made).*"
"""What a push may say while the server is away, and be repeated."""

Version = tuple[str, str, str, str, datetime]
"""Item, annotator, status, values as JSON, time."""


@dataclass(frozen=True)
class Size:
    """How much work there is, and how often it is interrupted in each phase."""

    items: int
    people: int
    kills: int


SMALL, FULL = Size(240, 6, 3), Size(10_000, 15, 20)


@pytest.mark.parametrize(
    "size", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)], ids=["small", "full"]
)
def test_nothing_is_lost_when_client_and_server_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: Size
) -> None:
    for name in ("URL", "API_KEY", "WORKSPACE"):
        monkeypatch.delenv(f"HANDLOOM_ARGILLA_{name}", raising=False)
    project = make_project(tmp_path / "project")
    make_generated(project, size.items)
    with MortalServer(project.state_dir / "argilla") as server:
        pushed = push_under_fire(project, server, size)
        work = set_to_work(project, server, pushed, size, tmp_path / "annotators")
        work.under_fire(server, size, "answers", [0])
        work.under_fire(server, size, "edits", range(1, 1 + EDITS))
        check_server(project, pushed, work)
        check_search(project, server, work)
        current = on_server(project)
    check_ledger(Ledger.of(project), work, current)


def push_under_fire(project: Project, server: MortalServer, size: Size) -> Run:
    command = [sys.executable, "-c", "from align.cli import main; main()", "push", "--overlap", "1"]
    client = MortalClient(command, project.root, may_fail=GIVES_UP)
    database = server.home / "argilla.db"

    def progress() -> float:
        return records_in(database) / size.items

    kills = random_kills(f"push {size}", size.kills, LONGEST_DELAY)
    endure(server, [client], progress, kills, random.Random(0))
    assert verify(project) == []
    assert project.unfinished() == []
    (pushed,) = [run for run in project.all_runs() if run.step == "push"]
    return pushed


def records_in(database: Path) -> int:
    """Records in the server's database now; the server need not run."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    finally:
        db.close()


@dataclass
class Work:
    """Annotators, a few to a process, each with a share of the items."""

    folder: Path
    plans: list[Path]
    people: list[Annotator]
    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def under_fire(
        self, server: MortalServer, size: Size, phase: str, rounds: range | list[int]
    ) -> None:
        """Let them work on some rounds while they and the server are killed."""
        script = str(Path(__file__).with_name("stubborn_annotators.py"))
        asked = [str(round_) for round_ in rounds]
        clients = [
            MortalClient([sys.executable, script, str(plan), *asked], self.folder)
            for plan in self.plans
        ]
        before = self.versions_acknowledged()

        def progress() -> float:
            return (self.versions_acknowledged() - before) / (size.items * len(rounds))

        endure(
            server,
            clients,
            progress,
            random_kills(f"{phase} {size}", size.kills, 0.3),
            random.Random(phase),
        )
        assert progress() == 1

    def versions_acknowledged(self) -> int:
        """How many lines all journals have; reads only what is new in them."""
        for person in self.people:
            path = journal_of(self.folder, person.name)
            if path.exists():
                at, lines = self._read.get(path, (0, 0))
                with path.open("rb") as file:
                    file.seek(at)
                    new = file.read()
                self._read[path] = at + new.rfind(b"\n") + 1, lines + new.count(b"\n")
        return sum(lines for _, lines in self._read.values())

    def acknowledged(self) -> Iterator[tuple[int, Version]]:
        """Round and version of every answer of the server."""
        for person in self.people:
            for line in acknowledged(journal_of(self.folder, person.name)):
                answer = line["answer"]
                at = datetime.fromisoformat(answer["updated_at"]).replace(tzinfo=UTC)
                said = canonical(answer["values"])
                yield line["round"], (line["item"], person.name, answer["status"], said, at)


def set_to_work(
    project: Project, server: MortalServer, pushed: Run, size: Size, folder: Path
) -> Work:
    """Annotators with accounts, and an equal share of the items each."""
    folder.mkdir()
    names = [f"annotator-{number:02}" for number in range(size.people)]
    with connect(project) as own:
        users = add_users(project, own, names)
        (name,) = pushed.metrics["batches"]
        items = sorted(own.record_ids(own.batch(name)).items())
    people = [
        Annotator(user.name, user.api_key, dict(items[number :: size.people]))
        for number, user in enumerate(users)
    ]
    plans = [folder / f"process-{number}.json" for number in range(PROCESSES)]
    for number, plan in enumerate(plans):
        write_work(plan, server.url, people[number::PROCESSES])
    return Work(folder, plans, people)


def check_server(project: Project, pushed: Run, work: Work) -> None:
    """Every item is on the server once, with one response."""
    wanted = pushed.read("items")["item_id"].to_pylist()
    with connect(project) as server:
        (batch,) = server.batches()
        ids = server.record_ids(batch)
        assert server.count(batch) == len(ids) == len(wanted)
        assert sorted(ids) == wanted
        responses = list(server.responses(batch))
    expected = {(item, person.name) for person in work.people for item in person.items}
    assert len(responses) == len(expected) == len(wanted)
    assert {(each.item_id, each.annotator) for each in responses} == expected


def check_search(project: Project, server: MortalServer, work: Work) -> None:
    """What annotators see of their progress is what they did; completed is what is submitted.

    The status of a record whose update was cut off is put right by a job after the start: that is
    waited for.
    """
    last = {version[:2]: version for _, version in work.acknowledged()}
    with connect(project) as own:
        (batch,) = own.batches()
        submitted = Counter(status for _, _, status, _, _ in last.values())["submitted"]
        for _ in range(PATIENCE):
            seen = own.request("GET", f"datasets/{batch.id}/progress")
            if seen["completed"] == submitted:
                break
            time.sleep(1)
        assert (seen["total"], seen["completed"]) == (len(last), submitted)
    for person in work.people:
        with Server(server.url, person.key) as desk:
            progress = desk.request("GET", f"me/datasets/{batch.id}/metrics")["responses"]
        mine = Counter(status for _, name, status, _, _ in last.values() if name == person.name)
        assert {status: progress[status] for status in ("submitted", "draft", "discarded")} == {
            status: mine[status] for status in ("submitted", "draft", "discarded")
        }


def on_server(project: Project) -> dict[tuple[str, str], Version]:
    """Item and annotator → what the server holds."""
    with connect(project) as server:
        (batch,) = server.batches()
        return {
            (r.item_id, r.annotator): (
                r.item_id,
                r.annotator,
                r.status,
                canonical(r.values),
                r.updated_at,
            )
            for r in server.responses(batch)
        }


def check_ledger(ledger: Ledger, work: Work, current: dict[tuple[str, str], Version]) -> None:
    """The chain is whole, and holds every acknowledged version, none twice; the last ones count."""
    assert ledger.verify() == []
    entries = list(ledger)
    events = Counter(entry.event for entry in entries)
    assert None not in events
    assert max(events.values()) == 1
    kept = Counter(map(version_of, entries))
    assert max(kept.values()) == 1

    rounds = Counter(round_ for round_, _ in work.acknowledged())
    assert rounds == dict.fromkeys(range(1 + EDITS), len(current))
    acknowledged_ = {version for _, version in work.acknowledged()}
    assert len(acknowledged_) == rounds.total()
    assert acknowledged_ - kept.keys() == set()

    said = {version[:4] for version in kept}
    assert said == {
        (item, person.name, answer["status"], canonical(answer["values"]))
        for person in work.people
        for item in person.items
        for answer in (answer_to(item, round_, person.name) for round_ in range(1 + EDITS))
    }
    standing: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda each: each.updated_at):
        standing[entry.item_id, entry.annotator] = entry
    assert {key: version_of(entry) for key, entry in standing.items()} == current


def version_of(entry: Entry) -> Version:
    return entry.item_id, entry.annotator, entry.status, canonical(entry.values), entry.updated_at
