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

In a preference a < b as text, and a positive strength means that a is better.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from annotate.errors import InputError
from annotate.front_matter import QuestionType
from annotate.guidelines import LETTERS, AskedQuestion, Guideline

FIELDS = tuple(f"response_{letter}" for letter in LETTERS)
"""The fields, and the options of a ranking, that stand for the responses in the order shown."""


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


class _UnreadableError(Exception):
    """A value that is none the question offers."""


def undo(raw: Mapping[str, Any], item: Item, guideline: Guideline) -> Undone:
    """Turn a response's `values`, as Argilla's REST API returns them, into answers.

    A question left open gives no answer, and neither does the second label of a `mark`. Of an
    unfinished ranking, as drafts have them, the outputs ranked so far remain.

    Args:
        raw: asked question → {"value": …}.
    """
    asked = {question.name: question for question in guideline.asked(len(item["output_ids"]))}
    answers: list[Answer] = []
    problems = [f"unknown question {name!r}" for name in sorted(raw.keys() - asked.keys())]
    for name, question in asked.items():
        held = raw.get(name)
        value = held.get("value") if isinstance(held, Mapping) else held
        if value is None or value == [] or value == "":
            continue
        try:
            read = _UNDO[question.question.type](value, question, item["output_ids"])
        except _UnreadableError as error:
            problems.append(f"{name}: {error}")
        else:
            answers += [Answer(question.question.name, part) for part in read]
    return Undone(answers, problems)


def answer(
    answers: Iterable[tuple[str, Any]], item: Item, guideline: Guideline
) -> dict[str, dict[str, Any]]:
    """Turn answers in terms of output ids into the `values` Argilla takes: the inverse of `undo`.

    Args:
        answers: (question, value) as `undo` gives them.

    Raises:
        InputError: a question, an output or a label is not one of this item's.
    """
    outputs = item["output_ids"]
    questions = {question.name: question for question in guideline.questions}
    asked = {(a.question.name, a.slot): a for a in guideline.asked(len(outputs))}
    values: dict[str, dict[str, Any]] = {}
    for name, value in answers:
        try:
            if name not in questions:
                raise _UnreadableError(f"the guideline asks {', '.join(questions)}")
            slot = _slot(value["output"], outputs) if questions[name].each_output else None
            question = asked[name, slot]
            raw = _REDO[question.question.type](value, question, outputs)
        except (_UnreadableError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, _UnreadableError) else f"malformed: {value!r}"
            where = f"item {item['item_id']}, answer to {name!r}"
            raise InputError(reason, where=where) from None
        values[question.name] = {"value": raw}
    return values


def _slot(output: str, outputs: Sequence[str]) -> int:
    if output not in outputs:
        raise _UnreadableError(f"{output!r} is not an output of this item")
    return list(outputs).index(output)


def _label(value: Any, question: AskedQuestion) -> str:
    labels = [label for label, _ in question.question.labels]
    if value not in labels:
        raise _UnreadableError(f"{value!r} is none of {', '.join(labels)}")
    return str(value)


def _undo_preference(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    strength = question.question.strengths()[_label(value, question)]
    first, second = outputs
    if first > second:
        first, second, strength = second, first, -strength
    return [{"a": first, "b": second, "strength": strength}]


def _redo_preference(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> str:
    if {value["a"], value["b"]} != {*outputs}:
        raise _UnreadableError(f"{value!r} is about other outputs than this item")
    strength = value["strength"] if value["a"] == outputs[0] else -value["strength"]
    labels = {strength: label for label, strength in question.question.strengths().items()}
    if strength not in labels:
        raise _UnreadableError(f"the strength {value['strength']!r} is not in -3..3")
    return labels[strength]


def _undo_ranking(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    ranks: dict[str, int] = {}
    for place in value if isinstance(value, list) else [value]:
        option = place.get("value") if isinstance(place, Mapping) else None
        if option not in FIELDS[: len(outputs)]:
            raise _UnreadableError(f"{place!r} is not a ranked response")
        rank = place.get("rank")
        if rank is None:
            continue
        if isinstance(rank, bool) or rank not in range(1, len(outputs) + 1):
            raise _UnreadableError(f"{rank!r} is not a rank from 1 to {len(outputs)}")
        if outputs[FIELDS.index(option)] in ranks:
            raise _UnreadableError(f"{option} is ranked twice")
        ranks[outputs[FIELDS.index(option)]] = rank
    return [{"ranks": ranks}] if ranks else []


def _redo_ranking(
    value: Any, question: AskedQuestion, outputs: Sequence[str]
) -> list[dict[str, Any]]:
    places = {_slot(output, outputs): rank for output, rank in value["ranks"].items()}
    return [{"value": FIELDS[slot], "rank": places[slot]} for slot in sorted(places)]


def _undo_mark(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    marking = question.question.labels[0][0]
    return [True] if _label(value, question) == marking else []


def _redo_mark(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> str:
    return question.question.labels[0 if value else 1][0]


def _rating(value: Any, question: AskedQuestion) -> int:
    values = question.question.values
    if isinstance(value, bool) or not isinstance(value, int) or value not in values:
        raise _UnreadableError(f"{value!r} is none of {', '.join(map(str, values))}")
    return value


def _undo_rating(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    return [{"output": outputs[question.slot or 0], "rating": _rating(value, question)}]


def _redo_rating(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> int:
    return _rating(value["rating"], question)


def _undo_flags(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    raised = value if isinstance(value, list) else [value]
    flags = sorted({_label(flag, question) for flag in raised})
    return [{"output": outputs[question.slot or 0], "flags": flags}]


def _redo_flags(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[str]:
    return sorted({_label(flag, question) for flag in value["flags"]})


def _undo_text(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> list[Any]:
    if not isinstance(value, str):
        raise _UnreadableError(f"{value!r} is not text")
    # A browser can send half a surrogate pair, which no table can hold.
    text = value.encode("utf-8", "replace").decode("utf-8")
    return [{"text": text}] if text.strip() else []


def _redo_text(value: Any, question: AskedQuestion, outputs: Sequence[str]) -> str:
    return str(value["text"])


_UNDO: Mapping[QuestionType, Callable[[Any, AskedQuestion, Sequence[str]], list[Any]]] = {
    "preference": _undo_preference,
    "ranking": _undo_ranking,
    "mark": _undo_mark,
    "rating": _undo_rating,
    "flags": _undo_flags,
    "text": _undo_text,
}
_REDO: Mapping[QuestionType, Callable[[Any, AskedQuestion, Sequence[str]], Any]] = {
    "preference": _redo_preference,
    "ranking": _redo_ranking,
    "mark": _redo_mark,
    "rating": _redo_rating,
    "flags": _redo_flags,
    "text": _redo_text,
}
