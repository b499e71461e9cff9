"""A backup of a running server is whole, a damaged one refused, and the way back loses nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from conftest import run_argilla
from factories import make_generated, make_project, run_on_small_disk, submit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import USER, Postgres
from sqlalchemy.engine import make_url

from align.cli import main
from annotate import backup_archive
from annotate.accounts import add_users
from annotate.backup import backup
from annotate.backup_archive import ArchiveWriter, check
from annotate.bring_back import bring_back
from annotate.embedded import database, outbox_sql
from annotate.embedded.process import stop
from annotate.errors import InputError, ProjectError, ServerError
from annotate.guidelines import load_guideline, publish_guideline
from annotate.ledger import Entry, Ledger
from annotate.pull import pull
from annotate.push import push
from annotate.restore import restore
from annotate.runs import INTERRUPTED, Project, RunPlan, verify
from annotate.server import connect


@pytest.fixture(autouse=True)
def _no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGILLA_URL", "ARGILLA_API_KEY", "ARGILLA_WORKSPACE", "DATABASE_URL"):
        monkeypatch.delenv(f"HANDLOOM_{name}", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without a server, with runs and a ledger."""
    made = make_project(tmp_path / "project")
    make_generated(made, 3)
    Ledger.of(made).append([said("anna"), said("ben")])
    (made.state_dir / "users.json").write_text('{"anna": "secret"}')
    return made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Project]:
    """A project with a server of its own."""
    made = make_project(tmp_path / "served")
    run_argilla(made.state_dir / "argilla")
    yield made
    stop(made.state_dir / "argilla")


def said(annotator: str, item: str = "i-1") -> Entry:
    now = datetime.now(UTC)
    values = {"preference": {"value": "a_better"}}
    return Entry("batch", item, annotator, "preference@v1", "submitted", values, now, now)


