"""The answer to a bulk of records, written once.

Argilla makes a pydantic object of each record, response and suggestion that it answers with, turns
these into plain values, and those into JSON. Here the plain values go to JSON at once.
"""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from argilla_server.api.handlers.v1.datasets import records_bulk as handlers
from argilla_server.api.schemas.v1.records_bulk import RecordsBulk
from argilla_server.bulk import records_bulk
from argilla_server.models import Record, Response, Suggestion
from fastapi import Response as HTTPResponse
from pydantic_core import to_json

from annotate.embedded.patches.replacement import Patch, Replacement, endpoint_of

Endpoint = Callable[..., Awaitable[Any]]

_for_http: ContextVar[bool] = ContextVar("answers a request", default=False)


def _left_as_records(model: Any) -> Any:
    """The model's constructor, which within a request takes the records as they are."""

    @functools.wraps(model)
    def construct(**values: Any) -> Any:
        return model.model_construct(**values) if _for_http.get() else model(**values)

    return construct


def _written_once(status: int) -> Callable[[Endpoint], Endpoint]:
    def answered(endpoint: Endpoint) -> Endpoint:
        @functools.wraps(endpoint)
        async def answer(**values: Any) -> Any:
            outer = _for_http.set(True)
            try:
                bulk = await endpoint(**values)
            finally:
                _for_http.reset(outer)
            names: dict[UUID, str] = {}
            body = to_json({"items": [_record(record, names) for record in bulk.items]})
            if b"NaN" in body or b"Infinity" in body:
                # JSON has no word for these: whatever Argilla makes of them.
                return RecordsBulk(items=bulk.items)
            return HTTPResponse(body, status_code=status, media_type="application/json")

        return answer

    return answered


def _record(record: Record, vector_names: dict[UUID, str]) -> dict[str, Any]:
    for vector in record.vectors:
        if vector.vector_settings_id not in vector_names:
            vector_names[vector.vector_settings_id] = vector.vector_settings.name
    return {
        "id": record.id,
        "status": record.status.value,
        "fields": record.fields,
        "metadata": record.metadata_,
        "external_id": record.external_id,
        "responses": [_response(response) for response in record.responses],
        "suggestions": [_suggestion(suggestion) for suggestion in record.suggestions],
        "vectors": {vector_names[v.vector_settings_id]: v.value for v in record.vectors},
        "dataset_id": record.dataset_id,
        "inserted_at": record.inserted_at,
        "updated_at": record.updated_at,
    }


def _response(response: Response) -> dict[str, Any]:
    return {
        "id": response.id,
        "values": response.values,
        "status": response.status.value,
        "record_id": response.record_id,
        "user_id": response.user_id,
        "inserted_at": response.inserted_at,
        "updated_at": response.updated_at,
    }


def _suggestion(suggestion: Suggestion) -> dict[str, Any]:
    return {
        "question_id": suggestion.question_id,
        "type": suggestion.type and suggestion.type.value,
        "value": suggestion.value,
        "agent": suggestion.agent,
        "score": float(score) if isinstance(score := suggestion.score, int) else score,
        "id": suggestion.id,
        "inserted_at": suggestion.inserted_at,
        "updated_at": suggestion.updated_at,
    }


PATCH = Patch(
    Replacement(records_bulk, "RecordsBulk", _left_as_records),
    Replacement(records_bulk, "RecordsBulkWithUpdatedItemIds", _left_as_records),
    Replacement(
        endpoint_of(handlers.create_dataset_records_bulk), "call", _written_once(status=201)
    ),
    Replacement(
        endpoint_of(handlers.upsert_dataset_records_bulk), "call", _written_once(status=200)
    ),
)
