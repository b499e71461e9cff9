"""From a file to a recipe's form, with the line of what is wrong and the nearest right word."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from align.recipe.feedback import GrpoRecipe, OnlineDpoRecipe, RlooRecipe
from align.recipe.parts import Recipe
from align.recipe.preference import CpoRecipe, DpoRecipe, KtoRecipe, OrpoRecipe, RewardRecipe
from align.recipe.text import PretrainRecipe, SftRecipe
from align.recipe.words import Complaint, nearest, unknown_word
from annotate.errors import InputError

FORMS: dict[str, type[Recipe]] = {
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "dpo": DpoRecipe,
    "reward": RewardRecipe,
    "kto": KtoRecipe,
    "orpo": OrpoRecipe,
    "cpo": CpoRecipe,
    "rloo": RlooRecipe,
    "grpo": GrpoRecipe,
    "online-dpo": OnlineDpoRecipe,
}

SHIPPED = Path(__file__).parent.parent / "recipes"
# Set by Handloom itself: where a run lies, what it reports to, the recipe's own seed and length.
_OURS = frozenset(
    {"output_dir", "report_to", "seed", "data_seed", "disable_tqdm", "run_name", "max_length"}
)
# Rows and batches, by which steps are divided.
_COUNTS = frozenset(
    {
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
    }
)
# Losses that others count as methods.
_METHODS_OF_TRL = {
    "simpo": "It is a loss: method: cpo, trainer: {loss_type: simpo, cpo_alpha: 0.0}",
}
# Recipes that a command makes.
_MADE = {"build-tuned": "`handloom tune-filters` makes it"}
_NUMBERS = {int, float, bool, type(None), int | None, float | None, bool | None}


def find_recipe(name: str | Path, folders: Sequence[Path] = ()) -> Path:
    """The recipe at this path; of a name alone, also in one of `folders` or among those shipped.

    Raises:
        InputError: there is none.
    """
    given = Path(name)
    alone = given.name == str(name)  # what stands in another folder is another recipe
    known = (*folders, SHIPPED) if alone else ()
    for place in (given, *(folder / given.name for folder in known)):
        for path in (place, Path(f"{place}.yaml")):
            if path.is_file():
                return path
    shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    remedy = _MADE.get(given.stem) or nearest(given.stem, shipped, "Shipped")
    raise InputError("no such recipe", where=str(name), remedy=remedy)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        InputError: not YAML, an unknown key (with the nearest known one), or a wrong value; with
            the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"not YAML: {error.problem}", where=f"{path}:{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not YAML: {error}", where=str(path)) from None
    if not isinstance(content, dict):
        raise InputError(
            "a recipe is a mapping", where=str(path), remedy="`handloom init` copies some to see"
        )
    _require_keys_once(tree, path)
    method = content.get("method")
    if not isinstance(method, str) or method not in FORMS:
        raise _no_method(method, f"{path}:{line_of(tree, ('method',))}")
    try:
        return FORMS[method].model_validate(content)
    except ValidationError as error:
        raise _first_complaint(error, path, tree, FORMS[method]) from None


def _no_method(named: Any, where: str) -> InputError:
    if named is None:
        return InputError(
            "it names no method", where=where, remedy="Methods: " + ", ".join(sorted(FORMS))
        )
    remedy = _METHODS_OF_TRL.get(str(named)) or nearest(str(named), sorted(FORMS), "Methods")
    return InputError(f"unknown method {named!r}", where=where, remedy=remedy)


def _require_keys_once(node: yaml.Node | None, path: Path) -> None:
    """YAML takes the last of two keys that are the same, and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _require_keys_once(part, path)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise InputError(f"{key.value!r} stands there twice", where=f"{path}:{line}")
            seen.add(str(key.value))
            _require_keys_once(value, path)


def check_trainer_arguments(recipe: Recipe, config: type, path: Path) -> None:
    """Refuse `trainer` keys that the configuration class does not have, or that Handloom sets,
    and what is no number where only a number will do.

    Raises:
        InputError: naming the key's line, and the nearest one that exists.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    known = fields.keys() - _OURS
    types = typing.get_type_hints(config)
    for key, value in recipe.trainer.items():
        where = f"{path}:{_line_in(path, ('trainer', key))}"
        if key in _OURS:
            raise InputError(
                f"trainer.{key} is set by Handloom", where=where, remedy="Leave it out"
            )
        if key not in known:
            raise InputError(
                f"{config.__name__} has no argument {key!r}",
                where=where,
                remedy=nearest(key, sorted(known), ""),
            )
        # Most trainers look at such a word only once they need it, at their first step.
        words = fields[key].metadata.get("choices")
        complaint = (
            (unknown_word(key, value, words) if words else None)
            or recipe.complaint(key)
            or _number_complaint(recipe, key, {types[key], *typing.get_args(types[key])})
        )
        if complaint is not None:
            what, remedy = complaint
            raise InputError(what, where=where, remedy=remedy)


def _number_complaint(recipe: Recipe, key: str, allowed: set[Any]) -> Complaint | None:
    """What is wrong with `trainer[key]` where only a number will do, of the types `allowed`."""
    value = recipe.trainer[key]
    if allowed <= _NUMBERS and not recipe.stated_by_data(key):
        if not isinstance(value, int | float | None):
            what = f"trainer.{key} must be a number, not {value!r}"
            return what, "YAML reads 5e-7 as text; write 5.0e-7"
        if value is None and type(None) not in allowed:
            return f"trainer.{key} must be a number", "Write one, or leave it out"
    if key == "num_train_epochs" and not (value > 0 or (recipe.trainer.get("max_steps") or 0) >= 1):
        what = f"trainer.num_train_epochs: {value} trains nothing"
        return what, "Set it above 0, or trainer.max_steps"
    if key in _COUNTS and not (isinstance(value, int) and value >= 1):
        what = f"trainer.{key} must be a whole number from 1, not {value!r}"
        return what, "Leave it out, or name how many"
    return None


def _line_in(path: Path, keys: tuple[int | str, ...]) -> int:
    """The line of a recipe already read where `keys` lead."""
    return line_of(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), keys)


def _first_complaint(
    error: ValidationError, path: Path, tree: yaml.Node | None, form: type[Recipe]
) -> InputError:
    """The first of pydantic's complaints, an unknown key before all others, as one of ours."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    keys = tuple(first["loc"])
    where = f"{path}:{line_of(tree, keys)}"
    name = ".".join(str(key) for key in keys)
    if first["type"] == "extra_forbidden":
        return InputError(
            f"unknown key {name!r}",
            where=where,
            remedy=nearest(str(keys[-1]), _fields_beside(form, keys), "Keys"),
        )
    said = first["msg"].removeprefix("Value error, ")
    return InputError(f"{name}: {said}" if name else said, where=where)


def _fields_beside(form: Any, keys: tuple[int | str, ...]) -> list[str]:
    """What could stand where the last of `keys` stands."""
    for key in keys[:-1]:
        annotation = form.model_fields[str(key)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        form = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(form.model_fields)


def line_of(node: yaml.Node | None, keys: tuple[int | str, ...]) -> int:
    """The line where `keys` lead, or where they stop leading."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