def label(value: str = "a_better") -> dict[str, Any]:
    return {"preference": {"value": value}}


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def content(folder: Path) -> dict[str, str]:
    """Path → hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_while_five_people_answer_and_back_elsewhere(served: Project, tmp_path: Path) -> None:
    pushed = push(served, make_generated(served, 60))
    ids = pushed.read("items")["item_id"].to_pylist()
    people = [f"person-{number}" for number in range(5)]
    acknowledged: list[tuple[str, str]] = []
    ended = threading.Event()
    with connect(served) as server:
        add_users(served, server, people)

    def answer(name: str) -> None:
        for item in ids:
            if ended.is_set():
                return
            submit(served, pushed, name, {item: label()})
            acknowledged.append((item, name))

    threads = [threading.Thread(target=answer, args=(name,)) for name in people]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 25:
        threads[0].join(0.05)
    before = set(acknowledged)
    saved = backup(served, tmp_path)
    ended.set()
    for thread in threads:
        thread.join()
    assert saved.problems == []
    assert saved.path.stat().st_mode & 0o777 == 0o600
    stop(served.state_dir / "argilla")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bring_back(elsewhere, saved.path)
    again = Project(elsewhere)
    home = again.state_dir / "argilla"
    try:
        run_argilla(home)
        with connect(again) as server:
            (batch,) = server.batches()
            there = {(r.item_id, r.annotator) for r in server.responses(batch)}
        assert before <= there
        rows = pull(again, again.resolve(pushed.id)).read("responses").to_pylist()
        assert {(row["item_id"], row["annotator"]) for row in rows} == there
        assert Ledger.of(again).verify() == []
        assert verify(again) == []
    finally:
        stop(home)


def test_what_was_said_since_the_backup_comes_back(served: Project, tmp_path: Path) -> None:
    pushed = push(served, make_generated(served, 4))
    ids = pushed.read("items")["item_id"].to_pylist()
    submit(served, pushed, "anna", {ids[0]: label()})
    pull(served, pushed)
    saved = backup(served, tmp_path / "monday.tar")
    submit(served, pushed, "anna", {ids[1]: label("b_better")})
    later = push(served, make_generated(served, 2))
    (item, _) = later.read("items")["item_id"].to_pylist()
    submit(served, later, "late-comer", {item: label()})
    pulls = [pull(served, run) for run in (pushed, later)]
    home = served.state_dir / "argilla"
    with pytest.raises(ServerError, match=r"another server is running.*handloom down"):
        bring_back(served.root, saved.path)
    stop(home)
    (home / "argilla.db").write_bytes(b"damaged")
    back = bring_back(served.root, saved.path)
    assert back.newer_responses
    assert back.aside is not None
    assert (back.aside / ".handloom/argilla/argilla.db").read_bytes() == b"damaged"
    run_argilla(home)
    with connect(served) as server:
        done = restore(served, server)
    assert done.complete
    assert done.accounts == ["late-comer"]
    assert [pull(served, run) for run in (pushed, later)] == pulls
    assert verify(served) == []


def test_a_project_without_a_server_and_an_empty_folder(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    done = handloom("backup", str(tmp_path / "saved.tar"))
    assert done.exit_code == 0, done.output
    assert "2 lines of ledger" in done.output
    assert "holds keys and passwords: mode 0600" in done.output
    assert (tmp_path / "saved.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "saved.tar") as tar:  # any tar program can read it
        assert ".handloom/users.json" in tar.getnames()
    assert "is there already" in handloom("backup", str(tmp_path / "saved.tar")).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    done = handloom("restore", "--from", str(tmp_path / "saved.tar"))
    assert done.exit_code == 0, done.output
    assert "next handloom up" in done.output
    assert "*.tar" in (empty / ".gitignore").read_text().splitlines()
    (empty / ".gitignore").unlink()  # the one thing that the backup did not hold
    assert content(empty) == content(project.root)
    assert (empty / ".handloom").stat().st_mode & 0o777 == 0o700
    assert (empty / ".handloom/users.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    monkeypatch.chdir(tmp_path / "other")
    assert "not empty" in handloom("restore", "--from", str(tmp_path / "saved.tar")).stderr


def test_a_backup_that_is_not_there_is_told_before_anything_is_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    refused = handloom("restore", "--from", "nofile.tar")
    assert refused.exit_code == 1
    assert refused.output == "error: nofile.tar: there is no such file\n"


def test_what_is_newer_is_kept_and_the_rest_lies_aside(project: Project, tmp_path: Path) -> None:
    with project.draft(RunPlan("train", 1)) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "model.safetensors").write_bytes(b"weights")
    saved = backup(project, tmp_path / "saved.tar")
    assert saved.manifest.left_out == [f"runs/{draft.run.id}/model/model.safetensors"]
    Ledger.of(project).append([said("carla")])
    ledger = Ledger.of(project).path.read_bytes()
    newer = make_generated(project, 5)
    (project.root / "guidelines/preference/v9.md").write_text(
        (project.root / "guidelines/preference/v1.md")
        .read_text()
        .replace("version: 1", "version: 9")
    )
    publish_guideline(project.root, load_guideline(project.root, "preference@v9"))
    (project.root / "guidelines/README.md").write_text("edited since")
    (project.state_dir / "users.json").write_text('{"anna": "newer", "carla": "hers"}')
    before = content(project.root)
    back = bring_back(project.root, saved.path)
    assert back.aside is not None
    assert {name: before[name] for name in content(back.aside)} == content(back.aside)
    assert Ledger.of(project).path.read_bytes() == ledger
    assert (back.newer_responses, back.ledger_note) == (True, "")
    assert project.resolve(newer.id).read("prompts").num_rows == 5
    assert load_guideline(project.root, "preference@v9").name == "preference@v9"
    assert (project.root / "guidelines/README.md").read_text() != "edited since"
    passwords = json.loads((project.state_dir / "users.json").read_text())
    assert passwords == {"anna": "secret", "carla": "hers"}
    assert verify(project) == []  # with the weights that the backup left out


def engine_on(project: Project) -> sa.Engine:
    """The database of a project's server on SQLite, with an outbox."""
    home = project.state_dir / "argilla"
    home.mkdir(exist_ok=True)
    engine = sa.create_engine(f"sqlite:///{home}/argilla.db")
    outbox_sql.METADATA.create_all(engine)
    return engine


