"""Turns to write: nobody is refused while many write at once, and nobody keeps the turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from annotate.embedded import write_turns

WRITERS, TIMES = 12, 15


@contextlib.asynccontextmanager
async def new_engine(folder: Path, *, turns: bool) -> AsyncIterator[AsyncEngine]:
    """A database with a table of one column, whose connections wait a tenth of a second only."""
    url = f"sqlite+aiosqlite:///{folder}/some.db"
    engine = create_async_engine(url, connect_args={"timeout": 0.1})
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            await connection.exec_driver_sql("CREATE TABLE said (writer INTEGER)")
        if turns:
            write_turns.install(engine)
        yield engine
    finally:
        await engine.dispose()


async def write(engine: AsyncEngine, writer: int, *, pause: float = 0.01) -> None:
    async with AsyncSession(engine) as db:
        await db.execute(sa.text("SELECT count(*) FROM said"))
        await db.execute(sa.text("INSERT INTO said VALUES (:writer)"), {"writer": writer})
        await asyncio.sleep(pause)  # as long as a busy event loop takes between two statements
        await db.execute(sa.text("UPDATE said SET writer = writer WHERE writer = -1"))
        await db.commit()


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.exec_driver_sql("SELECT count(*) FROM said")).scalar_one())


@pytest.mark.parametrize("turns", [True, False])
def test_many_writers_are_all_served(tmp_path: Path, turns: bool) -> None:
    async def scenario() -> None:
        async with new_engine(tmp_path, turns=turns) as engine:

            async def write_on(writer: int) -> None:
                for _ in range(TIMES):
                    await write(engine, writer)

            async with asyncio.TaskGroup() as group:
                for writer in range(WRITERS):
                    group.create_task(write_on(writer))
            assert await count(engine) == WRITERS * TIMES

    if turns:
        asyncio.run(scenario())
    else:
        with pytest.raises(ExceptionGroup) as refused:  # what turns are for
            asyncio.run(scenario())
        assert refused.group_contains(OperationalError, match="database is locked")


def test_a_turn_ends_with_its_session_however_that_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with new_engine(tmp_path, turns=True) as engine:
            insert = sa.text("INSERT INTO said VALUES (0)")
            async with AsyncSession(engine) as db:
                await db.execute(insert)  # and nothing more
            async with AsyncSession(engine) as db:
                await db.execute(insert)
                await db.rollback()
                await write(engine, 1)
            with pytest.raises(OperationalError):
                async with AsyncSession(engine) as db:
                    await db.execute(insert)
                    await db.execute(sa.text("INSERT INTO nothing VALUES (0)"))
            await write(engine, 2)

            cut_off = asyncio.create_task(write(engine, 3, pause=60))
            waiting = asyncio.create_task(write(engine, 4))
            await asyncio.sleep(0.2)
            waiting.cancel()
            cut_off.cancel()
            assert await asyncio.gather(cut_off, waiting, return_exceptions=True)
            async with asyncio.timeout(10):
                await write(engine, 5)
            assert await count(engine) == 3

    asyncio.run(scenario())


def test_a_turn_that_does_not_end_stops_nobody_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_turns, "LONGEST_WAIT", 0.2)

    async def scenario() -> None:
        async with new_engine(tmp_path, turns=True) as engine, AsyncSession(engine) as holder:
            await holder.execute(sa.text("INSERT INTO said VALUES (0)"))
            with pytest.raises(OperationalError, match="database is locked"):
                await write(engine, 1)
            await holder.commit()
            await write(engine, 2)
            assert await count(engine) == 2

    asyncio.run(scenario())
