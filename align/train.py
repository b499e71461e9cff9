"""The step `train`: a recipe and its data → a model, its log and its figures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.adapters import require_start
from align.model import Loaded, Task, load_model
from align.model_kind import model_kind, require_kind
from align.model_ref import (
    MODEL,
    REWARD_MODEL,
    ModelRef,
    base_folder,
    model_before,
    resolve_model,
    weights,
)
from align.processes import different_result, shared_draft, world_size
from align.recipe import (
    TURNS,
    FeedbackRecipe,
    PretrainRecipe,
    Recipe,
    SftRecipe,
    Tuning,
    check_trainer_arguments,
    find_recipe,
    load_recipe,
)
from align.resources.device import require_devices
from align.resources.preflight import preflight
from annotate.errors import InputError, ProjectError
from annotate.records import conform
from annotate.runs import Draft, Project, Run, RunPlan


@dataclass(frozen=True)
class Method:
    """How a recipe's method is trained. Importing TRL takes seconds, so nothing is imported yet."""

    config: str
    """The trainer's configuration class, as `module:name`."""
    trainer: str
    """`train(recipe, loaded, rows, draft)`, as `module:name`."""
    table: str
    """Which table of a build run it learns from."""
    instead: str = ""
    """Which one where a run has nothing in that."""
    task: Task = "causal-lm"
    """What the model is loaded as."""
    encoder_decoder: bool = False
    """Whether an encoder-decoder will do as well."""
    makes: str = MODEL
    """What kind of model its run holds (`align.model`)."""


METHODS = {
    "sft": Method("trl:SFTConfig", "align.train_sft:train_sft", "sft", encoder_decoder=True),
    "dpo": Method("trl:DPOConfig", "align.train_dpo:train_dpo", "preference"),
    "reward": Method(
        "trl:RewardConfig",
        "align.train_reward:train_reward",
        "preference",
        task="reward",
        makes=REWARD_MODEL,
    ),
    "kto": Method("trl:KTOConfig", "align.train_kto:train_kto", "kto", instead="preference"),
    "orpo": Method("trl.experimental.orpo:ORPOConfig", "align.train_orpo:train_orpo", "preference"),
    "rloo": Method("trl:RLOOConfig", "align.train_rloo:train_rloo", "preference"),
    "grpo": Method("trl:GRPOConfig", "align.train_grpo:train_grpo", "preference"),
    "online-dpo": Method(
        "trl.experimental.online_dpo:OnlineDPOConfig",
        "align.train_online_dpo:train_online_dpo",
        "preference",
    ),
    "cpo": Method("trl.experimental.cpo:CPOConfig", "align.train_cpo:train_cpo", "preference"),
}
"""Every method that tunes a model which exists, by the name that recipes use."""

# Keys that stand elsewhere in a run's plan, or say only where it runs.
_NO_RESULT = {"model", "data", "seed", "hardware", "shapes", "report_to", "launch"}

Trainer = Callable[[Tuning, Loaded, pa.Table, Draft], None]


def train(
    project: Project,
    recipe_name: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    again: bool = False,
    unchecked: bool = False,
) -> Run:
    """Train as a recipe says; the finished run, if there is one.

    Args:
        recipe_name: a file, or the name of a recipe of the project or of those shipped.
        data: a build run's id, instead of the recipe's.
        model: what to start from, instead of the recipe's.
        seed: instead of the recipe's.
        again: make a new run although a finished one exists.
        unchecked: begin although the estimate says that memory will not do.

    Raises:
        InputError: the recipe is wrong, or the data are empty.
        TrainingError: the model cannot be loaded, training fails, or there is no such device.
        ResourceError: it does not fit into memory.
    """
    recipe, path = read_recipe(project, recipe_name, data=data, model=model, seed=seed)
    if isinstance(recipe, PretrainRecipe):
        from align.pretrain import pretrain

        return pretrain(project, recipe, path.stem, again=again, unchecked=unchecked)
    if not isinstance(recipe, Tuning):
        raise TypeError(f"no trainer for {recipe.method}")
    return _tune(project, recipe, path, again, unchecked)


def read_recipe(
    project: Project,
    recipe_name: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    seed: int | None = None,
) -> tuple[Recipe, Path]:
    """A checked recipe with what the command line puts in its place, and its file.

    Raises:
        InputError: there is no such recipe, or it is wrong.
    """
    path = find_recipe(recipe_name, [project.root / "recipes"])
    recipe = load_recipe(path)
    changed: dict[str, Any] = {"data": data, "model": model, "seed": seed}
    fields = type(recipe).model_fields
    if not isinstance(recipe, Tuning) and (data or model):
        raise InputError("pre-training takes neither --data nor --model", where=str(path))
    if (
        isinstance(recipe, Tuning)
        and recipe.shapes is not None
        and model not in (None, recipe.model)
    ):
        changed["shapes"] = recipe.shapes.model_copy(update={"model": None})  # another model's
    recipe = recipe.model_copy(
        update={k: v for k, v in changed.items() if v is not None and k in fields}
    )
    check_trainer_arguments(recipe, config_class(recipe.method), path)
    return recipe, path


