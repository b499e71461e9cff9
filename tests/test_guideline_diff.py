"""What changed between two versions of a guideline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from annotate.errors import InputError
from annotate.guideline_diff import guideline_diff
from annotate.guidelines import Guideline, load_guideline

SHIPPED = Path(__file__).parent.parent / "guidelines"


@pytest.fixture
def first() -> Guideline:
    return load_guideline(SHIPPED, "preference@v1")


def next_version(first: Guideline, **changes: object) -> Guideline:
    return dataclasses.replace(first, version=2, **changes)  # type: ignore[arg-type]


def with_question(first: Guideline, name: str, **changes: object) -> Guideline:
    questions = tuple(
        dataclasses.replace(question, **changes) if question.name == name else question  # type: ignore[arg-type]
        for question in first.questions
    )
    return next_version(first, questions=questions)


def test_the_same_text_does_not_differ(first: Guideline) -> None:
    found = guideline_diff(first, next_version(first))
    assert found.lines() == ["preference@v1 → preference@v2", "no difference"]
    assert found.comparable


def test_a_passage_is_found_under_its_heading(first: Guideline) -> None:
    body = first.body.replace("3. **Is it true?**", "3. **Is every word of it true?**")
    found = guideline_diff(first, next_version(first, body=body))
    ((heading, lines),) = found.sections.items()
    assert heading == "How to decide"
    assert [line[:18] for line in lines] == ["- 3. **Is it true?", "+ 3. **Is every wo"]
    assert found.comparable


def test_another_wording_is_comparable_and_another_answer_is_not(first: Guideline) -> None:
    reworded = with_question(first, "preference", title="Which one helps more?")
    found = guideline_diff(first, reworded)
    assert found.comparable
    assert found.questions == {
        "preference": ["title: 'Which response is better?' → 'Which one helps more?'"]
    }
    (preference, *_) = first.questions
    turned = with_question(first, "preference", labels=preference.labels[::-1])
    assert not guideline_diff(first, turned).comparable  # the order is the strength
    both = with_question(
        first, "preference", title="Which one helps more?", labels=preference.labels[::-1]
    )
    assert not guideline_diff(first, both).comparable
    fewer = with_question(first, "flags", labels=first.questions[2].labels[1:])
    found = guideline_diff(first, fewer)
    assert found.questions == {"flags": ["label unsafe went"]}
    assert not found.comparable


def test_a_question_that_came_or_went_leaves_the_others_comparable(first: Guideline) -> None:
    found = guideline_diff(first, next_version(first, questions=first.questions[:-1], overlap=3))
    assert found.questions == {"reason": ["gone"]}
    assert found.settings == {"overlap": (2, 3)}
    assert found.comparable
    assert "overlap: 2 → 3" in found.lines()


def test_other_tasks_are_not_versions(first: Guideline) -> None:
    with pytest.raises(InputError, match="different tasks"):
        guideline_diff(first, load_guideline(SHIPPED, "ranking@v1"))
