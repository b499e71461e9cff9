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
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from align.model_ref import ModelRef, model_before, resolve_model, weights
from align.recipe import FORMS, FeedbackRecipe, Recipe, Tuning, check_trainer_arguments
from align.sweep.space import Dimension, with_values
from align.sweep.trials import COMPLETE, FAILED, STOPPED, Median, Outcome, study_of
from align.train import METHODS, build_of, config_class, read_recipe, rows_of, train
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
    given: dict[str, str]
    """What every trial has, however long the sweep takes: the build run, the model to start from
    and the reward model that the recipe's names mean now."""
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
    recipe, path = read_recipe(project, recipe_name, data=data, model=model)
    check_space(recipe, path, space)
    if maximise is None:
        maximise = recipe.higher_is_better and figure in (None, recipe.held_out)
    start = _start(project, recipe)
    if (figure or recipe.held_out).startswith("eval_"):
        _require_held_out(project, recipe, start)
    wanted = Sweep(
        recipe, path, tuple(space), trials, figure or recipe.held_out, maximise, start.given, seed
    )
    plan = _plan(wanted, start)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        outcomes = _all_trials(project, wanted, draft)
        _write(draft, wanted, outcomes)
    return draft.run


@dataclass(frozen=True)
class _Start:
    """What the trials learn from and begin with."""

    given: dict[str, str]
    round: int = 0
    model: ModelRef | None = None
    parents: tuple[Run, ...] = ()
    inputs: tuple[Path, ...] = ()


def _start(project: Project, recipe: Recipe) -> _Start:
    """What a recipe's names mean now, and the newest of what it does not name."""
    if not isinstance(recipe, Tuning):
        return _Start({})
    built = None if getattr(recipe, "demonstrations", None) else build_of(project, recipe)
    round = built.round if built else 0
    ref = resolve_model(project, recipe.model) if recipe.model else model_before(project, round)
    read, given = [ref], {"model": ref.name if ref.run else recipe.model or ref.name}
    if built is not None:
        given["data"] = built.id
    if isinstance(recipe, FeedbackRecipe):
        from align.feedback import reward_refs, with_reward

        recipe = with_reward(project, recipe)
        read += reward_refs(project, recipe).values()
        given["reward"] = str(recipe.reward)
    behind = (built, *(one.run for one in read))
    parents = tuple(dict.fromkeys(run for run in behind if run is not None))
    inputs = tuple(file for one in read if one.run is None for file in weights(one))
    return _Start(given, round, ref, parents, inputs)


def _require_held_out(project: Project, recipe: Recipe, start: _Start) -> None:
    """Refuse data of which nothing is held out: no trial would have a figure."""
    if "data" not in start.given:
        return
    built = project.resolve(start.given["data"])
    rows = rows_of(built, METHODS[recipe.method])
    if not pc.any(pc.equal(rows["split"], "eval")).as_py():
        raise InputError(
            "none of its rows is held out, so no trial would have a figure",
            where=built.id,
            remedy="Build anew with a larger held_out, or from more pairs",
        )


def _plan(wanted: Sweep, start: _Start) -> RunPlan:
    """Data and models as the trials will find them: with others it is another sweep."""
    settings: dict[str, Any] = {
        "recipe": wanted.recipe.identity(mode="json"),
        "over": [one.to_text() for one in wanted.space],
        "trials": wanted.trials,
        "figure": wanted.figure,
        "maximise": wanted.maximise,
    }
    if start.model is not None:
        settings["model"] = start.model.name
    return RunPlan("sweep", start.round, start.parents, settings, wanted.seed, start.inputs)


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
            run = train(project, path)
    except (InputError, TrainingError) as error:  # values that do not go together, too
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
    content = _with_start(wanted, values)
    folder = draft.path / "recipes"
    folder.mkdir(exist_ok=True)
    path = folder / f"{wanted.path.stem}-trial-{number:03}.yaml"
    content["sweep"] = f"{draft.plan.run_id}/{number}"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _with_start(wanted: Sweep, values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's content with a trial's values and what every trial has."""
    content = yaml.safe_load(wanted.path.read_text(encoding="utf-8")) | wanted.given
    recipe = wanted.recipe
    if isinstance(recipe, Tuning) and recipe.shapes is not None and recipe.shapes.model is None:
        content["shapes"] = {**content["shapes"], "model": None}  # of another model
    return with_values(content, values)


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
    content = _with_start(wanted, best.values)
    draft.write_text(BEST, yaml.safe_dump(content, sort_keys=False))
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
