"""What a server that was killed left undone is done at the next start.

Search indexes that are missing or behind are made anew from Argilla's database; records whose
status does not follow from their responses (Argilla sets it after the response, and in a background
job after a change of the overlap) are looked at again.
"""

import logging
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from argilla_server.cli.search_engine.reindex import Reindexer
from argilla_server.database import AsyncSessionLocal
from argilla_server.jobs.dataset_jobs import update_dataset_records_status_job
from argilla_server.models import Dataset, Record, Response, Vector
from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from annotate.embedded.documents import microseconds
from annotate.embedded.engine import HandloomSearchEngine

_LOG = logging.getLogger(__name__)

Fingerprint = tuple[int, ...]

_INDEX_FINGERPRINT = """
SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM record WHERE status = 'completed'),
       (SELECT coalesce(max(updated_at), 0) FROM record),
       (SELECT count(*) FROM response), (SELECT coalesce(max(updated_at), 0) FROM response),
       (SELECT count(*) FROM vector)
"""


async def rebuild_outdated() -> list[str]:
    """Rebuild each published data set's index that does not agree with the database.

    Returns:
        Names of the data sets whose index was made anew.
    """
    engine = await HandloomSearchEngine.new_instance()
    rebuilt = []
    async with AsyncSessionLocal() as db:
        datasets = (await db.execute(select(Dataset))).scalars().all()
        for dataset in datasets:
            if dataset.is_draft or await _is_current(db, engine, dataset):
                continue
            _LOG.warning("rebuilding the search index of data set %s", dataset.name)
            await _rebuild(engine, dataset)
            rebuilt.append(dataset.name)
    return rebuilt


async def _is_current(db: AsyncSession, engine: HandloomSearchEngine, dataset: Dataset) -> bool:
    try:
        found: Sequence[object] = engine.index(dataset.id).read(_INDEX_FINGERPRINT)[0]
    except sqlite3.DatabaseError as error:
        _LOG.warning("index of data set %s: %s", dataset.name, error)
        return False
    return tuple(found) == await _database_fingerprint(db, dataset)


async def _database_fingerprint(db: AsyncSession, dataset: Dataset) -> Fingerprint:
    """What `_INDEX_FINGERPRINT` gives when nothing is missing from the index."""
    own = Record.dataset_id == dataset.id
    records = select(func.count(), func.max(Record.updated_at)).where(own)
    completed = select(func.count()).where(own, Record.status == "completed")
    responses = select(func.count(), func.max(Response.updated_at)).join(Record).where(own)
    vectors = select(func.count()).select_from(Vector).join(Record).where(own)
    record_count, record_time = (await db.execute(records)).one()
    response_count, response_time = (await db.execute(responses)).one()
    return (
        record_count,
        (await db.execute(completed)).scalar_one(),
        _time(record_time),
        response_count,
        _time(response_time),
        (await db.execute(vectors)).scalar_one(),
    )


async def _rebuild(engine: HandloomSearchEngine, dataset: Dataset) -> None:
    async with AsyncSessionLocal() as db:
        fresh = await Reindexer.reindex_dataset(db, engine, dataset.id)
        async for _ in Reindexer.reindex_dataset_records(db, engine, fresh):
            pass


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
    enough = func.count(Response.id) >= dataset.distribution["min_submitted"]
    submitted = and_(Response.record_id == Record.id, Response.status == "submitted")
    wrong = (
        select(Record.id)
        .outerjoin(Response, submitted)
        .where(Record.dataset_id == dataset.id)
        .group_by(Record.id)
        .having(enough != (Record.status == "completed"))
        .limit(1)
    )
    return (await db.execute(wrong)).first() is not None


def _time(time: datetime | None) -> int:
    return microseconds(time) if time else 0
