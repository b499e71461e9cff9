"""The front matter of a guideline file: its keys, what they may hold, and errors that name them.

`annotate.guidelines` documents the format. This module only says whether a file keeps to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from annotate.errors import InputError

Kind = Literal["compare", "rank", "rate", "label", "correct", "demonstrate", "thumbs", "span"]
QuestionType = Literal[
    "preference", "ranking", "mark", "rating", "flags", "text",
    "label", "labels", "thumbs", "spans",
]  # fmt: skip

MAX_OUTPUTS = 5
STRENGTH_STEPS = 7

DECIDING: Mapping[Kind, tuple[QuestionType, ...]] = {
    "compare": ("preference",),
    "rank": ("ranking",),
    "rate": ("rating",),
    "label": ("label", "labels"),
    "correct": ("text",),
    "demonstrate": ("text",),
    "thumbs": ("thumbs",),
    "span": ("spans",),
}
"""The type of question that each kind of task is about."""

WRITTEN = {"correct": "correction", "demonstrate": "demonstration"}
"""The name of the question whose text becomes a training target."""

_SHOWN: Mapping[Kind, int] = {"compare": 2, "demonstrate": 0}  # outputs; of any other kind one
_SEVERAL = ("rate", "label")  # kinds that may ask their question several times: aspects
_NAME = r"^[a-z][a-z0-9_]*$"
_LABELS = {"preference": STRENGTH_STEPS, "mark": 2, "thumbs": 2}  # the exact number of labels
_FEWEST_LABELS = {"spans": 1}  # of any other labelled type two
_LABELLED = ("preference", "mark", "flags", "label", "labels", "thumbs", "spans")
_EACH_OUTPUT = ("rating", "flags", "thumbs", "spans")
_EITHER = ("label", "labels")  # of the prompt, or of each output
_Label = Annotated[StrictStr, Field(min_length=1, max_length=200)]
_LabelText = Annotated[StrictStr, Field(min_length=1, max_length=500)]


class QuestionForm(BaseModel):
    """One entry of `questions`; lengths are the most that Argilla 2.8 takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[StrictStr, Field(pattern=_NAME, max_length=200)]
    type: QuestionType
    title: Annotated[StrictStr, Field(min_length=1, max_length=500)]
    description: Annotated[StrictStr, Field(max_length=1000)] = ""
    labels: dict[_Label, _LabelText] = {}
    values: tuple[Annotated[StrictInt, Field(ge=0, le=10)], ...] = ()
    required: StrictBool = False
    each: Literal["output"] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        labelled = self.type in _LABELLED
        if bool(self.labels) != labelled:
            raise ValueError(f"labels {'are missing' if labelled else 'have no place'} here")
        if len(self.labels) != _LABELS.get(self.type, len(self.labels)):
            raise ValueError(f"labels must be {_LABELS[self.type]}, there are {len(self.labels)}")
        if labelled and len(self.labels) < _FEWEST_LABELS.get(self.type, 2):
            raise ValueError("labels must be two or more")
        if bool(self.values) != (self.type == "rating"):
            raise ValueError("values belong to a rating, and a rating needs them")
        if self.values and (len(self.values) < 2 or [*self.values] != sorted({*self.values})):
            raise ValueError("values must be two or more, ascending")
        if self.type not in _EITHER and (self.each == "output") != (self.type in _EACH_OUTPUT):
            raise ValueError(
                f"`each: output` belongs to {', '.join(_EACH_OUTPUT)}, and to label and labels "
                "where they are about a response"
            )
        return self


