"""How a training is conducted: batches, stopping, the best model, checkpoints, what is seen."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from loop_runs import new_project
from rich.console import Console
from tiny_model import write_tiny_model
from trainings import log_of, weights_of, write_recipe
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from align.conduct import batch_arguments
from align.generate import generate
from align.prompts import read_prompts
from align.recipe import KtoRecipe, Recipe, RlooRecipe, SftRecipe, load_recipe
from align.sampling import Sampling
from align.train import train
from align.training import fit, trainer_arguments
from align.training.checkpoints import is_whole, mark_whole, newest_whole, remove_torn
from align.training.failures import settings_reported
from align.training.progress import Bar
from annotate.errors import InputError, ResourceError, TrainingError
from annotate.runs import Project, Run, RunPlan, verify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def batches(tmp_path: Path, text: str, processes: int) -> dict[str, int]:
    path = tmp_path / "r.yaml"
    path.write_text("method: dpo\n" + text)
    return batch_arguments(load_recipe(path), processes)


@pytest.mark.parametrize(
    ("text", "processes", "together", "batches_a_step"),
    [
        ("batch_size: 24", 1, 24, 1),
        ("batch_size: 24", 2, 12, 1),
        ("batch_size: 72", 1, 24, 3),  # the largest divisor up to 32
        ("batch_size: 74", 2, 1, 37),  # 37 is prime
        ("batch_size: 24\ntrainer: {per_device_train_batch_size: 4}", 2, 4, 3),
    ],
)
def test_batches_are_found_for_a_wanted_size(
    tmp_path: Path, text: str, processes: int, together: int, batches_a_step: int
) -> None:
    assert batches(tmp_path, text, processes) == {
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": batches_a_step,
    }


@pytest.mark.parametrize(
    ("text", "processes", "nearest"),
    [
        ("batch_size: 10\ntrainer: {per_device_train_batch_size: 4}", 1, 12),
        ("batch_size: 9\ntrainer: {per_device_train_batch_size: 4}", 1, 8),
        ("batch_size: 1", 4, 4),
        ("batch_size: 21\ntrainer: {per_device_train_batch_size: 3}", 2, 24),
    ],
)
def test_a_size_that_does_not_divide_names_the_nearest_that_does(
    tmp_path: Path, text: str, processes: int, nearest: int
) -> None:
    with pytest.raises(InputError, match=f"nearest that is: {nearest}$"):
        batches(tmp_path, text, processes)


def test_a_wanted_size_and_a_number_of_batches_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Leave one of them out"):
        batches(tmp_path, "batch_size: 8\ntrainer: {gradient_accumulation_steps: 2}", 1)


def test_it_stops_early_and_keeps_the_best_model(project: Project, tiny: Path) -> None:
    """A rate of 0.6 overshoots after some epochs; a training that ends at the best step agrees."""
    rates = ", learning_rate: 0.6, lr_scheduler_type: constant"
    stopping = "early_stopping: {patience: 2}\n"
    many = rates + ", num_train_epochs: 40"
    run = train(project, write_recipe(project, tiny, trainer=many, extra=stopping))
    evaluations = [entry for entry in log_of(run) if "eval_loss" in entry]
    best = min(evaluations, key=lambda entry: entry["eval_loss"])
    assert len(evaluations) < 40
    assert evaluations.index(best) == len(evaluations) - 3  # two evaluations without improvement
    assert run.metrics["best_step"] == best["step"] < run.metrics["steps"]
    assert run.metrics["eval_loss"] == run.metrics["best"] == best["eval_loss"]
    short = write_recipe(project, tiny, trainer=f"{rates}, max_steps: {best['step']}")
    np.testing.assert_allclose(weights_of(run), weights_of(train(project, short)), atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "trainer"),
    [("early_stopping: {patience: 2}\n", ""), ("", ", load_best_model_at_end: true")],
)
def test_the_best_model_needs_rows_that_are_held_out(
    project: Project, tiny: Path, extra: str, trainer: str
) -> None:
    path = write_recipe(project, tiny, extra=extra, trainer=trainer)
    path.write_text(path.read_text().replace("n: 40", "n: 10"))  # every twentieth is held out
    with pytest.raises(InputError, match="needs rows that are held out"):
        train(project, path)
    assert project.all_runs() == []


def test_a_run_tells_what_it_was_made_with_and_on(project: Project, tiny: Path) -> None:
    path = write_recipe(project, tiny, extra="batch_size: 8\nseed: 3\n", trainer=", max_steps: 2")
    path.write_text(path.read_text().replace("per_device_train_batch_size: 8, ", ""))
    run = train(project, path)
    assert run.manifest["seed"] == 3
    assert set(run.manifest["versions"]) >= {
        "torch", "transformers", "trl", "peft", "accelerate", "datasets",
    }  # fmt: skip
    made_on = {name: run.metrics[name] for name in ("device", "processes", "precision")}
    assert made_on == {"device": "cpu", "processes": 1, "precision": "fp32"}
    assert run.metrics["batch_size"] == 8
    assert load_recipe(run.path / "recipe.yaml") == load_recipe(path)
    losses = [entry["loss"] for entry in log_of(run) if "loss" in entry]
    assert run.metrics["train_loss"] == pytest.approx(np.mean(losses))


def checkpoint(folder: Path, step: int) -> Path:
    """A whole one, with files as transformers names them."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (path / name).write_bytes(name.encode() * 9)
    mark_whole(path)
    return path


