"""Pages of records with all that belongs to them, straight from the database's rows.

Argilla makes an object of each row, validates it into a second, turns that into a third and writes
it as JSON, though most of a record is kept as JSON in the database: here that text is passed on as
it is. It also sorts the whole data set by time of insertion for each page; an index does away with
that. A page costs what is on it, and a step of the index for each record before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from json import dumps
from typing import Any
from uuid import UUID

from argilla_server.api.handlers.v1.datasets import records as handlers
from argilla_server.api.policies.v1 import DatasetPolicy, authorize
from argilla_server.api.schemas.v1.records import RecordIncludeParam
from argilla_server.models import (
    Dataset,
    Record,
    Response,
    Suggestion,
    User,
    Vector,
    VectorSettings,
)
from fastapi import Response as HTTPResponse
from sqlalchemy import Text, cast, func, select, text, type_coerce
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from annotate.embedded.patches.replacement import Patch, Replacement, by, endpoint_of

Rows = Iterable[Sequence[Any]]
Parts = dict[UUID, list[str]]

RECORDS_A_STATEMENT = 500
"""Ids in one IN (…)."""

_NO_NUMBERS = ("NaN", "Infinity")
"""What JSON has no word for: whatever Argilla makes of them."""


_IN_ORDER = "handloom_records_in_order"


async def prepare(engine: AsyncEngine) -> None:
    """Have the database keep each data set's records in the order in which they are listed."""
    async with engine.begin() as connection:
        await connection.execute(
            text(f"CREATE INDEX IF NOT EXISTS {_IN_ORDER} ON records (dataset_id, inserted_at)")
        )


async def list_dataset_records(
    *,
    db: AsyncSession,
    dataset_id: UUID,
    include: RecordIncludeParam | None,
    offset: int,
    limit: int,
    current_user: User,
) -> Any:
    """GET /datasets/{id}/records, as `handlers.list_dataset_records` answers it."""
    if include is None or not include.with_some_vector:
        dataset = await Dataset.get_or_raise(db, dataset_id)
        await authorize(current_user, DatasetPolicy.list_records_with_all_responses(dataset))
        page = await _page(db, dataset_id, include, offset, limit)
        if not any(word in page for word in _NO_NUMBERS):
            return HTTPResponse(page.encode(), media_type="application/json")
    return await handlers.list_dataset_records(
        db=db,
        dataset_id=dataset_id,
        include=include,
        offset=offset,
        limit=limit,
        current_user=current_user,
    )


async def _page(
    db: AsyncSession,
    dataset_id: UUID,
    include: RecordIncludeParam | None,
    offset: int,
    limit: int,
) -> str:
    own = Record.dataset_id == dataset_id
    ids = select(Record.id).where(own).order_by(Record.inserted_at).offset(offset).limit(limit)
    columns = (
        Record.id,
        Record.status,
        _as_kept(db, Record.fields),
        _as_kept(db, Record.metadata_),
        Record.external_id,
        Record.inserted_at,
        Record.updated_at,
    )
    query = select(*columns).where(Record.id.in_(ids)).order_by(Record.inserted_at)
    rows = (await db.execute(query)).all()
    found = [row[0] for row in rows]
    parts: list[tuple[str, str, Parts]] = []
    if include and include.with_responses:
        parts.append(("responses", "[]", await _responses(db, found)))
    if include and include.with_suggestions:
        parts.append(("suggestions", "[]", await _suggestions(db, found)))
    if include and include.with_all_vectors:
        parts.append(("vectors", "{}", await _vectors(db, found)))
    total = await db.scalar(select(func.count(Record.id)).where(own))
    items = ",".join(_record(row, str(dataset_id), parts) for row in rows)
    return f'{{"items":[{items}],"total":{total}}}'


