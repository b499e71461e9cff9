"""`train --dry-run` of every shipped recipe, offline; and what is refused before it starts."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from loop_runs import new_project
from preference_runs import built
from tiny_model import write_tiny_model
from transformers import TrainingArguments

from align.cli import main
from align.model_ref import resolve_model
from align.recipe import SHIPPED, PretrainRecipe, SetShapes, Tuning, load_recipe
from align.resources.dry_run import dry_run
from align.resources.fitting import setup_of
from align.resources.launch import launch_file, shards
from align.resources.memory import GIB, total
from align.resources.preflight import preflight, preflight_pretraining
from align.resources.steps import steps
from align.train import config_class, train
from annotate.errors import InputError, ResourceError, TrainingError
from annotate.runs import Project

TRAINING = sorted(path for path in SHIPPED.glob("*.yaml") if not path.stem.startswith("build"))
FOR_GPUS = [path for path in TRAINING if path.stem.endswith(("-24gb", "-8gpu"))]
COMMAND = re.compile(r"^#   (handloom .*)$", re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def handloom(project: Project, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["-C", str(project.root), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def commands(path: Path) -> list[list[str]]:
    """Of a recipe's header."""
    header = path.read_text(encoding="utf-8").split("\nmethod:")[0]
    return [shlex.split(line)[1:] for line in COMMAND.findall(header)]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_every_training_command_of_a_header_says_what_it_would_do(
    project: Project, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = [words for words in commands(path) if words[0] == "train"]
    assert any(words[1] == path.stem for words in found)
    for words in found:
        if "--launch" not in words:
            words = [word for word in words if word != "--dry-run"]
            status, said = handloom(project, *words, "--dry-run")
            assert status == 0, said
            assert re.search(r"^steps: ", said, re.MULTILINE), said
            assert re.search(r"^memory", said, re.MULTILINE), said
    assert project.all_runs() == project.unfinished() == []


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: path.stem)
def test_a_recipe_for_gpus_counts_and_fits_without_its_model(project: Project, path: Path) -> None:
    found = dry_run(project, path.stem)
    recipe = found.recipe
    assert isinstance(recipe, Tuning)
    assert recipe.hardware is not None
    assert recipe.hardware.memory_gib is not None
    assert found.setup is not None
    assert found.steps is not None
    assert 0.2 < total(found.setup) / (recipe.hardware.memory_gib * GIB) < 0.8
    assert found.changed["bf16"] == (True, "device")
    assert recipe.adapts == path.stem.endswith("-24gb")
    assert found.setup.sharded == path.stem.endswith("-8gpu")


def test_every_argument_says_who_set_it(project: Project) -> None:
    found = dry_run(project, "dpo-support-desk").changed
    assert found["learning_rate"] == (5.0e-4, "recipe")
    assert found["precompute_ref_log_probs"] == (True, "Handloom")
    assert found["use_cpu"] == (True, "device")
    assert "weight_decay" not in found
    # With adapters too: what a reference says is kept for later runs.
    assert dry_run(project, "dpo-lora").changed["precompute_ref_log_probs"] == (True, "Handloom")


MINE = """
method: {method}
model: {model}
max_length: 96
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 4, gradient_accumulation_steps: 2}}
"""


