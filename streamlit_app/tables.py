"""Tables of runs, a page at a time: DuckDB over the Parquet files where they lie.

A page of fifty rows costs little more for a million failures than for a thousand, and no table is
ever held whole.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from annotate.errors import ProjectError
from annotate.runs import Run

SORTS: dict[str, str] = {
    "Worst first": "file_row_number",  # the order in which the step left them
    "Widest gap in score": "score - versus_score ASC NULLS LAST",
    "Lowest score first": "score ASC NULLS LAST",
    "Fewest votes first": "votes ASC NULLS LAST",
    "Longest completion first": "length(completion) DESC",
    "By prompt": "prompt_text ASC",
}
"""What the failures can be sorted by, and the SQL of it."""


@dataclass(frozen=True)
class FailureQuery:
    """Which failures to show, and in what order."""

    text: str = ""
    """Must stand in the prompt or in one of the two completions, whatever its case."""
    why: Sequence[str] = ()
    """Any of these; all if empty."""
    judged_by: Sequence[str] = ()
    """Any of these, "" being nobody; all if empty."""
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
            f"SELECT * FROM read_parquet(?, file_row_number = true) WHERE {where} "
            f"ORDER BY {order} LIMIT ? OFFSET ?",
            [table, *values, size, (page - 1) * size],
        )
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return FailurePage(rows, matching, size)


def failure_counts(run: Run, column: str) -> dict[str, int]:
    """How many failures have each `why` or `judged_by`, "" for none; the most frequent first.

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
            conditions.append(f"list_contains(?, coalesce({column}, ''))")
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


def answers_by_annotator(pull_runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Annotator → items submitted, draft, discarded, as these pulls recorded them.

    Raises:
        ProjectError: a table is missing or damaged.
    """
    answers: dict[str, dict[str, int]] = {}
    for run in pull_runs:
        with _duckdb(run) as db:
            rows = db.execute(
                "SELECT annotator, status, count(DISTINCT item_id) FROM read_parquet(?) "
                "GROUP BY 1, 2",
                [_table_path(run, "responses")],
            ).fetchall()
        for annotator, status, count in rows:
            of_annotator = answers.setdefault(annotator, {})
            of_annotator[status] = of_annotator.get(status, 0) + count
    return answers
