"""The parts of an index that searches compute with, as NumPy arrays in memory.

Each is loaded when a search first needs it, and kept. A write only notes the numbers of the records
it changed; the next search that needs the array reads those few again. So an answer costs the same
whatever the size of the data set, and a search of a million records reads none of them from disk.

Memory, in bytes a record: 6 for any search (is there such a record, is it completed, its place in
the shuffles) and 4 for text search (its length), plus a quarter to grow into; 8 for a time that is
sorted or filtered by; 1 for each person whose responses are filtered by; 12 (terms, floats) to 16
(integers) for each value of a key that is filtered or sorted by, and each distinct term once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from annotate.embedded.documents import Kind

RELOAD_BEYOND = 1_000
RELOAD_SHARE = 0.1
"""When more records than this changed, reading all anew is faster than reading them one by one."""

DISCARDED, DRAFT, SUBMITTED = 1, 2, 4
STATUS_BITS = {"discarded": DISCARDED, "draft": DRAFT, "submitted": SUBMITTED}
"""Of responses, in the order of their names."""

_BITS = " + ".join(f"{bit} * max(status = '{name}')" for name, bit in STATUS_BITS.items())

Array = NDArray[Any]


class Source(Protocol):
    """Where the arrays come from: an index."""

    def arrays(self, sql: str, parameters: Sequence[object], **columns: type) -> list[Any]:
        """The named columns of a query's rows, each as an array (texts as a list)."""


K = TypeVar("K", bound="_Kept")


class _Kept:
    """An array, or several, with the numbers of the records of which it is behind."""

    def __init__(self, source: Source, sql: str, parameters: Sequence[object], number: str) -> None:
        self._source = source
        self._sql = sql
        self._parameters = list(parameters)
        self._number = number
        self._stale: set[int] | None = None  # None: nothing is loaded yet

    def touch(self, numbers: Iterable[int]) -> None:
        """Note that these records were written."""
        if self._stale is not None:
            self._stale.update(numbers)

    def forget(self) -> None:
        """Note that anything may have been written."""
        self._stale = None

    def bring_up(self, size: int) -> None:
        """Read what changed; `size` is one more than the largest record number."""
        if self._stale is None or len(self._stale) > RELOAD_BEYOND + RELOAD_SHARE * size:
            self._load(size)
        elif self._stale:
            self._refresh(np.array(sorted(self._stale), dtype=np.int64), size)
        self._stale = set()

    def _read(self, numbers: Array | None = None, **columns: type) -> list[Any]:
        if numbers is None:
            return self._source.arrays(self._sql.format("1"), self._parameters, **columns)
        chosen = f"{self._number} IN (SELECT value FROM json_each(?))"
        listed = f"[{','.join(map(str, numbers.tolist()))}]"
        return self._source.arrays(self._sql.format(chosen), [*self._parameters, listed], **columns)

    def _load(self, size: int) -> None:
        raise NotImplementedError

    def _refresh(self, numbers: Array, size: int) -> None:
        raise NotImplementedError


