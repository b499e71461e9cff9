"""Records in bulk, in time that grows with the bulk and not with its square.

Argilla looks up the users of each record's responses, and every such look compares all that the
session holds, with a temporary record more each time. It writes suggestions, vectors and responses
in one statement with a value list per row, which SQLAlchemy compiles anew each time, makes objects
of what it has just written, throws them away, and loads them twice more: for the status and for the
search engine. Here users are looked up once, rows are written by a statement that is compiled once,
statuses come from a count, and what the search engine reads is loaded once.
"""

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from argilla_server.bulk import records_bulk
from argilla_server.bulk.records_bulk import CreateRecordsBulk, UpsertRecordsBulk
from argilla_server.contexts import accounts, distribution
from argilla_server.enums import DatasetDistributionStrategy, RecordStatus, ResponseStatus
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Dataset, Record, Response, Suggestion, Vector
from argilla_server.models.database import DatasetUser
from argilla_server.models.mixins import _INSERT_FUNC
from argilla_server.validators import records as validators
from argilla_server.validators.responses import ResponseCreateValidator
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.attributes import set_committed_value

from annotate.embedded.patches.replacement import Patch, Replacement, by
from annotate.embedded.patches.webhooks import one_look

Bulk = Callable[..., Awaitable[Any]]

_known_users: ContextVar[set[UUID] | None] = ContextVar("known users", default=None)
"""Users among those that a bulk names; None outside of a bulk."""

_original_validate_responses = validators.RecordValidatorBase._validate_responses.__func__
_original_update_status = distribution.unsafe_update_records_status


@dataclasses.dataclass(frozen=True)
class Draft:
    """What the validators read of a record that is not made yet."""

    fields: dict[str, Any]
    dataset: Dataset


def _in_bulk(work: Bulk) -> Bulk:
    """A bulk that looks up users and webhooks once."""

    @functools.wraps(work)
    async def bulk(self: Any, dataset: Dataset, given: Any, *more: Any, **named: Any) -> Any:
        ids = {r.user_id for item in given.items for r in item.responses or ()}
        users = await accounts.list_users_by_ids(self._db, ids) if ids else ()
        outer = _known_users.set({user.id for user in users})
        try:
            with one_look():
                return await work(self, dataset, given, *more, **named)
        finally:
            _known_users.reset(outer)

    return bulk


async def validate_new(cls: Any, record_create: Any, dataset: Dataset) -> None:
    """`RecordCreateValidator.validate`, without a Record that the session would have to watch."""
    draft = Draft(record_create.fields, dataset)
    cls._validate_fields(record_create.fields, dataset)
    cls._validate_metadata(record_create.metadata, dataset)
    cls._validate_suggestions(record_create.suggestions, dataset, record=draft)
    cls._validate_vectors(record_create.vectors, dataset)
    await cls._validate_responses(record_create.responses, dataset, record=draft)


async def validate_responses(cls: Any, responses: Any, dataset: Dataset, record: Any) -> None:
    """`RecordValidatorBase._validate_responses`, with the users that the bulk has looked up."""
    known = _known_users.get()
    if known is None:
        await _original_validate_responses(cls, responses, dataset, record)
        return
    try:
        for response in responses or ():
            if response.user_id not in known:
                raise ValueError(f"user with id {response.user_id} not found")
            ResponseCreateValidator.validate(response, record)
    except (UnprocessableEntityError, ValueError) as reason:
        raise UnprocessableEntityError(
            f"record does not have valid responses: {reason}"
        ) from reason


async def _upsert_suggestions(self: Any, pairs: Sequence[tuple[Record, Any]]) -> list[Any]:
    rows = [
        {**suggestion.model_dump(), "record_id": record.id}
        for record, suggestions in pairs
        for suggestion in suggestions or ()
    ]
    await upsert(self._db, Suggestion, rows, ["record_id", "question_id"])
    return []  # Argilla has no use for the objects


