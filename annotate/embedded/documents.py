"""Argilla's records as the rows that the search index keeps.

Only relations that Argilla has loaded before it calls the engine are read: touching another one
would start a query outside the session's task.
"""

from __future__ import annotations

import calendar
import json
import logging
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from argilla_server.models import Dataset, Question, Record, Response, Suggestion

Kind = Literal["term", "integer", "float"]
Scalar = str | int | float

_LOG = logging.getLogger(__name__)

_QUESTION_KINDS: dict[str, Kind] = {
    "rating": "integer",
    "label_selection": "term",
    "multi_label_selection": "term",
}
"""Answers to text, ranking and span questions are not searchable, as in Argilla's own engines."""

_METADATA_KINDS: dict[str, Kind] = {"terms": "term", "integer": "integer", "float": "float"}

SUGGESTION_KINDS: dict[str, Kind] = {"score": "float", "agent": "term", "type": "term"}
"""Properties of every suggestion; the kind of its `value` is that of its question."""


@dataclass(frozen=True)
class ResponseRow:
    """One person's response to one record; `answers` by question name, raw."""

    id: bytes
    user: bytes
    status: str
    updated_at: int
    answers: Mapping[str, Any]


@dataclass(frozen=True)
class RecordRow:
    """All that the index knows of a record. Times are microseconds since 1970, UTC."""

    id: bytes
    external_id: str | None
    status: str
    inserted_at: int
    updated_at: int
    text: Mapping[str, str]
    facets: Mapping[str, Any]
    responses: tuple[ResponseRow, ...] = ()
    vectors: Mapping[str, list[float]] = field(default_factory=dict)


def metadata_key(name: str) -> str:
    """Key of a metadata property's values."""
    return f"metadata.{name}"


def suggestion_key(question: str, attribute: str) -> str:
    """Key of a suggestion's value, score, agent or type."""
    return f"suggestions.{question}.{attribute}"


def answer_key(question: str) -> str:
    """Key of the answers to a question."""
    return f"responses.{question}"


def dataset_keys(dataset: Dataset) -> dict[str, Kind]:
    """Every key of this data set that can be filtered and sorted by, with its values' type."""
    keys: dict[str, Kind] = {}
    for prop in dataset.metadata_properties:
        keys[metadata_key(prop.name)] = _METADATA_KINDS[prop.type.value]
    for question in dataset.questions:
        keys |= question_keys(question)
    return keys


def question_keys(question: Question) -> dict[str, Kind]:
    """The keys that one question brings."""
    keys = {suggestion_key(question.name, name): kind for name, kind in SUGGESTION_KINDS.items()}
    if kind := _QUESTION_KINDS.get(question.type.value):
        keys[suggestion_key(question.name, "value")] = kind
        keys[answer_key(question.name)] = kind
    return keys


def metadata_kind(property_type: str) -> Kind:
    """The type of a metadata property's values."""
    return _METADATA_KINDS[property_type]


def record_row(record: Record) -> RecordRow:
    """The row of a record whose responses, suggestions and vectors are loaded."""
    facets: dict[str, Any] = {
        metadata_key(name): value for name, value in (record.metadata_ or {}).items()
    }
    for suggestion in record.suggestions:
        facets |= suggestion_facets(suggestion)
    return RecordRow(
        id=record.id.bytes,
        external_id=record.external_id,
        status=str(record.status.value),
        inserted_at=microseconds(record.inserted_at),
        updated_at=microseconds(record.updated_at),
        text={name: _text(value) for name, value in record.fields.items() if value is not None},
        facets=facets,
        responses=tuple(response_row(response) for response in record.responses),
        vectors={str(vector.vector_settings_id): vector.value for vector in record.vectors},
    )


def response_row(response: Response) -> ResponseRow:
    """The row of a response; a discarded one may have no values."""
    return ResponseRow(
        id=response.id.bytes,
        user=response.user_id.bytes,
        status=str(response.status.value),
        updated_at=microseconds(response.updated_at),
        answers={name: answer.get("value") for name, answer in (response.values or {}).items()},
    )


def suggestion_facets(suggestion: Suggestion) -> dict[str, Any]:
    """What can be searched of a suggestion whose question is loaded."""
    name = suggestion.question.name
    return {
        suggestion_key(name, "value"): suggestion.value,
        suggestion_key(name, "score"): suggestion.score,
        suggestion_key(name, "agent"): suggestion.agent,
        suggestion_key(name, "type"): suggestion.type.value if suggestion.type else None,
    }


def scalars(kind: Kind, value: Any) -> list[Scalar]:
    """The indexed values of one raw value: none for null, several for a list.

    What does not fit the type is left out with a note in the log, as a search engine would refuse
    it; numbers given as text are read as numbers, floats are rounded to 32 bits, as in
    Elasticsearch.
    """
    if value is None:
        return []
    values: Iterable[Any] = value if isinstance(value, list) else [value]
    found: list[Scalar] = []
    for one in values:
        try:
            found.append(scalar(kind, one))
        except (TypeError, ValueError, OverflowError):
            _LOG.warning("value %.60r is no %s: not indexed", one, kind)
    return found


def scalar(kind: Kind, value: Any) -> Scalar:
    """One value in its indexed form.

    Raises:
        TypeError, ValueError, OverflowError: the value is not of this kind.
    """
    if kind == "term":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "integer":
        return int(value) if isinstance(value, int) else int(float(value))
    number = float(value)
    if number != number:
        raise ValueError("NaN has no place in an order")
    single: float = struct.unpack("f", struct.pack("f", number))[0]
    return single


def microseconds(time: datetime) -> int:
    """Microseconds since 1970; Argilla's times are naive UTC."""
    return calendar.timegm(time.utctimetuple()) * 1_000_000 + time.microsecond


def _text(value: Any) -> str:
    """A field's searchable text: a chat's is its contents, a custom field's is all of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(
            str(turn.get("content", "")) if isinstance(turn, dict) else str(turn) for turn in value
        )
    return str(value)
