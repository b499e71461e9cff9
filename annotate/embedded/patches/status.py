"""A changed overlap, applied to the whole data set a thousand responses at a time.

Argilla takes one serializable transaction for each response of the data set (4 to 13 a second).
Here one statement settles the records of a thousand responses; the search engine learns of those
whose status changed, and webhooks that ask for it of all that Argilla tells them of, in its order.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import backoff
import sqlalchemy
from argilla_server.contexts import distribution
from argilla_server.database import AsyncSessionLocal, _get_async_db
from argilla_server.enums import DatasetDistributionStrategy, RecordStatus, ResponseStatus
from argilla_server.jobs import dataset_jobs
from argilla_server.models import Dataset, Record, Response
from argilla_server.search_engine import SearchEngine
from argilla_server.settings import settings
from argilla_server.webhooks.v1.enums import RecordEvent
from sqlalchemy import case, func, literal, select, update
from sqlalchemy.orm import selectinload

from annotate.embedded.patches.replacement import Patch, Replacement
from annotate.embedded.patches.webhooks import enabled_events

RESPONSES_A_STEP = 1000

Job = Callable[[UUID], Awaitable[None]]


def _set_based(job: Any) -> Job:
    """The job that follows a change of a data set's distribution."""

    @functools.wraps(job)  # keeps `delay`, and the name by which the queue finds it again
    async def update_statuses(dataset_id: UUID) -> None:
        async with AsyncSessionLocal() as db:
            dataset = await db.get(Dataset, dataset_id)
            answered = select(Record.id).join(Response).where(Record.dataset_id == dataset_id)
            ids = (await db.scalars(answered.order_by(Record.inserted_at.asc()))).all()
        overlap = DatasetDistributionStrategy.overlap
        if dataset is None or dataset.distribution_strategy != overlap:
            await job(dataset_id)
            return
        async with SearchEngine.get_by_name(settings.search_engine) as search_engine:
            for start in range(0, len(ids), RESPONSES_A_STEP):
                step = ids[start : start + RESPONSES_A_STEP]
                await _tell(search_engine, step, await _settle(dataset_id, step))

    return update_statuses


@backoff.on_exception(
    backoff.expo,
    sqlalchemy.exc.SQLAlchemyError,
    max_time=distribution.MAX_TIME_RETRY_SQLALCHEMY_ERROR,
)
async def _settle(dataset_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
    """Give records the status that follows from their responses; those where it was another."""
    kind = Record.__table__.c.status.type
    # Counted by status, not looked up by it: see `_has_wrong_status` in annotate.embedded.rebuild.
    submitted = (
        select(func.count(case((Response.status == ResponseStatus.submitted, 1))))
        .where(Response.record_id == Record.id)
        .correlate(Record)
        .scalar_subquery()
    )
    async for db in _get_async_db(isolation_level="SERIALIZABLE"):
        dataset = await Dataset.get_or_raise(db, dataset_id)
        status = case(
            (
                submitted >= dataset.distribution["min_submitted"],
                literal(RecordStatus.completed, kind),
            ),
            else_=literal(RecordStatus.pending, kind),
        )
        settling = (
            update(Record)
            .where(Record.id.in_(set(ids)), Record.status != status)
            .values(status=status)
            .returning(Record.id)
            .execution_options(synchronize_session=False)
        )
        changed = set((await db.scalars(settling)).all())
        await db.commit()
    return changed


async def _tell(search_engine: SearchEngine, ids: Sequence[UUID], changed: set[UUID]) -> None:
    """Tell the search engine of changed records, and webhooks of each response's record."""
    async with AsyncSessionLocal() as db:
        wanted = await enabled_events(db) & {RecordEvent.updated, RecordEvent.completed}
        loaded = select(Record).where(Record.id.in_(set(ids) if wanted else changed))
        found = await db.scalars(loaded.options(selectinload(Record.dataset)))
        records = {record.id: record for record in found}
        for id in changed & records.keys():
            await search_engine.partial_record_update(records[id], status=records[id].status)
        for record in (records[id] for id in ids if wanted and id in records):
            await distribution.notify_record_event_v1(db, RecordEvent.updated, record)
            if record.is_completed():
                await distribution.notify_record_event_v1(db, RecordEvent.completed, record)


PATCH = Patch(Replacement(dataset_jobs, "update_dataset_records_status_job", _set_based))
