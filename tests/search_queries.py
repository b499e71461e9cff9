"""Hypothesis strategies: records, responses and suggestions, and what can be asked about them.

The words are few, so that most queries find something and miss something.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st
from search_model import Json, Row, Term, Text

WORDS = ["card", "care", "cash", "pay", "payment", "refund", "42"]
FIELDS = ["prompt", "reply", "chat"]
TOPICS = ["billing", "card", "Travel"]
LABELS = ["yes", "no", "unsure"]
FLAGS = ["unsafe", "untrue", "other"]
AGENTS = ["gpt:1", "rule 2"]
METADATA = {"topic": "terms", "length": "integer", "score": "float", "late": "terms"}
QUESTIONS = ["rating", "label", "flags", "reason", "rank"]
SEARCHABLE = QUESTIONS[:3]
"""Argilla searches no answers to text and ranking questions."""

Value = TypeVar("Value")
quarters = st.integers(0, 4).map(lambda n: n / 4)

# Contents

sentences = st.lists(
    st.builds(
        lambda word, write: write(word),
        st.sampled_from(WORDS),
        st.sampled_from([str, str.upper, "{},".format, "({})".format, "{}?!".format]),
    ),
    max_size=5,
).map(" ".join)
turns = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant"]),
    sentences.filter(bool),
)
fields = st.fixed_dictionaries(
    {"prompt": sentences},
    optional={"reply": st.none() | sentences, "chat": st.lists(turns, max_size=3)},
)
topics = st.sampled_from(TOPICS)
metadata = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "topic": st.none() | topics | st.lists(topics, min_size=1, max_size=3),
        "length": st.integers(-2, 4),
        "score": quarters.map(lambda n: n - 0.5),
        "late": st.sampled_from(["x", "y"]),
        "unlisted": st.sampled_from(["x", 7, None]),
    },
)
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)

ratings = st.integers(1, 3)
labels = st.sampled_from(LABELS)
flags = st.lists(st.sampled_from(FLAGS), min_size=1, unique=True)
ranking = st.permutations(["a", "b"]).map(
    lambda order: [{"value": value, "rank": at + 1} for at, value in enumerate(order)]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "rating": ratings,
    "label": labels,
    "flags": flags,
    "reason": sentences.filter(bool),
    "rank": ranking,
}
_answered = {name: value.map(lambda v: {"value": v}) for name, value in VALUES.items()}
_others = {name: value for name, value in _answered.items() if name != "rating"}
submitted = st.fixed_dictionaries({"rating": _answered["rating"]}, optional=_others).map(
    lambda values: {"status": "submitted", "values": values}
)
drafts = st.fixed_dictionaries({}, optional=_answered).map(
    lambda values: {"status": "draft", "values": values}
)
discarded = (st.none() | st.fixed_dictionaries({}, optional=_answered)).map(
    lambda values: {"status": "discarded", "values": values}
)
responses = submitted | drafts | discarded


@st.composite
def suggestions(draw: st.DrawFn) -> tuple[str, Json]:
    """A question's name, and the rest of a suggestion's body."""
    question = draw(st.sampled_from(QUESTIONS))
    value = draw(VALUES[question])
    many = len(value) if isinstance(value, list) else None
    score = st.lists(quarters, min_size=many, max_size=many) if many else quarters
    rest = {
        "score": draw(st.none() | score),
        "agent": draw(st.none() | st.sampled_from(AGENTS)),
        "type": draw(st.none() | st.sampled_from(["model", "human"])),
    }
    return question, {"value": value, **rest}


@dataclass(frozen=True)
class Content:
    """A record to be made or changed; suggestions by question, responses by annotator's number."""

    external_id: str | None
    fields: Json
    metadata: Json | None
    suggestions: dict[str, Json]
    vector: list[int] | None
    responses: dict[int, Json]