def leave_in_outbox(engine: sa.Engine, item: str, value: str, minute: int = 0) -> None:
    """An answer of Anna's that was acknowledged, and that no server has moved to the ledger."""
    at = datetime(2026, 1, 1, 12) + timedelta(minutes=minute)
    ids = {name: uuid4() for name in ("response_id", "record_id", "user_id")}
    names = {"batch": "batch", "workspace": "w", "annotator": "anna", "guideline": "preference@v1"}
    row = {"event": uuid4().hex, "op": "update", "status": "submitted", "values": label(value)}
    times = {"inserted_at": at, "updated_at": at}
    with engine.begin() as connection:
        connection.execute(
            sa.insert(outbox_sql.OUTBOX), {**ids, **names, **row, **times, "item_id": item}
        )
    engine.dispose()


def answers_of(project: Project, item: str) -> list[str]:
    return [e.values["preference"]["value"] for e in Ledger.of(project).history([item])]


def test_what_a_killed_server_left_in_its_outbox_is_kept(project: Project, tmp_path: Path) -> None:
    engine = engine_on(project)
    saved = backup(project, tmp_path / "saved.tar")
    leave_in_outbox(engine, "i-7", "b_better", minute=9)
    leave_in_outbox(engine, "i-7", "tie", minute=3)  # the clock was set back
    back = bring_back(project.root, saved.path)
    assert (back.newer_responses, back.ledger_note, back.outbox_note) == (True, "", "")
    assert answers_of(project, "i-7") == ["b_better", "tie"]
    assert Ledger.of(project).verify() == []


def test_what_is_in_the_outbox_outlives_a_ledger_that_is_not_kept(
    project: Project, tmp_path: Path
) -> None:
    """And the backup's own outbox, which the server will bring to the ledger later, is older."""
    engine = engine_on(project)
    saved = backup(project, tmp_path / "saved.tar")
    Ledger.of(project).path.unlink()
    Ledger.of(project).append([said("dora")])
    leave_in_outbox(engine, "i-7", "b_better", minute=9)
    back = bring_back(project.root, saved.path)
    assert "no line has the hash" in back.ledger_note
    assert back.newer_responses
    ledger = Ledger.of(project)
    (late,) = ledger.history(["i-7"])
    older = replace(late, values=label("tie"), updated_at=late.updated_at - timedelta(minutes=5))
    ledger.append([replace(older, source="outbox")])
    assert ledger.standing(["batch"])["batch", "i-7", "anna"].values == label("b_better")


def test_an_outbox_that_cannot_be_read_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_on(project)
    saved = backup(project, tmp_path / "saved.tar")
    (project.state_dir / "argilla" / "argilla.db").write_bytes(b"damaged" * 999)
    monkeypatch.chdir(project.root)
    done = handloom("restore", "--from", str(saved.path), "--yes")
    assert done.exit_code == 0, done.output
    assert "not yet put into the ledger" in done.output
    assert "not a database" in done.output
    file = project.state_dir / "argilla" / "argilla.db"
    file.unlink()
    file.mkdir()  # out of reach, which is no damage
    before = content(project.root)
    refused = handloom("restore", "--from", str(saved.path), "--yes")
    assert refused.exit_code == 1
    assert "not yet in the ledger cannot be read" in refused.stderr
    assert content(project.root).items() >= before.items()
    assert not (project.root / INTERRUPTED).exists()


