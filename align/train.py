"""The step `train`: a recipe and its data → a model, its log and its figures."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from align.model import ModelRef, load_model, model_before, resolve_model, weights
from align.recipe import (
    DpoRecipe,
    PretrainRecipe,
    SftRecipe,
    check_trainer_arguments,
    find_recipe,
    load_recipe,
)
from annotate.errors import InputError, ProjectError
from annotate.runs import Draft, Project, Run, RunPlan


def train(
    project: Project,
    recipe_name: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    again: bool = False,
) -> Run:
    """Train as a recipe says; the finished run, if there is one.

    Args:
        recipe_name: a file, or the name of a recipe of the project or of those shipped.
        data: a build run's id, instead of the recipe's.
        model: what to start from, instead of the recipe's.
        seed: instead of the recipe's.
        again: make a new run although a finished one exists.

    Raises:
        InputError: the recipe is wrong, or the data are empty.
        TrainingError: the model cannot be loaded, or training fails.
    """
    path = find_recipe(recipe_name, [project.root / "recipes"])
    recipe = load_recipe(path)
    changed = {"data": data, "model": model, "seed": seed}
    fields = type(recipe).model_fields
    if isinstance(recipe, PretrainRecipe) and (data or model):
        raise InputError("pre-training takes neither --data nor --model", where=str(path))
    recipe = recipe.model_copy(
        update={k: v for k, v in changed.items() if v is not None and k in fields}
    )
    check_trainer_arguments(recipe, _config_class(recipe), path)
    if isinstance(recipe, PretrainRecipe):
        from align.pretrain import pretrain

        return pretrain(project, recipe, again=again)
    return _tune(project, recipe, path, again)


def _config_class(recipe: PretrainRecipe | SftRecipe | DpoRecipe) -> type:
    if isinstance(recipe, PretrainRecipe):
        from transformers import TrainingArguments

        return TrainingArguments
    import trl

    config: type = trl.SFTConfig if isinstance(recipe, SftRecipe) else trl.DPOConfig
    return config


def _tune(project: Project, recipe: SftRecipe | DpoRecipe, path: Path, again: bool) -> Run:
    demonstrations = recipe.demonstrations if isinstance(recipe, SftRecipe) else None
    built = None if demonstrations else _build_run(project, recipe)
    round = built.round if built else 0
    ref = resolve_model(project, recipe.model) if recipe.model else model_before(project, round)
    plan = RunPlan(
        "train",
        round,
        parents=tuple(run for run in (built, ref.run) if run is not None),
        settings={"model": ref.name, **recipe.model_dump(exclude={"model", "data", "seed"})},
        seed=recipe.seed,
        inputs=() if ref.run else weights(ref),
    )
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    if demonstrations:
        from align.train_sft import demonstration_rows

        rows = demonstration_rows(demonstrations)
    else:
        rows = _rows(plan.parents[0], "sft" if isinstance(recipe, SftRecipe) else "preference")
    with project.draft(plan) as draft:
        if demonstrations:
            draft.write("sft", rows)
        draft.note(method=recipe.method, recipe=path.stem, started_from=ref.name)
        _run_trainer(recipe, ref, rows, draft)
    return draft.run


def _run_trainer(
    recipe: SftRecipe | DpoRecipe, ref: ModelRef, rows: pa.Table, draft: Draft
) -> None:
    from align.training import quiet_libraries

    trusted = bool(recipe.trainer.get("trust_remote_code"))
    with quiet_libraries():
        loaded = load_model(ref, trust_remote_code=trusted)
        if isinstance(recipe, SftRecipe):
            from align.train_sft import train_sft

            train_sft(recipe, loaded, rows, draft)
        else:
            from align.train_dpo import train_dpo

            train_dpo(recipe, loaded, rows, draft)


def _build_run(project: Project, recipe: SftRecipe | DpoRecipe) -> Run:
    run = project.resolve(recipe.data) if recipe.data else project.latest("build")
    if run.step != "build":
        raise ProjectError("this is not a build run", where=run.id, remedy="`handloom build`")
    return run


def _rows(built: Run, table: str) -> pa.Table:
    rows = built.read(table)
    if not pc.any(pc.equal(rows["split"], "train")).as_py():
        raise InputError(
            f"its {table} set has no row to train on",
            where=built.id,
            remedy="Collect more votes, or loosen the build recipe's filters",
        )
    return rows
