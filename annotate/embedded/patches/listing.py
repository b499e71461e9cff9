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
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from annotate.embedded.patches.as_kept import AsKept, id_text, json_text, time_text
from annotate.embedded.patches.replacement import Patch, Replacement, by, endpoint_of

Rows = Iterable[Sequence[Any]]
Parts = dict[Any, list[str]]
"""Record's id, as it is kept → JSON of what belongs to it."""

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
    kept = AsKept(db)
    own = Record.dataset_id == dataset_id
    ids = select(Record.id).where(own).order_by(Record.inserted_at).offset(offset).limit(limit)
    columns = (
        kept.plain(Record.id),
        kept.word(Record.status),
        kept.json(Record.fields),
        kept.json(Record.metadata_),
        Record.external_id,
        kept.plain(Record.inserted_at),
        kept.plain(Record.updated_at),
    )
    query = select(*columns).where(Record.id.in_(ids)).order_by(Record.inserted_at)
    rows = (await db.execute(query)).all()
    found = [row[0] for row in rows]
    parts: list[tuple[str, str, Parts]] = []
    if include and include.with_responses:
        parts.append(("responses", "[]", await _responses(db, kept, found)))
    if include and include.with_suggestions:
        parts.append(("suggestions", "[]", await _suggestions(db, kept, found)))
    if include and include.with_all_vectors:
        parts.append(("vectors", "{}", await _vectors(db, kept, found)))
    total = await db.scalar(select(func.count(Record.id)).where(own))
    items = ",".join([_record(row, str(dataset_id), parts) for row in rows])
    return f'{{"items":[{items}],"total":{total}}}'


def _record(row: Sequence[Any], dataset_id: str, parts: list[tuple[str, str, Parts]]) -> str:
    id, status, fields, metadata, external_id, inserted_at, updated_at = row
    belonging = "".join(
        f'"{name}":{brackets[0]}{",".join(of.get(id, ()))}{brackets[1]},'
        for name, brackets, of in parts
    )
    return (
        f'{{"id":"{id_text(id)}","status":"{status}","fields":{fields},'
        f'"metadata":{json_text(metadata)},"external_id":{dumps(external_id)},{belonging}'
        f'"dataset_id":"{dataset_id}",{_times(inserted_at, updated_at)}}}'
    )


def _times(inserted_at: Any, updated_at: Any) -> str:
    return f'"inserted_at":"{time_text(inserted_at)}","updated_at":"{time_text(updated_at)}"'


async def _responses(db: AsyncSession, kept: AsKept, records: list[Any]) -> Parts:
    record_id = kept.plain(Response.record_id)
    query = select(
        record_id,
        kept.plain(Response.id),
        kept.json(Response.values),
        kept.word(Response.status),
        kept.plain(Response.user_id),
        kept.plain(Response.inserted_at),
        kept.plain(Response.updated_at),
    ).order_by(Response.inserted_at)

    def written(row: Sequence[Any]) -> str:
        record, id, values, status, user, inserted_at, updated_at = row
        return (
            f'{{"id":"{id_text(id)}","values":{json_text(values)},"status":"{status}",'
            f'"record_id":"{id_text(record)}","user_id":"{id_text(user)}",'
            f"{_times(inserted_at, updated_at)}}}"
        )

    return await _by_record(db, query, record_id, records, written)


async def _suggestions(db: AsyncSession, kept: AsKept, records: list[Any]) -> Parts:
    record_id = kept.plain(Suggestion.record_id)
    query = select(
        record_id,
        kept.plain(Suggestion.id),
        kept.plain(Suggestion.question_id),
        kept.word(Suggestion.type),
        kept.json(Suggestion.value),
        Suggestion.agent,
        kept.json(Suggestion.score),
        kept.plain(Suggestion.inserted_at),
        kept.plain(Suggestion.updated_at),
    ).order_by(Suggestion.inserted_at)

    def written(row: Sequence[Any]) -> str:
        _, id, question, kind, value, agent, score, inserted_at, updated_at = row
        if isinstance(score, int):  # SQLite keeps 1.0 as 1
            score = float(score)
        return (
            f'{{"question_id":"{id_text(question)}","type":{dumps(kind)},'
            f'"value":{json_text(value)},"agent":{dumps(agent)},"score":{json_text(score)},'
            f'"id":"{id_text(id)}",{_times(inserted_at, updated_at)}}}'
        )

    return await _by_record(db, query, record_id, records, written)


async def _vectors(db: AsyncSession, kept: AsKept, records: list[Any]) -> Parts:
    record_id = kept.plain(Vector.record_id)
    query = (
        select(record_id, VectorSettings.name, kept.json(Vector.value))
        .join(VectorSettings, VectorSettings.id == Vector.vector_settings_id)
        .order_by(Vector.inserted_at)
    )
    names: dict[str, str] = {}

    def written(row: Sequence[Any]) -> str:
        _, name, value = row
        return f"{names.setdefault(name, dumps(name))}:{value}"

    return await _by_record(db, query, record_id, records, written)


async def _by_record(
    db: AsyncSession,
    query: Any,
    column: Any,
    records: list[Any],
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
