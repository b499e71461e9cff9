"""The step `sweep`: a recipe and what may vary in it → trials, each a train run, and what mattered.

    build, model  →  sweep  (trials, best.yaml)    →  train …

A sweep that was interrupted goes on: finished trials stand in a file of its hidden folder, and the
one that was under way resumes from its checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pydantic import ValidationError

from align.model_ref import model_before, resolve_model, weights
from align.recipe import FORMS, Recipe, Tuning, check_trainer_arguments
from align.sweep.space import Dimension, with_values
from align.sweep.trials import COMPLETE, FAILED, STOPPED, Median, Outcome, study_of
from align.train import build_of, config_class, read_recipe, train
from align.training import LOG, watched_by
from annotate.errors import InputError, ResourceError, TrainingError
from annotate.records import table_from_rows
from annotate.runs import Draft, Project, Run, RunPlan

BEST = "best.yaml"
_DONE = "trials.jsonl"
_FIXED = frozenset({"method", "data", "model", "sweep"})
# Below, a forest that is to say what mattered says what happened by chance.
_ENOUGH = 10


@dataclass(frozen=True)
class Sweep:
    """What is searched."""

    recipe: Recipe
    path: Path
    """The recipe's file."""
    space: tuple[Dimension, ...]
    trials: int
    figure: str
    """The held-out figure that is searched for, as the log calls it."""
    maximise: bool
    given: dict[str, Any]
    """Of `align.train.train`: data and model."""
    seed: int
    """Of the suggestions."""


def sweep(
    project: Project,
    recipe_name: str | Path,
    space: Sequence[Dimension],
    *,
    trials: int = 20,
    figure: str | None = None,
    maximise: bool | None = None,
    data: str | None = None,
    model: str | None = None,
    seed: int = 0,
    again: bool = False,
) -> Run:
    """Try values of a recipe's fields; the finished run, if there is one.

    Args:
        recipe_name: a file, or the name of a recipe of the project or of those shipped.
        space: which fields, and what may stand there.
        trials: how many trainings.
        figure: what to search for; None: what the recipe's method measures on held-out rows.
        maximise: whether more of it is better; None: as the method says, else less.
        data: a build run's id, instead of the recipe's.
        model: what to start from, instead of the recipe's.
        seed: of the suggestions; that of the trainings is the recipe's.

    Raises:
        InputError: the recipe is wrong, or a field is none of the recipe's.
        TrainingError: no trial came to a figure.
    """
    given = {"data": data, "model": model}
    recipe, path = read_recipe(project, recipe_name, data=data, model=model)
    check_space(recipe, path, space)
    if maximise is None:
        maximise = recipe.higher_is_better and figure in (None, recipe.held_out)
    wanted = Sweep(
        recipe, path, tuple(space), trials, figure or recipe.held_out, maximise, given, seed
    )
    plan = _plan(project, wanted)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        outcomes = _all_trials(project, wanted, draft)
        _write(draft, wanted, outcomes)
    return draft.run


def _plan(project: Project, wanted: Sweep) -> RunPlan:
    """Data and model as the trials will find them: with others it is another sweep."""
    settings: dict[str, Any] = {
        "recipe": wanted.recipe.model_dump(mode="json"),
        "over": [one.to_text() for one in wanted.space],
        "trials": wanted.trials,
        "figure": wanted.figure,
        "maximise": wanted.maximise,
    }
    recipe = wanted.recipe
    if not isinstance(recipe, Tuning):
        return RunPlan("sweep", 0, (), settings, wanted.seed)
    built = None if getattr(recipe, "demonstrations", None) else build_of(project, recipe)
    round = built.round if built else 0
    ref = resolve_model(project, recipe.model) if recipe.model else model_before(project, round)
    parents = tuple(run for run in (built, ref.run) if run is not None)
    settings["model"] = ref.name
    inputs = () if ref.run else weights(ref)
    return RunPlan("sweep", round, parents, settings, wanted.seed, inputs)


def _all_trials(project: Project, wanted: Sweep, draft: Draft) -> list[Outcome]:
    done = draft.path / _DONE
    outcomes = _read(done)
    for number in range(len(outcomes), wanted.trials):
        outcomes.append(_one_trial(project, wanted, draft, outcomes, number))
        done.write_text("".join(json.dumps(one.to_dict()) + "\n" for one in outcomes))
    return outcomes