external_ids = st.integers(0, 9).map(lambda n: f"e{n}")
contents = st.builds(
    Content,
    st.none() | external_ids,
    fields,
    metadata,
    st.lists(suggestions(), max_size=2).map(dict),
    st.none() | vectors,
    st.dictionaries(st.integers(0, 1), responses, max_size=1),
)

# Questions about them


@dataclass(frozen=True)
class Moment:
    """The time of the record at some place, which is only known when the query is asked."""

    place: int


@dataclass(frozen=True)
class Query:
    """Text, filters and orders as Argilla's REST interface takes them; `asker`: see `askers`."""

    text: Text | None = None
    filters: tuple[Json, ...] = ()
    sort: tuple[Json, ...] = ()
    asker: int | None = None

    def at(self, rows: Sequence[Row]) -> "Query":
        """The same with its moments filled in."""
        filters = tuple(
            {name: _filled(filter, name, rows) for name in filter} for filter in self.filters
        )
        return Query(self.text, filters, self.sort, self.asker)

    def body(self) -> Json:
        """As the body of a search."""
        body: Json = {}
        if self.text:
            body["query"] = {"text": self.text.body()}
        if self.filters:
            body["filters"] = {"and": list(self.filters)}
        if self.sort:
            body["sort"] = list(self.sort)
        return body

    def properties(self) -> set[str]:
        """The metadata properties that it speaks of."""
        scopes = [part["scope"] for part in (*self.filters, *self.sort)]
        return {scope["metadata_property"] for scope in scopes if scope["entity"] == "metadata"}


def _filled(filter: Json, name: str, rows: Sequence[Row]) -> Any:
    value = filter[name]
    if not isinstance(value, Moment):
        return value
    times = sorted(getattr(row, filter["scope"]["property"]) for row in rows)
    return times[value.place % len(times)] if times else "2000-01-01T00:00:00.000000"


def scope(entity: str, name: str | None = None, part: str | None = None) -> Json:
    """What a filter or an order is about."""
    match entity:
        case "metadata":
            return {"entity": entity, "metadata_property": name}
        case "suggestion":
            return {"entity": entity, "question": name, "property": part}
        case "response" if name:
            return {"entity": entity, "question": name}
    return {"entity": entity, "property": part}


def terms(about: Json, *values: object) -> Json:
    """A filter for any of some values."""
    return {"type": "terms", "scope": about, "values": [str(value) for value in values]}


def between(about: Json, low: Any = None, high: Any = None) -> Json:
    """A filter for values from `low` to `high`."""
    return {"type": "range", "scope": about, "ge": low, "le": high}


def order(about: Json, direction: str = "asc") -> Json:
    """An order of the records."""
    return {"scope": about, "order": direction}


def status(*wanted: str) -> Json:
    """A filter by the statuses of responses; `pending` is having none.

    A single one is said twice: the page's own question for what is left to do would be answered
    with leases, of which tests/test_embedded_leases.py is the proof.
    """
    return terms(scope("response", part="status"), *(wanted if len(wanted) > 1 else wanted * 2))


