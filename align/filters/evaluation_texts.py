"""The texts of evaluation sets: files of anybody's, or runs of the project.

    {"question": "How many legs has a spider?", "choices": ["six", "eight"], "answer": "eight"}

Every text in a row of a file counts by itself, wherever it stands in the row; of a run, the prompts
that are held out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from align.split import EVAL
from annotate.errors import InputError
from annotate.records import require_file
from annotate.runs import Project, Run


@dataclass(frozen=True)
class EvaluationTexts:
    """Texts, and where each stands: "bench.jsonl:17 (question)"."""

    names: list[str]
    texts: list[str]

    def __add__(self, other: EvaluationTexts) -> EvaluationTexts:
        """Both, in order."""
        return EvaluationTexts(self.names + other.names, self.texts + other.texts)


def find_evaluation_set(project: Project, name: str) -> Path | Run:
    """The file of this name, in the project's folder or where we stand, else the run.

    Raises:
        InputError: there is neither.
        ProjectError: several runs begin so.
    """
    for path in (project.root / name, Path(name)):
        if path.is_file():
            return path
    if not any(run.id.startswith(name) for run in project.all_runs()):
        raise InputError(
            "neither a file nor a run",
            where=name,
            remedy="Name a .jsonl or .parquet file, or a run with held-out prompts",
        )
    return project.resolve(name)


def evaluation_texts(source: Path | Run) -> EvaluationTexts:
    """The texts of one evaluation set.

    Raises:
        InputError: it cannot be read, or holds no text.
    """
    rows = _of_run(source) if isinstance(source, Run) else _of_file(source)
    named = [(name, text) for name, text in rows if text.strip()]
    where = source.id if isinstance(source, Run) else str(source)
    if not named:
        raise InputError("it holds no evaluation text", where=where)
    return EvaluationTexts([name for name, _ in named], [text for _, text in named])


def _of_run(run: Run) -> Iterator[tuple[str, str]]:
    if not run.has("prompts"):
        raise InputError("it has no prompts", where=run.id)
    prompts = run.read("prompts", ["prompt_id", "messages", "split"])
    for row in prompts.filter(pc.equal(prompts["split"], EVAL)).to_pylist():
        said = [turn["content"] for turn in row["messages"]]
        yield f"{run.id}: {row['prompt_id']}", "\n".join(said)


def _of_file(path: Path) -> Iterator[tuple[str, str]]:
    read = _parquet_rows if path.suffix.lower() == ".parquet" else _json_rows
    for number, row in read(path):
        for field, text in _texts(row):
            yield f"{path.name}:{number}" + (f" ({field})" if field else ""), text


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    require_file(path)
    with path.open(encoding="utf-8-sig") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON ({error.msg})", where=f"{path}:{number}") from None
        except UnicodeDecodeError:
            raise InputError("not UTF-8", where=str(path)) from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:  # Arrow raises OSError for damaged bytes
        raise InputError(f"not a readable Parquet file ({error})", where=str(path)) from None
    yield from enumerate(table.to_pylist(), start=1)


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a row, with the keys that lead there: "choices.1"."""
    if isinstance(value, str):
        yield "".join(filter(str.isprintable, field)), value
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _texts(part, f"{field}.{key}" if field else str(key))