async def _upsert_vectors(self: Any, pairs: Sequence[tuple[Record, Any]]) -> list[Any]:
    rows = [
        {
            "value": value,
            "record_id": record.id,
            "vector_settings_id": record.dataset.vector_settings_by_name(name).id,
        }
        for record, vectors in pairs
        for name, value in (vectors or {}).items()
    ]
    await upsert(self._db, Vector, rows, ["record_id", "vector_settings_id"])
    return []


async def _upsert_responses(self: Any, pairs: Sequence[tuple[Record, Any]]) -> list[Any]:
    rows, of = [], set()
    for record, responses in pairs:
        for response in responses or ():
            rows.append({**response.model_dump(), "record_id": record.id})
            of.add((response.user_id, record.dataset_id))
    users = [{"user_id": user, "dataset_id": dataset} for user, dataset in of]
    await upsert(self._db, DatasetUser, users, ["user_id", "dataset_id"])
    await upsert(self._db, Response, rows, ["record_id", "user_id"])
    return []


async def upsert(
    db: AsyncSession, model: Any, rows: list[dict[str, Any]], unique: list[str]
) -> None:
    """`CRUDMixin.upsert_many` by one statement for any number of rows, making no objects."""
    if not rows:
        return
    table = model.__table__
    insert = _INSERT_FUNC[db.bind.dialect.name](table)
    replaced = {name: insert.excluded[name] for name in model.__upsertable_columns__}
    replaced["updated_at"] = datetime.now(UTC).replace(tzinfo=None)
    await db.execute(insert.on_conflict_do_update(index_elements=unique, set_=replaced), rows)


async def update_statuses(db: AsyncSession, records: list[Record]) -> None:
    """`distribution.unsafe_update_records_status`, from a count instead of loaded responses."""
    datasets = {id: await db.get(Dataset, id) for id in {r.dataset_id for r in records}}
    strategies = {dataset.distribution_strategy for dataset in datasets.values() if dataset}
    if strategies - {DatasetDistributionStrategy.overlap}:
        await _original_update_status(db, records)
        return
    query = (
        select(Response.record_id, func.count())
        .where(
            Response.record_id.in_([record.id for record in records]),
            Response.status == ResponseStatus.submitted,
        )
        .group_by(Response.record_id)
    )
    submitted = dict((await db.execute(query)).tuples().all())
    for record in records:
        set_committed_value(record, "dataset", datasets[record.dataset_id])
        enough = record.dataset.distribution["min_submitted"]
        complete = submitted.get(record.id, 0) >= enough
        record.status = RecordStatus.completed if complete else RecordStatus.pending


async def preload(db: AsyncSession, records: Sequence[Record]) -> None:
    """What the search engine reads of each record, as it stands in the database."""
    datasets = {record: record.dataset for record in records}  # loading forgets them
    await db.execute(
        select(Record)
        .filter(Record.id.in_([record.id for record in records]))
        .options(
            selectinload(Record.responses).selectinload(Response.user),
            selectinload(Record.suggestions).selectinload(Suggestion.question),
            selectinload(Record.vectors),
        )
        .execution_options(populate_existing=True)
    )
    for record in records:
        submitted = [response for response in record.responses if response.is_submitted]
        set_committed_value(record, "responses_submitted", submitted)
        set_committed_value(record, "dataset", datasets[record])


PATCH = Patch(
    Replacement(CreateRecordsBulk, "create_records_bulk", _in_bulk),
    Replacement(UpsertRecordsBulk, "upsert_records_bulk", _in_bulk),
    Replacement(CreateRecordsBulk, "_upsert_records_suggestions", by(_upsert_suggestions)),
    Replacement(CreateRecordsBulk, "_upsert_records_vectors", by(_upsert_vectors)),
    Replacement(CreateRecordsBulk, "_upsert_records_responses", by(_upsert_responses)),
    Replacement(validators.RecordCreateValidator, "validate", by(classmethod(validate_new))),
    Replacement(
        validators.RecordValidatorBase, "_validate_responses", by(classmethod(validate_responses))
    ),
    Replacement(distribution, "unsafe_update_records_status", by(update_statuses)),
    Replacement(records_bulk, "_preload_records_relationships_before_index", by(preload)),
)
