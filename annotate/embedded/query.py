"""Argilla's filters and orders, computed over the columns of an index.

Every filter becomes a mask by record number, every order an array of sort keys. Semantics are
Elasticsearch's as Argilla uses it: values of one filter are alternatives, no value at all restricts
nothing, value and user must meet in the same response, and missing values sort last in both
directions.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
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
from numpy.typing import NDArray

from annotate.embedded.columns import STATUS_BITS, Values
from annotate.embedded.documents import (
    Kind,
    answer_key,
    metadata_key,
    microseconds,
    scalar,
    suggestion_key,
)
from annotate.embedded.index import DatasetIndex
from annotate.embedded.rows import in_pieces

Mask = NDArray[np.bool_]
Keys = NDArray[Any]

_MISSING = np.iinfo(np.int64).max
_LARGEST_FLOAT = 1e300  # stands for infinity, so that missing values come after it


class Query:
    """Translates for one index, as it is now; the caller holds its lock.

    Args:
        size: one more than the largest record number.
    """

    def __init__(self, index: DatasetIndex, size: int) -> None:
        self._index = index
        self._columns = index.columns
        self.size = size
        self._keys = index.keys()

    def mask(self, filter: Filter) -> Mask:
        """By record number, whether a filter lets it pass.

        Raises:
            ValueError: the filter has a scope or a type that Argilla does not define.
        """
        if isinstance(filter, AndFilter):
            masks = [self.mask(part) for part in filter.filters]
            return np.asarray(np.logical_and.reduce(masks)) if masks else self._all()
        scope = filter.scope
        if isinstance(scope, RecordFilterScope):
            return self._of_record(filter)
        if isinstance(scope, ResponseFilterScope):
            return self._of_response(filter)
        if isinstance(filter, TermsFilter) and not filter.values:
            return self._all()
        return self._of_values(filter, _key(scope), None)

    def _all(self) -> Mask:
        return np.ones(self.size, dtype=bool)

    def _numbered(self, numbers: NDArray[Any]) -> Mask:
        mask = np.zeros(self.size, dtype=bool)
        mask[numbers] = True
        return mask

    def values(self, key: str) -> Values | None:
        """The values of a key; None if it is not known."""
        if key not in self._keys:  # text, ranking and span answers are not searchable
            return None
        values = self._columns.values(key, *self._keys[key])
        values.bring_up(self.size)
        return values

    def _of_values(self, filter: Filter, key: str, user: bytes | None) -> Mask:
        values = self.values(key)
        if values is None:
            return self._numbered(np.zeros(0, np.int64))
        chosen = _chosen(values, filter)
        if user is not None:
            chosen &= values.users == self._user(user)
        return self._numbered(values.records[chosen])

    def _user(self, user: bytes) -> int:
        rows = self._index.read("SELECT n FROM user WHERE id = ?", [user])
        return int(rows[0][0]) if rows else -1

    def _of_response(self, filter: Filter) -> Mask:
        scope: ResponseFilterScope = filter.scope
        user = scope.user.id.bytes if scope.user else None
        none_given = isinstance(filter, TermsFilter) and not filter.values
        if scope.question and not none_given:
            return self._of_values(filter, answer_key(scope.question), user)
        if not scope.question and (
            scope.property != "status" or not isinstance(filter, TermsFilter)
        ):
            raise ValueError(f"no such response filter: {filter}")
        if none_given and user is None:
            return self._all()
        statuses = self._columns.statuses(user).get(self.size)
        if none_given:
            return np.asarray(statuses != 0)
        names = {str(getattr(value, "value", value)) for value in filter.values}
        given: Mask = statuses & sum(STATUS_BITS.get(name, 0) for name in names) != 0
        return given | (statuses == 0) if "pending" in names else given

    def _of_record(self, filter: Filter) -> Mask:
        column = _record_column(filter.scope)
        if column in ("inserted_at", "updated_at"):
            times = self._columns.record(column, np.int64).get(self.size)
            if isinstance(filter, RangeFilter):
                return _within(times, filter, _time)
            wanted = _converted(_time, filter.values)
            return np.isin(times, wanted) if filter.values else self._all()
        if isinstance(filter, RangeFilter):
            return self._named(
                f"{column} BETWEEN ? AND ?", [filter.ge or "", filter.le or "\U0010ffff"]
            )
        if not filter.values:
            return self._all()
        values = [getattr(value, "value", value) for value in filter.values]
        if column == "status":
            completed = self.completed()
            masks = [
                completed == (value == "completed")
                for value in ("pending", "completed")
                if value in values
            ]
            return np.logical_or.reduce(masks) if masks else self._numbered(np.zeros(0, np.int64))
        wanted = _converted(_uuid, values) if column == "id" else list(map(str, values))
        return self._among(column, wanted)

    def there(self) -> Mask:
        """By record number, whether there is such a record, in an array of the caller's own."""
        return np.array(self._columns.record("1", np.bool_).get(self.size))

    def ids(self, records: Collection[bytes]) -> Mask:
        """By record number, whether it is one of these, by the bytes of their UUIDs."""
        return self._among("id", records)

    def completed(self) -> Mask:
        """By record number, whether the record is completed."""
        column = self._columns.record("status = 'completed'", np.bool_)
        return column.get(self.size)

    def _among(self, column: str, values: Collection[object]) -> Mask:
        """The records whose column has one of some values, however many."""
        mask = np.zeros(self.size, dtype=bool)
        for marks, some in in_pieces(values):
            mask |= self._named(f"{column} IN ({marks})", some)
        return mask

    def _named(self, where: str, parameters: Sequence[object]) -> Mask:
        sql = f"SELECT n FROM record WHERE {where}"
        (numbers,) = self._index.arrays(sql, parameters, n=np.int64)
        return self._numbered(numbers)

    def sort_keys(self, order: Order) -> Keys:
        """By record number, what to sort by: the smallest first.

        Raises:
            ValueError: the order has a scope that Argilla does not define.
        """
        descending = str(getattr(order.order, "value", order.order)) == "desc"
        scope = order.scope
        if isinstance(scope, RecordFilterScope):
            return self._record_keys(_record_column(scope), descending)
        if isinstance(scope, ResponseFilterScope):
            if not scope.question:
                return self._status_keys(scope, descending)
            user = self._user(scope.user.id.bytes) if scope.user else None
            values = self.values(answer_key(scope.question))
            return self._value_keys(values, descending, user, mean=True)
        return self._value_keys(self.values(_key(scope)), descending)

    def _record_keys(self, column: str, descending: bool) -> Keys:
        if column in ("inserted_at", "updated_at"):
            times = self._columns.record(column, np.int64).get(self.size)
            return ~times if descending else times
        ranks = np.full(self.size, _MISSING)
        where = f"SELECT n FROM record WHERE {column} IS NOT NULL ORDER BY {column}"
        if column == "status":  # alphabetical: completed before pending
            return self.completed() if descending else ~self.completed()
        (numbers,) = self._index.arrays(where, n=np.int64)
        places = np.arange(len(numbers))
        ranks[numbers] = ~places if descending else places
        return ranks

    def _status_keys(self, scope: ResponseFilterScope, descending: bool) -> Keys:
        """By the first, or last, status of the responses in alphabetical order."""
        user = scope.user.id.bytes if scope.user else None
        lowest = np.array([_MISSING, 0, 1, 0, 2, 0, 1, 0])  # of each set of STATUS_BITS
        highest = np.array([_MISSING, 0, -1, -1, -2, -2, -2, -2])
        return (highest if descending else lowest)[self._columns.statuses(user).get(self.size)]

    def _value_keys(
        self,
        values: Values | None,
        descending: bool,
        user: int | None = None,
        *,
        mean: bool = False,
    ) -> Keys:
        """By the smallest value of each record, the largest if `descending`, or the mean number."""
        if values is None:
            return np.full(self.size, _MISSING)
        records, numbers = values.records, values.values
        if user is not None:
            records, numbers = records[values.users == user], numbers[values.users == user]
        if values.kind == "term":
            numbers = values.ranks()[numbers]
        elif mean:
            counts = np.bincount(records, minlength=self.size)
            totals = np.bincount(records, weights=numbers, minlength=self.size)
            records = np.flatnonzero(counts)
            numbers = totals[records] / counts[records]
        if np.issubdtype(numbers.dtype, np.floating):
            numbers = np.clip(numbers.astype(np.float64), -_LARGEST_FLOAT, _LARGEST_FLOAT)
            keys, numbers = np.full(self.size, np.inf), -numbers if descending else numbers
        else:
            keys, numbers = np.full(self.size, _MISSING), ~numbers if descending else numbers
        np.minimum.at(keys, records, numbers)
        return keys


