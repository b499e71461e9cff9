"""What a judge run recorded of each annotator, as tables to show; nothing is computed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from annotate.errors import ProjectError
from annotate.runs import Run

COLUMNS = {
    "accuracy": "Accuracy",
    "agreement": "Agrees with others",
    "ties": "Ties",
    "first": "For the first shown",
    "longer": "For the longer",
    "repeated": "Same again",
    "swapped": "Same when swapped",
    "gold": "Gold",
    "too_fast": "Faster than reading",
    "seconds": "Seconds",
}
"""What the page calls the recorded figures."""


def recorded_annotators(run: Run) -> dict[str, Any]:
    """The annotators' report of a judge run.

    Raises:
        ProjectError: the run has none, being older, or it is damaged.
    """
    path = run.path / "annotators.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"its annotators' figures cannot be read ({error})",
            where=run.id,
            remedy="`handloom judge --again` measures them anew; `handloom annotators` shows them",
        ) from None
    return found


def people_table(panel: Mapping[str, Any]) -> pd.DataFrame:
    """One row a person, every figure in words; figures that nobody has are left out."""
    rows = []
    for person in panel["people"]:
        name = person["annotator"] + (" (simulated)" if person["simulated"] else "")
        row = {"Annotator": name, "Labels": person["labels"]}
        for key, title in COLUMNS.items():
            row[title] = _in_words(person["figures"][key], 1 if key == "seconds" else 100)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table[[name for name in table if (table[name] != "").any()]]


def missing(panel: Mapping[str, Any]) -> list[str]:
    """For each figure that nobody has, its title and why."""
    lines = []
    for key, title in COLUMNS.items():
        figures = [person["figures"][key] for person in panel["people"]]
        if all(figure["value"] is None for figure in figures):
            lines.append(f"{title}: {'; '.join(sorted({f['reason'] for f in figures}))}")
    return lines


def flag_lines(found: Mapping[str, Any]) -> list[str]:
    """Every flag with what was found, the test, p, q and n."""
    lines = []
    for flag in found["flags"]:
        if flag["test"].endswith("over time"):
            seen = f"z = {flag['observed']:z.1f}"
        else:
            seen = f"{flag['observed']:.0%} where {flag['expected']:.0%} is expected"
        lines.append(
            f"{flag['annotator']} {flag['meaning']}: {seen} ({flag['method']}, "
            f"p = {flag['p']:.2g}, q = {flag['q']:.2g}, n = {flag['n']:,})"
        )
    return lines


def _in_words(figure: Mapping[str, Any], scale: int) -> str:
    """As in "91 [87, 94]"; empty where there is no value."""
    if figure["value"] is None:
        return ""
    value, low, high = (
        None if figure[key] is None else f"{scale * figure[key]:z.0f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low is not None and high is not None else f"{value}"
