"""Simple query strings: what they find, against a reading of them in plain Python."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.embedded.text_query import parse, searchable

TEXTS = [
    "My card payment was declined",
    "The payment by card, again",
    "Cash only",
    "It's a well-known card_id: café",
    "机器学习很有趣",
]


def found(query: str, texts: list[str] = TEXTS) -> list[int]:
    """Numbers of the texts that a query finds, in an FTS5 table as the index makes it."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE text USING fts5(f0, tokenize=\"unicode61 tokenchars '_'\")")
    db.executemany(
        "INSERT INTO text (rowid, f0) VALUES (?, ?)",
        [(n, searchable(text)) for n, text in enumerate(texts)],
    )
    match = parse(query)
    if match is None:
        return []
    matching = "SELECT rowid FROM text WHERE text MATCH ?"
    every = {row[0] for row in db.execute("SELECT rowid FROM text")}
    hits = {row[0] for row in db.execute(matching, [match.expression])}
    return sorted(every - hits if match.complement else hits)


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
        ("card~1", [0, 1]),
        ('"payment card"~3', []),
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
