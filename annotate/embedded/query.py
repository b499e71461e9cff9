"""Argilla's filters and orders as SQL over the index.

Every filter becomes a condition on `r`, a row of `record`. Semantics are Elasticsearch's as Argilla
uses it: values of one filter are alternatives, no value at all restricts nothing, value and user
must meet in the same response, and missing values sort last in both directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from argilla_server.search_engine import (
    AndFilter,
    Filter,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)

from annotate.embedded.documents import (
    Kind,
    Scalar,
    answer_key,
    metadata_key,
    microseconds,
    scalar,
    suggestion_key,
)

_RECORD_COLUMNS = {"id", "external_id", "status", "inserted_at", "updated_at"}
_NOTHING = "0"


@dataclass
class Sql:
    """A piece of SQL with the parameters of its question marks, in order."""

    text: str
    parameters: list[object] = field(default_factory=list)


class QueryBuilder:
    """Translates for one index, whose keys it knows by name (number and type)."""

    def __init__(self, keys: Mapping[str, tuple[int, Kind]]) -> None:
        self._keys = keys

    def condition(self, filter: Filter) -> Sql:
        """A filter as a condition on `r`.

        Raises:
            ValueError: the filter has a scope or a type that Argilla does not define.
        """
        if isinstance(filter, AndFilter):
            parts = [self.condition(part) for part in filter.filters]
            return Sql(
                " AND ".join(f"({part.text})" for part in parts) or "1",
                [parameter for part in parts for parameter in part.parameters],
            )
        scope = filter.scope
        if isinstance(scope, RecordFilterScope):
            return _record_condition(filter)
        if isinstance(scope, ResponseFilterScope):
            return self._response_condition(filter)
        inner = self._values(filter, self._key(scope))
        return Sql(
            f"r.n IN (SELECT record FROM facet INDEXED BY facet_value WHERE {inner.text})"
            if inner.text != "1"
            else "1",
            inner.parameters,
        )

    def _key(self, scope: Any) -> str:
        if isinstance(scope, MetadataFilterScope):
            return metadata_key(scope.metadata_property)
        if isinstance(scope, SuggestionFilterScope):
            return suggestion_key(scope.question, scope.property or "value")
        raise ValueError(f"no such search scope: {scope}")

    def _values(self, filter: Filter, key: str) -> Sql:
        """Conditions on the columns key and value of `facet` or `answer`."""
        if key not in self._keys:  # text, ranking and span answers are not searchable
            return Sql(_NOTHING)
        number, kind = self._keys[key]
        if isinstance(filter, TermsFilter):
            if not filter.values:
                return Sql("1")
            values = _accepted(kind, filter.values)
            return Sql(f"key = ? AND value IN ({_marks(values)})", [number, *values])
        if isinstance(filter, RangeFilter):
            return _range("value", filter, lambda bound: _bound(kind, bound), "key = ?", number)
        raise ValueError(f"no such filter: {filter}")

    def _response_condition(self, filter: Filter) -> Sql:
        scope: ResponseFilterScope = filter.scope
        user = [scope.user.id.bytes] if scope.user else []
        whose = "user = ?" if user else "1"
        if scope.question:
            inner = self._values(filter, answer_key(scope.question))
            if inner.text == "1":
                return _status_condition([], user)
            answered = f"SELECT response FROM answer INDEXED BY answer_value WHERE {inner.text}"
            return Sql(
                f"r.n IN (SELECT record FROM response WHERE {whose} AND n IN ({answered}))",
                [*user, *inner.parameters],
            )
        if scope.property == "status" and isinstance(filter, TermsFilter):
            return _status_condition([str(getattr(v, "value", v)) for v in filter.values], user)
        raise ValueError(f"no such response filter: {filter}")

    def order(self, order: Order) -> Sql:
        """An `ORDER BY` term over `r`.

        Raises:
            ValueError: the order has a scope that Argilla does not define.
        """
        direction = "DESC" if str(getattr(order.order, "value", order.order)) == "desc" else "ASC"
        value = self._sort_value(order.scope, "max" if direction == "DESC" else "min")
        return Sql(f"{value.text} {direction} NULLS LAST", value.parameters)

    def _sort_value(self, scope: Any, pick: str) -> Sql:
        if isinstance(scope, RecordFilterScope):
            return Sql(f"r.{_record_column(scope)}")
        if isinstance(scope, ResponseFilterScope):
            return self._response_sort_value(scope, pick)
        number, _ = self._keys.get(self._key(scope), (None, None))
        if number is None:
            return Sql("NULL")
        # Left alone, SQLite walks facet_value, which holds every record, once for each row.
        return Sql(
            f"(SELECT {pick}(value) FROM facet NOT INDEXED WHERE record = r.n AND key = ?)",
            [number],
        )

    def _response_sort_value(self, scope: ResponseFilterScope, pick: str) -> Sql:
        whose = "AND user = ?" if scope.user else ""
        user = [scope.user.id.bytes] if scope.user else []
        if not scope.question:
            return Sql(
                f"(SELECT {pick}(status) FROM response WHERE record = r.n {whose})", list(user)
            )
        number, kind = self._keys.get(answer_key(scope.question), (None, None))
        if number is None:
            return Sql("NULL")
        combine = pick if kind == "term" else "avg"
        return Sql(
            f"(SELECT {combine}(value) FROM response CROSS JOIN answer"
            f" ON answer.response = response.n WHERE record = r.n {whose} AND key = ?)",
            [*user, number],
        )


def _status_condition(statuses: Sequence[str], user: list[bytes]) -> Sql:
    """Records with a response in one of these states; `pending` is having none."""
    whose = "user = ?" if user else "1"
    any_response = f"r.n IN (SELECT record FROM response WHERE {whose}"
    if not statuses:
        return Sql(any_response + ")", list(user)) if user else Sql("1")
    parts: list[Sql] = []
    if "pending" in statuses:
        parts.append(Sql(f"r.n NOT IN (SELECT record FROM response WHERE {whose})", list(user)))
    given = [status for status in statuses if status != "pending"]
    if given:
        parts.append(Sql(f"{any_response} AND status IN ({_marks(given)}))", [*user, *given]))
    return Sql(
        " OR ".join(part.text for part in parts),
        [parameter for part in parts for parameter in part.parameters],
    )


def _record_column(scope: RecordFilterScope) -> str:
    name = str(getattr(scope.property, "value", scope.property))
    if name not in _RECORD_COLUMNS:
        raise ValueError(f"records have no {name!r} to search by")
    return name


def _record_condition(filter: Filter) -> Sql:
    column = _record_column(filter.scope)
    convert = {"id": _uuid, "inserted_at": _time, "updated_at": _time}.get(column, str)
    if isinstance(filter, RangeFilter):
        return _range(f"r.{column}", filter, convert)
    if not filter.values:
        return Sql("1")
    values = []
    for value in filter.values:
        try:
            values.append(convert(getattr(value, "value", value)))
        except ValueError:
            continue  # no record has such an id or time
    return Sql(f"r.{column} IN ({_marks(values)})", values)


def _range(column: str, filter: RangeFilter, convert: Any, also: str = "1", *first: object) -> Sql:
    """`ge` and `le` on a column; a bound that is no such value matches nothing."""
    parts, parameters = [also], list(first)
    for bound, sign in ((filter.ge, ">="), (filter.le, "<=")):
        if bound is None:
            continue
        try:
            parameters.append(convert(bound))
        except (TypeError, ValueError, OverflowError):
            return Sql(_NOTHING)
        parts.append(f"{column} {sign} ?")
    return Sql(" AND ".join(parts), parameters)


def _bound(kind: Kind, bound: Any) -> Scalar:
    """A range's end: of integers it may lie between two."""
    return float(bound) if kind == "integer" else scalar(kind, bound)


def _accepted(kind: Kind, values: Sequence[object]) -> list[Scalar]:
    accepted: list[Scalar] = []
    for value in values:
        try:
            accepted.append(scalar(kind, value))
        except (TypeError, ValueError, OverflowError):
            continue  # "abc" is no rating: no record has it
    return accepted


def _uuid(value: object) -> bytes:
    return UUID(str(value)).bytes


def _time(value: object) -> int:
    """ISO time or milliseconds since 1970 → microseconds."""
    if isinstance(value, int | float):
        return round(value * 1000)
    time = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return microseconds(time.astimezone(UTC) if time.tzinfo else time)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