class GuidelineForm(BaseModel):
    """The front matter of a guideline file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    version: Annotated[StrictInt, Field(ge=1)]
    kind: Kind
    overlap: Annotated[StrictInt, Field(ge=1)] = 2
    min_outputs: Annotated[StrictInt, Field(ge=2, le=MAX_OUTPUTS)] | None = None
    max_outputs: Annotated[StrictInt, Field(ge=2, le=MAX_OUTPUTS)] | None = None
    questions: tuple[QuestionForm, ...]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        self._asks_its_question()
        if self.kind != "rank" and (self.min_outputs, self.max_outputs) != (None, None):
            number = ("no output", "one output", "two outputs")[self.outputs_shown[1]]
            raise ValueError(f"kind {self.kind} shows {number}: leave out min_outputs, max_outputs")
        fewest, most = self.outputs_shown
        if fewest > most:
            raise ValueError("min_outputs is more than max_outputs")
        if not most and any(question.each for question in self.questions):
            raise ValueError(f"kind {self.kind} shows no output to ask about with `each: output`")
        if not any(question.required for question in self.questions):
            raise ValueError("one question must be required, or Argilla refuses them all")
        return self

    def _asks_its_question(self) -> None:
        types = DECIDING[self.kind]
        named = WRITTEN.get(self.kind)
        deciding = [q for q in self.questions if q.type in types and named in (None, q.name)]
        what = f"question of type {' or '.join(types)}" + (f" named {named}" if named else "")
        if self.kind == "span":  # whoever finds nothing to mark leaves it empty
            if len(deciding) != 1:
                raise ValueError(f"kind span takes one {what}")
        elif self.kind in _SEVERAL:
            if not any(q.required for q in deciding):
                raise ValueError(f"kind {self.kind} takes a required {what}")
        elif len(deciding) != 1 or not deciding[0].required:
            raise ValueError(f"kind {self.kind} takes one required {what}")
        foreign = {"preference", "ranking", "spans"} & {q.type for q in self.questions} - {*types}
        if foreign:
            raise ValueError(f"kind {self.kind} takes no question of type {min(foreign)}")

    @property
    def outputs_shown(self) -> tuple[int, int]:
        """Fewest and most outputs of one item."""
        if self.kind == "rank":
            return self.min_outputs or 3, self.max_outputs or MAX_OUTPUTS
        if self.kind == "label" and not any(question.each for question in self.questions):
            return 0, 0
        number = _SHOWN.get(self.kind, 1)
        return number, number


def read_front_matter(source: str, path: Path) -> tuple[GuidelineForm, str]:
    """Split a guideline file into its front matter, checked, and its body.

    Raises:
        InputError: the front matter is missing, is not YAML, or a key is wrong; one line that names
            the first such key, with the nearest known name for an unknown one.
    """
    parts = re.fullmatch(r"\ufeff?---\n(.*?)\n---\n(.*)", source, flags=re.DOTALL)
    if parts is None:
        raise InputError("there is no front matter between two lines of ---", where=str(path))
    try:
        front = yaml.safe_load(parts[1])
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1  # below the first ---
        problem = error.problem or "malformed"
        raise InputError(f"not YAML: {problem}", where=f"{path}:{line}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"not YAML: {error}", where=str(path)) from None
    try:
        return GuidelineForm.model_validate(front), parts[2].strip()
    except ValidationError as error:
        raise _one_line(error, front, path) from None


def nearest(word: str, known: Sequence[str]) -> str:
    """A remedy for a misspelt name: the one it resembles, or all there are."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}"


def _one_line(error: ValidationError, front: Any, path: Path) -> InputError:
    """The first of pydantic's complaints, an unknown key before all others, as one of ours."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    place = ".".join(_readable(first["loc"], front))
    where = f"{path}, {place}" if place else str(path)
    if first["type"] == "extra_forbidden":
        form = QuestionForm if len(first["loc"]) > 1 else GuidelineForm
        key = str(first["loc"][-1])
        remedy = nearest(key, list(form.model_fields))
        return InputError(f"unknown key {key!r}", where=where, remedy=remedy)
    no_word = first["type"] == "string_type" and isinstance(
        first["input"], (bool, int, float, date)
    )
    remedy = (
        f"YAML reads {first['input']} here, and no word: put the word in quotes" if no_word else ""
    )
    return InputError(first["msg"].removeprefix("Value error, "), where=where, remedy=remedy)


def _readable(loc: tuple[int | str, ...], front: Any) -> list[str]:
    """`("questions", 1, "title")` as `["questions", "flags", "title"]`, where it has a name."""
    names = [str(part) for part in loc]
    if len(loc) > 1 and loc[0] == "questions" and isinstance(loc[1], int):
        entry = front["questions"][loc[1]]
        named = isinstance(entry, dict) and isinstance(entry.get("name"), str)
        names[1] = entry["name"] if named else f"number {loc[1] + 1}"
    return names
