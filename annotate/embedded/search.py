"""Searching one index: by text and filters, by similarity, and counting values."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from argilla_server.search_engine import Filter, Order
from numpy.typing import NDArray

from annotate.embedded.index import DatasetIndex
from annotate.embedded.query import Query
from annotate.embedded.rows import in_pieces
from annotate.embedded.text_query import parse
from annotate.embedded.text_search import TextSearch

MATCH_ALL_SCORE = 1.0


class Hit(NamedTuple):
    """A record found, by its UUID's 16 bytes; no score where another order was asked for."""

    record: bytes
    score: float | None


@dataclass(frozen=True)
class Text:
    """A simple query string, over all fields or one."""

    query: str
    field: str | None = None


@dataclass(frozen=True)
class Search:
    """What to find and in which order: as asked, else the best match first, else as pushed."""

    text: Text | None = None
    filter: Filter | None = None
    sort: tuple[Order, ...] = ()
    offset: int = 0
    limit: int = 100
    shuffled_for: bytes | None = None
    """A user whose own stable random order takes the place of the order of pushing."""
    excluded: frozenset[bytes] = frozenset()
    """Records, by their UUID's 16 bytes, that are neither found nor counted."""


@dataclass(frozen=True)
class Nearest:
    """What to be near to (or far from), at most how many, and how near at least (0 to 1)."""

    settings: str
    vector: np.ndarray
    excluded: bytes | None = None
    farthest: bool = False
    limit: int = 100
    threshold: float | None = None


def run(index: DatasetIndex, request: Search) -> tuple[list[Hit], int]:
    """One page of records, and how many there are on all pages.

    Raises:
        ValueError: a filter or an order has a scope that Argilla does not define.
    """
    with index.lock:
        query = Query(index, index.size())
        mask, scores = _found(index, query, request)
        rows = np.flatnonzero(mask)
        end = min(request.offset + request.limit, len(rows))
        if request.offset >= end:
            return [], len(rows)
        keys: list[NDArray[Any]] = [query.sort_keys(order)[rows] for order in request.sort]
        if not keys:
            if scores is not None:
                keys.append(-scores[rows])
            if request.shuffled_for:
                keys.append(_shuffled(index, query, request.shuffled_for)[rows])
        page = rows[_leading(keys, end, len(rows))][request.offset :]
        values = np.full(query.size, MATCH_ALL_SCORE) if scores is None else scores
        found = [None if request.sort else float(values[n]) for n in page]
        return _hits(index, page, found), len(rows)


def nearest(index: DatasetIndex, target: Nearest, among: Search) -> list[Hit]:
    """Records by falling (1 + cosine) / 2 to a vector, or to its opposite."""
    with index.lock:
        query = Query(index, index.size())
        mask, _ = _found(index, query, among)
        if target.excluded is not None:
            mask &= ~query.ids({target.excluded})
        vectors = index.vectors(target.settings)
        vector = -target.vector if target.farthest else target.vector
        numbers, cosines = vectors.nearest(vector, target.limit, mask)
        scores = (1 + cosines) / 2
        if target.threshold is not None:
            numbers, scores = (
                numbers[scores >= target.threshold],
                scores[scores >= target.threshold],
            )
        return _hits(index, numbers, scores.tolist())


def progress(index: DatasetIndex) -> dict[str, int]:
    """Number of records by status, of those statuses that occur."""
    with index.lock:
        query = Query(index, index.size())
        there = int(np.count_nonzero(query.there()))
        completed = int(np.count_nonzero(query.completed()))
    counts = {"pending": there - completed, "completed": completed}
    return {status: count for status, count in counts.items() if count}


def user_progress(index: DatasetIndex, user: bytes) -> dict[str, int]:
    """Number of one person's responses by status, of those statuses that occur."""
    return dict(
        index.read(
            "SELECT status, count(*) FROM response"
            " WHERE user = (SELECT n FROM user WHERE id = ?) GROUP BY status",
            [user],
        )
    )