def _key(scope: Any) -> str:
    if isinstance(scope, MetadataFilterScope):
        return metadata_key(scope.metadata_property)
    if isinstance(scope, SuggestionFilterScope):
        return suggestion_key(scope.question, scope.property or "value")
    raise ValueError(f"no such search scope: {scope}")


def _record_column(scope: RecordFilterScope) -> str:
    name = str(getattr(scope.property, "value", scope.property))
    if name not in {"id", "external_id", "status", "inserted_at", "updated_at"}:
        raise ValueError(f"records have no {name!r} to search by")
    return name


def _chosen(values: Values, filter: Filter) -> Mask:
    """Which of the values a filter names."""
    if isinstance(filter, RangeFilter):
        if values.kind != "term":
            return _within(values.values, filter, lambda bound: _bound(values.kind, bound))
        terms = list(values.terms)  # in the order of their places
        inside = [filter.ge is None or term >= str(filter.ge) for term in terms]
        below = [filter.le is None or term <= str(filter.le) for term in terms]
        passes = np.array(inside, dtype=bool) & np.array(below, dtype=bool)
        return np.asarray(passes[values.values])
    if not isinstance(filter, TermsFilter):
        raise ValueError(f"no such filter: {filter}")
    wanted = _converted(lambda value: scalar(values.kind, value), filter.values)
    if values.kind == "term":
        wanted = [values.terms[term] for term in wanted if term in values.terms]
    return np.isin(values.values, np.array(wanted, dtype=values.values.dtype))


