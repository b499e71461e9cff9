"""What the pages read of finished runs: their manifests, logs and recorded figures.

Nothing here computes a statistic: figures come from the manifests, where the steps put them with
their intervals.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from align.evaluate.scorers import CALLED
from annotate.errors import HandloomError, ProjectError
from annotate.runs import MANIFEST, Project, Run

PROJECT_VARIABLE = "HANDLOOM_PROJECT"


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


def unfinished_trainings(project: Project) -> dict[str, Run]:
    """Trainings that are running, were interrupted or have failed, with a log: by id."""
    hidden = {
        run_id: Run(project, project.runs_dir / f".{run_id}.partial")
        for run_id in project.unfinished()
        if "-train-" in run_id
    }
    return {run_id: run for run_id, run in hidden.items() if (run.path / LOG_FILE).is_file()}


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


def agreement(run: Run) -> dict[str, dict[str, Any]]:
    """The agreement reports that a judge run recorded, by question.

    Raises:
        ProjectError: the run's file is missing or damaged.
    """
    path = run.path / "agreement.json"
    try:
        recorded: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"its agreement cannot be read ({error})",
            where=run.id,
            remedy="`handloom judge --again` measures it anew",
        ) from None
    return recorded


def figure_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recorded figures as rows for a chart: series, value, both intervals' ends, n."""
    return [
        estimate_row(name, figure)
        | {f"{end}_others": figure["over_annotators"][end] for end in ("low", "high")}
        for name, figure in figures.items()
    ]


def kappas(run: Run, question: str) -> list[dict[str, Any]]:
    """Cohen's kappa of every two annotators, as a judge run recorded it for one question.

    Raises:
        ProjectError: the run's file is missing or damaged.
    """
    return [
        {"first": pair["annotators"][0], "second": pair["annotators"][1]}
        | estimate_row(" – ".join(pair["annotators"]), pair["kappa"])
        for pair in agreement(run).get(question, {}).get("kappas", [])
    ]


def judge_in_words(judged_by: str) -> str:
    """`people`, what a scorer is called in reports, or `nobody` for an empty name."""
    return CALLED.get(judged_by.removeprefix("scorer:"), judged_by) or "nobody"


def judges_in_words(counts: Mapping[str, int]) -> str:
    """Who judged how many pairs: "judged by people 40, the rubric … 160"."""
    named = [f"{judge_in_words(who)} {count:,}" for who, count in counts.items()]
    return f"judged by {', '.join(named) or 'nobody'}"
