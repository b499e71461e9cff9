"""Argilla's records as the rows that the search index keeps.

Only relations that Argilla has loaded before it calls the engine are read: touching another one
would start a query outside the session's task.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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

SUGGESTION_KINDS: dict[str, Kind] = {
    "score": "float",
    "agent": "term",
    "type": "term",
    "at": "integer",
}
"""Properties of every suggestion; the kind of its `value` is that of its question.

`at` is not for searching: it tells at start whether the index has the suggestion as it stands.
"""

_EPOCH = datetime(1970, 1, 1)  # naive, as Argilla's times are
_LARGEST_INTEGER = 2**63 - 1

_GAP = " \ue000 "
"""Between the turns of a chat: a word that nobody types, so that no phrase goes on in the next."""


@dataclass(frozen=True)
class ResponseRow:
    """One person's response to one record; `answers` by question name, raw."""

    id: bytes
    user: bytes
    status: str
    updated_at: int
    answers: Mapping[str, Any]


class VectorRow(NamedTuple):
    """A vector, and when it was last changed."""

    value: Sequence[float]
    updated_at: int = 0


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
    vectors: Mapping[str, VectorRow] = field(default_factory=dict)
    """By the id of their settings."""


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


def schema(dataset: Dataset) -> tuple[dict[str, Kind], list[str], list[str]]:
    """What an index of this data set is made with: keys, fields, fields that hold text."""
    fields = [field.name for field in dataset.fields]
    return dataset_keys(dataset), fields, [one.name for one in dataset.fields if not one.is_image]


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
    facets = metadata_facets(record.metadata_)
    for suggestion in record.suggestions:
        facets |= suggestion_facets(suggestion)
    return RecordRow(
        id=record.id.bytes,
        external_id=record.external_id,
        status=str(record.status.value),
        inserted_at=microseconds(record.inserted_at),
        updated_at=microseconds(record.updated_at),
        text=field_texts(record.fields),
        facets=facets,
        responses=tuple(response_row(response) for response in record.responses),
        vectors={
            str(vector.vector_settings_id): VectorRow(vector.value, microseconds(vector.updated_at))
            for vector in record.vectors
        },
    )


def metadata_facets(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """What can be searched of a record's metadata."""
    return {metadata_key(name): value for name, value in (metadata or {}).items()}


def field_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The searchable text of each field that has a value."""
    return {name: _text(value) for name, value in fields.items() if value is not None}


def response_row(response: Response) -> ResponseRow:
    """The row of a response; a discarded one may have no values."""
    return ResponseRow(
        id=response.id.bytes,
        user=response.user_id.bytes,
        status=str(response.status.value),
        updated_at=microseconds(response.updated_at),
        answers=answers_of(response.values),
    )


def answers_of(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """A response's answers by question name."""
    return {name: answer.get("value") for name, answer in (values or {}).items()}


def suggestion_facets(suggestion: Suggestion) -> dict[str, Any]:
    """What can be searched of a suggestion whose question is loaded."""
    return facets_of_suggestion(
        suggestion.question.name,
        value=suggestion.value,
        score=suggestion.score,
        agent=suggestion.agent,
        type=suggestion.type.value if suggestion.type else None,
        at=microseconds(suggestion.updated_at),
    )


def facets_of_suggestion(question: str, **attributes: Any) -> dict[str, Any]:
    """A suggestion's attributes (value, score, agent, type, at) under their keys."""
    return {suggestion_key(question, name): value for name, value in attributes.items()}


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
        return storable(value) if isinstance(value, str) else json.dumps(value)
    if kind == "integer":
        integer = int(value) if isinstance(value, int) else int(float(value))
        if abs(integer) > _LARGEST_INTEGER:
            raise OverflowError("more than 64 bits")
        return integer
    number = float(value)
    if number != number:
        raise ValueError("NaN has no place in an order")
    single: float = struct.unpack("f", struct.pack("f", number))[0]
    return single


def microseconds(time: datetime) -> int:
    """Microseconds since 1970; Argilla's times are naive UTC."""
    since = time.replace(tzinfo=None) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can spell but UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    """A field's searchable text: a chat's is its contents, a custom field's is all of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _GAP.join(
            str(turn.get("content", "")) if isinstance(turn, dict) else str(turn) for turn in value
        )
    return str(value)