def _within(values: Keys, filter: RangeFilter, convert: Callable[[Any], Any]) -> Mask:
    """`ge` and `le`; a bound that is no such value matches nothing."""
    mask = np.ones(len(values), dtype=bool)
    for bound, passes in ((filter.ge, np.greater_equal), (filter.le, np.less_equal)):
        if bound is not None:
            try:
                mask &= passes(values, convert(bound))
            except (TypeError, ValueError, OverflowError):
                return np.zeros(len(values), dtype=bool)
    return mask


def _bound(kind: Kind, bound: Any) -> Any:
    """A range's end: of integers it may lie between two."""
    if kind == "float":
        return np.float32(scalar(kind, bound))
    return bound if isinstance(bound, int) else float(bound)


def _converted(convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """Those of the values that are of the kind: "abc" is no rating, so no record has it."""
    accepted = []
    for value in values:
        try:
            accepted.append(convert(getattr(value, "value", value)))
        except (TypeError, ValueError, OverflowError):
            continue
    return accepted


def _uuid(value: object) -> bytes:
    return UUID(str(value)).bytes


def _time(value: object) -> int:
    """ISO time or milliseconds since 1970 → microseconds."""
    if isinstance(value, int | float):
        return round(value * 1000)
    time = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return microseconds(time.astimezone(UTC) if time.tzinfo else time)
