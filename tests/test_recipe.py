"""Recipes: those shipped are sound, and what is wrong with any other is said with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from align.build_recipe import read_recipe
from align.recipe import (
    DPO_LOSSES,
    FORMS,
    SHIPPED,
    DpoRecipe,
    Lora,
    SftRecipe,
    check_trainer_arguments,
    find_recipe,
    load_recipe,
)
from align.train import config_class
from annotate.errors import InputError
from annotate.runs import Project

CORPUS = "method: pretrain\ncorpus: {source: text, path: here}\n"
TRAINING = sorted(path for path in SHIPPED.glob("*.yaml") if not path.stem.startswith("build"))

BUILDING = sorted(SHIPPED.glob("build*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_sound_and_its_header_has_its_command(path: Path) -> None:
    recipe = load_recipe(path)
    check_trainer_arguments(recipe, config_class(recipe.method), path)
    header = path.read_text(encoding="utf-8").split(f"\nmethod: {recipe.method}")[0]
    assert re.search(rf"^#   handloom train {path.stem}\b", header, re.MULTILINE)


def test_every_method_has_a_recipe_for_any_machine() -> None:
    desk = [path for path in TRAINING if path.stem.endswith("-support-desk")]
    assert {load_recipe(path).method for path in desk} == set(FORMS)


@pytest.mark.parametrize("path", BUILDING, ids=lambda path: path.stem)
def test_a_shipped_build_recipe_is_sound_and_its_header_has_its_command(path: Path) -> None:
    assert read_recipe(Project(Path("nowhere")), str(path)).filters
    header = path.read_text(encoding="utf-8").split("\nfilters:")[0]
    assert re.search(rf"^#   handloom build --recipe {path.stem}$", header, re.MULTILINE)


@pytest.mark.parametrize(
    ("trainer", "complaint"),
    [
        ("label_smoothing: from-data", "3: label_smoothing is a flip probability"),
        ("label_smoothing: from-data, loss_type: [ipo]", "Set loss_type: [robust]"),
        ("beta: from-data", "trainer.beta must be a number"),
    ],
)
def test_from_data_only_where_a_loss_uses_it(tmp_path: Path, trainer: str, complaint: str) -> None:
    import trl

    path = written(tmp_path, f"method: dpo\ntrainer:\n  {{{trainer}}}\n")
    with pytest.raises(InputError, match=re.escape(complaint)):
        check_trainer_arguments(load_recipe(path), trl.DPOConfig, path)
    fine = written(
        tmp_path, "method: dpo\ntrainer: {loss_type: robust, label_smoothing: from-data}\n"
    )
    check_trainer_arguments(load_recipe(fine), trl.DPOConfig, fine)


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        (
            "method: dpo\ntrainer:\n  beta: 1\n  loss_type: [ipo, sigmod]\n",
            4,
            "Did you mean sigmoid",
        ),
        ("method: dpo\ntrainer: {loss_type: exo_pair}\n", 2, "exo_pair needs a label_smoothing"),
        ("method: dpo\ntrainer: {loss_type: [ipo, sft], loss_weights: [1]}\n", 2, "one for each"),
        ("method: dpo\ntrainer: {f_divergence_type: foward_kl}\n", 2, "mean forward_kl"),
        ("method: dpo\ntrainer: {truncation_mode: keep_strat}\n", 2, "mean keep_start"),
        ("method: dpo\ntrainer: {label_smoothing: 0.1}\n", 2, "which this loss does not use"),
        (
            "method: dpo\ntrainer: {loss_type: robust, label_smoothing: 0.5}\n",
            2,
            "from 0 to below 0.5",
        ),
        (
            "method: dpo\nsoft_labels: true\ntrainer:\n  loss_type: robust\n",
            4,
            "Choose among sigmoid, sigmoid_norm, hinge, ipo",
        ),
        (
            "method: dpo\nrow_weights: true\ntrainer: {use_weighting: true}\n",
            3,
            "do not go with this use_weighting",
        ),
        ("method: kto\ntrainer: {loss_type: ktoo}\n", 2, "mean kto?"),
        ("method: kto\ntrainer: {per_device_train_batch_size: 1}\n", 2, "Set 2 or more"),
        ("method: kto\ntrainer: {train_sampling_strategy: random}\n", 2, "order must stay"),
        ("method: cpo\ntrainer: {loss_type: simpoo}\n", 2, "mean simpo?"),
        ("method: cpo\ntrainer: {loss_type: ipo, label_smoothing: 0.1}\n", 2, "ignores"),
        ("method: orpo\ntrainer: {max_length: 9}\n", 2, "max_length is set by Handloom"),
        ("method: sft\ntrainer: {num_train_epochs: -1}\n", 2, "-1 trains nothing"),
        ("method: sft\ntrainer:\n  num_train_epochs: 0\n  max_steps: null\n", 3, "trains nothing"),
    ],
)
def test_what_trl_would_find_at_its_first_step_is_refused_before(
    tmp_path: Path, text: str, line: int, complaint: str
) -> None:
    path = written(tmp_path, text)
    recipe = load_recipe(path)
    with pytest.raises(InputError, match=re.escape(complaint)) as caught:
        check_trainer_arguments(recipe, config_class(recipe.method), path)
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"method: dpo\ntrainer: {{loss_type: {loss}, label_smoothing: "
            f"{0.1 if loss in ('robust', 'exo_pair') else 0}}}\n"
            for loss in DPO_LOSSES
        ),
        "method: dpo\ntrainer: {loss_type: [sigmoid, sft], loss_weights: [1, 0.2]}\n",
        "method: dpo\nsoft_labels: true\ntrainer: {loss_type: ipo, beta: 0.2}\n",
        "method: kto\ntrainer: {desirable_weight: from-data, undesirable_weight: 1.1}\n",
        "method: kto\ntrainer: {loss_type: apo_zero_unpaired, per_device_train_batch_size: 1}\n",
        "method: cpo\ntrainer: {loss_type: simpo, label_smoothing: from-data}\n",
        "method: reward\nmargin: true\nsoft_labels: true\n",
    ],
)
def test_what_a_method_can_do_is_not_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    recipe = load_recipe(path)
    check_trainer_arguments(recipe, config_class(recipe.method), path)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "method: dpo\n"))
    assert recipe == DpoRecipe(method="dpo")
    assert recipe.model is None
    assert recipe.lora is None
    assert recipe.trainer == {}


def test_every_field_is_read(tmp_path: Path) -> None:
    text = """
    method: sft
    model: r1-train-0123abcd
    data: r1-build-0123abcd
    lora: {r: 4, alpha: 8, dropout: 0.1, target_modules: [q_proj, v_proj]}
    new_special_tokens: ["<|tool|>"]
    max_length: 99
    seed: 7
    trainer: {num_train_epochs: 2}
    """
    assert load_recipe(written(tmp_path, text)) == SftRecipe(
        method="sft",
        model="r1-train-0123abcd",
        data="r1-build-0123abcd",
        lora=Lora(r=4, alpha=8, dropout=0.1, target_modules=("q_proj", "v_proj")),
        new_special_tokens=("<|tool|>",),
        max_length=99,
        seed=7,
        trainer={"num_train_epochs": 2},
    )


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [
        ("method: dpo\nmax_lenght: 5\n", 2, "unknown key 'max_lenght'", "mean max_length?"),
        ("method: dpo\nlora:\n  r: 4\n  alpa: 3\n", 4, "unknown key 'lora.alpa'", "mean alpha?"),
        ("method: dpo\nlora:\n  r: 0\n", 3, "lora.r: Input should be greater", ""),
        ("seed: 1\nmethod: dop\n", 2, "unknown method 'dop'", "mean dpo?"),
        ("seed: 1\n", 1, "it names no method", "Methods: cpo, dpo"),
        ("method: simpo\n", 1, "unknown method 'simpo'", "loss_type: simpo"),
        ("method: dpo\nseed: 1\nmethod: sft\n", 3, "'method' stands there twice", ""),
        ("method: dpo\nlora:\n  r: 4\n  r: 8\n", 4, "'r' stands there twice", ""),
        ("method: dpo\nlora: {}\nprefix:\n  tokens: 4\n", 3, "prefix: takes the place", ""),
        ("method: dpo\nquantization: nf4\n", 2, "quantization: weights in 4 bits", ""),
        ("prefix: {tokens: 4}\nmethod: dpo\nnew_special_tokens: [a]\n", 3, "untrained", ""),
        ("prefix: {tokens: 4}\nmethod: sft\nchat_template: turns\n", 3, "untrained", ""),
        ("method: rloo\nchat_template: turns\n", 2, "the reference would not know them", ""),
        ("method: dpo\nseed: often\n", 2, "seed: Input should be a valid integer", ""),
        ("method: sft\ndemonstrations:\n  source: web\n", 3, "demonstrations.source", ""),
        ("method: pretrain\n", 1, "give it either demonstrations or a corpus to read", ""),
        (CORPUS + "demonstrations: {source: support-desk}\n", 1, "give it either", ""),
        (CORPUS, 1, "a corpus is read without end: set trainer.max_steps", ""),
        (CORPUS + "trainer: {max_steps: null}\n", 1, "set trainer.max_steps, from 1", ""),
        (CORPUS.replace("path", "pat"), 2, "unknown key 'corpus.pat'", "Did you mean path?"),
        ("method: dpo\ntrainer: {beta: 0.1\nseed: 1\n", 3, "not YAML", ""),
        ("method: dpo\nmodel: a: b\n", 2, "not YAML", ""),
        ("seed: 1\nmethod: [dpo]\n", 2, "unknown method ['dpo']", "mean dpo?"),
        ("- method\n", None, "a recipe is a mapping", ""),
        ("", None, "a recipe is a mapping", ""),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_nearest_right_word(
    tmp_path: Path, text: str, line: int | None, what: str, remedy: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.where == (str(path) if line is None else f"{path}:{line}")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"method: \xff\xfe\n")
    with pytest.raises(InputError, match="not YAML"):
        load_recipe(path)


def test_a_yaml_tag_runs_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "method: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="not YAML"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        (
            "learning_rat: 1",
            "DPOConfig has no argument 'learning_rat'",
            "Did you mean learning_rate?",
        ),
        ("output_dir: x", "trainer.output_dir is set by Handloom", "Leave it out"),
        ("learning_rate: 5e-7", "learning_rate must be a number, not '5e-7'", "write 5.0e-7"),
        ("max_steps: [1]", "trainer.max_steps must be a number, not [1]", ""),
        ("max_steps: null", "trainer.max_steps must be a number", "leave it out"),
        ("loss_weights: 1.0", "not as many loss_weights as losses", "List one for each"),
        ("loss_weights: [a]", "loss_weights must be numbers", "List one for each"),
        ("loss_type: null", "trainer.loss_type cannot be None", "It may be: sigmoid"),
        ("loss_type: 3", "trainer.loss_type cannot be 3", "It may be: sigmoid"),
        ("per_device_train_batch_size: 0", "must be a whole number from 1, not 0", "Leave it out"),
        ("gradient_accumulation_steps: 0", "must be a whole number from 1, not 0", "Leave it out"),
        ("gradient_accumulation_steps: 1.5", "a whole number from 1, not 1.5", "Leave it out"),
    ],
)
def test_a_wrong_argument_of_the_trainer_is_refused(
    tmp_path: Path, line: str, what: str, remedy: str
) -> None:
    import trl

    path = written(tmp_path, f"method: dpo\ntrainer:\n  beta: 0.1\n  {line}\n")
    with pytest.raises(InputError) as caught:
        check_trainer_arguments(load_recipe(path), trl.DPOConfig, path)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.where == f"{path}:4"


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_folder_is_no_recipe(name: str) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        find_recipe(name)


def test_a_recipe_is_found_by_path_or_by_name_and_the_project_comes_first(tmp_path: Path) -> None:
    shipped = SHIPPED / "dpo-lora.yaml"
    own = tmp_path / "dpo-lora.yaml"
    assert find_recipe("dpo-lora") == shipped
    assert find_recipe("dpo-lora.yaml", [tmp_path]) == shipped
    own.write_text("method: dpo\n")
    assert find_recipe("dpo-lora", [tmp_path]) == own
    assert find_recipe(own) == own
    dotted = tmp_path / "dpo-lr1.5.yaml"
    dotted.write_text("method: dpo\n")
    assert find_recipe("dpo-lr1.5", [tmp_path]) == dotted
    # In another folder it would be another recipe.
    for mistyped in (
        "no-such-folder/dpo-lora.yaml",
        "./dpo-lora",
        str(tmp_path / "no" / "dpo-lora"),
    ):
        with pytest.raises(InputError, match="no such recipe"):
            find_recipe(mistyped, [tmp_path])
    with pytest.raises(InputError) as caught:
        find_recipe("dpo-lorra")
    assert caught.value.remedy == "Did you mean dpo-lora?"


def test_the_page_of_keys_has_every_key_and_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \| .*? \| `?(.*?)`? \| ", page, flags=re.M))
    shown: dict[object, str] = {True: "true", False: "false", None: "none"}
    forms: list[type[BaseModel]] = [*FORMS.values()]
    for form in forms:  # grows by the parts that are found
        for name, field in form.model_fields.items():
            kinds = [field.annotation, *get_args(field.annotation)]
            parts = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
            forms += [part for part in parts if part not in forms]
            if name == "method" or isinstance(field.default, BaseModel | dict | tuple):
                assert name == "method" or f"| `{name}` |" in page
                continue
            default = "required" if field.is_required() else field.default
            known = isinstance(default, bool) or default is None
            assert (name, shown[default] if known else str(default)) in rows, name
