"""`handloom train RECIPE --dry-run`: what a training would do and take, without starting it.

Nothing is downloaded and no GPU is needed: the sizes of model and set are read where these are at
hand, and taken from the recipe's `shapes` where they are not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from align.arguments import defaults, resolved
from align.model_ref import ModelRef, model_before, resolve_model
from align.recipe import ModelShapes, PretrainRecipe, Recipe, SetShapes, SftRecipe, Tuning
from align.resources.device import device_of, free_bytes
from align.resources.fitting import advice, devices_of, pretraining_setup, setup_of
from align.resources.memory import GIB, all_weights, memory, total, trained_weights
from align.resources.named import not_here, require_named
from align.resources.setup import Setup
from align.resources.shapes import model_shapes
from align.resources.steps import Steps, steps
from align.train import METHODS, build_of, config_class, read_recipe, rows_of
from annotate.errors import InputError, ProjectError
from annotate.runs import Project

# What only the device that a recipe is for can check.
_OF_THE_DEVICE = {"bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "use_cpu"}


@dataclass(frozen=True)
class DryRun:
    """What a training would do and take."""

    recipe: Recipe
    name: str
    """Of the recipe."""
    model: str
    """Of what it starts from."""
    config: str
    """The class that configures its trainer."""
    changed: Mapping[str, tuple[Any, str]]
    """Its arguments that differ from the class's defaults, each with who sets it."""
    setup: Setup | None
    sizes_from: str
    """Where the model's sizes are from; without a setup: why there is none."""
    steps: Steps | None
    rows_from: str
    not_here: Sequence[str] = ()
    """What the recipe wants of a machine that this one has not."""

    def lines(self) -> list[str]:
        """As text."""
        said = [f"{self.recipe.method} of {self.model}, {self._devices()}", ""]
        said.append(f"{self.config}, where it is not as its own defaults:")
        width = max(map(len, self.changed), default=0)
        said += [
            f"  {name:<{width}}  {value!r:<12} ({source})"
            for name, (value, source) in sorted(self.changed.items())
        ]
        said += ["", *self._memory(), ""]
        if self.steps is None:
            said.append(f"steps: not known yet, {self.rows_from}")
        else:
            said.append(f"steps: {self.steps.count:,} ({self.steps.note}; {self.rows_from})")
        return [*said, *(f"not on this machine: {what}" for what in self.not_here)]

    def _devices(self) -> str:
        hardware = self.recipe.hardware if isinstance(self.recipe, Tuning) else None
        if hardware is None:
            return f"on this machine ({device_of(None)})"
        room = f" of {hardware.memory_gib:g} GiB" if hardware.memory_gib else ""
        launched = f", launched by {self.recipe.launch}" if self.recipe.launch else ""
        return f"on {hardware.count} × {hardware.device}{room}{launched}"

    def _memory(self) -> list[str]:
        if self.setup is None:
            return [f"memory: cannot be counted, {self.sizes_from}"]
        count = f"{trained_weights(self.setup):,} of {all_weights(self.setup.model):,} weights"
        said = [f"memory of each device in GiB, for {count} trained (sizes: {self.sizes_from}):"]
        shares = memory(self.setup)
        width = max(len(share.name) for share in shares)
        said += [
            f"  {share.name:<{width}}  {share.bytes / GIB:8.3f}  {share.note}" for share in shares
        ]
        needed, room = total(self.setup), self._room()
        said.append(f"  {'together':<{width}}  {needed / GIB:8.3f}  of {room / GIB:.1f}")
        if needed > room:
            said.append(f"  It does not fit. {advice(self.setup, room)}")
        return said

    def _room(self) -> float:
        hardware = self.recipe.hardware if isinstance(self.recipe, Tuning) else None
        if hardware is not None and hardware.memory_gib is not None:
            return hardware.memory_gib * GIB
        return free_bytes(device_of(None))


