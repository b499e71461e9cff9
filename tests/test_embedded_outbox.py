"""The outbox: whatever happens to a response in the database is a version in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from argilla_server.models import Dataset, Record, Response, User, Workspace
from argilla_server.models.base import DatabaseModel
from argilla_server.settings import settings
from postgres import Postgres
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import selectinload

from annotate.embedded import outbox
from annotate.embedded.outbox import Drain, draining, install
from annotate.embedded.outbox_sql import CAUSES, IDENTITIES, OUTBOX
from annotate.errors import ServerError
from annotate.ledger import Entry, Ledger

Scenario = Callable[["World"], Awaitable[None]]
DATABASES = ("sqlite", "postgresql")


@dataclass
class World:
    """A database of Argilla's with one workspace and data set, and a ledger."""

    engine: AsyncEngine
    ledger: Ledger
    workspace: UUID
    dataset: UUID

    def session(self) -> AsyncSession:
        return AsyncSession(self.engine, expire_on_commit=False)

    async def add_user(self, name: str) -> UUID:
        async with self.session() as db:
            made = User(first_name=name, username=name, password_hash="-")
            await made.save(db)
            return made.id

    async def add_record(self, item_id: str | None, **metadata: str) -> UUID:
        async with self.session() as db:
            record = Record(
                fields={}, external_id=item_id, dataset_id=self.dataset, metadata_=metadata or None
            )
            await record.save(db)
            return record.id

    async def answer(self, record: UUID, user: UUID, value: str, status: str = "submitted") -> None:
        """As Argilla's upserts do, one at a time and in bulk."""
        row = {"record_id": record, "user_id": user, "status": status, "values": said(value)}
        async with self.session() as db:
            await Response.upsert_many(db, [row], [Response.record_id, Response.user_id])

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.text(statement), values)

    async def count(self, table: sa.Table) -> int:
        async with self.engine.connect() as connection:
            counted = await connection.execute(sa.select(sa.func.count()).select_from(table))
            return int(counted.scalar_one())

    async def versions(self) -> list[Entry]:
        await Drain(self.engine, self.ledger).drain()
        assert await self.count(OUTBOX) == 0
        assert self.ledger.verify() == []
        return list(self.ledger)


def said(value: str) -> dict[str, Any]:
    return {"label": {"value": value}}


def brief(entries: list[Entry]) -> list[tuple[str, str, str | None]]:
    """Status, answer and cause of each."""
    return [(e.status, e.values.get("label", {}).get("value"), e.cause) for e in entries]


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/argilla.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create_database()


@pytest.fixture
def play(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Scenario], None]:
    """Runs a scenario in a new world."""
    monkeypatch.setattr(settings, "database_url", database_url)  # its listener asks it

    def run(scenario: Scenario, installed: bool = True) -> None:
        async def inside() -> None:
            async with new_world(database_url, tmp_path / "ledger.jsonl", installed) as world:
                await scenario(world)

        asyncio.run(inside())

    return run


