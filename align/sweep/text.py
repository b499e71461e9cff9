"""The result of a sweep for people: its trials, and which field mattered."""

from __future__ import annotations

import json
import math
from typing import Any

from align.rounds import held_out_rows
from annotate.errors import ProjectError
from annotate.runs import Run

_BAR = 30


def trial_lines(run: Run, limit: int = 20) -> list[str]:
    """The best trials, the best first, in columns as wide as they need: no run's id is ever cut."""
    metrics = run.metrics
    rows = run.read("trials").to_pylist()
    sign = -1 if metrics["maximise"] else 1
    rows.sort(key=lambda row: (row["figure"] is None, sign * (row["figure"] or 0.0)))
    keys = list(json.loads(rows[0]["values"]))
    table = [["trial", *keys, metrics["figure"], "steps", "state", "run"]]
    for row in rows[:limit]:
        values = json.loads(row["values"])
        figure = "" if row["figure"] is None else f"{row['figure']:.4g}"
        cells = [str(row["number"]), *(_short(values[key]) for key in keys), figure]
        table.append(
            [*cells, str(row["steps"] or ""), row["state"], row["run"] or row["reason"] or ""]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]


def best_line(run: Run) -> str:
    """The best figure, of how many held-out rows, in which trial, and how many others equal it."""
    metrics = run.metrics
    best = metrics["best"]
    figures = run.read("trials", ["figure"])["figure"].to_pylist()
    equal = sum(one is not None and math.isclose(one, best["figure"]) for one in figures) - 1
    line = f"{metrics['figure']} {best['figure']:.4g}{_of_rows(run)} in trial {best['trial']}"
    if equal > 0:
        line += f", and in {equal} other {'trial' if equal == 1 else 'trials'} as well"
    states = ", ".join(f"{count} {state}" for state, count in metrics["states"].items())
    return f"{line} ({states})"


def _of_rows(run: Run) -> str:
    """On how many held-out rows the best figure was measured; nothing where that is not known."""
    try:
        trial = run.project.resolve(run.metrics["best"]["run"])
    except ProjectError:  # it was removed
        return ""
    rows = held_out_rows(trial)
    return f" of {rows}" if rows else ""


def importance_lines(run: Run) -> list[str]:
    """What mattered, as bars; or why that cannot be said."""
    shares: dict[str, float] = run.metrics["importance"]
    if not shares:
        return [f"what mattered: not known ({run.metrics['importance_reason']})"]
    width = max(map(len, shares))
    done = run.metrics["states"]["complete"]
    lines = [f"what mattered (share of the figure's variance explained, {done} trials):"]
    for key, share in shares.items():
        lines.append(f"  {key:<{width}}  {share:4.0%}  {'█' * round(share * _BAR)}")
    return lines


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
