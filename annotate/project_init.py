"""`handloom init`: a project folder with the guidelines and recipes that come with Handloom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from annotate.errors import InputError, ProjectError
from annotate.runs import Project

# Guidelines and recipes are installed beside this package. They are found by place, because in a
# project `import guidelines` may find the project's own folder.
_INSTALLED = Path(__file__).resolve().parent.parent
_SOURCES = {"guidelines": _INSTALLED / "guidelines", "recipes": _INSTALLED / "align" / "recipes"}
_SUFFIXES = (".md", ".yaml", ".jsonl", ".lock")
# Backups too, whatever their names: they hold keys and passwords.
_IGNORED = "/runs/\n/.handloom/\n/.handloom-restor*\n/before-restore-*/\n*.tar\n"


def init_project(folder: Path) -> tuple[Project, list[Path]]:
    """Make `folder` a project; files that are there already are left as they are.

    Returns:
        The project, and the files written.

    Raises:
        InputError: the path is a file, or cannot be written.
        ProjectError: it lies inside another project's runs.
    """
    folder = folder.resolve()
    if any((parent / "manifest.json").is_file() for parent in (folder, *folder.parents)):
        raise ProjectError("this is inside a run", where=str(folder))
    written: list[Path] = []
    try:
        for name in ("runs", "guidelines", "recipes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, source in _SOURCES.items():
            written += _copied(source, folder / name)
        written += keep_from_git(folder)
    except OSError as error:
        raise InputError(
            f"cannot be made a project ({error.strerror or error})", where=str(folder)
        ) from None
    return Project(folder), written


def keep_from_git(folder: Path) -> list[Path]:
    """Write a project's .gitignore, unless it has one; what was written."""
    return _written(folder / ".gitignore", _IGNORED)


def _copied(source: Path, target: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name.endswith(_SUFFIXES):
            content = path.read_text(encoding="utf-8")
            yield from _written(target / path.relative_to(source), content)


def _written(path: Path, content: str) -> list[Path]:
    if path.exists():
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return [path]