def written(project: Project, text: str) -> Path:
    path = project.root / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("method", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_the_number_of_steps_is_that_of_the_training(
    project: Project, tiny: Path, method: str
) -> None:
    built(project, n=30)
    path = written(project, MINE.format(method=method, model=tiny))
    counted = dry_run(project, path)
    assert counted.sizes_from == "its files"
    assert counted.steps is not None
    assert counted.steps.count == train(project, path).metrics["steps"]


def test_several_processes_take_fewer_steps(project: Project, tiny: Path) -> None:
    built(project, n=96)  # 72 of them to train on
    path = written(project, MINE.format(method="dpo", model=tiny))
    counts = [dry_run(project, path, launch=launch).steps for launch in (None, "3")]
    # 8 pairs a step, 9 steps an epoch; 24 a step, 3.
    assert [found.count for found in counts if found is not None] == [27, 9]


# A few steps of each, on few dialogues; the recipes are otherwise as shipped.
SMALLER = {"trainer:\n": "trainer:\n  max_steps: 2\n", "  n: 800": "  n: 60"}
ON_A_CPU = [
    path
    for path in TRAINING
    if path.stem.endswith("-support-desk") and not path.stem.startswith("pretrain")
]


@pytest.mark.slow
@pytest.mark.parametrize("path", ON_A_CPU, ids=lambda path: path.stem)
def test_the_commands_of_a_header_train(project: Project, path: Path) -> None:
    built(project)
    (project.root / "recipes").mkdir()
    for recipe in ON_A_CPU:
        text = recipe.read_text()
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        (project.root / "recipes" / recipe.name).write_text(text)
    for words in commands(path):
        status, said = handloom(project, *words)
        assert status == 0, said
    assert project.latest("train").metrics["recipe"] == path.stem


def test_steps_by_hand() -> None:
    given = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": -1}
    given |= {"num_train_epochs": 1.5}
    # 101 rows: 13 batches of 4 on 2 devices, 7 steps of two batches; one and a half times.
    found = steps(SetShapes(rows=101), given, 2)
    assert found is not None
    assert (found.count, found.each) == (11, 16)
    assert steps(None, given, 2) is None
    assert steps(None, given | {"max_steps": 5}, 2).count == 5
    packed = given | {"packing": True, "max_length": 100, "num_train_epochs": 1}
    # 5,050 tokens are 51 rows of 100: 13 batches of 4.
    assert steps(SetShapes(rows=900, tokens=5050), packed, 1).count == 7
    assert steps(SetShapes(rows=900), packed, 1) is None
    written = given | {"num_generations": 4, "num_train_epochs": 1}
    # 8 completions a step are of 2 prompts; the eleventh is left out.
    assert steps(SetShapes(rows=11), written, 1).count == 5


LARGE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model of 70 billion weights, of which there is only the configuration."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE))
    return folder


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    project: Project, large: Path
) -> None:
    built(project)
    path = written(project, MINE.format(method="dpo", model=large))
    with pytest.raises(ResourceError, match=r"mine: it takes about [\d,.]+ GiB, and memory has"):
        train(project, path)
    assert project.unfinished() == []
    status, said = handloom(project, "train", str(path))
    assert status == 1
    assert said.strip().count("\n") == 0
    assert "Nothing in a recipe makes it fit" in said
    _, said = handloom(project, "train", str(path), "--dry-run")
    assert "70,553,706,496 of 70,553,706,496 weights trained" in said
    assert "It does not fit." in said
    # It is taken on trust, and then found not to be there at all.
    with pytest.raises(TrainingError, match="cannot be loaded"):
        train(project, path, unchecked=True)


def test_a_new_model_that_does_not_fit_is_refused_before_it_is_made(project: Project) -> None:
    sizes = "hidden_size: 65536, num_hidden_layers: 90, intermediate_size: 262144"
    path = written(
        project,
        "method: pretrain\ndemonstrations: {source: support-desk, n: 64}\n"
        f"architecture: {{{sizes}}}\ntrainer: {{max_steps: 1}}\n",
    )
    with pytest.raises(ResourceError, match="mine: it takes about") as caught:
        train(project, path)
    assert "lora" not in caught.value.remedy
    assert project.unfinished() == []
    recipe = load_recipe(path)
    assert isinstance(recipe, PretrainRecipe)
    preflight_pretraining(recipe, "mine", TrainingArguments, unchecked=True)


def test_what_cannot_be_estimated_is_said(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 64}))
    recipe = load_recipe(written(project, MINE.format(method="sft", model=folder)))
    assert isinstance(recipe, Tuning)
    preflight(recipe, resolve_model(project, str(folder)), "mine", config_class("sft"))
    said = " ".join(capsys.readouterr().err.split())
    assert "other: whether it fits into memory could not be estimated: its configuration" in said


