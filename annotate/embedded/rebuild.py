"""What a server that was killed left undone is done at the next start.

Search indexes that are missing or behind are made anew from Argilla's database; records whose
status does not follow from their responses (Argilla sets it after the response, and in a background
job after a change of the overlap) are looked at again.

A new index is a new file that takes the old one's place when it is whole, so a crash leaves the old
one; meanwhile the old one answers, and what is written to it is looked up again at the end.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple
from uuid import UUID

from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import ResponseStatus
from argilla_server.jobs.dataset_jobs import update_dataset_records_status_job
from argilla_server.models import Dataset, Record, Response
from sqlalchemy import Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from annotate.embedded import database_rows, documents
from annotate.embedded.engine import HandloomSearchEngine
from annotate.embedded.freshness import outdated
from annotate.embedded.index import Changes, DatasetIndex
from annotate.embedded.index_file import delete_files

PROGRESS_SECONDS = 5.0

_LOG = logging.getLogger(__name__)
_PROGRESS = _LOG.getChild("progress")


class Progress(NamedTuple):
    """How far a rebuild is, in records."""

    done: int
    total: int


class BusyError(Exception):
    """The index of this data set is being rebuilt already."""


async def rebuild_outdated() -> list[str]:
    """Rebuild each published data set's index that does not agree with the database.

    Returns:
        Names of the data sets whose index was made anew; a line for each is logged.
    """
    engine = await HandloomSearchEngine.new_instance()
    rebuilt = []
    async with AsyncSessionLocal() as db:
        datasets = (await db.execute(_with_schema())).scalars().all()
    for dataset in datasets:
        reason = "" if dataset.is_draft else await _what_is_wrong(engine, dataset)
        if not reason:
            continue
        total, began = 0, time.monotonic()
        shown = began
        async for done, total in rebuild(engine, dataset.id):
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                _PROGRESS.warning("%s: %d of %d records", dataset.name, done, total)
        _LOG.warning(
            "search index of %s rebuilt from the database: %d records in %.1f seconds (%s)",
            dataset.name,
            total,
            time.monotonic() - began,
            reason,
        )
        rebuilt.append(dataset.name)
    return rebuilt


def _with_schema() -> Select[tuple[Dataset]]:
    return select(Dataset).options(
        selectinload(Dataset.fields),
        selectinload(Dataset.questions),
        selectinload(Dataset.metadata_properties),
    )


async def _what_is_wrong(engine: HandloomSearchEngine, dataset: Dataset) -> str:
    """Why an index has to be made anew; nothing if it has not."""
    if not engine.path(dataset.id).exists():
        return "it was missing"
    try:
        index = engine.index(dataset.id)
        # First: a damaged page may hold anything, and what is read of it need not fail.
        if damage := await asyncio.to_thread(index.damage):
            return f"it was malformed: {damage}"
        async with AsyncSessionLocal() as db:
            lacking = await outdated(db, dataset, index)
    except sqlite3.DatabaseError as error:
        return f"it could not be used: {error}"
    return f"it disagreed on {lacking}" if lacking else ""


async def rebuild(engine: HandloomSearchEngine, dataset_id: UUID) -> AsyncGenerator[Progress]:
    """Make a data set's index anew from the database, while the old one answers.

    Whoever stops iterating leaves the old one in place.

    Raises:
        BusyError: this is under way already.
    """
    async with AsyncSessionLocal() as db:
        query = _with_schema().where(Dataset.id == dataset_id)
        dataset = (await db.execute(query)).scalar_one()
    try:
        index = engine.index(dataset_id)
    except sqlite3.DatabaseError:
        await engine.create_index(dataset)
        index = engine.index(dataset_id)
    if not index.follow():
        raise BusyError(dataset.name)
    path = index.path.with_suffix(".new")
    try:
        fresh = DatasetIndex.create(path, *documents.schema(dataset))
        try:
            async with aclosing(_fill(fresh, dataset_id)) as filling:
                async for progress in filling:
                    yield progress
            while missing := await asyncio.to_thread(index.changes):
                await _catch_up(fresh, missing, dataset_id)
            await asyncio.to_thread(fresh.finish)
        finally:
            fresh.close()
        while missing := await asyncio.to_thread(index.adopt, path):
            fresh = DatasetIndex(path)
            await _catch_up(fresh, missing, dataset_id)
            fresh.close()
    finally:
        index.unfollow()
        delete_files(path)


async def _fill(fresh: DatasetIndex, dataset_id: UUID) -> AsyncGenerator[Progress]:
    """Write all records of the database; the next piece is read while one is written."""
    ids = await database_rows.record_ids(dataset_id)
    questions = await database_rows.question_names(dataset_id)
    await asyncio.to_thread(fresh.in_bulk)
    size = database_rows.RECORDS_A_PIECE
    pieces = [ids[start : start + size].tolist() for start in range(0, len(ids), size)]
    async with asyncio.TaskGroup() as tasks:
        following = None
        for number, piece in enumerate(pieces, start=1):
            rows = await (following or database_rows.rows(piece, questions))
            if number < len(pieces):
                following = tasks.create_task(database_rows.rows(pieces[number], questions))
            await asyncio.to_thread(fresh.put_records, rows)
            yield Progress(min(len(ids), number * size), len(ids))
    if not pieces:
        yield Progress(0, 0)


async def _catch_up(fresh: DatasetIndex, missing: Changes, dataset_id: UUID) -> None:
    """Write what was changed meanwhile as the database has it now."""
    questions = await database_rows.question_names(dataset_id)
    for method, arguments in missing.calls:
        await asyncio.to_thread(getattr(fresh, method), *arguments)
    ids = list(missing.records)
    for start in range(0, len(ids), database_rows.RECORDS_A_PIECE):
        piece = ids[start : start + database_rows.RECORDS_A_PIECE]
        rows = await database_rows.rows(piece, questions)
        await asyncio.to_thread(fresh.refresh, piece, rows)


class Rebuilds:
    """The rebuilds that were asked for while the server runs, one a data set, newest state."""

    def __init__(self) -> None:
        self._states: dict[UUID, dict[str, Any]] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    def state(self, dataset_id: UUID) -> dict[str, Any] | None:
        """`state` (running, done or failed), `records` done, `total`, and `error`."""
        return self._states.get(dataset_id)

    def start(self, dataset_id: UUID) -> dict[str, Any]:
        """Begin a rebuild in the background, unless one is under way; its state."""
        known = self._states.get(dataset_id)
        if known is None or known["state"] != "running":
            known = {"state": "running", "records": 0, "total": 0, "error": ""}
            self._states[dataset_id] = known
            self._tasks[dataset_id] = asyncio.create_task(self._run(dataset_id, known))
        return known

    async def mend(self, dataset_id: UUID) -> None:
        """Make an index anew that was found damaged, or wait until that is done."""
        self.start(dataset_id)
        await asyncio.shield(self._tasks[dataset_id])

    async def _run(self, dataset_id: UUID, state: dict[str, Any]) -> None:
        engine = await HandloomSearchEngine.new_instance()
        try:
            async for done, total in rebuild(engine, dataset_id):
                state |= {"records": done, "total": total}
            state["state"] = "done"
        except Exception as error:  # noqa: BLE001 - logged, and told to whoever asked
            _LOG.exception("the search index of data set %s was not rebuilt", dataset_id)
            state |= {"state": "failed", "error": f"{type(error).__name__}: {error}"}


async def requeue_status_updates() -> list[str]:
    """Queue Argilla's status job for the data sets that have a record in the wrong status.

    Returns:
        Names of those data sets.
    """
    requeued = []
    async with AsyncSessionLocal() as db:
        for dataset in (await db.execute(select(Dataset))).scalars().all():
            if await _has_wrong_status(db, dataset):
                update_dataset_records_status_job.delay(dataset.id)
                requeued.append(dataset.name)
    return requeued


async def _has_wrong_status(db: AsyncSession, dataset: Dataset) -> bool:
    # Not joined by status: SQLite would look each record up among all submitted responses.
    submitted = func.count(case((Response.status == ResponseStatus.submitted, 1)))
    enough = submitted >= dataset.distribution["min_submitted"]
    wrong = (
        select(Record.id)
        .outerjoin(Response, Response.record_id == Record.id)
        .where(Record.dataset_id == dataset.id)
        .group_by(Record.id)
        .having(enough != (Record.status == "completed"))
        .limit(1)
    )
    return (await db.execute(wrong)).first() is not None
