"""Searching one index: by text and filters, by similarity, and counting values."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from argilla_server.search_engine import Filter, Order

from annotate.embedded.index import MIX_PRIME, DatasetIndex
from annotate.embedded.query import QueryBuilder, Sql
from annotate.embedded.text_query import TextMatch, parse

MATCH_ALL_SCORE = 1.0

SHORTLIST_EXTRA = 64
"""In 32 bits a vector and its near copies tie: so many more are compared again in 64 bits."""


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
    match, source = _source(index, request)
    (total,) = index.read(f"SELECT count(*) {source.text}", source.parameters)[0]
    if not request.limit or request.offset >= total:
        return [], total
    order, score = _order(index, request, match)
    rows = index.read(
        f"SELECT r.id, {score} {source.text} ORDER BY {order.text} LIMIT ? OFFSET ?",
        [*source.parameters, *order.parameters, request.limit, request.offset],
    )
    return [Hit(*row) for row in rows], total


def nearest(index: DatasetIndex, target: Nearest, among: Search) -> list[Hit]:
    """Records by falling (1 + cosine) / 2 to a vector, or to its opposite."""
    numbers, matrix = index.vectors(target.settings)
    if among.text or among.filter:
        _, source = _source(index, replace(among, sort=(), shuffled_for=None))
        allowed = [row[0] for row in index.read(f"SELECT r.n {source.text}", source.parameters)]
        inside = np.isin(numbers, np.array(allowed, dtype=np.int64))
        numbers, matrix = numbers[inside], matrix[inside]
    if target.excluded is not None:
        rows = index.read("SELECT n FROM record WHERE id = ?", [target.excluded])
        others = ~np.isin(numbers, np.array([row[0] for row in rows], dtype=np.int64))
        numbers, matrix = numbers[others], matrix[others]
    if not len(numbers):
        return []
    vector = -target.vector if target.farthest else target.vector
    rough = np.argsort(-_cosines(matrix, vector), kind="stable")[: target.limit + SHORTLIST_EXTRA]
    numbers = numbers[rough]
    scores = (1 + _cosines(matrix[rough].astype(np.float64), vector.astype(np.float64))) / 2
    best = np.lexsort((numbers, -scores))[: target.limit]
    if target.threshold is not None:
        best = best[scores[best] >= target.threshold]
    marks = ", ".join("?" * len(best))
    found = index.read(
        f"SELECT n, id FROM record WHERE n IN ({marks})", [int(n) for n in numbers[best]]
    )
    ids = dict(found)
    return [Hit(ids[int(numbers[at])], float(scores[at])) for at in best]


def submitters(index: DatasetIndex, records: Collection[bytes]) -> Mapping[bytes, set[bytes]]:
    """Who has submitted an answer to each of some records; ids are UUIDs' 16 bytes."""
    rows = index.read(
        "SELECT r.id, a.user FROM record r JOIN response a ON a.record = r.n"
        f" WHERE a.status = 'submitted' AND r.id IN ({', '.join('?' * len(records))})",
        list(records),
    )
    found: dict[bytes, set[bytes]] = {}
    for record, user in rows:
        found.setdefault(record, set()).add(user)
    return found


def term_counts(index: DatasetIndex, key: str) -> list[tuple[str, int]]:
    """Each value of a key with the number of records that have it, the most frequent first."""
    number, _ = index.keys().get(key, (None, None))
    return index.read(
        "SELECT value, count(*) AS records FROM facet INDEXED BY facet_value WHERE key = ?"
        " GROUP BY value ORDER BY records DESC, value",
        [number],
    )


def extremes(index: DatasetIndex, key: str) -> tuple[Any, Any]:
    """Smallest and largest value of a key; (None, None) if there is none."""
    number, _ = index.keys().get(key, (None, None))
    ends = [
        f"(SELECT {pick}(value) FROM facet INDEXED BY facet_value WHERE key = ?)"
        for pick in ("min", "max")
    ]
    low, high = index.read(f"SELECT {ends[0]}, {ends[1]}", [number, number])[0]
    return low, high


def _source(index: DatasetIndex, request: Search) -> tuple[TextMatch | None, Sql]:
    """`FROM … WHERE …` with the records as `r`."""
    match = _match(index, request.text) if request.text else None
    conditions: list[Sql] = []
    tables = "FROM record r"
    if request.text and match is None:
        conditions.append(Sql("0"))
    elif match and match.complement:
        conditions.append(
            Sql("r.n NOT IN (SELECT rowid FROM text WHERE text MATCH ?)", [match.expression])
        )
    elif match:
        # CROSS JOIN keeps the text outermost: SQLite would else match anew for every record.
        tables = "FROM text CROSS JOIN record r ON r.n = text.rowid"
        conditions.append(Sql("text MATCH ?", [match.expression]))
    if request.excluded:
        marks = ", ".join("?" * len(request.excluded))
        conditions.append(Sql(f"r.id NOT IN ({marks})", list(request.excluded)))
    if request.filter:
        conditions.append(QueryBuilder(index.keys()).condition(request.filter))
    where = " AND ".join(f"({condition.text})" for condition in conditions) or "1"
    parameters = [value for condition in conditions for value in condition.parameters]
    return match, Sql(f"{tables} WHERE {where}", parameters)


def _match(index: DatasetIndex, text: Text) -> TextMatch | None:
    """The expression to match; None if nothing can: no word, or a field that holds no text."""
    match = parse(text.query)
    if text.field is None or match is None:
        return match
    column = index.columns().get(text.field)
    return replace(match, expression=f"{column} : ({match.expression})") if column else None


def _order(index: DatasetIndex, request: Search, match: TextMatch | None) -> tuple[Sql, str]:
    """The `ORDER BY` terms and the expression of the score."""
    terms: list[Sql] = []
    score = str(MATCH_ALL_SCORE)
    if request.sort:
        builder = QueryBuilder(index.keys())
        terms = [builder.order(order) for order in request.sort]
        score = "NULL"
    elif match and not match.complement:
        # SQLite's bm25 is better the smaller it is.
        terms = [Sql("bm25(text)")]
        score = "-bm25(text)"
    if request.shuffled_for and not request.sort:
        terms.append(_shuffled(request.shuffled_for))
    terms.append(Sql("r.n"))
    return Sql(
        ", ".join(term.text for term in terms),
        [value for term in terms for value in term.parameters],
    ), score


def _shuffled(user: bytes) -> Sql:
    """A user's own order: (a * mix + b) mod p, pairwise independent (Carter and Wegman, 1979).

    It rests on the record's and the user's id alone, so no update reshuffles it; Argilla's own
    is seeded by a number that changes with every update.
    """
    digest = hashlib.blake2b(user, digest_size=16).digest()
    factor = 1 + int.from_bytes(digest[:8], "big") % (MIX_PRIME - 1)
    offset = int.from_bytes(digest[8:], "big") % MIX_PRIME
    return Sql(f"(r.mix * ? + ?) % {MIX_PRIME}", [factor, offset])


def _cosines(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosines of rows to a vector; 0 where either has no length."""
    products = matrix @ vector
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    cosines: np.ndarray = np.divide(
        products, lengths, out=np.zeros_like(products), where=lengths > 0
    )
    return cosines
