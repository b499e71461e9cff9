"""One experiment's YAML, checked before anything starts.

    method: dpo
    model: null              # whatever this method starts from by default
    trainer: {beta: 0.1, learning_rate: 5.0e-4}

`trainer` goes straight to the trainer's own configuration (TRL's, for SFT and DPO), under its own
names. A wrong key is refused with its line and the nearest right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from annotate.errors import InputError

SHIPPED = Path(__file__).parent / "recipes"
# Set by Handloom itself: where a run lies, what it reports to, the recipe's own seed.
_OURS = frozenset({"output_dir", "report_to", "seed", "data_seed", "disable_tqdm", "run_name"})

FROM_DATA = "from-data"
"""Instead of a number: the figure that the data themselves state."""
_STATED = {"dpo": frozenset({"label_smoothing"})}
# Losses that make something of a flip probability.
_SMOOTHED = frozenset({"robust"})

_NUMBERS = {int, float, bool, type(None), int | None, float | None, bool | None}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Lora(_Part):
    """Low-rank adapters (Hu et al. 2021) instead of training every weight."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters."""


class Demonstrations(_Part):
    """Dialogues of the made-up support desk, for use without any data."""

    source: Literal["support-desk"]
    n: int = Field(800, ge=1)
    seed: int = 0
    quality: tuple[float, float] = (2.0, 2.0)
    """Beta distribution that an answer's quality is drawn from."""


class Architecture(_Part):
    """A small Llama."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 384
    max_position_embeddings: int = 512
    """Tokens."""


class _Training(_Part):
    method: str
    seed: int = 0
    """Of weights, order and dropout."""
    max_length: int = Field(512, ge=8)
    """Tokens of prompt and completion together; longer rows are cut."""
    trainer: dict[str, Any] = {}
    """Arguments of the trainer's configuration class, by its own names."""


class PretrainRecipe(_Training):
    """A tokenizer and a small Llama from scratch."""

    method: Literal["pretrain"]
    demonstrations: Demonstrations
    """What to read."""
    vocab_size: int = Field(1024, ge=300)
    """Byte-level BPE, special tokens included."""
    architecture: Architecture = Architecture()


class _Tuning(_Training):
    model: str | None = None
    """`base` (the small model shipped with Handloom), a train run's id, a folder, or a model id of
    the Hugging Face hub. Left out: the model of the round before, else `base`."""
    data: str | None = None
    """Id of a build run. Left out: the newest."""
    lora: Lora | None = None
    """Left out: every weight is trained."""
    new_special_tokens: tuple[str, ...] = ()
    """Added to the tokenizer; the embeddings grow, starting from their mean."""


class SftRecipe(_Tuning):
    """Supervised fine-tuning on corrected responses and clear winners."""

    method: Literal["sft"]
    demonstrations: Demonstrations | None = None
    """Instead of a build run's `sft` table."""


class DpoRecipe(_Tuning):
    """Direct preference optimisation (Rafailov et al. 2023) on a build run's `preference` table."""

    method: Literal["dpo"]


Recipe = Annotated[PretrainRecipe | SftRecipe | DpoRecipe, Field(discriminator="method")]
_RECIPE: TypeAdapter[PretrainRecipe | SftRecipe | DpoRecipe] = TypeAdapter(Recipe)
_FORMS: dict[str, type[_Training]] = {
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "dpo": DpoRecipe,
}


def find_recipe(name: str | Path, folders: Sequence[Path] = ()) -> Path:
    """The recipe at this path, or of this name in one of `folders` or among those shipped.

    Raises:
        InputError: there is none.
    """
    given = Path(name)
    places = [given, *(folder / given.name for folder in (*folders, SHIPPED))]
    for place in places:
        for path in (place, Path(f"{place}.yaml")):
            if path.is_file():
                return path
    shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    raise InputError(
        "no such recipe", where=str(name), remedy=nearest(given.stem, shipped, "Shipped")
    )


def load_recipe(path: Path) -> PretrainRecipe | SftRecipe | DpoRecipe:
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
        raise InputError("a recipe is a mapping", where=str(path), remedy="See align/recipes")
    method = content.get("method")
    if not isinstance(method, str) or method not in _FORMS:
        raise InputError(
            f"unknown method {method!r}",
            where=f"{path}:{line_of(tree, ('method',))}",
            remedy=nearest(str(method), sorted(_FORMS), "Methods"),
        )
    try:
        return _RECIPE.validate_python(content)
    except ValidationError as error:
        raise _first_complaint(error, path, tree) from None


def check_trainer_arguments(recipe: _Training, config: type, path: Path) -> None:
    """Refuse `trainer` keys that the configuration class does not have, or that Handloom sets,
    and what is no number where only a number will do.

    Raises:
        InputError: naming the key's line, and the nearest one that exists.
    """
    known = {field.name for field in dataclasses.fields(config)} - _OURS
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
        if value == FROM_DATA and key in _STATED.get(recipe.method, ()):
            _check_smoothed(recipe, where)
            continue
        allowed = {types[key], *typing.get_args(types[key])}
        if allowed <= _NUMBERS and not isinstance(value, int | float | None):
            raise InputError(
                f"trainer.{key} must be a number, not {value!r}",
                where=where,
                remedy="YAML reads 5e-7 as text; write 5.0e-7",
            )


def _check_smoothed(recipe: _Training, where: str) -> None:
    """`label_smoothing: from-data` is a flip probability, which most losses do not look at."""
    losses = recipe.trainer.get("loss_type", [])
    if not _SMOOTHED & set([losses] if isinstance(losses, str) else losses):
        raise InputError(
            "label_smoothing is a flip probability, which this loss does not use",
            where=where,
            remedy=f"Set loss_type: [{', '.join(sorted(_SMOOTHED))}], or leave it out",
        )


def _line_in(path: Path, keys: tuple[int | str, ...]) -> int:
    """The line of a recipe already read where `keys` lead."""
    return line_of(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), keys)


def _first_complaint(error: ValidationError, path: Path, tree: yaml.Node | None) -> InputError:
    """The first of pydantic's complaints, an unknown key before all others, as one of ours."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    # A discriminated union puts the chosen method's name before the keys.
    keys = tuple(first["loc"][1:])
    where = f"{path}:{line_of(tree, keys)}"
    name = ".".join(str(key) for key in keys)
    if first["type"] == "extra_forbidden":
        return InputError(
            f"unknown key {name!r}",
            where=where,
            remedy=nearest(str(keys[-1]), _fields_beside(str(first["loc"][0]), keys), "Keys"),
        )
    return InputError(f"{name}: {first['msg'].removeprefix('Value error, ')}", where=where)


def _fields_beside(method: str, keys: tuple[int | str, ...]) -> list[str]:
    """What could stand where the last of `keys` stands."""
    form: Any = _FORMS[method]
    for key in keys[:-1]:
        annotation = form.model_fields[str(key)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        form = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(form.model_fields)


def nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    """A remedy: the known word most like `word`; else all of them after the word `otherwise`."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"{otherwise}: {', '.join(known)}" if otherwise else ""


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