def test_a_checkpoint_torn_at_any_file_is_passed_over(tmp_path: Path) -> None:
    older = checkpoint(tmp_path / "here", 9)
    newer = checkpoint(tmp_path / "here", 10)
    (tmp_path / "here" / "checkpoint-best").mkdir()
    assert newest_whole(tmp_path / "here") == newer
    names = [path.name for path in newer.iterdir()]
    assert len(names) == 5
    for name in names:
        for left in (None, b"", (newer / name).read_bytes()[:-1]):
            torn = tmp_path / "torn"
            shutil.copytree(tmp_path / "here", torn)
            if left is None:
                (torn / "checkpoint-10" / name).unlink()
            else:
                (torn / "checkpoint-10" / name).write_bytes(left)
            assert newest_whole(torn) == torn / older.name, (name, left)
            remove_torn(torn)
            assert not (torn / "checkpoint-10").exists()
            assert is_whole(torn / older.name)
            shutil.rmtree(torn)
    assert newest_whole(tmp_path / "none") is None


def test_progress_without_a_terminal_is_a_line_now_and_then() -> None:
    said = io.StringIO()
    bar = Bar(Console(file=said, width=200), line_every=0)
    state, control = TrainerState(max_steps=400), TrainerControl()
    bar.on_train_begin(None, state, control)
    state.global_step = 100
    bar.on_step_end(None, state, control)
    bar.on_log(None, state, control, logs={"loss": 0.5})
    state.global_step = 400
    bar.on_step_end(None, state, control)
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("training: step 100 of 400, ")
    assert lines[1] == "training: step 400 of 400, loss 0.500, 0:00:00 left"
    silent = Bar(Console(file=said, width=200))
    silent.on_train_begin(None, state, control)
    silent.on_step_end(None, state, control)
    # It had been interrupted there, and says no more until half a minute has passed.
    assert said.getvalue().splitlines()[2:] == ["training: goes on from step 400 of 400"]


def test_what_a_library_refuses_is_one_line_and_what_we_break_keeps_its_traceback() -> None:
    with (
        pytest.raises(TrainingError, match="refuses these settings: ") as caught,
        settings_reported("r0-train-x"),
    ):
        torch.distributions.Uniform(1.0, 0.0, validate_args=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="invalid literal"), settings_reported("r0-train-x"):
        batch_arguments_of_a_word()


def batch_arguments_of_a_word() -> None:
    """Our own code at fault."""
    from align.recipe import Recipe

    recipe = Recipe.model_construct(
        batch_size=8, trainer={"per_device_train_batch_size": "many"}, method="x"
    )
    batch_arguments(recipe, 1)