def test_a_torn_last_line_does_not_cost_the_newer_ledger(project: Project, tmp_path: Path) -> None:
    saved = backup(project, tmp_path / "saved.tar")
    Ledger.of(project).append([said("carla")])
    with Ledger.of(project).path.open("ab") as file:
        file.write(b'{"seq":3,"prev"')
    back = bring_back(project.root, saved.path)
    assert (back.newer_responses, back.ledger_note) == (True, "")
    assert [entry.annotator for entry in Ledger.of(project)] == ["anna", "ben", "carla"]
    assert Ledger.of(project).verify() == []


def test_with_models_they_are_in_it(project: Project, tmp_path: Path) -> None:
    with project.draft(RunPlan("train", 1)) as draft:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "model.safetensors").write_bytes(b"weights")
    saved = backup(project, tmp_path / "saved.tar", with_models=True)
    assert saved.manifest.left_out == []
    assert f"runs/{draft.run.id}/model/model.safetensors" in saved.manifest.files


def test_another_ledger_is_not_kept_and_that_is_said(project: Project, tmp_path: Path) -> None:
    saved = backup(project, tmp_path / "saved.tar")
    ledger = Ledger.of(project)
    whole = ledger.path.read_bytes()
    ledger.path.unlink()
    ledger.append([said("dora"), said("emil"), said("fay")])
    back = bring_back(project.root, saved.path)
    assert "no line has the hash" in back.ledger_note
    assert Ledger.of(project).path.read_bytes() == whole
    with ledger.path.open("r+b") as file:  # cut off
        file.truncate(whole.index(b"\n") + 1)
    assert bring_back(project.root, saved.path).ledger_note
    assert Ledger.of(project).path.read_bytes() == whole


def test_what_was_erased_since_stays_erased(project: Project, tmp_path: Path) -> None:
    saved = backup(project, tmp_path / "saved.tar")
    Ledger.of(project).erase(annotator="anna", reason="asked")
    bring_back(project.root, saved.path)
    assert [entry.annotator for entry in Ledger.of(project)] == ["ben"]
    assert Ledger.of(project).verify() == []


def test_a_damaged_ledger_is_saved_and_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Ledger.of(project).path
    path.write_bytes(path.read_bytes().replace(b"a_better", b"b_better", 1))
    monkeypatch.chdir(project.root)
    done = handloom("backup", str(tmp_path / "saved.tar"))
    assert done.exit_code == 1
    assert "line 1 was changed" in done.stderr
    assert (tmp_path / "saved.tar").exists()


FULL = """
import sys
from pathlib import Path
from click.testing import CliRunner
from align.cli import main
disk, command = Path(sys.argv[1]), sys.argv[2:]
done = CliRunner().invoke(main, [word.replace("DISK", str(disk)) for word in command])
sys.stdout.write(done.output)
assert list(disk.iterdir()) == [], "something is left"
sys.exit(done.exit_code)
"""


