"""The way back: whatever the order shown, choosing an output gives that output."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.answers import Item, answer, undo
from annotate.errors import InputError
from annotate.guidelines import load_guideline

ROOT = Path(__file__).parents[1]
PREFERENCE = load_guideline(ROOT, "preference@v1")
RANKING = load_guideline(ROOT, "ranking@v1")
FLAGS = ["off_topic", "personal_data", "unsafe", "untrue"]


def item(*outputs: str) -> Item:
    return {
        "item_id": "i-1",
        "prompt_id": "p-1",
        "output_ids": list(outputs),
        "kind": "compare",
        "guideline": "preference@v1",
        "batch": "b1",
    }


def values(**raw: Any) -> dict[str, dict[str, Any]]:
    """As Argilla's REST API returns a response's values."""
    return {name: {"value": value} for name, value in raw.items()}


def test_a_preference_is_turned_back_to_the_outputs() -> None:
    shown = values(preference="a_better", both_bad="both_bad", flags_a=["untrue", "unsafe"])
    answers, problems = undo(shown, item("o-9", "o-2"), PREFERENCE)

    assert problems == []
    assert answers == [
        ("preference", {"a": "o-2", "b": "o-9", "strength": -2}),  # o-9 stood first and is better
        ("both_bad", True),
        ("flags", {"output": "o-9", "flags": ["unsafe", "untrue"]}),
    ]


@pytest.mark.parametrize(
    ("label", "strength"),
    [
        ("a_much_better", 3),
        ("a_better", 2),
        ("a_slightly_better", 1),
        ("no_difference", 0),
        ("b_slightly_better", -1),
        ("b_better", -2),
        ("b_much_better", -3),
    ],
)
def test_the_seven_steps(label: str, strength: int) -> None:
    straight = undo(values(preference=label), item("o-1", "o-2"), PREFERENCE).answers
    swapped = undo(values(preference=label), item("o-2", "o-1"), PREFERENCE).answers
    assert straight == [("preference", {"a": "o-1", "b": "o-2", "strength": strength})]
    assert swapped == [("preference", {"a": "o-1", "b": "o-2", "strength": -strength})]


def test_a_ranking_keeps_its_ranks_and_ties() -> None:
    ranked = [
        {"value": "response_c", "rank": 1},
        {"value": "response_a", "rank": 2},
        {"value": "response_b", "rank": 2},
    ]
    shown = values(ranking=ranked, rating_b=4, reason="C is short.", correction=" ")
    answers, problems = undo(shown, item("o-7", "o-8", "o-5"), RANKING)

    assert problems == []
    assert answers == [
        ("ranking", {"ranks": {"o-5": 1, "o-7": 2, "o-8": 2}}),
        ("rating", {"output": "o-8", "rating": 4}),
        ("reason", {"text": "C is short."}),
    ]


def test_of_an_unfinished_ranking_what_is_ranked_remains() -> None:
    draft = [{"value": "response_a", "rank": None}, {"value": "response_b", "rank": 1}]
    assert undo(values(ranking=draft), item("o-1", "o-2", "o-3"), RANKING).answers == [
        ("ranking", {"ranks": {"o-2": 1}})
    ]
    nothing = [{"value": "response_a"}]
    assert undo(values(ranking=nothing), item("o-1", "o-2", "o-3"), RANKING).answers == []


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"preference": "a_great"}, "preference: 'a_great' is none of a_much_better, a_better"),
        ({"preference": ["a_better"]}, "preference: ['a_better'] is none of"),
        ({"both_bad": "yes"}, "both_bad: 'yes' is none of both_bad, usable"),
        ({"flags_b": ["rude"]}, "flags_b: 'rude' is none of unsafe"),
        ({"flags_b": [{}]}, "flags_b: {} is none of"),
        ({"flags_c": ["unsafe"]}, "unknown question 'flags_c'"),
        ({"reason": 3}, "reason: 3 is not text"),
    ],
)
def test_what_cannot_be_read_is_reported_and_the_rest_stands(raw: Any, problem: str) -> None:
    answers, problems = undo(
        {**values(correction="Better."), **values(**raw)}, item("o-1", "o-2"), PREFERENCE
    )
    assert answers == [("correction", {"text": "Better."})]
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    "ranking",
    [
        "response_a",
        [{"value": "response_d", "rank": 1}],
        [{"value": "response_a", "rank": 4}],
        [{"value": "response_a", "rank": "1"}],
        [{"value": "response_a", "rank": 1}, {"value": "response_a", "rank": 2}],
    ],
)
def test_a_ranking_of_something_else_is_reported(ranking: Any) -> None:
    answers, problems = undo(values(ranking=ranking), item("o-1", "o-2", "o-3"), RANKING)
    assert answers == []
    assert len(problems) == 1


@pytest.mark.parametrize("rating", [0, 6, True, "4", 2.5])
def test_a_rating_outside_the_scale_is_reported(rating: Any) -> None:
    assert undo(values(rating_a=rating), item("o-1", "o-2", "o-3"), RANKING).problems


RUBBISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
ASKED = [asked.name for guideline in (PREFERENCE, RANKING) for asked in guideline.asked(3)]


@given(st.dictionaries(st.sampled_from([*ASKED, "other"]), RUBBISH))
def test_rubbish_never_crashes(raw: dict[str, Any]) -> None:
    for guideline, shown in (
        (PREFERENCE, item("o-1", "o-2")),
        (RANKING, item("o-1", "o-2", "o-3")),
    ):
        answers, _ = undo(raw, shown, guideline)
        assert all(isinstance(json.loads(part.json), dict | bool) for part in answers)


def test_half_a_surrogate_pair_becomes_text_a_table_can_hold() -> None:
    [(_, value)] = undo(values(reason="\ud83d oh"), item("o-1", "o-2"), PREFERENCE).answers
    assert value["text"].encode() == b"? oh"


def preference_answers(outputs: list[str]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    first, second = sorted(outputs)
    strength = st.integers(-3, 3).map(
        lambda s: ("preference", {"a": first, "b": second, "strength": s})
    )
    return st.tuples(strength, common(outputs)).map(lambda parts: [parts[0], *parts[1]])


def ranking_answers(outputs: list[str]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    n = len(outputs)
    ranks = st.lists(st.integers(1, n), min_size=n, max_size=n).map(
        lambda given: ("ranking", {"ranks": dict(zip(outputs, given, strict=True))})
    )
    ratings = st.lists(st.none() | st.integers(1, 5), min_size=n, max_size=n).map(
        lambda given: [
            ("rating", {"output": output, "rating": rating})
            for output, rating in zip(outputs, given, strict=True)
            if rating is not None
        ]
    )
    return st.tuples(ranks, ratings, common(outputs)).map(lambda p: [p[0], *p[1], *p[2]])


def common(outputs: list[str]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """Marks, flags and texts."""
    flags = st.lists(st.lists(st.sampled_from(FLAGS), unique=True), max_size=len(outputs)).map(
        lambda given: [
            ("flags", {"output": output, "flags": sorted(raised)})
            for output, raised in zip(outputs, given, strict=False)
            if raised
        ]
    )
    texts = st.dictionaries(
        st.sampled_from(["correction", "reason"]),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    ).map(lambda given: [(name, {"text": text}) for name, text in given.items()])
    marks = st.sampled_from([[], [("both_bad", True)]])
    return st.tuples(flags, texts, marks).map(lambda parts: [a for part in parts for a in part])


@given(st.data())
def test_there_and_back(data: st.DataObject) -> None:
    """For any order shown: what is answered about an output comes back as about that output."""
    kind = data.draw(st.sampled_from(["compare", "rank"]))
    n = 2 if kind == "compare" else data.draw(st.integers(3, 5))
    outputs = [f"o-{i}" for i in range(n)]
    given_answers = data.draw(
        preference_answers(outputs) if kind == "compare" else ranking_answers(outputs)
    )
    guideline = PREFERENCE if kind == "compare" else RANKING
    shown = item(*data.draw(st.permutations(outputs)))

    answers, problems = undo(answer(given_answers, shown, guideline), shown, guideline)

    assert problems == []
    key = lambda pair: (pair[0], json.dumps(pair[1], sort_keys=True))  # noqa: E731
    assert sorted(map(tuple, answers), key=key) == sorted(given_answers, key=key)


@pytest.mark.parametrize(
    "given_answer",
    [
        ("preference", {"a": "o-1", "b": "o-3", "strength": 1}),
        ("preference", {"a": "o-1", "b": "o-2", "strength": 4}),
        ("preference", "o-1"),
        ("flags", {"output": "o-3", "flags": ["unsafe"]}),
        ("flags", {"output": "o-1", "flags": ["rude"]}),
        ("ranking", {"ranks": {"o-1": 1}}),
    ],
)
def test_an_answer_that_the_item_does_not_take_is_refused(given_answer: tuple[str, Any]) -> None:
    with pytest.raises(InputError, match=f"item i-1, answer to '{given_answer[0]}'"):
        answer([given_answer], item("o-1", "o-2"), PREFERENCE)


def test_an_unmarked_item_can_be_said_to_be_so() -> None:
    raw = answer([("both_bad", False)], item("o-1", "o-2"), PREFERENCE)
    assert raw == values(both_bad="usable")
    assert undo(raw, item("o-1", "o-2"), PREFERENCE) == ([], [])
