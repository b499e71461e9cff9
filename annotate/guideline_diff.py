"""What changed between two versions of a guideline: `handloom guideline diff`.

A version that people answered under is never edited, so a change is always a new file. What matters
about it is which questions and answers changed (answers under both versions can only be put into
one figure where these did not), and which passages of the text.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from annotate.errors import InputError
from annotate.guidelines import Guideline, Question

_HEADING = re.compile(r"^#{1,6} +(.*)$")


@dataclass(frozen=True)
class GuidelineDiff:
    """From an older version to a newer one."""

    old: str
    new: str
    settings: dict[str, tuple[Any, Any]]
    """kind, overlap, min_outputs, max_outputs: (old, new) of those that differ."""
    questions: dict[str, list[str]]
    """Question → what about it changed, in words; only those that differ."""
    sections: dict[str, list[str]]
    """Heading → its lines that went (-) and came (+); only those that differ."""

    @property
    def comparable(self) -> bool:
        """Whether an answer under one is an answer under the other, to every question of both."""
        asked = (kept for kept in self.questions.values() if not _only_words(kept))
        return "kind" not in self.settings and not any(asked)

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "old": self.old,
            "new": self.new,
            "comparable": self.comparable,
            "settings": {key: list(pair) for key, pair in self.settings.items()},
            "questions": self.questions,
            "sections": self.sections,
        }

    def lines(self) -> list[str]:
        """The difference as text."""
        lines = [f"{self.old} → {self.new}"]
        lines += [f"{key}: {before} → {after}" for key, (before, after) in self.settings.items()]
        for name, changes in self.questions.items():
            lines += [f"question {name}:", *(f"  {change}" for change in changes)]
        for heading, changes in self.sections.items():
            lines += [f"{heading}:", *(f"  {change}" for change in changes)]
        if len(lines) == 1:
            return [*lines, "no difference"]
        verdict = "are comparable" if self.comparable else "are not comparable on every question"
        return [*lines, f"answers under the two {verdict}"]


def guideline_diff(old: Guideline, new: Guideline) -> GuidelineDiff:
    """Compare two versions of one task.

    Raises:
        InputError: they are not of one task.
    """
    if old.task != new.task:
        raise InputError(f"{old.name} and {new.name} are guidelines of different tasks")
    settings = {
        key: (getattr(old, key), getattr(new, key))
        for key in ("kind", "overlap", "min_outputs", "max_outputs")
        if getattr(old, key) != getattr(new, key)
    }
    before = {question.name: question for question in old.questions}
    after = {question.name: question for question in new.questions}
    questions = {name: _changes(before.get(name), after.get(name)) for name in {**before, **after}}
    return GuidelineDiff(
        old=old.name,
        new=new.name,
        settings=settings,
        questions={name: changes for name, changes in questions.items() if changes},
        sections=_changed_sections(old.body, new.body),
    )


_WORDS = ("title", "description")


def _only_words(changes: list[str]) -> bool:
    """Whether a question only reads differently; one that came or went asks nothing differently."""
    return all(change.startswith((*_WORDS, "shown as", "new", "gone")) for change in changes)


def _changes(old: Question | None, new: Question | None) -> list[str]:
    if old is None or new is None:
        return ["new" if old is None else "gone"]
    changes = [
        f"{key}: {getattr(old, key)!r} → {getattr(new, key)!r}"
        for key in ("type", "required", "each_output", "values", *_WORDS)
        if getattr(old, key) != getattr(new, key)
    ]
    was, now = dict(old.labels), dict(new.labels)
    changes += [f"label {name} went" for name in was if name not in now]
    changes += [f"label {name} came: {text}" for name, text in now.items() if name not in was]
    changes += [
        f"shown as: {name}: {was[name]!r} → {text!r}"
        for name, text in now.items()
        if was.get(name, text) != text
    ]
    if [name for name in was if name in now] != [name for name in now if name in was]:
        changes.append(f"labels in another order: {', '.join(now)}")
    return changes


def _changed_sections(old: str, new: str) -> dict[str, list[str]]:
    before, after = _sections(old), _sections(new)
    changed = {}
    for heading in {**before, **after}:
        delta = difflib.ndiff(before.get(heading, []), after.get(heading, []))
        lines = [line for line in delta if line[:2] in ("- ", "+ ") and line[2:].strip()]
        if lines:
            changed[heading] = lines
    return changed


def _sections(body: str) -> dict[str, list[str]]:
    """Heading → the lines below it; what repeats a heading joins the first."""
    found: dict[str, list[str]] = {}
    heading = "(before any heading)"
    for line in body.splitlines():
        match = _HEADING.match(line)
        if match:
            heading = match[1].strip()
        else:
            found.setdefault(heading, []).append(line)
    return found