@contextlib.asynccontextmanager
async def new_world(url: str, ledger: Path, installed: bool = True) -> AsyncIterator[World]:
    arguments = {"connect_args": {"timeout": 0.3}} if url.startswith("sqlite") else {}
    engine = create_async_engine(url, **arguments)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(DatabaseModel.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as db:
            workspace = Workspace(name="team")
            await workspace.save(db)
            dataset = Dataset(name="batch-1", distribution={}, workspace_id=workspace.id)
            await dataset.save(db)
        if installed:
            assert await install(engine)
        yield World(engine, Ledger(ledger), workspace.id, dataset.id)
    finally:
        await engine.dispose()


def test_every_version_is_noted_however_it_is_written(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        anna = await world.add_user("anna")
        record = await world.add_record("i-1", guideline="preference@v1", batch="batch-1")
        await world.answer(record, anna, "draft", "draft")  # inserts
        await world.answer(record, anna, "first")  # the upsert updates
        async with world.session() as db:
            found = await Response.get_by_or_raise(db, record_id=record, user_id=anna)
            await found.update(db, values=said("by the ORM"), replace_dict=True)
        await world.run("UPDATE responses SET status = 'discarded'")
        async with world.session() as db:
            found = await Response.get_by_or_raise(db, record_id=record, user_id=anna)
            await found.delete(db)
        versions = await world.versions()
        assert brief(versions) == [
            ("draft", "draft", None),
            ("submitted", "first", None),
            ("submitted", "by the ORM", None),
            ("discarded", "by the ORM", None),
            ("deleted", "by the ORM", "response"),
        ]
        assert {e.key for e in versions} == {("batch-1", "i-1", "anna")}
        assert {e.guideline for e in versions} == {"preference@v1"}
        assert {(e.workspace, e.source) for e in versions} == {("team", "outbox")}
        assert len({e.event for e in versions}) == 5
        assert [e.updated_at for e in versions] == sorted(e.updated_at for e in versions)
        assert await world.count(IDENTITIES) == 0

    play(scenario)


def test_many_at_once_are_noted_each(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        users = [await world.add_user(f"u{n}") for n in range(3)]
        records = [await world.add_record(f"i-{n}") for n in range(4)]
        for value in ("one", "two"):
            rows = [
                {"record_id": r, "user_id": u, "status": "submitted", "values": said(value)}
                for r in records
                for u in users
            ]
            async with world.session() as db:
                await Response.upsert_many(db, rows, [Response.record_id, Response.user_id])
        versions = await world.versions()
        assert len(versions) == 24
        assert len({e.key for e in versions}) == 12
        assert all(e.guideline == "" for e in versions)

    play(scenario)


def test_an_update_that_changes_nothing_is_no_version_and_a_resubmission_is(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "same")
        await world.run('UPDATE responses SET status = status, "values" = "values"')
        assert await world.count(OUTBOX) == 1
        await world.answer(record, anna, "same")
        first, again = await world.versions()
        assert again.updated_at > first.updated_at
        (standing,) = world.ledger.standing(["batch-1"]).values()
        assert standing.updated_at == first.updated_at

    play(scenario)


def test_what_is_rolled_back_was_never_said(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        async with world.session() as db:
            await Response.create(
                db, record_id=record, user_id=anna, values=said("x"), autocommit=False
            )
            await db.flush()
            await db.rollback()
        assert await world.versions() == []

    play(scenario)


def test_no_answers_and_no_item_id_are_noted_too(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record(None)
        async with world.session() as db:
            await Response.create(
                db, record_id=record, user_id=anna, values=None, status="discarded"
            )
        (version,) = await world.versions()
        assert (version.item_id, version.values) == (f"record-{record.hex}", {})

    play(scenario)


def test_no_metadata_keeps_an_answer_from_being_taken(play: Callable[..., None]) -> None:
    """JSON can spell what is no text: a zero and half of a surrogate pair."""

    async def scenario(world: World) -> None:
        anna = await world.add_user("anna")
        odd = [
            await world.add_record(f"i-{n}", note=text) for n, text in enumerate(("\0", "\ud800"))
        ]
        odd += [
            await world.add_record(f"i-{n + 2}", guideline=t)
            for n, t in enumerate(("a\0", "\ud800"))
        ]
        fine = await world.add_record("i-4", guideline="preference@v1", note="\ud55c")
        for record in (*odd, fine):
            await world.answer(record, anna, "before")
        assert await install(world.engine)
        for record in (*odd, fine):
            await world.answer(record, anna, "after")
        versions = await world.versions()
        assert len(versions) == 10
        assert {e.item_id for e in versions} == {f"i-{n}" for n in range(5)}
        assert {e.guideline for e in versions if e.item_id == "i-4"} == {"preference@v1"}

    play(scenario, installed=False)


@pytest.mark.parametrize(
    ("owner", "by"),
    [
        *((owner, by) for owner in ("user", "record", "dataset") for by in ("foreign key", "ORM")),
        ("workspace", "foreign key"),  # Argilla's ORM deletes none that has data sets
    ],
)
def test_what_goes_with_its_owner_is_noted_under_its_names(
    play: Callable[[Scenario], None], owner: str, by: str
) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        ben, other = await world.add_user("ben"), await world.add_record("i-2")
        for user in (anna, ben):
            for each in (record, other):
                await world.answer(each, user, "said")
        ids = {
            "user": anna,
            "record": record,
            "dataset": world.dataset,
            "workspace": world.workspace,
        }
        if by == "ORM":
            await delete_by_orm(world, owner, ids[owner])
        else:
            table = sa.table(f"{owner}s", sa.column("id", sa.Uuid))
            async with world.engine.begin() as connection:
                await connection.execute(sa.delete(table).where(table.c.id == ids[owner]))
        versions = await world.versions()
        gone = [e for e in versions if e.status == "deleted"]
        expected = {
            "user": {("i-1", "anna"), ("i-2", "anna")},
            "record": {("i-1", "anna"), ("i-1", "ben")},
        }
        everything = {(item, who) for item in ("i-1", "i-2") for who in ("anna", "ben")}
        assert {(e.item_id, e.annotator) for e in gone} == expected.get(owner, everything)
        assert {e.cause for e in gone} == {"user" if owner == "user" else "record"}
        assert {e.values["label"]["value"] for e in gone} == {"said"}
        assert {e.workspace for e in gone} == {"team"}
        standing = world.ledger.standing(["batch-1"]).values()
        assert [e.status for e in standing] == ["submitted"] * 4
        assert await world.count(CAUSES) == 0

    play(scenario)


async def delete_by_orm(world: World, owner: str, owner_id: UUID) -> None:
    """With the responses loaded, so that the ORM deletes them itself, before their owner."""
    async with world.session() as db:
        if owner == "user":
            found: Any = await User.get(db, owner_id, [selectinload(User.responses)])
        elif owner == "record":
            found = await Record.get(db, owner_id, [selectinload(Record.responses)])
        else:
            deep = selectinload(Dataset.records).selectinload(Record.responses)
            found = await Dataset.get(db, owner_id, [deep])
        await found.delete(db)


def test_a_withdrawal_stays_one_when_the_record_goes_later(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "said")
        async with world.session() as db:
            await (await Response.get_by_or_raise(db, record_id=record)).delete(db)
        await delete_by_orm(world, "record", record)
        assert brief(await world.versions())[-1] == ("deleted", "said", "response")

    play(scenario)


def test_a_deletion_is_never_before_what_it_deletes(play: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        ahead = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
        async with world.session() as db:
            await Response.create(
                db, record_id=record, user_id=anna, values=said("x"), inserted_at=ahead
            )
        await world.run("DELETE FROM responses")
        first, deleted = await world.versions()
        assert deleted.updated_at == first.updated_at == ahead.replace(tzinfo=UTC)
        assert [e.status for e in world.ledger.history(["i-1"])] == ["submitted", "deleted"]

    play(scenario)


def test_responses_older_than_the_outbox_are_noted_once(play: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "before")
        assert await install(world.engine)
        assert brief(await world.versions()) == [("submitted", "before", None)]
        assert not await install(world.engine)
        assert await world.count(OUTBOX) == 0
        await drop_one_trigger(world)
        await world.answer(record, anna, "while a trigger was missing")
        assert await install(world.engine)
        assert brief(await world.versions())[1:] == [
            ("submitted", "while a trigger was missing", None)
        ]
        await delete_by_orm(world, "user", anna)
        assert brief(await world.versions())[-1][2] == "user"

    play(scenario, installed=False)


def test_an_installation_that_fails_leaves_no_trigger(play: Callable[..., None]) -> None:
    """Else the next start would take it for complete, and pass over what was there before."""

    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "before")
        await world.run("CREATE TABLE handloom_outbox (seq integer)")
        with pytest.raises(sa.exc.DBAPIError):
            await install(world.engine)
        await world.run("DROP TABLE handloom_outbox")
        assert await install(world.engine)
        assert brief(await world.versions()) == [("submitted", "before", None)]

    play(scenario, installed=False)


async def drop_one_trigger(world: World) -> None:
    listed = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%update%'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'handloom%'",
    }
    async with world.engine.begin() as connection:
        name = (await connection.execute(sa.text(listed[world.engine.dialect.name]))).scalar_one()
        on = " ON responses" if world.engine.dialect.name == "postgresql" else ""
        await connection.execute(sa.text(f"DROP TRIGGER {name}{on}"))


def test_seconds_are_asked_for_answers_and_not_for_deletions(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        asked: list[tuple[UUID, UUID, datetime]] = []

        def seconds(user: UUID, shown: UUID, at: datetime) -> float | None:
            asked.append((user, shown, at))
            return 4.5

        await world.answer(record, anna, "said")
        await world.run("DELETE FROM responses")
        await Drain(world.engine, world.ledger, seconds).drain()
        answer, deletion = world.ledger
        assert asked == [(anna, record, answer.updated_at)]
        assert (answer.seconds, deletion.seconds) == (4.5, None)

    play(scenario)


def test_nothing_is_taken_from_a_database_that_may_be_anothers(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "said")
        with pytest.raises(ServerError, match="another server"):
            await Drain(world.engine, world.ledger, may=lambda: False).drain()
        assert await world.count(OUTBOX) == 1
        assert list(world.ledger) == []

    play(scenario)


def test_a_crash_between_append_and_delete_writes_nothing_twice(
    play: Callable[[Scenario], None],
) -> None:
    class Crashing(Drain):
        async def _delete(self, seqs: list[int]) -> None:
            raise ConnectionError("the process ended here")

    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        await world.answer(record, anna, "said")
        with pytest.raises(ConnectionError):
            await Crashing(world.engine, world.ledger).drain()
        assert await world.count(OUTBOX) == 1
        world.ledger = Ledger(world.ledger.path)  # as a new process has it
        assert len(await world.versions()) == 1

    play(scenario)


def test_it_drains_soon_after_a_commit_and_a_last_time_at_the_end(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 3600.0)

    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        async with draining(world.engine, world.ledger):
            for number in range(3):
                await world.answer(record, anna, f"said {number}")
                await until(lambda n=number: len(list(world.ledger)) == n + 1)
            await world.answer(record, anna, "at the end")
        assert len(list(world.ledger)) == 4
        assert await world.count(OUTBOX) == 0

    play(scenario)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_on_a_full_disk_the_rows_wait_and_one_line_is_logged(
    play: Callable[[Scenario], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The limit lies at the ledger's size; the database is smaller."""
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.05)

    async def scenario(world: World) -> None:
        anna, record = await world.add_user("anna"), await world.add_record("i-1")
        when = datetime.now(UTC)
        large = Entry("b", "i", "z", "", "submitted", said("x" * 9_000_000), when, when)
        world.ledger.append([large])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (world.ledger.path.stat().st_size, hard))
        try:
            async with draining(world.engine, world.ledger):
                await world.answer(record, anna, "said")
                await until(lambda: "the disk is full" in caplog.text)
                await asyncio.sleep(0.5)
                assert caplog.text.count("the disk is full") == 1
                assert await world.count(OUTBOX) == 1
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                await until(lambda: "to the ledger again" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert brief(await world.versions())[1:] == [("submitted", "said", None)]

    caplog.set_level(logging.WARNING)
    play(scenario)


def test_a_locked_database_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.05)
    path = tmp_path / "argilla.db"

    async def scenario() -> None:
        async with new_world(f"sqlite+aiosqlite:///{path}", tmp_path / "l.jsonl") as world:
            anna, record = await world.add_user("anna"), await world.add_record("i-1")
            await world.answer(record, anna, "said")
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute("BEGIN IMMEDIATE")
                async with draining(world.engine, world.ledger):
                    await until(lambda: "locked" in caplog.text)
                    other.rollback()
                    await until(lambda: "to the ledger again" in caplog.text)
            assert len(await world.versions()) == 1

    asyncio.run(scenario())