class Cramped(Trainer):
    """A device with room for two rows."""

    room = 2

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        if len(inputs["input_ids"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().compute_loss(model, inputs, *rest, **more)


class Roomy(Cramped):
    room = 8


def fitted(
    project: Project, tiny: Path, recipe: Recipe, kind: type[Cramped]
) -> tuple[Run, Trainer]:
    """A training of 8 rows a step."""
    rows = Dataset.from_dict({"input_ids": [list(range(5, 9 + n)) for n in range(8)]})
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    with project.draft(RunPlan("train", 0, settings={"kind": kind.__name__})) as draft:
        arguments = trainer_arguments(recipe, draft, evaluates=False)
        trainer = kind(
            model=AutoModelForCausalLM.from_pretrained(tiny),
            args=TrainingArguments(**arguments),
            train_dataset=rows,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
            processing_class=tokenizer,
        )
        fit(trainer, recipe, draft)
    return draft.run, trainer


ROWS = {"batch_size": 8, "trainer": {"max_steps": 3, "learning_rate": 1e-2}}


def test_batches_that_do_not_fit_are_halved_and_the_step_keeps_its_rows(
    project: Project, tiny: Path
) -> None:
    recipe = SftRecipe(method="sft", **ROWS)
    made = {}
    for kind in (Cramped, Roomy):
        made[kind], trainer = fitted(project, tiny, recipe, kind)
        assert made[kind].metrics["batch_size"] == 8
        assert trainer.args.per_device_train_batch_size == kind.room
    np.testing.assert_allclose(weights_of(made[Cramped]), weights_of(made[Roomy]), atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "remedy"),
    [
        (KtoRecipe(method="kto", **ROWS), "but to 2 or more"),
        (RlooRecipe(method="rloo", **ROWS), "lower, beside batch_size, or let completions"),
    ],
    ids=["kto", "rloo"],
)
def test_batches_whose_rows_matter_are_not_halved(
    project: Project, tiny: Path, recipe: Recipe, remedy: str
) -> None:
    with pytest.raises(ResourceError, match="memory has run out") as caught:
        fitted(project, tiny, recipe, Cramped)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("adapters", ["", "prefix: {tokens: 2}\n"], ids=["whole", "prefix"])
def test_checkpoints_are_kept_as_models_of_their_own(
    project: Project, tiny: Path, adapters: str
) -> None:
    often = ", max_steps: 5, save_strategy: steps, save_steps: 2"
    run = train(project, write_recipe(project, tiny, trainer=often, extra=adapters))
    assert not list(run.path.glob("checkpoint*"))
    kept = "keep_checkpoints: true\n"
    run = train(project, write_recipe(project, tiny, trainer=often, extra=adapters + kept))
    assert run.metrics["checkpoints"] == ["checkpoint-2", "checkpoint-4"]
    files = {path.name for path in (run.path / "checkpoint-2").iterdir()}
    assert files >= {"config.json", "tokenizer.json", "chat_template.jinja"}
    assert not {name for name in files if Path(name).suffix in (".pt", ".pth", ".bin")}
    assert not files & {"trainer_state.json", "whole.json"}
    assert verify(project) == []
    names = [run.id, f"{run.id}/checkpoint-2", f"{run.id}/checkpoint-4"]
    source = read_prompts(project, "support-desk", split="train", count=2)
    made = generate(project, names, source, n=1, sampling=Sampling(max_new_tokens=8))
    assert set(made.metrics["models"]) == set(names)
    logprobs = made.read("outputs")["logprob"].to_pylist()
    assert len(set(logprobs)) == 6  # each is another model


def test_checkpoints_of_two_trainings_are_two_models(project: Project, tmp_path: Path) -> None:
    names = [str(write_tiny_model(tmp_path / run / "checkpoint-200")) for run in ("a", "b")]
    source = read_prompts(project, "support-desk", split="train", count=1)
    made = generate(project, names, source, n=1, sampling=Sampling(max_new_tokens=4))
    assert set(made.metrics["models"]) == {"a/checkpoint-200", "b/checkpoint-200"}
