"""What the pages read: runs that are finished, their tables page by page, their logs.

Nothing here computes a statistic: figures come from the manifests, where the steps put them with
their intervals. A table is queried where it lies, with DuckDB over its Parquet file, so that a page
of fifty rows costs the same for a thousand failures as for a million.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from annotate.errors import HandloomError, ProjectError
from annotate.runs import MANIFEST, Project, Run

PROJECT_VARIABLE = "HANDLOOM_PROJECT"

SORTS: dict[str, str] = {
    "Widest loss first": "score - versus_score ASC NULLS LAST, outcome ASC",
    "Lowest score first": "score ASC NULLS LAST",
    "Fewest votes first": "votes ASC NULLS LAST",
    "Longest completion first": "length(completion) DESC",
    "By prompt": "prompt_text ASC",
}
"""What the failures can be sorted by, and the SQL of it."""


def open_project() -> Project:
    """The project the dashboard was started for.

    Raises:
        ProjectError: there is none.
    """
    folder = os.environ.get(PROJECT_VARIABLE)
    return Project.find(Path(folder) if folder else None)


def readable_runs(project: Project) -> tuple[list[Run], list[HandloomError]]:
    """Finished runs, oldest first, and what is wrong with those whose manifest cannot be read."""
    runs, broken = [], []
    for path in sorted(project.runs_dir.glob(f"*/{MANIFEST}")):
        run = Run(project, path.parent)
        if run.id.startswith("."):
            continue
        try:
            run.manifest  # noqa: B018 - reads it
            runs.append(run)
        except HandloomError as error:
            broken.append(error)
    return sorted(runs, key=lambda run: (run.manifest["finished"], run.id)), broken


def of_step(runs: Iterable[Run], *steps: str) -> list[Run]:
    """The runs of these steps, newest first."""
    return [run for run in runs if run.step in steps][::-1]


@dataclass(frozen=True)
class FailureQuery:
    """Which failures to show, and in what order."""

    text: str = ""
    """Must stand in the prompt or in one of the two completions, whatever its case."""
    why: Sequence[str] = ()
    """Any of these; all if empty."""
    judged_by: Sequence[str] = ()
    """Any of these; all if empty."""
    sort: str = next(iter(SORTS))


@dataclass(frozen=True)
class FailurePage:
    """One page of failures."""

    rows: list[dict[str, Any]]
    matching: int
    """Failures that match, on all pages."""
    size: int
    """Rows of a full page."""

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.matching // self.size))


def failure_page(run: Run, query: FailureQuery, page: int, size: int) -> FailurePage:
    """One page, from 1, of a run's failures.

    Raises:
        ProjectError: the table is missing or damaged.
    """
    where, values = _conditions(query)
    # The fragments are ours; what comes from outside is always a parameter.
    order = f"{SORTS[query.sort]}, failure_id"
    table = _table_path(run, "failures")
    with _duckdb(run) as db:
        (matching,) = db.execute(
            f"SELECT count(*) FROM read_parquet(?) WHERE {where}", [table, *values]
        ).fetchall()[0]
        found = db.execute(
            f"SELECT * FROM read_parquet(?) WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
            [table, *values, size, (page - 1) * size],
        )
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return FailurePage(rows, matching, size)


def failure_counts(run: Run, column: str) -> dict[str, int]:
    """How many failures have each value of `why` or `judged_by`, the most frequent first.

    Raises:
        ProjectError: the table is missing or damaged.
    """
    if column not in ("why", "judged_by"):
        raise ValueError(f"failures are not counted by {column}")
    with _duckdb(run) as db:
        rows = db.execute(
            f"SELECT {column}, count(*) AS n FROM read_parquet(?) GROUP BY 1 ORDER BY n DESC, 1",
            [_table_path(run, "failures")],
        ).fetchall()
    return {value or "": count for value, count in rows}


def _conditions(query: FailureQuery) -> tuple[str, list[Any]]:
    conditions, values = ["true"], list[Any]()
    if text := query.text.strip().lower():
        columns = ("prompt_text", "completion", "versus_completion")
        conditions.append(
            "(" + " OR ".join(f"contains(lower(coalesce({name}, '')), ?)" for name in columns) + ")"
        )
        values += [text] * len(columns)
    for column, wanted in (("why", query.why), ("judged_by", query.judged_by)):
        if wanted:
            conditions.append(f"list_contains(?, {column})")
            values.append(list(wanted))
    return " AND ".join(conditions), values


def _table_path(run: Run, table: str) -> str:
    path = run.path / f"{table}.parquet"
    if not path.is_file():
        raise ProjectError(
            f"it has no {table}", where=run.id, remedy="`handloom verify` says what is missing"
        )
    return glob.escape(str(path))  # DuckDB takes a pattern


@contextmanager
def _duckdb(run: Run) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads local files and nothing else; its errors become ours."""
    settings: Mapping[str, str | bool | int] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "threads": 2,
    }
    try:
        with duckdb.connect(config=dict(settings)) as db:
            yield db
    except duckdb.Error as error:
        raise ProjectError(
            f"a table cannot be read ({str(error).splitlines()[0][:200]})",
            where=run.id,
            remedy="`handloom verify` says which files are damaged",
        ) from None


LOG_FILE = "log.jsonl"
"""One JSON object a logging step, as TRL logs them; an evaluation's keys begin with `eval_`."""


def training_log(run: Run) -> pd.DataFrame:
    """What a training run logged, long: columns step, name, measured_on, value.

    Raises:
        ProjectError: the log is missing or damaged.
    """
    path = run.path / LOG_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"its log cannot be read ({error})",
            where=run.id,
            remedy="`handloom verify` says which files are damaged",
        ) from None
    rows = [
        {
            "step": line["step"],
            "name": name.removeprefix("eval_"),
            "measured_on": "evaluation" if name.startswith("eval_") else "training",
            "value": float(value),
        }
        for line in lines
        if "step" in line and "train_runtime" not in line  # TRL's last line sums the run up
        for name, value in line.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    ]
    return pd.DataFrame(rows, columns=["step", "name", "measured_on", "value"])


def estimate_row(series: str, estimate: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded estimate as a row for a chart: series, value, low, high, n."""
    return {"series": series} | {name: estimate[name] for name in ("value", "low", "high", "n")}


def kappas(run: Run, question: str) -> list[dict[str, Any]]:
    """Cohen's kappa of every two annotators, as a judge run recorded it for one question.

    Raises:
        ProjectError: the run's file is missing or damaged.
    """
    path = run.path / "agreement.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"its agreement cannot be read ({error})",
            where=run.id,
            remedy="`handloom judge --again` measures it anew",
        ) from None
    pairs = recorded.get(question, {}).get("kappas", [])
    return [
        {"first": pair["annotators"][0], "second": pair["annotators"][1]}
        | estimate_row(" – ".join(pair["annotators"]), pair["kappa"])
        for pair in pairs
    ]


def answers_by_annotator(pull_run: Run) -> dict[str, dict[str, int]]:
    """Annotator → items submitted, draft, discarded, as the pull recorded them.

    Raises:
        ProjectError: the table is missing or damaged.
    """
    with _duckdb(pull_run) as db:
        rows = db.execute(
            "SELECT annotator, status, count(DISTINCT item_id) FROM read_parquet(?) GROUP BY 1, 2",
            [_table_path(pull_run, "responses")],
        ).fetchall()
    answers: dict[str, dict[str, int]] = {}
    for annotator, status, count in rows:
        answers.setdefault(annotator, {})[status] = count
    return answers
