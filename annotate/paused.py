"""Who is paused, and what they come back to: `<state>/paused.json`.

A pause ends a person's memberships, which Argilla then knows nothing of; this file remembers them.
It is written before the first membership ends, so that a crash in between forgets none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.errors import ProjectError
from annotate.runs import Project


@dataclass(frozen=True)
class Pause:
    """Somebody who sees no item for now."""

    since: str
    """ISO 8601, UTC."""
    workspaces: tuple[str, ...]
    """Names of those that they join again."""


def paused_file(project: Project) -> Path:
    """Where pauses are remembered."""
    return project.state_dir / "paused.json"


def paused_people(project: Project) -> dict[str, Pause]:
    """Name → pause of everybody who is paused.

    Raises:
        ProjectError: the file is damaged.
    """
    path = paused_file(project)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Pause(str(of["since"]), tuple(map(str, of["workspaces"])))
            for name, of in content.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ProjectError(
            "this file is damaged",
            where=str(path),
            remedy="Move it away, and `handloom users add` people to their workspaces again",
        ) from None


def remember_pauses(project: Project, workspaces: Mapping[str, Iterable[str]]) -> None:
    """Note that these people are paused, with workspaces beside those already noted."""
    with _changing(project) as pauses:
        for name, added in workspaces.items():
            known = pauses.get(name, Pause(datetime.now(UTC).isoformat(timespec="seconds"), ()))
            all_of_them = tuple(dict.fromkeys((*known.workspaces, *added)))
            pauses[name] = Pause(known.since, all_of_them)


def forget_pauses(project: Project, names: Iterable[str]) -> None:
    """Note that these people are not paused, whether they were or not."""
    with _changing(project) as pauses:
        for name in names:
            pauses.pop(name, None)


@contextlib.contextmanager
def _changing(project: Project) -> Iterator[dict[str, Pause]]:
    """The pauses, written back whole or not at all; one process at a time."""
    path = paused_file(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = paused_people(project)
        pauses = dict(before)
        yield pauses
        if pauses == before:
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        content = {
            name: {"since": pause.since, "workspaces": list(pause.workspaces)}
            for name, pause in sorted(pauses.items())
        }
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
