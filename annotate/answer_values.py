"""What an answer says, by type of question: Argilla's value → ours, and back.

`annotate.answers` documents both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from annotate.front_matter import QuestionType
from annotate.guidelines import LETTERS, AskedQuestion
from annotate.shown_text import PageOffsets

FIELDS = tuple(f"response_{letter}" for letter in LETTERS)
"""The fields, and the options of a ranking, that stand for the responses in the order shown."""


class UnreadableError(Exception):
    """A value that is none the question offers."""


@dataclass(frozen=True)
class Shown:
    """What of an item its answers refer to."""

    outputs: Sequence[str]
    """Ids, in the order shown."""
    completions: Mapping[str, str] = field(default_factory=dict)
    """By output id; only marks in a text need them."""

    def slot(self, output: str) -> int:
        """The place of an output in the order shown."""
        if output not in self.outputs:
            raise UnreadableError(f"{output!r} is not an output of this item")
        return list(self.outputs).index(output)


Undo = Callable[[Any, AskedQuestion, Shown], list[Any]]
Redo = Callable[[Any, AskedQuestion, Shown], Any]


def _label(value: Any, asked: AskedQuestion) -> str:
    labels = [label for label, _ in asked.question.labels]
    if value not in labels:
        raise UnreadableError(f"{value!r} is none of {', '.join(labels)}")
    return str(value)


def _about(asked: AskedQuestion, shown: Shown) -> dict[str, str]:
    """The output that a question is about; nothing where it is about the prompt."""
    return {} if asked.slot is None else {"output": shown.outputs[asked.slot]}


def _undo_preference(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    strength = asked.question.strengths()[_label(value, asked)]
    first, second = shown.outputs
    if first > second:
        first, second, strength = second, first, -strength
    return [{"a": first, "b": second, "strength": strength}]


def _redo_preference(value: Any, asked: AskedQuestion, shown: Shown) -> str:
    if {value["a"], value["b"]} != {*shown.outputs}:
        raise UnreadableError(f"{value!r} is about other outputs than this item")
    strength = value["strength"] if value["a"] == shown.outputs[0] else -value["strength"]
    labels = {strength: label for label, strength in asked.question.strengths().items()}
    if strength not in labels:
        raise UnreadableError(f"the strength {value['strength']!r} is not in -3..3")
    return labels[strength]


def _undo_ranking(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    count = len(shown.outputs)
    ranks: dict[str, int] = {}
    for place in value if isinstance(value, list) else [value]:
        option = place.get("value") if isinstance(place, Mapping) else None
        if option not in FIELDS[:count]:
            raise UnreadableError(f"{place!r} is not a ranked response")
        rank = place.get("rank")
        if rank is None:
            continue
        if isinstance(rank, bool) or rank not in range(1, count + 1):
            raise UnreadableError(f"{rank!r} is not a rank from 1 to {count}")
        if shown.outputs[FIELDS.index(option)] in ranks:
            raise UnreadableError(f"{option} is ranked twice")
        ranks[shown.outputs[FIELDS.index(option)]] = rank
    return [{"ranks": ranks}] if ranks else []


def _redo_ranking(value: Any, asked: AskedQuestion, shown: Shown) -> list[dict[str, Any]]:
    places = {shown.slot(output): rank for output, rank in value["ranks"].items()}
    return [{"value": FIELDS[slot], "rank": places[slot]} for slot in sorted(places)]


def _undo_mark(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    marking = asked.question.labels[0][0]
    return [True] if _label(value, asked) == marking else []


def _redo_mark(value: Any, asked: AskedQuestion, shown: Shown) -> str:
    return asked.question.labels[0 if value else 1][0]


def _rating(value: Any, asked: AskedQuestion) -> int:
    values = asked.question.values
    if isinstance(value, bool) or not isinstance(value, int) or value not in values:
        raise UnreadableError(f"{value!r} is none of {', '.join(map(str, values))}")
    return value


def _undo_rating(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    return [{**_about(asked, shown), "rating": _rating(value, asked)}]


def _redo_rating(value: Any, asked: AskedQuestion, shown: Shown) -> int:
    return _rating(value["rating"], asked)


def _labels(value: Any, asked: AskedQuestion) -> list[str]:
    chosen = value if isinstance(value, list) else [value]
    return sorted({_label(label, asked) for label in chosen})


def _undo_flags(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    return [{**_about(asked, shown), "flags": _labels(value, asked)}]


def _redo_flags(value: Any, asked: AskedQuestion, shown: Shown) -> list[str]:
    return _labels(value["flags"], asked)


def _undo_text(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    if not isinstance(value, str):
        raise UnreadableError(f"{value!r} is not text")
    # A browser can send half a surrogate pair, which no table can hold.
    text = value.encode("utf-8", "replace").decode("utf-8")
    return [{"text": text}] if text.strip() else []


def _redo_text(value: Any, asked: AskedQuestion, shown: Shown) -> str:
    return str(value["text"])


def _undo_label(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    return [{**_about(asked, shown), "label": _label(value, asked)}]


def _redo_label(value: Any, asked: AskedQuestion, shown: Shown) -> str:
    return _label(value["label"], asked)


def _undo_labels(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    return [{**_about(asked, shown), "labels": _labels(value, asked)}]


def _redo_labels(value: Any, asked: AskedQuestion, shown: Shown) -> list[str]:
    return _labels(value["labels"], asked)


def _undo_thumbs(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    up = _label(value, asked) == asked.question.labels[0][0]
    return [{**_about(asked, shown), "thumb": "up" if up else "down"}]


def _redo_thumbs(value: Any, asked: AskedQuestion, shown: Shown) -> str:
    if value["thumb"] not in ("up", "down"):
        raise UnreadableError(f"{value['thumb']!r} is neither up nor down")
    return asked.question.labels[0 if value["thumb"] == "up" else 1][0]


def _marked_text(asked: AskedQuestion, shown: Shown) -> tuple[str, str]:
    """The output that is marked, and its text; an empty one reads as a placeholder."""
    output = shown.outputs[asked.slot or 0]
    if output not in shown.completions:
        raise UnreadableError(f"the text of {output} is not at hand")
    text = shown.completions[output] or ""
    return output, text if text.strip() else ""


def _undo_spans(value: Any, asked: AskedQuestion, shown: Shown) -> list[Any]:
    output, text = _marked_text(asked, shown)
    offsets = PageOffsets.of(text)
    marks = value if isinstance(value, list) else [value]
    spans = [_undo_span(mark, asked, offsets) for mark in marks]
    spans.sort(key=lambda span: (span["start"], span["end"], span["label"]))
    return [{"output": output, "spans": spans, "length": len(text)}]


def _whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)


def _undo_span(mark: Any, asked: AskedQuestion, offsets: PageOffsets) -> dict[str, Any]:
    if not isinstance(mark, Mapping):
        raise UnreadableError(f"{mark!r} is not a mark")
    start, end = mark.get("start"), mark.get("end")
    if not _whole(start) or not _whole(end):
        raise UnreadableError(f"{mark!r} has no start and end")
    label = _label(mark.get("label"), asked)
    try:
        first, after = offsets.in_text(start, end)
    except ValueError as error:
        raise UnreadableError(str(error)) from None
    return {"start": first, "end": after, "label": label}


def _redo_spans(value: Any, asked: AskedQuestion, shown: Shown) -> list[dict[str, Any]]:
    offsets = PageOffsets.of(_marked_text(asked, shown)[1])
    marks = []
    for span in value["spans"]:
        try:
            start, end = offsets.on_page(span["start"], span["end"])
        except ValueError as error:
            raise UnreadableError(str(error)) from None
        marks.append({"start": start, "end": end, "label": _label(span["label"], asked)})
    return marks


UNDO: Mapping[QuestionType, Undo] = {
    "preference": _undo_preference,
    "ranking": _undo_ranking,
    "mark": _undo_mark,
    "rating": _undo_rating,
    "flags": _undo_flags,
    "text": _undo_text,
    "label": _undo_label,
    "labels": _undo_labels,
    "thumbs": _undo_thumbs,
    "spans": _undo_spans,
}
REDO: Mapping[QuestionType, Redo] = {
    "preference": _redo_preference,
    "ranking": _redo_ranking,
    "mark": _redo_mark,
    "rating": _redo_rating,
    "flags": _redo_flags,
    "text": _redo_text,
    "label": _redo_label,
    "labels": _redo_labels,
    "thumbs": _redo_thumbs,
    "spans": _redo_spans,
}
