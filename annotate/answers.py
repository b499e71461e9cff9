"""The way back from the display: what an annotator chose, in terms of outputs; and its inverse.

Argilla knows "response A" and "response B". Which outputs those were is in the item (`output_ids`,
in the order shown), so an answer is only ever kept in terms of output ids:

    type        Argilla's value, o-9 shown first     value kept
    preference  "a_better"                           {"a": "o-2", "b": "o-9", "strength": -2}
    ranking     [{"value": "response_a", "rank": 1}, …]  {"ranks": {"o-9": 1, "o-2": 2}}
    mark        "both_bad"                           true
    rating      4, to rating_b                       {"output": "o-2", "rating": 4}
    flags       ["unsafe"], to flags_a               {"output": "o-9", "flags": ["unsafe"]}
    text        "Better: …"                          {"text": "Better: …"}
    label       "urgent"                             {"label": "urgent"}
    labels      ["refund", "delivery"]               {"labels": ["delivery", "refund"]}
    thumbs      "up", to thumbs_a                    {"output": "o-9", "thumb": "up"}
    spans       [{"start": 0, "end": 5, "label":     {"output": "o-9", "length": 80, "spans":
                  "untrue"}], to errors_a              [{"start": 0, "end": 4, "label": "untrue"}]}

In a preference a < b as text, and a positive strength means that a is better. A label or labels of
a response name it as `output`. Spans count code points of the output's text, `length` in all;
Argilla's count what stands on the page (`annotate.shown_text`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from annotate.answer_values import FIELDS, REDO, UNDO, Shown, UnreadableError
from annotate.errors import InputError
from annotate.guidelines import Guideline

__all__ = ["FIELDS", "Answer", "Item", "Undone", "answer", "undo"]


class Item(TypedDict):
    """A row of the table `items`."""

    item_id: str
    prompt_id: str
    output_ids: Sequence[str]
    kind: str
    guideline: str
    batch: str


class Answer(NamedTuple):
    """What was answered to one question of a guideline, in terms of output ids."""

    question: str
    value: Any
    """Made of dict, list, str, int and bool, in the form the table above gives."""

    @property
    def json(self) -> str:
        """The value as `responses.value` holds it; the same answer always gives the same text."""
        return json.dumps(self.value, sort_keys=True, ensure_ascii=False)


class Undone(NamedTuple):
    """A response with its display undone."""

    answers: list[Answer]
    problems: list[str]
    """What could not be read, in words; the other answers stand."""


def undo(
    raw: Mapping[str, Any],
    item: Item,
    guideline: Guideline,
    completions: Mapping[str, str] | None = None,
) -> Undone:
    """Turn a response's `values`, as Argilla's REST API returns them, into answers.

    A question left open gives no answer, and neither does the second label of a `mark`; `spans`
    left empty say that there is nothing to mark. Of an unfinished ranking, as drafts have them, the
    outputs ranked so far remain.

    Args:
        raw: asked question → {"value": …}.
        completions: by output id; needed where the guideline asks for spans.
    """
    asked = {question.name: question for question in guideline.asked(len(item["output_ids"]))}
    shown = Shown(item["output_ids"], completions or {})
    answers: list[Answer] = []
    problems = [f"unknown question {name!r}" for name in sorted(raw.keys() - asked.keys())]
    for name, question in asked.items():
        held = raw.get(name)
        value = held.get("value") if isinstance(held, Mapping) else held
        if value is None or value == [] or value == "":
            if question.question.type != "spans" or not raw:
                continue
            value = []
        try:
            read = UNDO[question.question.type](value, question, shown)
        except UnreadableError as error:
            problems.append(f"{name}: {error}")
        else:
            answers += [Answer(question.question.name, part) for part in read]
    return Undone(answers, problems)


def answer(
    answers: Iterable[tuple[str, Any]],
    item: Item,
    guideline: Guideline,
    completions: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Turn answers in terms of output ids into the `values` Argilla takes: the inverse of `undo`.

    Args:
        answers: (question, value) as `undo` gives them.
        completions: by output id; needed for spans.

    Raises:
        InputError: a question, an output or a label is not one of this item's.
    """
    shown = Shown(item["output_ids"], completions or {})
    questions = {question.name: question for question in guideline.questions}
    asked = {(a.question.name, a.slot): a for a in guideline.asked(len(shown.outputs))}
    values: dict[str, dict[str, Any]] = {}
    for name, value in answers:
        try:
            if name not in questions:
                raise UnreadableError(f"the guideline asks {', '.join(questions)}")
            slot = shown.slot(value["output"]) if questions[name].each_output else None
            question = asked[name, slot]
            raw = REDO[question.question.type](value, question, shown)
        except (UnreadableError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, UnreadableError) else f"malformed: {value!r}"
            where = f"item {item['item_id']}, answer to {name!r}"
            raise InputError(reason, where=where) from None
        values[question.name] = {"value": raw}
    return values