def test_a_full_disk_is_one_line(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    done = run_on_small_disk(tmp_path / "disk", "8k", FULL, "backup", "DISK/saved.tar")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("error: the disk is full (")
    assert done.stdout.count("\n") == 1


def test_a_damaged_database_is_an_error(project: Project, tmp_path: Path) -> None:
    home = project.state_dir / "argilla"
    home.mkdir()
    (home / "argilla.db").write_bytes(b"this is no database, however long it may be" * 99)
    with pytest.raises(ServerError, match="cannot be copied"):
        backup(project, tmp_path / "saved.tar")
    assert list(tmp_path.glob("*.tar")) + list(tmp_path.glob(".*.tar*")) == []


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("archive")
    small = make_project(folder / "project")
    make_generated(small, 2)
    Ledger.of(small).append([said("anna")])
    return backup(small, folder / "saved.tar").path.read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_found(archive: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, cut off, put in or taken out."""
    at = data.draw(st.integers(0, len(archive) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "insert", "remove", "append"]))
    flipped = bytes([archive[at] ^ data.draw(st.integers(1, 255))])
    damaged = {
        "flip": archive[:at] + flipped + archive[at + 1 :],
        "cut": archive[:at],
        "insert": archive[:at] + flipped + archive[at:],
        "remove": archive[:at] + archive[at + 1 :],
        "append": archive + flipped,
    }[damage]
    path = tmp_path / "damaged.tar"
    path.write_bytes(damaged)
    if damaged == archive:
        return
    with pytest.raises(InputError, match="cannot be used"):
        check(path)


def test_damage_outside_of_the_files_is_found_too(archive: bytes, tmp_path: Path) -> None:
    """Every byte of a header, its checksum's end included, and of the padding after a file."""
    path = tmp_path / "damaged.tar"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = next(m for m in tar if m.size % tarfile.BLOCKSIZE)
    end = member.offset_data + member.size
    header = range(member.offset, member.offset_data)
    for at in [*header, *range(end, end + -end % tarfile.BLOCKSIZE)]:
        path.write_bytes(archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :])
        with pytest.raises(InputError, match="cannot be used"):
            check(path)


def test_a_damaged_file_is_named_and_nothing_is_touched(project: Project, tmp_path: Path) -> None:
    saved = backup(project, tmp_path / "saved.tar").path
    before = content(project.root)
    whole = saved.read_bytes()
    at = whole.index(b'{"seq":0')
    saved.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    with pytest.raises(InputError, match=r"\.handloom/ledger\.jsonl is damaged.*another backup"):
        bring_back(project.root, saved)
    assert content(project.root) == before
    with pytest.raises(InputError, match="No such file"):
        bring_back(project.root, tmp_path / "none.tar")


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    ("info", "said_of_it"),
    [
        (hostile("../outside"), "not lie within"),
        (hostile("guidelines/../../outside"), "not lie within"),
        (hostile("/guidelines/outside"), "not lie within"),
        (hostile("guidelines//twice"), "not lie within"),
        (hostile("src/module.py"), "no part of a project"),
        (hostile("runs"), "no part of a project"),
        (hostile("guidelines/link", tarfile.SYMTYPE, "/etc"), "not a plain file"),
        (hostile("guidelines/link", tarfile.LNKTYPE, "guidelines/x"), "not a plain file"),
        (hostile("guidelines/pipe", tarfile.FIFOTYPE), "not a plain file"),
        (hostile("guidelines/folder", tarfile.DIRTYPE), "not a plain file"),
        (hostile("guidelines/x"), "there twice"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_a_hostile_archive_is_refused(
    tmp_path: Path, info: tarfile.TarInfo, said_of_it: str
) -> None:
    """Its manifest is right: who can write an archive can write that too."""
    source = tmp_path / "x"
    source.write_bytes(b"fine")
    path = tmp_path / "hostile.tar"
    with path.open("w+b") as file:
        writer = ArchiveWriter(file)
        writer.add("guidelines/x", source)
        writer._tar.addfile(info, io.BytesIO(b"evil"))
        about = {"made": "", "database": None, "ledger": {}, "versions": {}, "left_out": []}
        writer.finish(**about)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InputError, match=said_of_it):
        bring_back(root, path)
    assert list(root.iterdir()) == []
    assert not (tmp_path / "outside").exists()


RESTORER = """
import itertools, os, signal, sys
from pathlib import Path
from annotate import bring_back
count, stop = itertools.count(1), int(sys.argv[3])
def dying(function):
    def wrapped(*args, **kwargs):
        if next(count) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
Path.rename = dying(Path.rename)
Path.unlink = dying(Path.unlink)
bring_back.extract = dying(bring_back.extract)
bring_back.bring_back(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_killed_anywhere_it_is_the_old_or_goes_on_to_the_new(
    project: Project, tmp_path: Path, stop_at: int
) -> None:
    saved = backup(project, tmp_path / "saved.tar").path
    wanted = content(project.root)
    (project.root / "guidelines/README.md").write_text("edited since")
    (project.root / "recipes").mkdir()
    (project.root / "recipes/mine.yaml").write_text("mine")
    edited = content(project.root)
    command = [sys.executable, "-c", RESTORER, str(project.root), str(saved), str(stop_at)]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL, "fewer steps than this test supposes"
    if (project.root / INTERRUPTED).exists():
        with pytest.raises(ProjectError, match=r"cut off here.*handloom restore --from"):
            Project.find(project.root)
        with pytest.raises(ProjectError, match="another backup"):
            bring_back(project.root, tmp_path / "another.tar")
    else:
        now = content(project.root)
        kept = {name: sha for name, sha in now.items() if not name.startswith(".handloom-restor")}
        assert kept == edited or kept.items() >= wanted.items()
        if kept != edited:
            return
    bring_back(project.root, saved)
    now = content(project.root)
    assert {name: now[name] for name in wanted} == wanted
    assert (project.root / "recipes/mine.yaml").read_text() == "mine"
    (aside,) = project.root.glob("before-restore-*")
    assert (aside / "guidelines/README.md").read_text() == "edited since"
    assert not (project.root / backup_archive.MANIFEST).exists()
    assert Project.find(project.root) == project
    assert verify(project) == []


def test_the_archive_says_what_it_is(project: Project, tmp_path: Path) -> None:
    saved = backup(project, tmp_path / "saved.tar")
    with tarfile.open(saved.path) as tar:
        text = tar.extractfile(backup_archive.MANIFEST)
        assert text is not None
        manifest = json.loads(text.read())["manifest"]
    assert manifest["format"] == 1
    assert manifest["ledger"] == {
        "lines": 2,
        "head": Ledger.of(project).verdict().head,
    }
    assert manifest["versions"]["python"]


def test_a_database_in_postgresql(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dumped while it runs, loaded into another database, and what that held dumped aside."""
    monkeypatch.setenv("HANDLOOM_DATABASE_URL", postgres.create_database())
    made = make_project(tmp_path / "project")
    home = made.state_dir / "argilla"
    run_argilla(home)
    try:
        pushed = push(made, make_generated(made, 3))
        ids = pushed.read("items")["item_id"].to_pylist()
        submit(made, pushed, "anna", {item: label() for item in ids})
        saved = backup(made, tmp_path / "saved.tar")
        pulled = pull(made, pushed)
    finally:
        stop(home)
    assert saved.manifest.database == "postgresql"
    assert postgres.password.encode() not in saved.path.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.delenv("HANDLOOM_DATABASE_URL")
    with pytest.raises(InputError, match=r"of a PostgreSQL database.*HANDLOOM_DATABASE_URL"):
        bring_back(elsewhere, saved.path)
    monkeypatch.setenv("HANDLOOM_DATABASE_URL", postgres.create_database())
    back = bring_back(elsewhere, saved.path)
    assert back.aside is not None
    assert (back.aside / "database-before.dump").is_file()
    again = Project(elsewhere)
    run_argilla(again.state_dir / "argilla")
    try:
        with connect(again) as server:
            (batch,) = server.batches()
            assert len(list(server.responses(batch))) == 3
        assert pull(again, again.resolve(pushed.id)).id == pulled.id
    finally:
        stop(again.state_dir / "argilla")


@pytest.fixture(scope="module", autouse=True)
def as_in_a_command() -> Iterator[None]:
    """Without what other tests of this process have imported: no command that restores has Argilla
    in it, which speaks SQLite to every database that is opened."""
    argilla = sys.modules.get("argilla_server.database")
    if argilla is None:
        yield
        return
    sa.event.remove(sa.Engine, "connect", argilla.set_sqlite_pragma)
    yield
    sa.event.listen(sa.Engine, "connect", argilla.set_sqlite_pragma)


@pytest.fixture
def on_postgres(
    project: Project, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> tuple[Project, sa.Engine]:
    """A project whose answers are in PostgreSQL, and that database, with an outbox."""
    url = postgres.create_database()
    monkeypatch.setenv("HANDLOOM_DATABASE_URL", url)
    engine = sa.create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    outbox_sql.METADATA.create_all(engine)
    engine.dispose()
    return project, engine


def in_outbox(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        found = [entry.item_id for entry in outbox_sql.waiting(connection)]
    engine.dispose()
    return found


def test_a_postgresql_database_that_a_server_works_on_is_left_alone(
    on_postgres: tuple[Project, sa.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server runs from another folder: the lock on this one says nothing."""
    project, engine = on_postgres
    saved = backup(project, tmp_path / "saved.tar")
    leave_in_outbox(engine, "i-7", "b_better")
    before = content(project.root)
    monkeypatch.setattr(database, "LOCK_TRIES", 1)
    chosen = database.choose(tmp_path, os.environ["HANDLOOM_DATABASE_URL"])
    with (
        database.held(chosen),
        pytest.raises(ServerError, match="another server of Handloom works on this database"),
    ):
        bring_back(project.root, saved.path)
    assert in_outbox(engine) == ["i-7"]
    assert content(project.root) == before
    back = bring_back(project.root, saved.path)
    assert back.newer_responses
    assert answers_of(project, "i-7") == ["b_better"]
    assert in_outbox(engine) == []


LOADER = """
import itertools, os, signal, sys
from pathlib import Path
from annotate import bring_back
count, stop, run = itertools.count(1), int(sys.argv[3]), bring_back.run_client
def dying(command, *rest):
    run(command, *rest)
    if next(count) == stop:
        os.kill(os.getpid(), signal.SIGKILL)
bring_back.run_client = dying
bring_back.bring_back(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("stop_at", [2, 3], ids=["dumped", "loaded"])
def test_killed_beside_postgresql_it_is_the_old_or_goes_on_to_the_new(
    on_postgres: tuple[Project, sa.Engine], tmp_path: Path, stop_at: int
) -> None:
    project, engine = on_postgres
    saved = backup(project, tmp_path / "saved.tar").path
    leave_in_outbox(engine, "i-7", "b_better")
    command = [sys.executable, "-c", LOADER, str(project.root), str(saved), str(stop_at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    loaded = stop_at == 3
    assert in_outbox(engine) == ([] if loaded else ["i-7"])
    assert (project.root / INTERRUPTED).exists() == loaded
    bring_back(project.root, saved)
    assert answers_of(project, "i-7") == ["b_better"]
    assert in_outbox(engine) == []
    assert not (project.root / INTERRUPTED).exists()
    assert not list(project.state_dir.rglob("database.dump"))
    (kept,) = project.root.glob("before-restore-*/database-before.dump")
    listed = ["pg_restore", "--data-only", "--file=-", str(kept)]
    assert b"i-7" in subprocess.run(listed, capture_output=True, check=True).stdout


def test_a_dump_that_cannot_be_loaded_leaves_the_project_as_it_was(
    on_postgres: tuple[Project, sa.Engine], tmp_path: Path
) -> None:
    project, engine = on_postgres
    saved = backup(project, tmp_path / "saved.tar").path
    with engine.begin() as connection:  # which --clean cannot drop
        connection.execute(
            sa.text("CREATE VIEW mine AS SELECT response_id, cause FROM handloom_causes")
        )
    engine.dispose()
    before = content(project.root)
    with pytest.raises(ServerError, match="pg_restore failed"):
        bring_back(project.root, saved)
    now = content(project.root)
    assert {name: now.get(name) for name in before} == before
    assert not (project.root / INTERRUPTED).exists()


def test_an_address_without_a_database_is_that_of_its_user(
    project: Project, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = postgres.connect("postgres")
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{USER}"')
    server.close()
    url = f"postgresql://{USER}:{postgres.password}@127.0.0.1:{postgres.port}"
    monkeypatch.setenv("HANDLOOM_DATABASE_URL", url)
    saved = backup(project, tmp_path / "saved.tar")
    assert bring_back(project.root, saved.path).aside is not None
