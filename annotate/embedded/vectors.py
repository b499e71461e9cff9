"""The vectors of one index and settings, in memory, and which of them are near.

They take 4 bytes a dimension and record, from the first search by similarity on.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]
Reader = Callable[[Iterable[int] | None], Iterable[tuple[Numbers, Array]]]

SHORTLIST_EXTRA = 64
"""In 32 bits a vector and its near copies tie: so many more are compared again in 64 bits."""


class Vectors:
    """Vectors by record number, with room to grow.

    Args:
        read: given record numbers (or None, for all), their vectors in pieces.
    """

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._stale: set[int] | None = None
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[int, int] = {}
        self._numbers: Numbers = np.zeros(0, np.int64)
        self._matrix: Array = np.zeros((0, 0), np.float32)
        self._lengths: Array = np.zeros(0, np.float32)
        self._used = 0

    def touch(self, numbers: Iterable[int]) -> None:
        """Note that these records were written."""
        if self._stale is not None:
            self._stale.update(numbers)

    def bring_up(self) -> None:
        """Read what changed."""
        if self._stale is None:
            self._clear()
            for numbers, matrix in self._read(None):
                self._put(numbers, matrix)
        elif self._stale:
            for number in self._stale & self._rows.keys():
                self._numbers[self._rows[number]] = -1
            for numbers, matrix in self._read(sorted(self._stale)):
                self._put(numbers, matrix)
        self._stale = set()

    def _put(self, numbers: Numbers, matrix: Array) -> None:
        for number in numbers.tolist():
            self._rows.setdefault(number, len(self._rows))
        rows = np.fromiter((self._rows[number] for number in numbers.tolist()), np.int64)
        self._used = len(self._rows)
        if self._used > len(self._numbers) or matrix.shape[1] != self._matrix.shape[1]:
            self._grow(self._used, matrix.shape[1])
        self._numbers[rows], self._matrix[rows] = numbers, matrix
        self._lengths[rows] = np.linalg.norm(matrix, axis=1)

    def _grow(self, rows: int, dimensions: int) -> None:
        old, rows = self._matrix, rows + rows // 4
        self._matrix = np.zeros((rows, dimensions), np.float32)
        if old.shape[1] == dimensions:
            self._matrix[: len(old)] = old
        self._numbers = np.concatenate([self._numbers, np.full(rows - len(old), -1)])
        self._lengths = np.concatenate([self._lengths, np.zeros(rows - len(old), np.float32)])

    def nearest(
        self, vector: Array, limit: int, allowed: NDArray[np.bool_]
    ) -> tuple[Numbers, NDArray[np.float64]]:
        """Record numbers by falling cosine to a vector, at most `limit`, and the cosines.

        Args:
            allowed: by record number, whether it may be found.
        """
        numbers = self._numbers[: self._used]
        rows = np.flatnonzero(allowed[numbers] & (numbers >= 0))
        if not len(rows) or self._matrix.shape[1] != len(vector):
            return np.zeros(0, np.int64), np.zeros(0)
        few = len(rows) < self._used // 4
        products = self._matrix[rows] @ vector if few else (self._matrix[: self._used] @ vector)
        if not few:
            products = products[rows]
        rough = _divided(products, self._lengths[rows] * np.linalg.norm(vector))
        wanted = limit + SHORTLIST_EXTRA
        if wanted < len(rows):
            rows = rows[np.argpartition(-rough, wanted)[:wanted]]
        exact, target = self._matrix[rows].astype(np.float64), vector.astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(target)
        cosines = _divided(exact @ target, lengths)
        best = np.lexsort((numbers[rows], -cosines))[:limit]
        return numbers[rows[best]], cosines[best]


def _divided(products: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Cosines; 0 where a vector has no length."""
    cosines: NDArray[Any] = np.divide(
        products, lengths, out=np.zeros_like(products), where=lengths > 0
    )
    return cosines
