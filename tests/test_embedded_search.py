"""The search index against a plain reading of the same records, filters and orders."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.embedded import columns, rows
from annotate.embedded.documents import Kind, RecordRow, ResponseRow, VectorRow
from annotate.embedded.index import DatasetIndex
from annotate.embedded.search import (
    Nearest,
    Search,
    Text,
    extremes,
    nearest,
    progress,
    run,
    submitters,
    term_counts,
)

KEYS: dict[str, Kind] = {
    "metadata.topic": "term",
    "metadata.length": "integer",
    "metadata.score": "float",
    "suggestions.label.value": "term",
    "suggestions.label.score": "float",
    "responses.label": "term",
    "responses.rating": "integer",
}
USERS = [SimpleNamespace(id=UUID(int=1000 + n)) for n in range(2)]
TOPICS, LABELS = ["billing", "card"], ["yes", "no"]


def uid(number: int) -> bytes:
    return UUID(int=number).bytes


@pytest.fixture
def index(tmp_path: Path) -> Iterator[DatasetIndex]:
    made = DatasetIndex.create(tmp_path / "index.db", KEYS, ["prompt", "image"], ["prompt"])
    yield made
    made.close()


def row(number: int, **changes: Any) -> RecordRow:
    content: dict[str, Any] = {
        "id": uid(number),
        "external_id": f"r{number}",
        "status": "pending",
        "inserted_at": number * 1_000_000,
        "updated_at": number * 1_000_000,
        "text": {},
        "facets": {},
    }
    return RecordRow(**(content | changes))


def response(
    number: int, user: int = 0, status: str = "submitted", at: int = 0, **answers: object
) -> ResponseRow:
    return ResponseRow(uid(number), USERS[user].id.bytes, status, at, answers)


def numbers(index: DatasetIndex, **search: Any) -> list[int]:
    hits, _ = run(index, Search(**search))
    return [UUID(bytes=hit.record).int for hit in hits]


# Brute force


@dataclass
class Example:
    """A record in plain values."""

    number: int
    topics: list[str]
    length: int | None
    label: str | None
    responses: dict[int, tuple[str, str | None, int | None]] = field(default_factory=dict)

    def row(self) -> RecordRow:
        facets = {
            "metadata.topic": self.topics,
            "metadata.length": self.length,
            "metadata.unknown": "ignored",
            "suggestions.label.value": self.label,
        }
        answers = [
            response(10_000 + 10 * self.number + user, user, status, label=label, rating=rating)
            for user, (status, label, rating) in self.responses.items()
        ]
        return row(self.number, facets=facets, responses=tuple(answers))


statuses = st.sampled_from(["submitted", "draft", "discarded"])
answers = st.tuples(
    statuses, st.none() | st.sampled_from(LABELS), st.none() | st.integers(min_value=1, max_value=3)
)
examples = st.lists(
    st.builds(
        Example,
        number=st.integers(1, 9),
        topics=st.lists(st.sampled_from(TOPICS), max_size=2),
        length=st.none() | st.integers(-2, 2),
        label=st.none() | st.sampled_from(LABELS),
        responses=st.dictionaries(st.integers(0, 1), answers),
    ),
    unique_by=lambda example: example.number,
    max_size=6,
)
users = st.none() | st.sampled_from([0, 1])
some_statuses = st.lists(
    st.sampled_from(["pending", "submitted", "draft", "discarded"]), min_size=1, unique=True
)
conditions = st.one_of(
    st.tuples(st.just("topic"), st.lists(st.sampled_from([*TOPICS, "other"]), min_size=1)),
    st.tuples(st.just("length"), st.integers(-2, 2), st.integers(-2, 2)),
    st.tuples(st.just("suggestion"), st.sampled_from(LABELS)),
    st.tuples(st.just("status"), some_statuses, users),
    st.tuples(st.just("rating"), st.integers(1, 3), users),
)


def as_filter(condition: tuple[Any, ...]) -> Filter:
    kind, *rest = condition
    if kind == "topic":
        return TermsFilter(MetadataFilterScope("topic"), rest[0])
    if kind == "length":
        return RangeFilter(MetadataFilterScope("length"), ge=rest[0], le=rest[1])
    if kind == "suggestion":
        return TermsFilter(SuggestionFilterScope("label", "value"), [rest[0]])
    user = None if rest[1] is None else USERS[rest[1]]
    if kind == "status":
        return TermsFilter(ResponseFilterScope(property="status", user=user), rest[0])
    return TermsFilter(ResponseFilterScope(question="rating", user=user), [str(rest[0])])


def fits(example: Example, condition: tuple[Any, ...]) -> bool:
    kind, *rest = condition
    if kind == "topic":
        return bool(set(rest[0]) & set(example.topics))
    if kind == "length":
        return example.length is not None and rest[0] <= example.length <= rest[1]
    if kind == "suggestion":
        return bool(example.label == rest[0])
    own = [given for user, given in example.responses.items() if rest[1] in (None, user)]
    if kind == "status":
        return any(status in rest[0] for status, *_ in own) or ("pending" in rest[0] and not own)
    return any(rating == rest[0] for *_, rating in own)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples, st.lists(conditions, max_size=3))
def test_filters_find_what_a_plain_reading_finds(
    tmp_path: Path, records: list[Example], wanted: list[tuple[Any, ...]]
) -> None:
    index = DatasetIndex.create(tmp_path / "index.db", KEYS, ["prompt"], ["prompt"])
    index.put_records(Example(e.number, [], None, None).row() for e in records)
    index.put_records(example.row() for example in records)  # replaces, and doubles nothing
    found = numbers(index, filter=AndFilter([as_filter(condition) for condition in wanted]))
    index.close()
    expected = [e.number for e in records if all(fits(e, condition) for condition in wanted)]
    assert found == expected


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples, st.sampled_from(["asc", "desc"]))
def test_orders_put_missing_values_last(
    tmp_path: Path, records: list[Example], direction: str
) -> None:
    index = DatasetIndex.create(tmp_path / "index.db", KEYS, ["prompt"], ["prompt"])
    index.put_records(example.row() for example in records)
    sign = 1 if direction == "asc" else -1
    by_length = numbers(index, sort=(Order(MetadataFilterScope("length"), direction),))
    by_topic = numbers(index, sort=(Order(MetadataFilterScope("topic"), direction),))
    index.close()
    assert by_length == [
        e.number for e in sorted(records, key=lambda e: (e.length is None, sign * (e.length or 0)))
    ]
    pick = min if sign == 1 else max
    having = [e for e in records if e.topics]
    ordered = sorted(having, key=lambda e: sign * TOPICS.index(pick(e.topics)))
    assert by_topic == [e.number for e in ordered + [e for e in records if not e.topics]]


# Single cases


def test_a_rating_and_its_user_must_meet_in_one_response(index: DatasetIndex) -> None:
    index.put_records([row(1, responses=(response(11, 0, rating=1), response(12, 1, rating=3)))])
    scope = ResponseFilterScope(question="rating", user=USERS[0])
    assert numbers(index, filter=TermsFilter(scope, ["1"])) == [1]
    assert numbers(index, filter=TermsFilter(scope, ["3"])) == []
    assert numbers(index, filter=RangeFilter(scope, ge=0.5, le=1.5)) == [1]


def test_no_values_restrict_nothing(index: DatasetIndex) -> None:
    index.put_records([row(1), row(2)])
    for scope in (
        MetadataFilterScope("topic"),
        RecordFilterScope("external_id"),
        ResponseFilterScope(property="status"),
        ResponseFilterScope(question="rating"),
    ):
        assert numbers(index, filter=TermsFilter(scope, [])) == [1, 2]


def test_values_of_the_wrong_type_match_nothing(index: DatasetIndex) -> None:
    index.put_records([row(1, facets={"metadata.length": "seven"}), row(2)])
    assert numbers(index, filter=TermsFilter(MetadataFilterScope("length"), ["seven"])) == []
    assert numbers(index, filter=RangeFilter(MetadataFilterScope("length"), ge="x")) == []
    assert numbers(index, filter=TermsFilter(RecordFilterScope("id"), ["no uuid"])) == []
    scope = ResponseFilterScope(question="text")  # answers in free text are not searchable
    assert numbers(index, filter=TermsFilter(scope, ["x"])) == []


def test_records_are_found_by_their_own_columns(index: DatasetIndex) -> None:
    index.put_records([row(1), row(2, status="completed"), row(3)])
    assert numbers(index, filter=TermsFilter(RecordFilterScope("external_id"), ["r2"])) == [2]
    assert numbers(index, filter=TermsFilter(RecordFilterScope("id"), [str(UUID(int=3))])) == [3]
    assert numbers(index, filter=TermsFilter(RecordFilterScope("status"), ["completed"])) == [2]
    later = RangeFilter(RecordFilterScope("inserted_at"), ge="1970-01-01T00:00:02Z")
    assert numbers(index, filter=later) == [2, 3]
    assert numbers(index, filter=RangeFilter(RecordFilterScope("updated_at"), le=1500)) == [1]
    assert numbers(index, sort=(Order(RecordFilterScope("inserted_at"), "desc"),)) == [3, 2, 1]


def test_answers_can_be_sorted_by(index: DatasetIndex) -> None:
    index.put_records(
        [
            row(1, responses=(response(11, 0, rating=1), response(12, 1, rating=5))),
            row(2, responses=(response(21, 0, rating=2, label="yes"),)),
            row(3),
        ]
    )
    own = ResponseFilterScope(question="rating", user=USERS[0])
    anyone = ResponseFilterScope(question="rating")  # their mean
    assert numbers(index, sort=(Order(own, "asc"),)) == [1, 2, 3]
    assert numbers(index, sort=(Order(anyone, "asc"),)) == [2, 1, 3]
    assert numbers(index, sort=(Order(ResponseFilterScope(property="status"), "asc"),)) == [1, 2, 3]
    unknown = (Order(ResponseFilterScope(question="text"), "asc"),)
    assert numbers(index, sort=unknown) == [1, 2, 3]
    assert numbers(index, sort=(Order(SuggestionFilterScope("other", "value"), "asc"),)) == [
        1,
        2,
        3,
    ]


def test_unknown_scopes_are_refused(index: DatasetIndex) -> None:
    for scope in (object(), RecordFilterScope("fields"), ResponseFilterScope(property="other")):
        with pytest.raises(ValueError, match="no"):
            numbers(index, filter=TermsFilter(scope, ["x"]))  # type: ignore[arg-type]


def test_text_is_found_in_all_fields_or_one_the_best_match_first(tmp_path: Path) -> None:
    index = DatasetIndex.create(tmp_path / "i.db", {}, ["a", "b", "image"], ["a", "b"])
    index.put_records(
        [
            row(1, text={"a": "a long text that says card among much else", "b": "cash"}),
            row(2, text={"a": "card card", "b": "", "image": "card"}),
            row(3, text={"a": "", "b": "card"}),
            row(4, text={"image": "https://card"}),
        ]
    )
    assert sorted(numbers(index, text=Text("card"))) == [1, 2, 3]
    assert numbers(index, text=Text("card", "a")) == [2, 1]
    assert numbers(index, text=Text("card cash")) == [1]
    assert numbers(index, text=Text("card cash", "a")) == []
    assert numbers(index, text=Text("-card")) == [4]
    assert numbers(index, text=Text("card", "image")) == []
    assert numbers(index, text=Text("...")) == []
    hits, _ = run(index, Search(text=Text("card")))
    scores = [hit.score or 0.0 for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    index.put_records([row(2, text={"a": "nothing"})])
    assert sorted(numbers(index, text=Text("card"))) == [1, 3]
    index.close()


def test_each_user_has_an_own_order_that_updates_leave_alone(index: DatasetIndex) -> None:
    index.put_records(row(number) for number in range(50))
    first, second = (numbers(index, shuffled_for=user.id.bytes) for user in USERS)
    assert sorted(first) == sorted(second) == list(range(50))
    assert len({tuple(first), tuple(second), tuple(range(50))}) == 3
    index.put_records([row(7, status="completed")])
    index.put_response(uid(9), response(91))
    index.delete_records([uid(3)])
    assert numbers(index, shuffled_for=USERS[0].id.bytes) == [n for n in first if n != 3]


def test_pages_follow_one_another(index: DatasetIndex) -> None:
    index.put_records(row(number) for number in range(10))
    hits, total = run(index, Search(offset=4, limit=3))
    assert ([UUID(bytes=hit.record).int for hit in hits], total) == ([4, 5, 6], 10)
    assert run(index, Search(limit=0)) == ([], 10)
    assert run(index, Search(offset=20)) == ([], 10)


def test_excluded_records_are_neither_found_nor_counted(index: DatasetIndex) -> None:
    index.put_records(row(number) for number in range(5))
    excluded = frozenset({uid(1), uid(3), uid(99)})
    hits, total = run(index, Search(excluded=excluded, limit=2))
    assert ([UUID(bytes=hit.record).int for hit in hits], total) == ([0, 2], 3)


def test_submitters_are_known_by_record(index: DatasetIndex) -> None:
    answered = (response(11, 0), response(12, 1, status="draft"))
    index.put_records([row(1, responses=answered), row(2, responses=(response(21, 1),)), row(3)])
    found = submitters(index, {uid(1), uid(2), uid(3), uid(4)})
    assert found == {uid(1): {USERS[0].id.bytes}, uid(2): {USERS[1].id.bytes}}
    assert submitters(index, set()) == {}


def test_late_writes_do_not_undo_newer_ones(index: DatasetIndex) -> None:
    index.put_records([row(1, updated_at=5)])
    index.set_status(uid(1), "completed", 7)
    index.set_status(uid(1), "pending", 6)
    assert index.read("SELECT status, updated_at FROM record") == [("completed", 7)]
    index.put_response(uid(1), response(11, status="submitted", at=9, rating=2))
    index.put_response(uid(1), response(11, status="draft", at=8, rating=1))
    assert index.read("SELECT status FROM response") == [("submitted",)]
    assert index.read("SELECT value FROM value") == [(2,)]


def test_after_the_clock_was_set_back_newer_writes_count(index: DatasetIndex) -> None:
    now = rows.now()
    later = now + 5_000_000
    index.put_records([row(1, updated_at=later), row(2, updated_at=later)])
    index.put_response(uid(1), response(11, status="submitted", at=later, rating=2))
    index.put_response(uid(1), response(11, status="submitted", at=now, rating=1))
    index.set_status(uid(1), "completed", now)
    index.put_records([row(2, updated_at=now, status="completed")])
    assert index.read("SELECT value FROM value") == [(1,)]
    assert index.read("SELECT status, updated_at FROM record") == [("completed", now)] * 2


def test_an_older_text_that_came_late_shows_by_its_time(index: DatasetIndex) -> None:
    """As the database's sum of times then is another than the index's."""
    index.put_records([row(1, updated_at=20, text={"prompt": "new"}, status="completed")])
    index.put_records([row(1, updated_at=10, text={"prompt": "old"})])
    assert numbers(index, text=Text("old")) == [1]
    assert index.read("SELECT status, updated_at FROM record") == [("completed", 10)]


def test_any_number_of_records_can_be_asked_for(index: DatasetIndex) -> None:
    """Also where SQLite takes no more parameters than it does as it comes."""
    index._db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    many = frozenset(uid(number) for number in range(33_000))
    index.put_records([row(1, responses=(response(11, 0),)), row(40_000)])
    assert numbers(index, excluded=many) == [40_000]
    assert submitters(index, many).keys() == {uid(1)}
    ids = TermsFilter(RecordFilterScope("id"), [str(UUID(bytes=one)) for one in many])
    assert numbers(index, filter=ids, limit=len(many)) == [1]


def test_deleting_leaves_nothing_behind(index: DatasetIndex) -> None:
    whole = row(
        1,
        text={"prompt": "card"},
        facets={"metadata.topic": "billing"},
        responses=(response(11, rating=1), response(12, 1, label="yes")),
        vectors={"v": VectorRow([1.0, 2.0])},
    )
    index.put_records([whole])
    index.delete_response(uid(11))
    assert index.read("SELECT count(*) FROM value WHERE user > 0") == [(1,)]
    index.delete_records([uid(1), uid(2)])
    for table in ("record", "text", "value", "response", "vector"):
        assert index.read(f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608


def test_suggestions_are_replaced_and_removed(index: DatasetIndex) -> None:
    index.put_records([row(1, facets={"suggestions.label.value": "yes"})])
    index.put_facets({uid(1): {"suggestions.label.value": ["no"], "suggestions.label.score": 0.1}})
    scope = SuggestionFilterScope("label", "value")
    assert numbers(index, filter=TermsFilter(scope, ["yes"])) == []
    assert numbers(index, filter=TermsFilter(scope, ["no"])) == [1]
    score = SuggestionFilterScope("label", "score")  # 32-bit floats, as in Elasticsearch
    assert numbers(index, filter=RangeFilter(score, ge=0.1, le=0.1)) == [1]
    index.put_facets(
        {uid(1): dict.fromkeys(["suggestions.label.value", "suggestions.label.score"])}
    )
    assert index.read("SELECT count(*) FROM value") == [(0,)]
    index.put_facets({uid(99): {"suggestions.label.value": "yes"}})  # unknown record: skipped
    index.put_response(uid(99), response(11))


def test_a_property_that_changes_its_type_loses_its_old_values(index: DatasetIndex) -> None:
    index.put_records([row(1, facets={"metadata.topic": "billing"})])
    index.declare("metadata.topic", "term")
    assert term_counts(index, "metadata.topic") == [("billing", 1)]
    index.declare("metadata.topic", "integer")
    assert term_counts(index, "metadata.topic") == []
    index.declare("metadata.fresh", "term")
    index.put_records([row(1, facets={"metadata.fresh": "new"})])
    assert term_counts(index, "metadata.fresh") == [("new", 1)]


def test_metrics_count_terms_and_bound_numbers(index: DatasetIndex) -> None:
    index.put_records(
        [
            row(1, facets={"metadata.topic": ["card", "billing"], "metadata.score": 0.1}),
            row(2, facets={"metadata.topic": "card", "metadata.score": float("inf")}),
            row(3, facets={"metadata.topic": None, "metadata.score": float("nan")}),
        ]
    )
    assert term_counts(index, "metadata.topic") == [("card", 2), ("billing", 1)]
    assert extremes(index, "metadata.score") == (float(np.float32(0.1)), float("inf"))
    assert extremes(index, "metadata.length") == (None, None)
    assert extremes(index, "metadata.unheard") == (None, None)


def test_similarity_agrees_with_cosines_by_hand(index: DatasetIndex) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8))
    vectors[3] = 0
    index.put_records(
        row(n, vectors={"v": VectorRow(list(vector))}, text={"prompt": "odd" if n % 2 else "even"})
        for n, vector in enumerate(vectors)
    )
    target = vectors[5]
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(target)
    expected = np.divide(vectors @ target, lengths, out=np.zeros(40), where=lengths > 0)
    order = [int(n) for n in np.argsort(-expected)]
    hits = nearest(index, Nearest("v", target.astype(np.float32), limit=10), Search())
    assert [UUID(bytes=hit.record).int for hit in hits] == order[:10]
    assert [hit.score for hit in hits] == pytest.approx(list((1 + expected[order[:10]]) / 2))
    itself = Nearest("v", target.astype(np.float32), excluded=uid(5), limit=3, threshold=0.6)
    hits = nearest(index, itself, Search(text=Text("odd")))
    odd = [n for n in order if n % 2 and n != 5 and (1 + expected[n]) / 2 >= 0.6][:3]
    assert [UUID(bytes=hit.record).int for hit in hits] == odd
    away = Nearest("v", target.astype(np.float32), farthest=True, limit=1)
    assert UUID(bytes=nearest(index, away, Search())[0].record).int == order[-1]
    assert nearest(index, Nearest("none", target, limit=1), Search()) == []


def test_equal_vectors_come_first_however_long(index: DatasetIndex) -> None:
    index.put_records(row(n, vectors={"v": VectorRow([float(n), 1.0, 2.0])}) for n in range(300))
    hits = nearest(index, Nearest("v", np.array([299, 1, 2], np.float32), limit=2), Search())
    assert [UUID(bytes=hit.record).int for hit in hits] == [299, 298]


@given(st.lists(st.tuples(st.sampled_from("pqrradsv"), st.integers(1, 4)), max_size=30), st.data())
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_kept_in_memory_follows_every_write(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """An index that answers between writes says the same as one that is opened afterwards."""
    made = DatasetIndex.create(
        tmp_path_factory.mktemp("i") / "index.db", KEYS, ["prompt"], ["prompt"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "RELOAD_BEYOND", data.draw(st.sampled_from([0, 1000])))
        for at, (step, number) in enumerate(steps):
            write(made, step, number, at)
            if data.draw(st.booleans()):
                everything(made)
        reopened = DatasetIndex(made.path)
        assert everything(made) == everything(reopened)
    made.close()
    reopened.close()


def test_terms_that_are_read_anew_are_ranked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many terms as before, first met in another order."""
    monkeypatch.setattr(columns, "RELOAD_BEYOND", 0)
    index = DatasetIndex.create(tmp_path / "index.db", KEYS, ["prompt"], ["prompt"])
    by_topic = Search(sort=(Order(MetadataFilterScope("topic"), "asc"),))
    for topics in (["card", "billing"], ["billing", "card"]):
        index.put_records(
            [row(n, facets={"metadata.topic": topic}) for n, topic in enumerate(topics, start=1)]
        )
        found, _ = run(index, by_topic)
        by_name = sorted((1, 2), key=lambda n: topics[n - 1])
        assert [UUID(bytes=hit.record).int for hit in found] == by_name
    index.close()