def dry_run(
    project: Project,
    recipe_name: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    launch: str | None = None,
) -> DryRun:
    """What `align.train.train` would do with the same arguments.

    Args:
        launch: instead of the recipe's: how many processes, or an accelerate configuration.

    Raises:
        InputError: the recipe is wrong.
        TrainingError: the trainer's configuration refuses its settings, or what it names as a model
            cannot be used as one.
        ProjectError: a model or the build run that it names does not exist.
    """
    recipe, path = read_recipe(project, recipe_name, data=data, model=model, seed=seed)
    if launch is not None:
        recipe = recipe.model_copy(update={"launch": int(launch) if launch.isdigit() else launch})
    config = config_class(recipe.method)
    device = device_of(recipe.hardware) if isinstance(recipe, Tuning) else None
    count = devices_of(recipe) if isinstance(recipe, Tuning) else 1
    chosen = resolved(recipe, config, evaluates=True, device=device, processes=count)
    _require_accepted(recipe, config, path)
    ref = _model(project, recipe) if isinstance(recipe, Tuning) else None
    if isinstance(recipe, Tuning) and ref is not None:
        require_named(project, recipe, ref)
    usual = defaults(config)
    arguments = usual | {name: value for name, (value, _) in chosen.items()}
    found, sizes_from = _setup(project, recipe, arguments)
    size, rows_from = _size(project, recipe)
    return DryRun(
        recipe=recipe,
        name=path.stem,
        model=ref.name if ref is not None else "a new model",
        config=config.__name__,
        changed={n: entry for n, entry in chosen.items() if n in usual and entry[0] != usual[n]},
        setup=found,
        sizes_from=sizes_from,
        steps=steps(size, arguments, count),
        rows_from=rows_from,
        not_here=not_here(recipe) if isinstance(recipe, Tuning) else (),
    )


def _require_accepted(recipe: Recipe, config: type, path: Path) -> None:
    """Let the configuration class check the values, but for those only the device can."""
    from align.training import quiet_libraries, settings_reported

    chosen = {
        name: value
        for name, (value, _) in resolved(recipe, config, evaluates=True).items()
        if name not in _OF_THE_DEVICE and not recipe.stated_by_data(name)
    }
    with (
        settings_reported(str(path)),
        quiet_libraries(),
        tempfile.TemporaryDirectory() as nowhere,
    ):
        config(**chosen, bf16=False, use_cpu=True, output_dir=nowhere)


def _setup(
    project: Project, recipe: Recipe, arguments: Mapping[str, Any]
) -> tuple[Setup | None, str]:
    if isinstance(recipe, PretrainRecipe):
        return pretraining_setup(recipe, arguments), "the recipe"
    if not isinstance(recipe, Tuning):
        return None, "this method's formula is not known"
    shapes: ModelShapes | None
    shapes, said = model_shapes(recipe, _model(project, recipe))
    return (None if shapes is None else setup_of(recipe, shapes, arguments)), said


def _model(project: Project, recipe: Tuning) -> ModelRef:
    if recipe.model:
        return resolve_model(project, recipe.model)
    try:
        return model_before(project, build_of(project, recipe).round)
    except ProjectError:
        return resolve_model(project, "base")


def _size(project: Project, recipe: Recipe) -> tuple[SetShapes | None, str]:
    """Rows to train on, and where the number is from."""
    if isinstance(recipe, PretrainRecipe) or not isinstance(recipe, Tuning):
        return None, "they depend on what is read"
    if isinstance(recipe, SftRecipe) and recipe.demonstrations is not None:
        n = recipe.demonstrations.n
        return SetShapes(rows=n - n // 20), "made up"
    stated = recipe.shapes.set if recipe.shapes is not None else None
    try:
        built = build_of(project, recipe)
        rows = rows_of(built, METHODS[recipe.method])
    except (ProjectError, InputError) as error:
        if recipe.data is not None:
            raise
        return stated, "as the recipe states" if stated else error.what
    count = pc.sum(pc.equal(rows["split"], "train")).as_py()
    if recipe.method == "kto" and "label" not in rows.column_names:
        count *= 2  # both sides of a pair
    return SetShapes(rows=count), f"of {built.id}"