def _read(path: Path) -> list[Outcome]:
    """The trials that are finished; a line cut off by a failure of power is done again."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Outcome.from_dict(json.loads(line)))
        except (json.JSONDecodeError, TypeError, KeyError):
            break
    return found


def _one_trial(
    project: Project, wanted: Sweep, draft: Draft, before: Sequence[Outcome], number: int
) -> Outcome:
    study = study_of(before, wanted.space, maximise=wanted.maximise, seed=wanted.seed)
    trial = study.ask({one.key: one.distribution() for one in wanted.space})
    median = Median(trial, wanted.figure)
    path = _trial_recipe(wanted, draft, trial.params, number)
    try:
        with watched_by(median):
            run = train(project, path, **wanted.given)
    except TrainingError as error:
        return Outcome(number, trial.params, FAILED, reason=str(error))
    except ResourceError as error:
        if "memory" not in error.what:
            raise
        return Outcome(number, trial.params, FAILED, reason=str(error))
    # The log tells the same whether the training ran now, was resumed or had been finished before.
    median.see(_log(run))
    _require_figure(run, wanted.figure)
    return Outcome(
        number,
        trial.params,
        STOPPED if median.stopped else COMPLETE,
        run.id,
        float(run.metrics[wanted.figure]),
        int(run.metrics["steps"]),
        tuple(median.path.items()),
    )


def _require_figure(run: Run, figure: str) -> None:
    if figure in run.metrics:
        return
    logged = {key for entry in _log(run) for key in entry if key.startswith("eval_")}
    raise InputError(
        f"the training measured no {figure}",
        where=run.id,
        remedy=f"It measured {', '.join(sorted(logged))}"
        if logged
        else "Hold rows out in the build recipe, and let the training reach an evaluation",
    )


def _log(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / LOG).read_text("utf-8").splitlines()]


def _trial_recipe(wanted: Sweep, draft: Draft, values: dict[str, Any], number: int) -> Path:
    """The recipe of one trial, in the sweep's folder."""
    content = yaml.safe_load(wanted.path.read_text(encoding="utf-8"))
    content = with_values(content, values)
    folder = draft.path / "recipes"
    folder.mkdir(exist_ok=True)
    path = folder / f"{wanted.path.stem}-trial-{number:03}.yaml"
    content["sweep"] = f"{draft.plan.run_id}/{number}"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def best_of(outcomes: Sequence[Outcome], *, maximise: bool) -> Outcome | None:
    """The trial with the best figure, stopped ones too; the first among equals."""
    known = [one for one in outcomes if one.figure is not None]
    sign = -1 if maximise else 1
    return min(known, key=lambda one: sign * (one.figure or 0.0), default=None)


def importance(outcomes: Sequence[Outcome], wanted: Sweep) -> tuple[dict[str, float], str | None]:
    """How much of the figure's variance each field explains (functional ANOVA over a random forest,
    Hutter et al. 2014), 0 to 1; empty, and why, where that cannot be said."""
    import optuna

    done = [one for one in outcomes if one.state == COMPLETE]
    if len(done) < _ENOUGH:
        return {}, f"{len(done)} trials ran to their end, fewer than {_ENOUGH}"
    if len({one.figure for one in done}) == 1:
        return {}, "every trial came to the same figure"
    study = study_of(outcomes, wanted.space, maximise=wanted.maximise, seed=wanted.seed)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=wanted.seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}, None


def _write(draft: Draft, wanted: Sweep, outcomes: Sequence[Outcome]) -> None:
    best = best_of(outcomes, maximise=wanted.maximise)
    if best is None:
        raise TrainingError(
            f"none of {len(outcomes)} trials came to a figure: {outcomes[0].reason}",
            where=draft.plan.run_id,
            remedy="Narrow --over; the trials are kept, so that --again starts anew",
        )
    shares, reason = importance(outcomes, wanted)
    draft.write("trials", _table(outcomes))
    content = yaml.safe_load(wanted.path.read_text(encoding="utf-8"))
    draft.write_text(BEST, yaml.safe_dump(with_values(content, best.values), sort_keys=False))
    draft.note(
        figure=wanted.figure,
        maximise=wanted.maximise,
        trials=len(outcomes),
        states={
            state: sum(one.state == state for one in outcomes)
            for state in (COMPLETE, STOPPED, FAILED)
        },
        best={"trial": best.number, "run": best.run, "figure": best.figure, **best.values},
        importance=shares,
        importance_reason=reason,
    )
    (draft.path / _DONE).unlink()


def _table(outcomes: Sequence[Outcome]) -> pa.Table:
    rows = [
        {
            **one.to_dict(),
            "values": json.dumps(one.values),
            "path": json.dumps([list(point) for point in one.path]),
        }
        for one in outcomes
    ]
    return table_from_rows("trials", rows)


def check_space(recipe: Recipe, path: Path, space: Sequence[Dimension]) -> None:
    """Refuse a field that no recipe of this method has, or a value that it cannot take.

    Raises:
        InputError: with the nearest field that exists.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for one in space:
        if one.key in _FIXED:
            raise InputError("a sweep does not vary this", where=f"--over {one.key}")
        for value in one.choices or (one.low, one.high):
            try:
                changed = FORMS[recipe.method].model_validate(
                    with_values(content, {one.key: value})
                )
            except ValidationError as error:
                said = error.errors(include_url=False)[0]
                what = said["msg"].removeprefix("Value error, ")
                if said["type"] == "extra_forbidden":
                    what = f"a {recipe.method} recipe has no such field"
                raise InputError(what, where=f"--over {one.key}={value}") from None
            check_trainer_arguments(changed, config_class(recipe.method), path)