def write(index: DatasetIndex, step: str, number: int, at: int) -> None:
    topic = ["card", "billing", f"topic {at}"][at % 3]
    if step in "pq":  # one record, or two
        for one in {number, number + (step == "q")}:
            facets = {"metadata.topic": topic, "metadata.length": at, "metadata.score": at / 7}
            vectors = {"v": VectorRow([float(number), float(at), 1.0])}
            index.put_records([row(one, facets=facets, text={"prompt": topic}, vectors=vectors)])
    elif step == "r":
        status = ["draft", "submitted", "discarded"][at % 3]
        made = response(1000 + number, number % 2, status, at=at, rating=at % 4, label="yes")
        index.put_response(uid(number), made)
    elif step == "a":
        index.delete_response(uid(1000 + number))
    elif step == "d":
        index.delete_records([uid(number)])
    elif step == "s":
        index.put_facets({uid(number): {"suggestions.label.value": topic}})
    else:
        index.delete_user(USERS[number % 2].id.bytes)


def everything(index: DatasetIndex) -> list[Any]:
    rating = ResponseFilterScope(question="rating", user=USERS[0])
    searches = [
        Search(),
        Search(text=Text("card")),
        Search(text=Text("toppic~1"), limit=3),
        Search(filter=TermsFilter(MetadataFilterScope("topic"), ["card"])),
        Search(filter=RangeFilter(MetadataFilterScope("score"), ge=0.5, le=2)),
        Search(filter=RangeFilter(rating, ge=2)),
        Search(filter=TermsFilter(SuggestionFilterScope("label", "value"), ["billing"])),
        *(
            Search(
                filter=TermsFilter(ResponseFilterScope(property="status", user=user), ["pending"]),
                shuffled_for=USERS[0].id.bytes,
            )
            for user in (None, *USERS)
        ),
        *(
            Search(sort=(Order(MetadataFilterScope(name), order),), limit=4)
            for name in ("topic", "length", "score")
            for order in ("asc", "desc")
        ),
    ]
    near = nearest(index, Nearest("v", np.array([3, 2, 1], np.float32), limit=5), Search())
    counts = term_counts(index, "metadata.topic"), extremes(index, "metadata.length")
    return [*(run(index, search) for search in searches), near, counts, progress(index)]


def test_damage_and_other_versions_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with pytest.raises(sqlite3.DatabaseError):
        DatasetIndex(path)
    DatasetIndex.create(path, {}, [], []).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="version 99"):
        DatasetIndex(path)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        DatasetIndex(path)


def test_a_failed_write_leaves_nothing_half_done(index: DatasetIndex) -> None:
    broken = row(2, vectors={"v": VectorRow(["no number"])})
    with pytest.raises(ValueError, match="could not convert"):
        index.put_records([row(1), broken])
    assert index.read("SELECT count(*) FROM record") == [(0,)]
    index.put_records([row(1)])
