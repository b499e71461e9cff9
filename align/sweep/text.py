"""The result of a sweep for people: its trials, and which field mattered."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table
from rich.text import Text

from annotate.runs import Run

_BAR = 30


def trial_table(run: Run, limit: int = 20) -> Table:
    """The best trials, the best first."""
    metrics = run.metrics
    rows = run.read("trials").to_pylist()
    sign = -1 if metrics["maximise"] else 1
    rows.sort(key=lambda row: (row["figure"] is None, sign * (row["figure"] or 0.0)))
    keys = list(json.loads(rows[0]["values"]))
    table = Table(box=None, pad_edge=False)
    for name in ("trial", *keys, metrics["figure"], "steps", "state", "run"):
        table.add_column(Text(name), overflow="fold")
    for row in rows[:limit]:
        values = json.loads(row["values"])
        figure = "" if row["figure"] is None else f"{row['figure']:.4g}"
        cells = [str(row["number"]), *(_short(values[key]) for key in keys), figure]
        cells += [str(row["steps"] or ""), row["state"], row["run"] or row["reason"] or ""]
        table.add_row(*map(Text, cells))
    return table


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