def _some(values: Sequence[Value]) -> st.SearchStrategy[list[Value]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


def _terms(about: Json, values: Sequence[Any]) -> st.SearchStrategy[Json]:
    return _some(values).map(lambda some: terms(about, *some))


def _between(about: Json, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    ends = st.tuples(values, values).map(sorted)
    whole = ends.map(lambda pair: between(about, *pair))
    return (
        whole
        | values.map(lambda low: between(about, low))
        | values.map(lambda high: between(about, None, high))
    )


_values_of: dict[str, Sequence[Any]] = {"rating": [1, 2, 3], "label": LABELS, "flags": FLAGS}
_question = st.sampled_from(QUESTIONS)
_searchable = st.sampled_from(SEARCHABLE)
filters = st.one_of(
    _terms(scope("metadata", "topic"), TOPICS),
    _terms(scope("metadata", "late"), ["x", "y"]),
    _terms(scope("metadata", "length"), range(-2, 5)),
    _between(scope("metadata", "length"), st.integers(-3, 5)),
    _between(scope("metadata", "score"), quarters.map(lambda n: n - 0.5)),
    _searchable.flatmap(lambda q: _terms(scope("suggestion", q, "value"), _values_of[q])),
    _between(scope("suggestion", "rating", "value"), ratings),
    _question.flatmap(lambda q: _between(scope("suggestion", q, "score"), quarters)),
    _question.flatmap(lambda q: _terms(scope("suggestion", q, "agent"), AGENTS)),
    _question.flatmap(lambda q: _terms(scope("suggestion", q, "type"), ["model", "human"])),
    _searchable.flatmap(lambda q: _terms(scope("response", q), _values_of[q])),
    _between(scope("response", "rating"), ratings),
    _some(["pending", "draft", "submitted", "discarded"]).map(lambda some: status(*some)),
    _terms(scope("record", part="status"), ["pending", "completed"]),
    _terms(scope("record", part="external_id"), [f"e{n}" for n in range(10)]),
    st.builds(
        lambda name, place, side: between(scope("record", part=name)) | {side: Moment(place)},
        st.sampled_from(["inserted_at", "updated_at"]),
        st.integers(0, 20),
        st.sampled_from(["ge", "le"]),
    ),
)
_ordered_by = [
    *(scope("metadata", name) for name in METADATA),
    *(scope("suggestion", name, part) for name in QUESTIONS for part in ("score", "agent", "type")),
    *(scope("suggestion", name, "value") for name in SEARCHABLE),
    scope("response", "rating"),
    scope("response", part="status"),
    *(
        scope("record", part=part)
        for part in ("id", "external_id", "status", "inserted_at", "updated_at")
    ),
]
orders = st.builds(order, st.sampled_from(_ordered_by), st.sampled_from(["asc", "desc"]))
_word = st.sampled_from(WORDS)
_term = st.one_of(
    st.builds(lambda word, no: Term((word,), unwanted=no), _word, st.booleans()),
    st.builds(lambda word, no: Term((word[:3],), True, no), _word, st.booleans()),
    st.builds(lambda words, no: Term(words, unwanted=no), st.tuples(_word, _word), st.booleans()),
)
texts = st.builds(
    Text,
    st.lists(_term, min_size=1, max_size=3).map(tuple),
    st.none() | st.sampled_from(FIELDS),
    st.booleans(),
)
askers = st.none() | st.integers(0, 1)
"""The owner, or one of two annotators."""
queries = st.builds(
    Query,
    st.none() | texts,
    st.lists(filters, max_size=3).map(tuple),
    st.lists(orders, max_size=2).map(tuple),
    askers,
)

BATTERY = [
    Query(Text((Term(("card",)), Term(("refund",), unwanted=True)))),
    Query(Text((Term(("card", "refund")),), "chat"), asker=0),
    Query(
        Text((Term(("pay",), prefix=True),)),
        (status("pending", "draft"),),
        (order(scope("metadata", "length"), "desc"),),
        asker=0,
    ),
    Query(None, (status("pending"), terms(scope("record", part="status"), "pending")), asker=1),
    Query(None, (between(scope("response", "rating"), 2), status("submitted")), asker=1),
    Query(None, (between(scope("response", "rating"), None, 2),)),
    Query(None, (terms(scope("response", "flags"), "unsafe"), status("discarded", "submitted"))),
    Query(None, (terms(scope("suggestion", "label", "value"), "yes"),)),
    Query(None, (terms(scope("metadata", "topic"), "billing", "card"),)),
    Query(None, (), (order(scope("suggestion", "flags", "score"), "desc"),)),
    Query(None, (), (order(scope("response", "rating"), "desc"),), asker=0),
    Query(None, (), (order(scope("record", part="updated_at"), "desc"),)),
]
"""Asked again and again, whatever else is."""
