"""The searches of a running server beside those of the plain model (tests/search_model.py)."""

from collections.abc import Sequence
from typing import Any

import pytest
import search_model as model
from machine_site import Person, Published, eventually
from search_model import Json, Row, Term, Text
from search_queries import BATTERY, METADATA, Query, order, scope

SCORE_TOLERANCE = 1e-6
PAGE = 5
ROUNDS = 3
"""The battery is asked in so many steps: an index that is wrong once stays so for a while."""
PAGED = [
    Query(),
    Query(asker=0),
    Query(sort=(order(scope("metadata", "topic")),)),
    Query(text=Text((Term(("card",)),)), asker=1),
]


class Comparison:
    """What the server says of one data set, held against `rows`, read from its database.

    Attributes:
        rows: the data set's records as they were at the last `read`.
    """

    def __init__(self, dataset: Published) -> None:
        self.rows: list[Row] = []
        self._dataset = dataset
        self._site = dataset.site
        self._seen: dict[str, list[str]] = {}
        self._turn = 0

    def read(self) -> None:
        """Look into the database."""
        self.rows = model.read_rows(self._site.home / "argilla.db", self._dataset.id)

    def everything(self, probes: Sequence[Query], aim: Sequence[float]) -> None:
        """Demand the same answers to some queries, and on all that is counted and ordered."""
        self.read()
        for asker in (None, 0, 1):
            self._whole_order(asker)
        self._turn += 1
        for query in (*BATTERY[self._turn % ROUNDS :: ROUNDS], *probes):
            self.query(query)
        self._pages(PAGED[self._turn % len(PAGED)])
        self._similarity(probes[0], aim)
        self._counts()

    def query(self, query: Query) -> None:
        """Demand the same records, in the right order, to one query."""
        if not self._can_be_asked(query):
            return
        query, user = query.at(self.rows), self._user(query)
        expected = model.found(self.rows, query.text, query.filters, user)
        answer = self._dataset.search(self._person(query), query.body())
        ids = [item["record"]["id"] for item in answer["items"]]
        assert sorted(ids) == sorted(row.id for row in expected), query
        assert answer["total"] == len(expected), query
        if query.sort:
            row_of = {row.id: row for row in expected}
            keys = [model.sort_key(row_of[id], query.sort, user) for id in ids]
            assert keys == model.sorted_keys(expected, query.sort, user), query
        elif not query.text:
            assert ids == _only(self._seen[self._person(query).id], ids), query

    def settled(self, min_submitted: int) -> bool:
        """Whether every record's status follows from its responses, and is said in time."""

        def settled() -> bool:
            self.read()
            said = self._progress() == model.dataset_progress(self.rows)
            return said and model.is_settled(self.rows, min_submitted)

        return eventually(settled)

    def _whole_order(self, asker: int | None) -> None:
        """The owner sees records as they were pushed, each annotator in a lasting order."""
        everything = Query(asker=asker)
        person = self._person(everything)
        ids = self._ids(everything)
        assert sorted(ids) == sorted(row.id for row in self.rows)
        if asker is None:
            assert ids == [row.id for row in self.rows]
        before = self._seen.get(person.id, [])
        assert _only(ids, before) == _only(before, ids)
        self._seen[person.id] = ids

    def _pages(self, query: Query) -> None:
        paged: list[str] = []
        for offset in range(0, len(self.rows) + PAGE, PAGE):
            paged += self._ids(query, offset=offset, limit=PAGE)
        assert paged == self._ids(query), query

    def _similarity(self, among: Query, aim: Sequence[float]) -> None:
        among = among.at(self.rows) if self._can_be_asked(among) else Query()
        rows = model.found(self.rows, among.text, among.filters, self._user(among))
        self._nearest(among, {"value": aim}, aim, rows, 1000)
        self._nearest(among, {"value": aim, "order": "least_similar"}, aim, rows, 2)
        for row in self.rows:
            if row.vector:
                others = [other for other in self.rows if other.id != row.id]
                self._nearest(Query(), {"record_id": row.id}, row.vector, others, 2)
                break

    def _nearest(
        self, among: Query, target: Json, vector: Sequence[float], rows: list[Row], limit: int
    ) -> None:
        body = Query(among.text, among.filters).body()
        body["query"] = body.get("query", {}) | {"vector": {"name": "meaning", **target}}
        answer = self._dataset.search(self._person(among), body, limit=limit)
        expected = model.similarities(rows, vector, target.get("order") == "least_similar")
        best = sorted(expected.values(), reverse=True)[:limit]
        ids = [item["record"]["id"] for item in answer["items"]]
        scores = [item["query_score"] for item in answer["items"]]
        assert len(set(ids)) == answer["total"] == len(best)
        assert [expected[id] for id in ids] == pytest.approx(best, abs=SCORE_TOLERANCE)
        assert scores == pytest.approx(best, abs=SCORE_TOLERANCE)

    def _counts(self) -> None:
        assert self._progress() == model.dataset_progress(self.rows)
        for person in self._site.people:
            said = self._site.call(person, "GET", f"/v1/me/datasets/{self._dataset.id}/metrics")
            assert said["responses"] == model.user_progress(self.rows, person.id)
        for name, id in self._dataset.metadata.items():
            said = self._owner(f"/v1/metadata-properties/{id}/metrics")
            assert said == model.metrics(self.rows, name, METADATA[name]), name

    def _progress(self) -> dict[str, int]:
        said = self._owner(f"/v1/datasets/{self._dataset.id}/progress")
        return {name: said[name] for name in ("total", "completed", "pending")}

    def _owner(self, path: str) -> Any:
        return self._site.call(self._site.owner, "GET", path)

    def _can_be_asked(self, query: Query) -> bool:
        return query.properties() <= self._dataset.metadata.keys()

    def _person(self, query: Query) -> Person:
        return self._site.owner if query.asker is None else self._site.people[query.asker]

    def _user(self, query: Query) -> str | None:
        """Whose responses count; all, where the owner asks."""
        return None if query.asker is None else self._site.people[query.asker].id

    def _ids(self, query: Query, **page: int) -> list[str]:
        items = self._dataset.search(self._person(query), query.body(), **page)["items"]
        return [item["record"]["id"] for item in items]


def _only(ids: Sequence[str], wanted: Sequence[str]) -> list[str]:
    chosen = set(wanted)
    return [id for id in ids if id in chosen]