def submitters(index: DatasetIndex, records: Collection[bytes]) -> Mapping[bytes, set[bytes]]:
    """Who has submitted an answer to each of some records; ids are UUIDs' 16 bytes."""
    found: dict[bytes, set[bytes]] = {}
    for marks, some in in_pieces(records):
        rows = index.read(
            "SELECT r.id, u.id FROM record r JOIN response a ON a.record = r.n"
            f" JOIN user u ON u.n = a.user WHERE a.status = 'submitted' AND r.id IN ({marks})",
            some,
        )
        for record, user in rows:
            found.setdefault(record, set()).add(user)
    return found


def term_counts(index: DatasetIndex, key: str) -> list[tuple[str, int]]:
    """Each value of a key with the number of records that have it, the most frequent first."""
    with index.lock:
        values = Query(index, index.size()).values(key)
        if values is None or not values.terms:
            return []
        counts = np.bincount(values.values, minlength=len(values.terms)).tolist()
    found = [(term, count) for term, count in zip(values.terms, counts, strict=True) if count]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def extremes(index: DatasetIndex, key: str) -> tuple[Any, Any]:
    """Smallest and largest value of a key; (None, None) if there is none."""
    with index.lock:
        values = Query(index, index.size()).values(key)
        if values is None or not len(values.values):
            return None, None
        return values.values.min().item(), values.values.max().item()


def _found(
    index: DatasetIndex, query: Query, request: Search
) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """By record number: whether the record is found, and how well it matches a text."""
    mask, scores = query.there(), None
    if request.text:
        node = parse(request.text.query)
        column = index.fields().get(request.text.field) if request.text.field else None
        if node is None or (request.text.field and column is None):
            return np.zeros(query.size, dtype=bool), None  # no word, or a field that holds no text
        matches, scores = TextSearch(index, query.size, column).find(node)
        mask &= matches
    if request.filter:
        mask &= query.mask(request.filter)
    if request.excluded:
        mask &= ~query.ids(request.excluded)
    return mask, scores


def _leading(keys: Sequence[NDArray[Any]], count: int, rows: int) -> NDArray[np.int64]:
    """The places of the first `count` of some rows, by the first key, then the next, then place.

    A partition finds the place of the cut, so that only what comes before it is put in order.
    """
    if not keys:
        return np.arange(count)
    first, rest = keys[0], keys[1:]
    if count < rows:
        cut = np.partition(first, count - 1)[count - 1]
        before, tied = np.flatnonzero(first < cut), np.flatnonzero(first == cut)
        wanted = count - len(before)
        tied = tied[_leading([key[tied] for key in rest], wanted, len(tied))]
        chosen = np.sort(np.concatenate([before, tied]))
    else:
        chosen = np.arange(rows)
    return chosen[np.lexsort([key[chosen] for key in reversed(keys)])]


def _shuffled(index: DatasetIndex, query: Query, user: bytes) -> NDArray[np.uint64]:
    """A user's own order: a * mix + b mod 2^64, its upper half pairwise independent.

    (Multiply-shift hashing, Dietzfelbinger, 1996.) It rests on the record's and the user's id
    alone, so no update reshuffles it; Argilla's own is seeded by a number that changes with every
    update.
    """
    digest = hashlib.blake2b(user, digest_size=16).digest()
    factor, offset = np.frombuffer(digest, dtype="<u8")
    mix = index.columns.record("mix", np.uint32).get(query.size)
    shuffled: NDArray[np.uint64] = mix.astype(np.uint64) * (factor | np.uint64(1)) + offset
    return shuffled


def _hits(
    index: DatasetIndex, numbers: NDArray[np.int64], scores: Sequence[float | None]
) -> list[Hit]:
    sql = "SELECT n, id FROM record WHERE n IN (SELECT value FROM json_each(?))"
    ids = dict(index.read(sql, [json.dumps(numbers.tolist())]))
    return [Hit(ids[n], score) for n, score in zip(numbers.tolist(), scores, strict=True)]
