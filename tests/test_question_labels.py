"""Responses become what agreement is measured on: the right shape for every kind of question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_votes import START, item, preference, ranking, response

from annotate.annotations import NO_SPAN, MultiLabels, Rankings, Spans, Texts
from annotate.errors import ProjectError
from annotate.labels import Labels
from annotate.question_labels import Answers, level_of, question_labels
from annotate.records import table_from_rows
from annotate.votes import votes_of_responses

ITEMS = [
    item("i-1", "o-1", "o-2"),
    item("i-2", "o-3", prompt="p-2"),
    item("i-3", "o-4", prompt="p-2"),
    item("i-4", prompt="p-3"),
    item("i-5", "o-1", "o-2", "o-5"),
]


def answers(*responses: dict[str, Any], items: list[dict[str, Any]] = ITEMS) -> dict[str, Answers]:
    table, shown = table_from_rows("responses", responses), table_from_rows("items", items)
    return question_labels(table, shown, votes_of_responses(table, shown))


def rated(item_id: str, who: str, output: str, rating: Any, **more: Any) -> dict[str, Any]:
    return response(item_id, who, "truth", {"output": output, "rating": rating}, **more)


def said(labels: Answers) -> list[tuple[str, str, str]]:
    """(item, annotator, class) of Labels."""
    assert isinstance(labels, Labels)
    return [
        (labels.items[i], labels.annotators[a], labels.classes[c])
        for i, a, c in zip(labels.item, labels.annotator, labels.label, strict=True)
    ]


def sets(found: Answers) -> dict[tuple[str, str], set[str]]:
    assert isinstance(found, MultiLabels)
    dense = found.member.toarray()
    return {
        (found.items[i], found.annotators[a]): {
            found.classes[at] for at in np.flatnonzero(dense[row])
        }
        for row, (i, a) in enumerate(zip(found.item, found.annotator, strict=True))
    }


def test_ratings_of_any_aspect_are_ordinal_labels_of_outputs() -> None:
    found = answers(
        rated("i-2", "anna", "o-3", 4),
        rated("i-2", "ben", "o-3", 10),
        rated("i-3", "anna", "o-4", 9, status="draft"),
        rated("i-3", "ben", "o-4", 9),
    )["truth"]
    assert said(found) == [("o-3", "anna", "4"), ("o-3", "ben", "10"), ("o-4", "ben", "9")]
    assert isinstance(found, Labels)
    assert found.classes == ["4", "9", "10"]  # as numbers, not as text
    assert level_of(found) == "ordinal"
    assert found.prompt is not None
    assert len(set(found.prompt.tolist())) == 1  # both outputs are p-2's
    assert found.guidelines == ["preference@v1"]
    assert found.time is not None
    assert int(found.time[0]) == int(START.timestamp()) * 1_000_000


def test_the_latest_of_each_version_counts() -> None:
    first = rated("i-2", "anna", "o-3", 1, minute=1)
    later = rated("i-2", "anna", "o-3", 2, minute=3)
    other = rated("i-2", "anna", "o-3", 5, minute=2, guideline="preference@v2")
    found = answers(later, first, other)["truth"]
    assert isinstance(found, Labels)
    assert found.versions == ["preference@v1", "preference@v2"]
    by_version = {name: said(part) for name, part in found.by_version().items()}
    assert by_version == {
        "preference@v1": [("o-3", "anna", "2")],
        "preference@v2": [("o-3", "anna", "5")],
    }


def test_labels_and_thumbs_are_names() -> None:
    found = answers(
        response("i-4", "anna", "urgency", {"label": "urgent"}),
        response("i-4", "ben", "urgency", {"label": "not_urgent"}),
        response("i-2", "ben", "thumb", {"output": "o-3", "thumb": "up"}),
        response("i-2", "ben", "verdict", {"output": "o-3", "label": "clean"}),
    )
    assert said(found["urgency"]) == [("p-3", "anna", "urgent"), ("p-3", "ben", "not_urgent")]
    assert said(found["thumb"]) == [("o-3", "ben", "up")]
    assert said(found["verdict"]) == [("o-3", "ben", "clean")]
    assert isinstance(found["thumb"], Labels)
    assert level_of(found["thumb"]) == "nominal"


def test_who_flags_nothing_has_said_so() -> None:
    """Of i-1 both were asked about both outputs; i-2 was answered under a version without flags."""
    found = answers(
        preference("i-1", "anna", 1),
        preference("i-1", "ben", 1),
        response("i-1", "anna", "flags", {"output": "o-1", "flags": ["unsafe", "untrue"]}),
        rated("i-2", "ben", "o-3", 3, guideline="rating@v1"),
    )["flags"]
    assert sets(found) == {
        ("o-1", "anna"): {"unsafe", "untrue"},
        ("o-2", "anna"): set(),
        ("o-1", "ben"): set(),
        ("o-2", "ben"): set(),
    }


def test_topics_are_sets_of_prompts() -> None:
    found = answers(
        response("i-4", "anna", "topics", {"labels": ["delivery", "return"]}),
        response("i-4", "ben", "topics", {"labels": ["delivery"]}),
    )["topics"]
    assert sets(found) == {("p-3", "anna"): {"delivery", "return"}, ("p-3", "ben"): {"delivery"}}


def test_a_mark_that_was_not_made_is_a_no() -> None:
    found = answers(
        response("i-4", "anna", "urgency", {"label": "urgent"}),
        response("i-4", "anna", "sure", True),
        response("i-4", "ben", "urgency", {"label": "urgent"}),
    )["sure"]
    assert sorted(said(found)) == [("p-3", "anna", "yes"), ("p-3", "ben", "no")]


def test_what_is_asked_once_an_item_is_about_what_the_item_shows() -> None:
    """Three pairs of one prompt, two people: six answers to three pairs, in either order shown."""
    shown = [
        item("i-1", "o-1", "o-2"), item("i-2", "o-3", "o-1"), item("i-3", "o-2", "o-3"),
        item("i-9", "o-2", "o-1"),
    ]  # fmt: skip
    given = [
        row
        for n, who in [("1", "anna"), ("2", "anna"), ("3", "anna"), ("9", "ben"), ("2", "ben")]
        for row in (
            response(f"i-{n}", who, "tone", {"label": "kind"}),
            response(f"i-{n}", who, "clause", {"labels": ["truth"]}),
            response(f"i-{n}", who, "sure", True),
            response(f"i-{n}", who, "preference", {"a": "o-1", "b": "o-2", "strength": 1}),
        )
    ]
    for row in given:
        if row["question"] == "preference":
            a, b = sorted(next(i for i in shown if i["item_id"] == row["item_id"])["output_ids"])
            row["value"] = row["value"].replace("o-1", "x").replace("o-2", b).replace("x", a)
    found = answers(*given, items=shown)
    votes = {(unit, who) for unit, who, _ in said(found["vote"])}
    assert len(votes) == 5
    assert {(unit, who) for unit, who, _ in said(found["tone"])} == votes
    assert {(unit, who) for unit, who, _ in said(found["sure"])} == votes
    assert set(sets(found["clause"])) == votes


def test_questions_about_the_prompt_have_one_unit_in_every_batch() -> None:
    """The same prompt pushed twice: the later answer counts, of the mark as of the label."""
    again = [item("i-4", prompt="p-3"), item("i-7", prompt="p-3")]
    found = answers(
        response("i-4", "anna", "urgency", {"label": "urgent"}),
        response("i-4", "anna", "sure", True),
        response("i-7", "anna", "urgency", {"label": "urgent"}, minute=9),
        response("i-7", "ben", "urgency", {"label": "urgent"}),
        response("i-7", "ben", "sure", True),
        items=again,
    )
    assert said(found["urgency"]) == [("p-3", "anna", "urgent"), ("p-3", "ben", "urgent")]
    assert sorted(said(found["sure"])) == [("p-3", "anna", "no"), ("p-3", "ben", "yes")]


def test_rankings_keep_ranks_and_ties_and_are_votes_too() -> None:
    found = answers(
        ranking("i-5", "anna", {"o-1": 2, "o-2": 1, "o-5": 2}),
        ranking("i-5", "ben", {"o-1": 1, "o-2": 2, "o-5": 3}),
    )
    ranks = found["ranking"]
    assert isinstance(ranks, Rankings)
    rows = zip(ranks.annotator, ranks.option, ranks.rank, strict=True)
    assert {(ranks.annotators[a], ranks.options[o], int(r)) for a, o, r in rows} == {
        ("anna", "o-1", 2), ("anna", "o-2", 1), ("anna", "o-5", 2),
        ("ben", "o-1", 1), ("ben", "o-2", 2), ("ben", "o-5", 3),
    }  # fmt: skip
    assert ranks.items == ["i-5"]
    assert len(said(found["vote"])) == 6
    assert "strength" not in found


def test_votes_strengths_and_both_bad() -> None:
    found = answers(
        preference("i-1", "anna", 3),
        preference("i-1", "ben", -1),
        response("i-1", "ben", "both_bad", True),
    )
    assert sorted(found) == ["both_bad", "strength", "vote"]
    assert [label for _, _, label in said(found["vote"])] == ["a", "b"]
    assert [label for _, _, label in said(found["strength"])] == ["3", "-1"]
    assert [label for _, _, label in said(found["both_bad"])] == ["no", "yes"]


def test_texts() -> None:
    found = answers(
        response("i-4", "anna", "demonstration", {"text": 'She said "output": yes.'}),
        response("i-4", "ben", "demonstration", {"text": "Ja\nnein"}),
    )["demonstration"]
    assert isinstance(found, Texts)
    assert found.text.tolist() == ['She said "output": yes.', "Ja\nnein"]
    assert found.items == ["i-4"]


def spans(item_id: str, who: str, output: str, *marks: tuple[int, int, str]) -> dict[str, Any]:
    made = [{"start": s, "end": e, "label": label} for s, e, label in marks]
    return response(item_id, who, "errors", {"output": output, "spans": made, "length": 20})


def test_spans_and_answers_without_any() -> None:
    found = answers(
        spans("i-2", "anna", "o-3", (0, 4, "untrue"), (6, 9, "padding")),
        spans("i-2", "ben", "o-3"),
        spans("i-3", "ben", "o-4"),
    )["errors"]
    assert isinstance(found, Spans)
    names = [*found.classes, None]
    rows = zip(found.item, found.annotator, found.start, found.end, found.label, strict=True)
    assert {
        (found.items[i], found.annotators[a], int(s), int(e), names[c]) for i, a, s, e, c in rows
    } == {
        ("o-3", "anna", 0, 4, "untrue"),
        ("o-3", "anna", 6, 9, "padding"),
        ("o-3", "ben", 0, 0, None),
        ("o-4", "ben", 0, 0, None),
    }
    assert names[NO_SPAN] is None
    assert found.length.tolist() == [20, 20]


def test_nobody_marked_anything() -> None:
    found = answers(spans("i-2", "anna", "o-3"))["errors"]
    assert isinstance(found, Spans)
    assert found.classes == []
    assert found.label.tolist() == [NO_SPAN]


def test_no_answer_at_all() -> None:
    assert answers() == {}
    assert answers(response("i-1", "anna", None, None, status="discarded")) == {}


@pytest.mark.parametrize(
    "value",
    [{"output": "o-3"}, {"output": "o-3", "rating": "4"}, {"rating": 4, "text": "so"}, 4, None],
)
def test_a_damaged_answer_is_one_clear_line(value: Any) -> None:
    with pytest.raises(ProjectError, match='an answer to "truth" has another form') as caught:
        answers(response("i-2", "anna", "truth", value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rating", ["NaN", "Infinity", "1e400", "2.5"])
def test_a_rating_that_is_no_whole_number_is_refused(rating: str) -> None:
    row = rated("i-2", "anna", "o-3", 1)
    row["value"] = row["value"].replace("1}", f"{rating}}}")
    with pytest.raises(ProjectError, match='an answer to "truth" has another form'):
        answers(row)


def test_a_span_outside_of_its_text_is_refused() -> None:
    with pytest.raises(ProjectError, match="outside of its text"):
        answers(spans("i-2", "anna", "o-3", (0, 21, "untrue")))


def test_an_unknown_item_is_refused() -> None:
    with pytest.raises(ProjectError, match="i-9, which was never pushed"):
        answers(response("i-9", "anna", "urgency", {"label": "urgent"}))
