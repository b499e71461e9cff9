"""Simple query strings: what they find, against a reading of them in plain Python."""

import tempfile
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.embedded.documents import RecordRow
from annotate.embedded.index import DatasetIndex
from annotate.embedded.search import Search, Text, run
from annotate.embedded.text_query import parse
from annotate.embedded.text_search import FUZZY_EXPANSIONS, edit_distances

TEXTS = [
    "My card payment was declined",
    "The payment by card, again",
    "Cash only",
    "It's a well-known card_id: café",
    "机器学习很有趣",
]


@cache
def index_of(texts: tuple[str, ...]) -> DatasetIndex:
    folder = tempfile.mkdtemp()
    index = DatasetIndex.create(Path(folder) / "index.db", {}, ["text"], ["text"])
    index.put_records(
        RecordRow(UUID(int=n).bytes, None, "pending", n, n, {"text": text}, {})
        for n, text in enumerate(texts)
    )
    return index


def found(query: str, texts: list[str] = TEXTS) -> list[int]:
    """Numbers of the texts that a query finds, in ascending order."""
    hits, total = run(index_of(tuple(texts)), Search(text=Text(query)))
    assert total == len(hits)
    return sorted(UUID(bytes=hit.record).int for hit in hits)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("card", [0, 1]),  # not "card_id", which is one word
        ("card payment", [0, 1]),
        ("card + payment", [0, 1]),
        ('"card payment"', [0]),
        ("cash | declined", [0, 2]),
        ("cash | declined card", [0]),  # from left to right: (cash | declined) + card
        ("card -declined", [1]),
        ("-card", [2, 3, 4]),
        ("-(card | cash)", [3, 4]),
        ("--card", [0, 1]),
        ("pay*", [0, 1]),
        ("car*", [0, 1, 3]),
        ("well-known", [3]),
        ("it's", [3]),
        ("学习", [4]),
        ("习学", []),
        ("CARD", [0, 1]),
        ("crd~1", [0, 1]),
        ("crd", []),
        ("pyament~2", [0, 1]),  # letters that changed places are two edits, as Argilla asks
        ("pyament~1", []),
        ("declned~", [0]),
        ("card~0", [0, 1]),
        ("CRAD~2 -declined", [1]),
        (r"crd\~1", []),
        ('"payment card"', []),
        ('"payment card"~1', [0, 1]),
        ('"my declined"~2', []),
        ('"my declined"~3', [0]),
        ('"card again"~1 -cash', [1]),
        ("-crd~1", [2, 3, 4]),
        ("card_id", [3]),
    ],
)
def test_operators(query: str, expected: list[int]) -> None:
    assert found(query) == expected


@pytest.mark.parametrize("query", ["", "   ", "...", "*", "-", "()", '"', "\\", "| +", "-(...)"])
def test_a_query_without_a_word_finds_nothing(query: str) -> None:
    assert parse(query) is None


@pytest.mark.parametrize(
    "query", ["(card", "card)", "card |", "| card", '"card', "card ...", "((card"]
)
def test_what_makes_no_sense_is_ignored(query: str) -> None:
    assert found(query) == [0, 1]


def test_a_closing_parenthesis_too_many_does_not_hide_the_rest() -> None:
    assert found("card) -declined") == [1]


def test_an_escaped_operator_is_text() -> None:
    assert found(r"\-card") == [0, 1]  # the escaped minus is punctuation, no negation
    assert parse(r"\*") is None


words = st.text("abc", max_size=6)


def edits(a: str, b: str) -> int:
    """Levenshtein's recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))


@given(words, st.lists(words))
def test_edit_distances_are_levenshteins(word: str, terms: list[str]) -> None:
    assert edit_distances(word, terms) == [edits(word, term) for term in terms]


def test_a_fuzzy_word_stands_for_the_nearest_few() -> None:
    texts = [f"word{sign}" for sign in "abcdefghijklmnop"] + ["word"]
    assert found("word~1", texts) == [*range(FUZZY_EXPANSIONS - 1), 16]


def test_half_of_a_surrogate_pair_is_no_error() -> None:
    assert found("card\ud800") == [0, 1]
    assert found("whole", ["the \ud800 whole"]) == [0]


@given(st.text())
def test_nothing_a_user_types_is_an_error(query: str) -> None:
    found(query)


WORDS = ["red", "green", "blue"]
Expression = str | tuple[str, object, object]
expressions = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: st.tuples(st.sampled_from("+|-"), inner, inner),
    max_leaves=6,
)


def written(expression: object) -> str:
    if isinstance(expression, str):
        return expression
    operator, left, right = expression  # type: ignore[misc]
    if operator == "-":
        return f"({written(left)} + -{written(right)})"
    return f"({written(left)} {operator} {written(right)})"


def holds(expression: object, words: frozenset[str]) -> bool:
    if isinstance(expression, str):
        return expression in words
    operator, left, right = expression  # type: ignore[misc]
    if operator == "|":
        return holds(left, words) or holds(right, words)
    if operator == "-":
        return holds(left, words) and not holds(right, words)
    return holds(left, words) and holds(right, words)


@given(expressions, st.booleans())
def test_nested_queries_find_what_logic_says(expression: object, negated: bool) -> None:
    subsets = [frozenset(w for n, w in enumerate(WORDS) if bits >> n & 1) for bits in range(8)]
    query = f"-{written(expression)}" if negated else written(expression)
    expected = [n for n, words in enumerate(subsets) if holds(expression, words) != negated]
    assert found(query, [" ".join(words) for words in subsets]) == expected
