"""The step `tune`: overlap, aggregation and filters chosen by held-out accuracy.

    judge  (votes)  →  tune  (tuned_settings, tuned_trials, tuned.json, build-tuned.yaml)

The recipe is put among the project's, where `handloom build --recipe build-tuned` finds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from align.tune.grid import Grid
from align.tune.trials import COMPARISONS, Trials, most_votes, run_trials
from align.tune.tuned import Tuned, tuned
from align.tune.tuned_text import MADE_BY, lines, recipe
from align.tune.voted import TEXT_MODEL, Voted, voted
from annotate.errors import InputError
from annotate.runs import Draft, Project, Run, RunPlan

RECIPE = "build-tuned.yaml"
SEEDS = 5


def tune(
    project: Project,
    judge_runs: Sequence[Run],
    *,
    grid: Grid | None = None,
    model: str = TEXT_MODEL,
    gold: Path | None = None,
    seeds: int = SEEDS,
    seed: int = 0,
    again: bool = False,
) -> Run:
    """Try every setting of a grid on the votes behind judge runs; the finished run, if any.

    Args:
        grid: by default the shipped one.
        model, gold: as for `voted`; gold, if given, is the truth.
        seeds: how often prompts are dealt and votes put in order; `seed` is of all of it.
        again: make a new run although a finished one exists.

    Raises:
        InputError: the votes allow no comparison; or the recipe's file is not ours.
        ProjectError, TrainingError: as `voted`.
    """
    grid = grid or Grid()
    target = project.root / "recipes" / RECIPE
    _require_ours(target)
    settings = {"model": model, "seeds": seeds, "grid": grid.model_dump(mode="json")}
    newest = max(run.round for run in judge_runs)
    plan = RunPlan("tune", newest, tuple(judge_runs), settings, seed, (gold,) if gold else ())
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        _publish(finished, target)
        return finished
    data = voted(project, judge_runs, model=model, seed=seed, gold=gold)
    found, trials = _compared(data, grid, seeds, seed)
    with project.draft(plan) as draft:
        _write(draft, found, trials)
    _publish(draft.run, target)
    return draft.run


def _compared(data: Voted, grid: Grid, seeds: int, seed: int) -> tuple[Tuned, Trials]:
    choices = grid.settings(most_votes(data))
    if not choices:
        raise InputError(
            f"half of the pairs have fewer votes than every overlap of the grid needs "
            f"({most_votes(data)})",
            where=data.origin,
            remedy="Collect more votes, or add smaller overlaps",
        )
    trials = run_trials(data, choices, seeds=seeds, seed=seed)
    return tuned(data, trials, seed), trials


def _write(draft: Draft, found: Tuned, trials: Trials) -> None:
    draft.write("tuned_settings", _settings_table(found))
    draft.write("tuned_trials", _trials_table(trials))
    draft.write_text("tuned.json", json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    draft.write_text("tuned.txt", "\n".join(lines(found)) + "\n")
    draft.write_text(RECIPE, recipe(found, draft.plan.run_id))
    draft.note(
        choice=found.choice.setting.name,
        settings=len(found.tried),
        cannot_be_told_from=len(found.as_good),
        accuracy=found.unselected.to_dict(),
    )


def _require_ours(target: Path) -> None:
    if target.exists() and not target.read_text(encoding="utf-8").startswith(MADE_BY):
        raise InputError(
            "this recipe was written by hand, or changed, and would be overwritten",
            where=str(target),
            remedy="Give it another name",
        )


def _publish(run: Run, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_text((run.path / RECIPE).read_text(encoding="utf-8"), encoding="utf-8")


def _settings_table(found: Tuned) -> pa.Table:
    rows = []
    for each in found.tried:
        whole = each.to_dict()
        row = {name: whole[name] for name in ("setting", "overlap", "method", "pairs_kept")}
        row |= {"dropped": each.dropped, "told_apart": each.told_apart}
        row["same_as"] = each.same_as
        row["filters"] = json.dumps(whole["filters"])
        figures = {
            "equal_votes": each.at_equal_votes,
            "equal_pairs": each.at_equal_pairs,
            "behind": each.behind,
        }
        for name, figure in figures.items():
            row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        rows.append(row | {"reason": each.at_equal_votes.reason})
    return pa.Table.from_pylist(rows)


def _trials_table(trials: Trials) -> pa.Table:
    """One row a setting, seed and comparison."""
    rows = [
        {
            "setting": setting.name,
            "comparison": name,
            "seed": number,
            "pairs_kept": float(trials.kept[name][at, number].mean()),
            "accuracy": _mean(trials.right[name][at, number]),
        }
        for name in COMPARISONS
        for at, setting in enumerate(trials.settings)
        for number in range(trials.seeds)
    ]
    return pa.Table.from_pylist(rows)


def _mean(right: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    return None if np.isnan(right).any() else float(right.mean())
