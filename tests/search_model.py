"""What a search must find, worked out the slow and plain way from the rows of Argilla's database.

Nothing of the search engine is used: queries are the bodies that Argilla's REST interface takes,
records are read from the server's SQLite file, and every filter is a loop over all of them. What
the words mean is Elasticsearch's as Argilla uses it: values of one filter are alternatives, value
and user must meet in one response, and missing values come last in both directions.
"""

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter, mul
from pathlib import Path
from typing import Any
from uuid import UUID

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One person's response; `values` by question name."""

    id: str
    user: str
    status: str
    values: Json


@dataclass(frozen=True)
class Suggested:
    """A suggestion as it stands."""

    id: str
    value: Any
    score: Any
    agent: str | None
    type: str | None


@dataclass(frozen=True)
class Row:
    """A record with all that belongs to it; times in ISO format, UTC."""

    id: str
    external_id: str | None
    status: str
    inserted_at: str
    updated_at: str
    fields: Json
    metadata: Json
    answers: tuple[Answer, ...]
    suggestions: dict[str, Suggested]
    vector: list[float] | None


@dataclass(frozen=True)
class Term:
    """A word, a phrase (several words) or the beginning of a word; wanted or not wanted."""

    words: tuple[str, ...]
    prefix: bool = False
    unwanted: bool = False

    def __str__(self) -> str:
        text = " ".join(self.words)
        text = f'"{text}"' if len(self.words) > 1 else text
        return f"{'-' * self.unwanted}{text}{'*' * self.prefix}"


@dataclass(frozen=True)
class Text:
    """Terms that must all hold (or one of them), in any field or a certain one."""

    terms: tuple[Term, ...]
    field: str | None = None
    either: bool = False

    def body(self) -> Json:
        """As the query of a search."""
        q = (" | " if self.either else " ").join(map(str, self.terms))
        return {"q": q} | ({"field": self.field} if self.field else {})


# Reading


_RECORDS = """
SELECT id, external_id, status, inserted_at, updated_at, fields, metadata FROM records
WHERE dataset_id = ? ORDER BY inserted_at
"""
_ANSWERS = """
SELECT record_id, responses.id, user_id, responses.status, "values"
FROM responses JOIN records ON records.id = record_id WHERE dataset_id = ?
"""
_SUGGESTIONS = """
SELECT record_id, questions.name, suggestions.id, value, score, agent, type
FROM suggestions JOIN questions ON questions.id = question_id WHERE dataset_id = ?
"""
_VECTORS = """
SELECT record_id, value FROM vectors JOIN records ON records.id = record_id WHERE dataset_id = ?
"""