def config_class(method: str) -> type:
    """The class whose fields a recipe of this method may set under `trainer`."""
    found = METHODS.get(method)
    config: type = _imported(found.config if found else "transformers:TrainingArguments")
    return config


def _imported(name: str) -> Any:
    # TRL would warn of each experimental trainer, in the middle of our own words.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _tune(project: Project, recipe: Tuning, path: Path, again: bool, unchecked: bool) -> Run:
    demonstrations = recipe.demonstrations if isinstance(recipe, SftRecipe) else None
    built = None if demonstrations else build_of(project, recipe)
    round = built.round if built else 0
    ref = resolve_model(project, recipe.model) if recipe.model else model_before(project, round)
    require_start(recipe, ref.name, Path(ref.source))
    read = [ref]
    if isinstance(recipe, FeedbackRecipe):
        from align.feedback import reward_refs, with_reward

        recipe = with_reward(project, recipe)
        read += reward_refs(project, recipe).values()
    behind = [built, *(one.run for one in read)]
    plan = RunPlan(
        "train",
        round,
        parents=tuple(dict.fromkeys(run for run in behind if run is not None)),
        settings={
            "model": ref.name,
            **recipe.identity(*_NO_RESULT),
            **different_result(recipe.batch_size),
        },
        seed=recipe.seed,
        inputs=(
            *(file for one in read if one.run is None for file in weights(one)),
            *_template_files(project, recipe),
        ),
    )
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    method = METHODS[recipe.method]
    # Before anything is asked of the hub.
    require_devices(recipe.hardware, recipe.method, path.stem, started=world_size())
    task = _task(method, ref)
    preflight(recipe, ref, path.stem, config_class(recipe.method), unchecked=unchecked)
    if demonstrations:
        from align.train_sft import demonstration_rows

        rows = demonstration_rows(demonstrations)
    else:
        rows = rows_of(plan.parents[0], method)
    with shared_draft(project, plan) as draft:
        if demonstrations:
            draft.write("sft", rows)
        draft.note(
            method=recipe.method, makes=method.makes, recipe=path.stem, started_from=ref.name
        )
        _run_trainer(recipe, ref, task, rows, draft)
    return draft.run


def _template_files(project: Project, recipe: Tuning) -> tuple[Path, ...]:
    """The file of the recipe's own chat template, by which a run identifies what it was.

    Raises:
        InputError: there is no such file.
    """
    from align.chat_template import template_file, template_text

    if recipe.chat_template in (None, TURNS):
        return ()
    template_text(recipe.chat_template, project.root)
    return (template_file(recipe.chat_template, project.root),)


def _task(method: Method, ref: ModelRef) -> Task:
    """What to load the model as.

    Raises:
        TrainingError: it is of a kind that the method cannot train.
    """
    kind = model_kind(base_folder(ref))
    other = method.encoder_decoder and kind == "encoder-decoder"
    task: Task = "seq2seq-lm" if other else method.task
    require_kind(ref.name, kind, task)
    return task


def _run_trainer(recipe: Tuning, ref: ModelRef, task: Task, rows: pa.Table, draft: Draft) -> None:
    from transformers import set_seed

    from align.chat_template import check_template, template_text, warn
    from align.speed.packing import packed_batches
    from align.training import quiet_libraries

    method = METHODS[recipe.method]
    named, folder = recipe.chat_template, draft.project.root
    template = template_text(named, folder) if named is not None else None
    set_seed(recipe.seed)  # a new head's weights are random
    with quiet_libraries():
        loaded = load_model(
            ref,
            task=task,
            quantization=recipe.quantization,
            trust_remote_code=bool(recipe.trainer.get("trust_remote_code")),
            train="adapters" if recipe.adapts else "all",
            template=template,
        )
        warn(loaded, check_template(loaded).warnings(completes=task == "causal-lm"))
        train_by_method: Trainer = _imported(method.trainer)
        with packed_batches(loaded.model, recipe.speed) as packing:
            train_by_method(recipe, loaded, rows, draft)
    if packing.left_out is not None:
        draft.note(not_packed=packing.left_out)


def build_of(project: Project, recipe: Tuning) -> Run:
    """The build run that a recipe learns from: the one it names, else the newest.

    Raises:
        ProjectError: there is none, or what it names is none.
    """
    run = project.resolve(recipe.data) if recipe.data else project.latest("build")
    if run.step != "build":
        raise ProjectError("this is not a build run", where=run.id, remedy="`handloom build`")
    return run


def rows_of(built: Run, method: Method) -> pa.Table:
    """What a method learns from, of both sides.

    Raises:
        InputError: nothing to train on.
    """
    named = [table for table in (method.table, method.instead) if table]
    for table in filter(built.has, named):
        # A build of an earlier release has fewer columns.
        rows = conform(table, built.read(table))
        if pc.any(pc.equal(rows["split"], "train")).as_py():
            return rows
    raise InputError(
        f"its {' set and its '.join(named)} set has no row to train on",
        where=built.id,
        remedy="Collect more votes, or loosen the build recipe's filters",
    )