class Dense(_Kept):
    """One number for each record number; 0 where there is no record or no value."""

    def __init__(
        self,
        source: Source,
        sql: str,
        dtype: type,
        *,
        parameters: Sequence[object] = (),
        number: str = "n",
    ) -> None:
        super().__init__(source, sql, parameters, number)
        self._values: Array = np.zeros(0, dtype)

    def get(self, size: int) -> Array:
        """The values of record numbers below `size`."""
        self.bring_up(size)
        if len(self._values) < size:
            grown = np.zeros(size + size // 4, self._values.dtype)
            grown[: len(self._values)] = self._values
            self._values = grown
        return self._values[:size]

    def _load(self, size: int) -> None:
        numbers, values = self._read(n=np.int64, value=np.int64)
        self._values = np.zeros(size, self._values.dtype)
        self._values[numbers] = values

    def _refresh(self, numbers: Array, size: int) -> None:
        self._stale = set()
        known = self.get(size)
        known[numbers[numbers < size]] = 0
        found, values = self._read(numbers, n=np.int64, value=np.int64)
        known[found] = values


class Values(_Kept):
    """The values of one key: any number for each record, in `records` and `values` side by side.

    Attributes:
        records: record numbers, int32.
        users: for answers, the number of the user whose it is, int32; else 0.
        values: int64; float32; or for terms their place in `terms`, int32.
    """

    def __init__(self, source: Source, key: int, kind: Kind) -> None:
        super().__init__(
            source,
            f"SELECT record AS n, user, value FROM value WHERE key = {key} AND {{}}",
            [],
            "record",
        )
        self.kind = kind
        self.terms: dict[str, int] = {}
        self._ranks: Array = np.zeros(0, np.int64)
        self._clear()

    def _clear(self) -> None:
        dtype = {"term": np.int32, "integer": np.int64, "float": np.float32}[self.kind]
        self.records: Array = np.zeros(0, np.int32)
        self.users: Array = np.zeros(0, np.int32)
        self.values: Array = np.zeros(0, dtype)

    def ranks(self) -> Array:
        """For each term its place in alphabetical order (of code points)."""
        if len(self._ranks) != len(self.terms):
            self._ranks = np.empty(len(self.terms), np.int64)
            self._ranks[[self.terms[term] for term in sorted(self.terms)]] = range(len(self.terms))
        return self._ranks

    def _load(self, size: int) -> None:
        self.terms, self._ranks = {}, np.zeros(0, np.int64)
        self._clear()
        self._append(None)

    def _refresh(self, numbers: Array, size: int) -> None:
        touched = np.zeros(max(size, int(numbers[-1]) + 1), dtype=bool)
        touched[numbers] = True
        kept = ~touched[self.records]
        if not kept.all():
            self.records, self.users = self.records[kept], self.users[kept]
            self.values = self.values[kept]
        self._append(numbers)

    def _append(self, numbers: Array | None) -> None:
        type_ = {"term": str, "integer": np.int64, "float": np.float64}[self.kind]
        records, users, values = self._read(numbers, n=np.int64, user=np.int64, value=type_)
        if self.kind == "term":
            values = [self.terms.setdefault(term, len(self.terms)) for term in values]
        if len(records):
            self.records = np.concatenate([self.records, records.astype(np.int32)])
            self.users = np.concatenate([self.users, users.astype(np.int32)])
            self.values = np.concatenate([self.values, np.asarray(values, self.values.dtype)])


class Columns:
    """All arrays of one index that were ever asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._loaded: dict[tuple[str, object], _Kept] = {}

    def touch(self, numbers: Iterable[int], *sources: str) -> None:
        """Note a write: `record`, `response`, `vector` or the keys whose values changed; or all."""
        numbers = list(numbers)
        for (name, _), column in self._loaded.items():
            if not sources or name in sources:
                column.touch(numbers)

    def forget(self, *sources: str) -> None:
        """Give up what was read of these sources, or of all."""
        for name, what in list(self._loaded):
            if not sources or name in sources:
                del self._loaded[name, what]

    def record(self, expression: str, dtype: type) -> Dense:
        """Something of each record: an expression over a row of `record`."""
        sql = f"SELECT n, {expression} AS value FROM record WHERE {{}}"
        return self._kept("record", expression, lambda: Dense(self._source, sql, dtype))

    def statuses(self, user: bytes | None) -> Dense:
        """The statuses (STATUS_BITS) of the responses to each record, of one user or of all."""
        whose = "user = (SELECT n FROM user WHERE id = ?)" if user else "1"
        sql = (
            f"SELECT record AS n, {_BITS} AS value FROM response WHERE {whose} AND {{}}"
            " GROUP BY record"
        )
        mine = [user] if user else []
        return self._kept(
            "response",
            user,
            lambda: Dense(self._source, sql, np.uint8, parameters=mine, number="record"),
        )

    def values(self, name: str, number: int, kind: Kind) -> Values:
        """The values of a key."""
        return self._kept(name, number, lambda: Values(self._source, number, kind))

    def _kept(self, name: str, what: object, make: Callable[[], K]) -> K:
        if (name, what) not in self._loaded:
            self._loaded[name, what] = make()
        return cast(K, self._loaded[name, what])
