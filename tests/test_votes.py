"""Responses become votes: one a pair and annotator, whichever question it came from."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.errors import ProjectError
from annotate.question_labels import question_labels
from annotate.records import SCHEMAS, content_id, table_from_rows
from annotate.votes import votes_of_responses

START = datetime(2026, 1, 1, tzinfo=UTC)


def item(item_id: str, *outputs: str, prompt: str = "p-1") -> dict[str, Any]:
    kind = "compare" if len(outputs) == 2 else "rank"
    return {
        "item_id": item_id, "prompt_id": prompt, "output_ids": list(outputs), "kind": kind,
        "guideline": "preference@v1", "batch": "batch",
    }  # fmt: skip


def response(
    item_id: str, who: str, question: str | None, value: Any, *, status: str = "submitted",
    minute: int = 0, guideline: str = "preference@v1",
) -> dict[str, Any]:  # fmt: skip
    return {
        "item_id": item_id, "annotator": who, "question": question,
        "value": None if question is None else json.dumps(value), "status": status,
        "time": START + timedelta(minutes=minute), "seconds": 12.5, "guideline": guideline,
    }  # fmt: skip


def preference(item_id: str, who: str, strength: int, **more: Any) -> dict[str, Any]:
    return response(
        item_id, who, "preference", {"a": "o-1", "b": "o-2", "strength": strength}, **more
    )


def ranking(item_id: str, who: str, ranks: dict[str, int], **more: Any) -> dict[str, Any]:
    return response(item_id, who, "ranking", {"ranks": ranks}, **more)


def votes(responses: list[dict[str, Any]], *items: dict[str, Any]) -> list[dict[str, Any]]:
    table = votes_of_responses(
        table_from_rows("responses", responses),
        table_from_rows("items", items or [item("i-1", "o-1", "o-2")]),
    )
    assert table.schema == SCHEMAS["votes"]
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_preference_is_a_vote_with_its_strength() -> None:
    found = votes(
        [preference("i-1", "ann", -2), preference("i-1", "bob", 0), preference("i-1", "cat", 3)]
    )
    assert [(v["annotator"], v["vote"], v["strength"]) for v in found] == [
        ("ann", "b", -2), ("bob", "tie", 0), ("cat", "a", 3),
    ]  # fmt: skip
    assert found[0]["pair_id"] == content_id("j", "o-1", "o-2")
    assert (found[0]["prompt_id"], found[0]["item_id"]) == ("p-1", "i-1")
    assert (found[0]["both_bad"], found[0]["flags"]) == (False, [])
    assert (found[0]["guideline"], found[0]["time"]) == ("preference@v1", START)


def test_a_preference_written_the_other_way_round_is_turned() -> None:
    turned = {"a": "o-2", "b": "o-1", "strength": 3}
    (found,) = votes([response("i-1", "ann", "preference", turned)])
    assert (found["output_a"], found["output_b"], found["strength"]) == ("o-1", "o-2", -3)


def test_a_ranking_gives_every_pair_it_implies() -> None:
    found = votes(
        [ranking("i-1", "ann", {"o-3": 1, "o-1": 2, "o-2": 2})], item("i-1", "o-1", "o-2", "o-3")
    )
    assert {(v["output_a"], v["output_b"]): v["vote"] for v in found} == {
        ("o-1", "o-2"): "tie", ("o-1", "o-3"): "b", ("o-2", "o-3"): "b",
    }  # fmt: skip
    assert {v["strength"] for v in found} == {None}


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.sampled_from(["o-1", "o-2", "o-3", "o-4", "o-5"]), st.integers(1, 5)))
def test_k_ranked_outputs_give_k_choose_2_votes(ranks: dict[str, int]) -> None:
    found = votes([ranking("i-1", "ann", ranks)], item("i-1", "o-1", "o-2", "o-3", "o-4", "o-5"))
    assert len(found) == len(ranks) * (len(ranks) - 1) // 2
    for vote in found:
        a, b = ranks[vote["output_a"]], ranks[vote["output_b"]]
        assert vote["vote"] == ("a" if a < b else "b" if b < a else "tie")


def test_only_submitted_responses_vote() -> None:
    rows = [
        preference("i-1", "ann", 1, status="draft"),
        preference("i-1", "bob", 1, status="discarded"),
        response("i-1", "cat", None, None, status="discarded"),
    ]
    assert votes(rows) == []
    assert len(votes([*rows, preference("i-1", "dan", 1)])) == 1


def test_the_latest_answer_to_a_pair_is_the_vote() -> None:
    rows = [
        preference("i-1", "ann", 3, minute=5),
        ranking("i-2", "ann", {"o-1": 2, "o-2": 1}, minute=9),
        preference("i-3", "ann", 1, minute=7),
    ]
    items = [item(name, "o-1", "o-2") for name in ("i-1", "i-2", "i-3")]
    (found,) = votes(rows, *items)
    assert (found["vote"], found["item_id"]) == ("b", "i-2")


def test_marks_and_flags_stand_beside_their_own_annotators_vote() -> None:
    rows = [
        preference("i-1", "ann", 0),
        response("i-1", "ann", "both_bad", True),
        response("i-1", "ann", "flags", {"output": "o-2", "flags": ["unsafe", "untrue"]}),
        response("i-1", "ann", "flags", {"output": "o-1", "flags": ["unsafe"]}),
        preference("i-1", "bob", 1),
        response("i-1", "bob", "flags", {"output": "o-1", "flags": []}),
        response("i-1", "bob", "reason", {"text": "line\nbreak"}),
    ]
    ann, bob = votes(rows)
    assert (ann["both_bad"], ann["flags"]) == (True, ["o-1:unsafe", "o-2:unsafe", "o-2:untrue"])
    assert (bob["both_bad"], bob["flags"]) == (False, [])


def test_flags_of_a_ranking_stay_with_the_pairs_of_that_output() -> None:
    rows = [
        ranking("i-1", "ann", {"o-1": 1, "o-2": 2, "o-3": 3}),
        response("i-1", "ann", "flags", {"output": "o-3", "flags": ["unsafe"]}),
    ]
    found = votes(rows, item("i-1", "o-1", "o-2", "o-3"))
    assert {(v["output_a"], v["output_b"]): v["flags"] for v in found} == {
        ("o-1", "o-2"): [], ("o-1", "o-3"): ["o-3:unsafe"], ("o-2", "o-3"): ["o-3:unsafe"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (response("i-1", "ann", "preference", {"a": "o-1"}), "it needs a, b, strength"),
        (response("i-1", "ann", "preference", "a_better"), "another form"),
        (preference("i-1", "ann", 4), "from -3 to 3"),
        (response("i-1", "ann", "ranking", {"o-1": 1}), "another form"),
        (ranking("i-1", "ann", {"o-1": "first"}), "another form"),
        (preference("i-9", "ann", 1), "item i-9, which was never pushed"),
    ],
)
def test_a_damaged_response_is_one_clear_line(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message) as caught:
        votes([row])
    assert "\n" not in str(caught.value)


def test_a_long_text_in_a_value_is_read() -> None:
    long = "o-" + "x" * 3_000_000
    row = response("i-1", "ann", "preference", {"a": "o-1", "b": long, "strength": 1})
    assert votes([row])[0]["output_b"] == long


def test_agreement_is_measured_a_question_at_a_time() -> None:
    rows = [
        preference("i-1", "ann", 1), preference("i-1", "bob", -1),
        response("i-1", "bob", "both_bad", True),
        response("i-1", "ann", "rating", {"output": "o-1", "rating": 5}),
        response("i-2", "ann", "rating", {"output": "o-1", "rating": 2}, minute=3),
        response("i-1", "bob", "rating", {"output": "o-1", "rating": 4}),
    ]  # fmt: skip
    responses: pa.Table = table_from_rows("responses", rows)
    shown = [item(name, "o-1", "o-2") for name in ("i-1", "i-2")]
    items = table_from_rows("items", shown)
    found = question_labels(responses, items, votes_of_responses(responses, items))
    assert set(found) == {"vote", "strength", "both_bad", "rating"}
    assert found["strength"].classes == ["-1", "1"]
    assert found["both_bad"].label.tolist() == [0, 1]
    assert [found["rating"].classes[code] for code in found["rating"].label] == ["2", "4"]