def read_rows(database: Path, dataset: str) -> list[Row]:
    """The records of a data set, in order of insertion."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")  # all four of one moment
        records, answers, suggestions, vectors = (
            db.execute(sql, [UUID(dataset).hex]).fetchall()
            for sql in (_RECORDS, _ANSWERS, _SUGGESTIONS, _VECTORS)
        )
    vector_of = {record: json.loads(value) for record, value in vectors}
    return [
        Row(
            _uuid(record),
            external_id,
            status,
            inserted_at.replace(" ", "T"),
            updated_at.replace(" ", "T"),
            json.loads(fields),
            _json(metadata) or {},
            tuple(_answer(*answer) for of, *answer in answers if of == record),
            {name: _suggested(*parts) for of, name, *parts in suggestions if of == record},
            vector_of.get(record),
        )
        for record, external_id, status, inserted_at, updated_at, fields, metadata in records
    ]


def _answer(id: str, user: str, status: str, values: Any) -> Answer:
    given = {name: value["value"] for name, value in (_json(values) or {}).items()}
    return Answer(_uuid(id), _uuid(user), status, given)


def _suggested(id: str, value: Any, score: Any, agent: str, type: str) -> Suggested:
    return Suggested(_uuid(id), _json(value), _json(score), agent, type)


def _json(stored: Any) -> Any:
    """What a column of type JSON holds: SQLite makes numbers of texts that look like one."""
    return json.loads(stored) if isinstance(stored, str) else stored


def _uuid(text: str) -> str:
    return str(UUID(text))


# Matching


def found(
    rows: Iterable[Row], text: Text | None, filters: Sequence[Json], user: str | None
) -> list[Row]:
    """The records that match, in the order of `rows`; `user` is who asks, None the owner."""
    return [
        row
        for row in rows
        if (text is None or _says(row, text))
        and all(_passes(row, filter, user) for filter in filters)
    ]


def _says(row: Row, text: Text) -> bool:
    names = [text.field] if text.field else list(row.fields)
    passages = [
        re.findall("[a-z0-9]+", passage.lower())
        for name in names
        for passage in _passages(row.fields.get(name))
    ]
    held = [
        any(_occurs(term, passage) for passage in passages) != term.unwanted for term in text.terms
    ]
    return any(held) if text.either else all(held)


def _passages(value: Any) -> list[str]:
    if isinstance(value, list):
        return [turn["content"] for turn in value]
    return [] if value is None else [value]


def _occurs(term: Term, passage: list[str]) -> bool:
    wanted = [word.lower() for word in term.words]
    if term.prefix:
        return any(word.startswith(wanted[0]) for word in passage)
    size = len(wanted)
    return any(passage[at : at + size] == wanted for at in range(len(passage) - size + 1))


def _passes(row: Row, filter: Json, user: str | None) -> bool:
    if _is_status(filter["scope"]):
        statuses = {answer.status for answer in _answers(row, user)} or {"pending"}
        return bool(statuses & set(filter["values"]))
    values = _values(row, filter["scope"], user)
    if filter["type"] == "terms":
        return any(str(value) in filter["values"] for value in values)
    low, high = filter.get("ge"), filter.get("le")
    return any(
        (low is None or value >= low) and (high is None or value <= high) for value in values
    )


def _is_status(scope: Json) -> bool:
    return scope["entity"] == "response" and "question" not in scope


def _answers(row: Row, user: str | None) -> list[Answer]:
    return [answer for answer in row.answers if user is None or answer.user == user]


def _values(row: Row, scope: Json, user: str | None) -> list[Any]:
    """The values that a filter or an order looks at: none, one or several."""
    match scope:
        case {"entity": "record", "property": name}:
            values = [getattr(row, name)]
        case {"entity": "metadata", "metadata_property": name}:
            values = [row.metadata.get(name)]
        case {"entity": "suggestion", "question": name, "property": part}:
            values = [getattr(row.suggestions.get(name), part, None)]
        case {"entity": "response", "question": name}:
            values = [answer.values.get(name) for answer in _answers(row, user)]
        case _:
            values = [answer.status for answer in _answers(row, user)]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [value for value in flat if value is not None]


# Ordering and counting


def sort_key(row: Row, sort: Sequence[Json], user: str | None) -> tuple[Any, ...]:
    """What the orders of a search see of a record; None where it has no value."""
    return tuple(_sort_value(row, order, user) for order in sort)


def _sort_value(row: Row, order: Json, user: str | None) -> Any:
    values = _values(row, order["scope"], user)
    if not values:
        return None
    if order["scope"]["entity"] == "response" and not _is_status(order["scope"]):
        return sum(values) / len(values)
    return max(values) if order["order"] == "desc" else min(values)


def sorted_keys(rows: Iterable[Row], sort: Sequence[Json], user: str | None) -> list[Any]:
    """The sort keys of these records as a search must give them, missing values last."""
    keys = [sort_key(row, sort, user) for row in rows]
    for place, order in reversed(list(enumerate(sort))):
        present = [key for key in keys if key[place] is not None]
        present.sort(key=itemgetter(place), reverse=order["order"] == "desc")
        keys = present + [key for key in keys if key[place] is None]
    return keys


def similarities(rows: Iterable[Row], vector: Sequence[float], farthest: bool) -> dict[str, float]:
    """(1 + cosine) / 2 to a vector, or to its opposite, by record, of those that have one."""
    sign = -1 if farthest else 1
    return {
        row.id: (1 + sign * _cosine(row.vector, vector)) / 2
        for row in rows
        if row.vector is not None
    }


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    product: float = sum(map(mul, a, b))
    return product / (math.hypot(*a) * math.hypot(*b))


def metrics(rows: Iterable[Row], name: str, type: str) -> Json:
    """What is said of a metadata property: terms by count, or the extremes of numbers."""
    scope = {"entity": "metadata", "metadata_property": name}
    values = [_values(row, scope, None) for row in rows]
    if type == "terms":
        counts = Counter(term for terms in values for term in set(terms))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        listed = [{"term": term, "count": count} for term, count in ordered]
        return {"type": type, "total": counts.total(), "values": listed}
    numbers = [number for some in values for number in some]
    return {"type": type, "min": min(numbers, default=None), "max": max(numbers, default=None)}


def dataset_progress(rows: Sequence[Row]) -> dict[str, int]:
    """Records, in all and by status."""
    completed = sum(row.status == "completed" for row in rows)
    return {"total": len(rows), "completed": completed, "pending": len(rows) - completed}


def user_progress(rows: Sequence[Row], user: str) -> dict[str, int]:
    """Records, in all and by the status of one person's response."""
    given = Counter(answer.status for row in rows for answer in _answers(row, user))
    statuses = {status: given[status] for status in ("submitted", "draft", "discarded")}
    return {"total": len(rows), "pending": len(rows) - given.total(), **statuses}


def is_settled(rows: Iterable[Row], min_submitted: int) -> bool:
    """Whether each record that has a response is in the status that its responses ask for."""
    return all(
        (sum(answer.status == "submitted" for answer in row.answers) >= min_submitted)
        == (row.status == "completed")
        for row in rows
        if row.answers
    )