def _record(row: Sequence[Any], dataset_id: str, parts: list[tuple[str, str, Parts]]) -> str:
    id, status, fields, metadata, external_id, inserted_at, updated_at = row
    belonging = "".join(
        f'"{name}":{brackets[0]}{",".join(of.get(id, ()))}{brackets[1]},'
        for name, brackets, of in parts
    )
    return (
        f'{{"id":"{id}","status":"{status.value}","fields":{fields},'
        f'"metadata":{metadata or "null"},"external_id":{dumps(external_id)},{belonging}'
        f'"dataset_id":"{dataset_id}",{_times(inserted_at, updated_at)}}}'
    )


def _times(inserted_at: Any, updated_at: Any) -> str:
    return f'"inserted_at":"{inserted_at.isoformat()}","updated_at":"{updated_at.isoformat()}"'


async def _responses(db: AsyncSession, records: list[UUID]) -> Parts:
    query = select(
        Response.record_id,
        Response.id,
        _as_kept(db, Response.values),
        Response.status,
        Response.user_id,
        Response.inserted_at,
        Response.updated_at,
    ).order_by(Response.inserted_at)

    def written(row: Sequence[Any]) -> str:
        record, id, values, status, user, inserted_at, updated_at = row
        return (
            f'{{"id":"{id}","values":{values or "null"},"status":"{status.value}",'
            f'"record_id":"{record}","user_id":"{user}",{_times(inserted_at, updated_at)}}}'
        )

    return await _by_record(db, query, Response.record_id, records, written)


async def _suggestions(db: AsyncSession, records: list[UUID]) -> Parts:
    query = select(
        Suggestion.record_id,
        Suggestion.id,
        Suggestion.question_id,
        Suggestion.type,
        _as_kept(db, Suggestion.value),
        Suggestion.agent,
        _as_kept(db, Suggestion.score),
        Suggestion.inserted_at,
        Suggestion.updated_at,
    ).order_by(Suggestion.inserted_at)

    def written(row: Sequence[Any]) -> str:
        _, id, question, kind, value, agent, score, inserted_at, updated_at = row
        if isinstance(score, int):  # SQLite keeps JSON that is a number as one, 1.0 as 1
            score = float(score)
        return (
            f'{{"question_id":"{question}","type":{dumps(kind and kind.value)},'
            f'"value":{_or_null(value)},"agent":{dumps(agent)},"score":{_or_null(score)},'
            f'"id":"{id}",{_times(inserted_at, updated_at)}}}'
        )

    return await _by_record(db, query, Suggestion.record_id, records, written)


def _as_kept(db: AsyncSession, column: Any) -> Any:
    """JSON as the database keeps it.

    PostgreSQL's driver would decode it unless it is cast; SQLite would round numbers if it were.
    """
    of_postgresql = db.get_bind().dialect.name == "postgresql"
    return cast(column, Text) if of_postgresql else type_coerce(column, Text)


def _or_null(json: Any) -> Any:
    """JSON as the database keeps it: text, or in SQLite a number if it is one."""
    return "null" if json is None else json


async def _vectors(db: AsyncSession, records: list[UUID]) -> Parts:
    query = (
        select(Vector.record_id, VectorSettings.name, _as_kept(db, Vector.value))
        .join(VectorSettings, VectorSettings.id == Vector.vector_settings_id)
        .order_by(Vector.inserted_at)
    )
    names: dict[str, str] = {}

    def written(row: Sequence[Any]) -> str:
        _, name, value = row
        return f"{names.setdefault(name, dumps(name))}:{value}"

    return await _by_record(db, query, Vector.record_id, records, written)


async def _by_record(
    db: AsyncSession,
    query: Any,
    column: Any,
    records: list[UUID],
    written: Callable[[Sequence[Any]], str],
) -> Parts:
    """The JSON of what belongs to each record, in the query's order."""
    found: Parts = defaultdict(list)
    for start in range(0, len(records), RECORDS_A_STATEMENT):
        among = column.in_(records[start : start + RECORDS_A_STATEMENT])
        for row in await db.execute(query.where(among)):
            found[row[0]].append(written(row))
    return found


PATCH = Patch(
    Replacement(endpoint_of(handlers.list_dataset_records), "call", by(list_dataset_records))
)