def test_what_would_fit_is_computed_and_named(project: Project, large: Path) -> None:
    path = written(project, MINE.format(method="sft", model=large))
    gpu = path.read_text() + "hardware: {device: cuda, memory_gib: 80}\n"
    path.write_text(gpu)
    said = "\n".join(dry_run(project, path).lines())
    assert re.search(r"Would fit: .*lora: {}, quantization: nf4 \(\d\d\.\d GiB\)", said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without GPU says")
@pytest.mark.parametrize("name", ["sft-24gb", "dpo-8gpu"])
def test_a_recipe_for_gpus_names_the_one_for_a_cpu(project: Project, name: str) -> None:
    built(project)
    with pytest.raises(TrainingError) as caught:
        train(project, name, model="base")
    method = name.split("-")[0]
    assert "and there is none here" in caught.value.what
    assert f"`handloom train {method}-support-desk`" in caught.value.remedy
    assert project.unfinished() == []


def test_accelerate_files_shard_and_are_found_by_name() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    for name in ("fsdp", "zero3"):
        assert shards(launch_file(name))
        assert load_config_from_file(str(launch_file(name))).num_processes == 8
    with pytest.raises(InputError, match="Did you mean zero3"):
        launch_file("zero33")


def test_another_model_does_not_have_the_recipes_shapes(project: Project, tiny: Path) -> None:
    named = dry_run(project, "sft-24gb", model="some-team/another")
    assert named.setup is None
    assert "does not state its shapes" in named.sizes_from
    assert named.steps is not None
    found = dry_run(project, "sft-24gb", model=str(tiny))
    assert found.sizes_from == "its files"


def test_a_setup_follows_from_the_recipe(project: Project) -> None:
    recipe = load_recipe(SHIPPED / "dpo-8gpu.yaml")
    assert isinstance(recipe, Tuning)
    assert recipe.shapes is not None
    assert recipe.shapes.model is not None
    arguments = {
        "per_device_train_batch_size": 2,
        "bf16": True,
        "fp16": False,
        "gradient_checkpointing": True,
        "optim": "adamw_torch",
        "beta": 0.1,
    }
    setup = setup_of(recipe, recipe.shapes.model, arguments)
    assert (setup.devices, setup.sharded, setup.half, setup.second_model) == (8, True, True, True)
    precomputed = setup_of(
        recipe, recipe.shapes.model, arguments | {"precompute_ref_log_probs": True}
    )
    assert not precomputed.second_model


def test_a_chat_template_that_is_no_file_is_refused(project: Project) -> None:
    path = written(project, MINE.format(method="sft", model="base") + "chat_template: gone.jinja\n")
    status, said = handloom(project, "train", str(path), "--dry-run")
    assert status == 1
    assert "gone.jinja" in said
    assert "steps:" not in said


@pytest.mark.parametrize("key", ["reward", "held_out_reward"])
def test_a_reward_that_is_no_reward_model_is_refused(
    project: Project, tiny: Path, key: str
) -> None:
    scoring = shutil.copytree(tiny, project.root / "scoring")
    as_reward(scoring)
    good = MINE.format(method="rloo", model="base") + f"reward: {scoring}\n"
    assert handloom(project, "train", str(written(project, good)), "--dry-run")[0] == 0
    bad = MINE.format(method="rloo", model="base") + f"{key}: {tiny}\n"
    status, said = handloom(project, "train", str(written(project, bad)), "--dry-run")
    assert status == 1
    assert f"{key}: it is no reward model" in said


def test_a_reward_model_to_start_from_is_refused(project: Project, tiny: Path) -> None:
    scoring = shutil.copytree(tiny, project.root / "scoring")
    as_reward(scoring)
    with pytest.raises(TrainingError, match="it scores completions and writes none"):
        dry_run(project, written(project, MINE.format(method="sft", model=scoring)))
    dry_run(project, written(project, MINE.format(method="reward", model=scoring)))


def as_reward(folder: Path) -> None:
    """Have a model's configuration say that it scores."""
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without GPU says")
def test_what_only_this_machine_lacks_is_a_note(project: Project, tiny: Path) -> None:
    text = MINE.format(method="sft", model=tiny) + "lora: {}\nquantization: nf4\n"
    path = written(project, text + "hardware: {device: cuda, memory_gib: 80}\n")
    status, said = handloom(project, "train", str(path), "--dry-run")
    assert status == 0
    notes = [line for line in said.splitlines() if line.startswith("not on this machine: ")]
    assert "the recipe is for an NVIDIA GPU, and it has none" in notes[0]
    assert "quantization: nf4 needs an NVIDIA GPU" in notes[1]
    plain = written(project, MINE.format(method="sft", model=tiny))
    assert "not on this machine" not in handloom(project, "train", str(plain), "--dry-run")[1]
