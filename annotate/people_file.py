"""A file of many annotators: CSV with the columns name, first_name, last_name, workspace, role."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from annotate.errors import InputError
from annotate.server_types import is_workspace_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
NAME_RULE = "a name has letters, digits and . _ - + @, begins with a letter or digit, 64 at most"
ROLES = ("annotator", "admin", "owner")

_COLUMNS = ("name", "first_name", "last_name", "workspace", "workspaces", "role")
_MAX_TEXT = 100
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Person:
    """Somebody who is to have an account."""

    name: str
    first_name: str = ""
    last_name: str = ""
    role: str = ""
    """One of `ROLES`; an annotator if empty."""
    workspaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used, and why."""

    line: int
    reason: str


def read_people(path: Path) -> tuple[list[Person], list[BadLine]]:
    """The people of a file, each once, and the lines that cannot be used.

    Columns are separated by commas or semicolons and may stand in any order; only `name` must be
    there. Several workspaces are separated by spaces. Who is named on several lines is a member of
    the workspaces of all of them; the lines must not contradict each other otherwise.

    Raises:
        InputError: the file cannot be read, or its header has no `name` or an unknown column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from None
    people: dict[str, tuple[int, Person]] = {}
    bad: list[BadLine] = []
    for line, cells in _rows(text, path):
        if isinstance(cells, str):
            bad.append(BadLine(line, cells))
            continue
        person = _person(cells)
        reason = _problem(person)
        if not reason and person.name in people:
            first, known = people[person.name]
            merged = _merged(known, person)
            if merged is None:
                reason = f"line {first} says otherwise of {person.name}"
            else:
                people[person.name] = first, merged
        elif not reason:
            people[person.name] = line, person
        if reason:
            bad.append(BadLine(line, reason))
    return [person for _, person in people.values()], bad


def _rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Line number and cells by column, or why the line has none; empty lines are passed over.

    Each line is read by itself, so that a stray quotation mark spoils no other.
    """
    header: list[str] = []
    delimiter = ","
    for number, line in enumerate(_LINE_BREAK.split(text), start=1):
        if not line.strip():
            continue
        if not header:
            delimiter = ";" if ";" in line and "," not in line else ","
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
        except csv.Error as error:
            yield number, f"not CSV ({error})"
            continue
        if not any(cells):
            continue
        if not header:
            header = _checked_header(cells, f"{path}:{number}")
        elif len(cells) != len(header):
            yield number, f"{len(cells)} cells instead of {len(header)}"
        else:
            yield number, dict(zip(header, cells, strict=True))
    if not header:
        raise InputError("the file is empty", where=str(path), remedy=_HEADER_REMEDY)


_HEADER_REMEDY = f"The first line names the columns: {', '.join(_COLUMNS)}; only name is needed"


def _checked_header(cells: list[str], where: str) -> list[str]:
    header = [cell.lower().replace(" ", "_") for cell in cells]
    unknown = [name for name in header if name not in _COLUMNS]
    if "name" not in header or unknown or len(set(header)) < len(header):
        what = f"unknown column {unknown[0]!r}" if unknown else "no single column `name`"
        raise InputError(_shown(what), where=where, remedy=_HEADER_REMEDY)
    return header


def _person(cells: dict[str, str]) -> Person:
    named = " ".join(cells.get(column, "") for column in ("workspace", "workspaces"))
    return Person(
        name=cells["name"],
        first_name=cells.get("first_name", ""),
        last_name=cells.get("last_name", ""),
        role=cells.get("role", "").lower(),
        workspaces=tuple(dict.fromkeys(named.split())),
    )


def _problem(person: Person) -> str:
    """Why nobody can have such an account; empty if all is well."""
    texts = (person.name, person.first_name, person.last_name, *person.workspaces)
    if any("\udc80" <= sign <= "\udcff" for text in texts for sign in text):
        return "not UTF-8"
    if not person.name:
        return "no name"
    if not NAME.fullmatch(person.name):
        return f"{_shown(person.name)!r} cannot be a name: {NAME_RULE}"
    if person.role and person.role not in ROLES:
        return f"{_shown(person.role)!r} is no role: {', '.join(ROLES)}"
    if any(len(text) > _MAX_TEXT or not text.isprintable() for text in texts):
        return f"a text is longer than {_MAX_TEXT} characters or cannot be printed"
    for workspace in person.workspaces:
        if not is_workspace_name(workspace):
            return (
                f"{_shown(workspace)!r} cannot be a workspace's name: use only letters (a to z, "
                "A to Z), digits, - and _"
            )
    return ""


def _merged(known: Person, more: Person) -> Person | None:
    """One person said on two lines; None where the lines contradict each other."""
    for column in ("first_name", "last_name", "role"):
        a, b = getattr(known, column), getattr(more, column)
        if a and b and a != b:
            return None
    return replace(
        known,
        first_name=known.first_name or more.first_name,
        last_name=known.last_name or more.last_name,
        role=known.role or more.role,
        workspaces=tuple(dict.fromkeys((*known.workspaces, *more.workspaces))),
    )


def _shown(text: str) -> str:
    """A text from a file, fit for a message."""
    return text.encode("utf-8", "backslashreplace").decode()[:80]
