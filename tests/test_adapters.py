"""Adapters: low-rank, with magnitudes, and a prefix; saved alone, merged, found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from loop_runs import new_project
from preference_runs import built
from tiny_model import write_tiny_model

from align.adapters import adapter_config, quantized_loading, require_start, save_model
from align.cli import main
from align.evaluate.pools import PromptChoice
from align.evaluate.step import evaluate
from align.generate import generate
from align.merge import merge
from align.model import Loaded, add_special_tokens, load_model
from align.model_ref import MODEL_FOLDER, ModelRef, newest_model
from align.prompts import read_prompts
from align.recipe import Lora, Prefix, SftRecipe
from align.sampling import Sampling, sample_batch
from align.train import train
from annotate.errors import TrainingError
from annotate.runs import Project, Run, RunPlan

WORDS = torch.tensor([[10, 20, 30, 40]])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    folder = write_tiny_model(tmp_path / "tiny")
    return load_model(ModelRef("tiny", str(folder)), train="adapters")


def adapted(loaded: Loaded, recipe: SftRecipe, new: list[int]) -> torch.nn.Module:
    """The model with adapters that do something."""
    from peft import get_peft_model

    model = get_peft_model(loaded.model, adapter_config(recipe, new, loaded.model))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "prompt_encoder" in name or "magnitude" in name:
                weight.add_(0.1)
    return model.eval()


LORA = SftRecipe(method="sft", lora=Lora(r=2, alpha=4))
DORA = SftRecipe(method="sft", lora=Lora(r=2, alpha=4, dora=True))
PREFIX = SftRecipe(method="sft", prefix=Prefix(tokens=3))


@pytest.mark.parametrize("recipe", [LORA, DORA], ids=["lora", "dora"])
def test_adapters_are_saved_alone_and_merged(
    loaded: Loaded, recipe: SftRecipe, tmp_path: Path
) -> None:
    ids = add_special_tokens(loaded.model, loaded.tokenizer, ["<|tool|>"])
    before = loaded.model(WORDS).logits
    model = adapted(loaded, recipe, ids)
    expected = model(WORDS).logits
    assert not torch.allclose(expected, before, atol=0.01)
    save_model(model, loaded.tokenizer, tmp_path / "run" / MODEL_FOLDER)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    for folder in (MODEL_FOLDER, "adapter"):
        found = load_model(ModelRef("again", str(tmp_path / "run" / folder)))
        torch.testing.assert_close(found.model(WORDS).logits, expected, atol=1e-4, rtol=1e-4)
        assert found.tokenizer.convert_tokens_to_ids("<|tool|>") == ids[0]


def test_a_prefix_stays_apart_and_is_found_again(loaded: Loaded, tmp_path: Path) -> None:
    before = loaded.model(WORDS).logits
    model = adapted(loaded, PREFIX, [])
    expected = model(WORDS).logits
    assert not torch.allclose(expected, before, atol=0.01)
    # Keys and values of 3 positions in 2 layers of hidden size 32.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 2 * 2 * 32
    save_model(model, loaded.tokenizer, tmp_path / "run" / MODEL_FOLDER)
    assert not (tmp_path / "run" / MODEL_FOLDER).exists()
    found = load_model(ModelRef("again", str(tmp_path / "run" / "adapter")))
    torch.testing.assert_close(found.model(WORDS).logits, expected)


def test_no_adapters_without_a_recipe_for_them() -> None:
    assert adapter_config(SftRecipe(method="sft"), []) is None
    assert not SftRecipe(method="sft").adapts
    assert LORA.adapts
    assert PREFIX.adapts


def test_a_runs_adapters_find_their_base_where_the_project_has_moved(
    project: Project, loaded: Loaded, tmp_path: Path
) -> None:
    with project.draft(RunPlan("train", 0)) as draft:
        save_model(loaded.model, loaded.tokenizer, draft.path / MODEL_FOLDER)
        draft.note(method="sft")
    first = load_model(ModelRef(draft.run.id, str(draft.run.path / MODEL_FOLDER), draft.run))
    with project.draft(RunPlan("train", 1)) as second:
        model = adapted(first, PREFIX, [])
        expected = model(WORDS).logits
        save_model(model, first.tokenizer, second.path / MODEL_FOLDER)
        second.note(method="sft", started_from=draft.run.id)
    moved = project.root.rename(tmp_path / "moved")
    run = Project.find(moved).resolve(second.run.id)
    found = load_model(ModelRef(run.id, str(run.path / "adapter"), run))
    torch.testing.assert_close(found.model(WORDS).logits, expected)


def test_what_would_lose_adapters_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    save_model(adapted(loaded, PREFIX, []), loaded.tokenizer, tmp_path / "prefix" / MODEL_FOLDER)
    with pytest.raises(TrainingError, match="p: a learnt prefix cannot be trained any further"):
        require_start(LORA, "p", tmp_path / "prefix" / "adapter")
    other = load_model(loaded.ref, train="adapters")
    save_model(adapted(other, LORA, []), other.tokenizer, tmp_path / "lora" / MODEL_FOLDER)
    with pytest.raises(TrainingError, match="`handloom merge l`"):
        require_start(PREFIX, "l", tmp_path / "lora" / "adapter")
    require_start(LORA, "l", tmp_path / "lora" / "adapter")
    require_start(PREFIX, "l", tmp_path / "lora" / MODEL_FOLDER)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without GPU says")
def test_weights_in_4_bits_need_a_gpu() -> None:
    with pytest.raises(TrainingError, match="needs an NVIDIA GPU") as caught:
        quantized_loading()
    assert "plain lora" in caught.value.remedy


def adapters_alone(project: Project, base: Loaded, recipe: SftRecipe) -> tuple[Run, torch.Tensor]:
    """A run as training beside 4 bits leaves it, and what its model says of WORDS."""
    with project.draft(RunPlan("train", 1, settings={"recipe": recipe.model_dump()})) as draft:
        model = adapted(base, recipe, [])
        expected = model(WORDS).logits.detach()
        model.save_pretrained(str(draft.path / "adapter"))
        base.tokenizer.save_pretrained(draft.path / "adapter")
        draft.note(method="sft", makes="model", started_from="tiny")
    return draft.run, expected


def test_adapters_that_stand_alone_become_a_whole_model(project: Project, loaded: Loaded) -> None:
    run, expected = adapters_alone(project, loaded, LORA)
    assert newest_model(project).source == str(run.path / "adapter")
    result = CliRunner().invoke(main, ["-C", str(project.root), "merge", run.id])
    assert result.exit_code == 0, result.output
    merged = newest_model(project)
    assert merged.run is not None
    assert (merged.run.step, merged.run.parents) == ("merge", [run])
    assert f"handloom generate {merged.name}" in result.output
    found = load_model(merged)
    torch.testing.assert_close(found.model(WORDS).logits, expected, atol=1e-4, rtol=1e-4)
    assert not hasattr(found.model, "peft_config")
    assert merge(project, run) == merged.run
    require_start(PREFIX, merged.name, Path(merged.source))


def test_what_is_merged_or_cannot_be_is_said(project: Project, loaded: Loaded) -> None:
    with project.draft(RunPlan("train", 0)) as draft:
        save_model(loaded.model, loaded.tokenizer, draft.path / MODEL_FOLDER)
    assert merge(project, draft.run) == draft.run
    prefix, _ = adapters_alone(project, loaded, PREFIX)
    with pytest.raises(TrainingError, match="a prefix changes no weight") as caught:
        merge(project, prefix)
    assert f"handloom generate {prefix.id}" in caught.value.remedy


def written(project: Project, tiny: str, extra: str, arguments: str = "") -> Path:
    path = project.root / "mine.yaml"
    path.write_text(
        f"method: dpo\nmodel: {tiny}\nmax_length: 128\n{extra}\n"
        "trainer: {num_train_epochs: 4, per_device_train_batch_size: 4"
        f"{arguments}}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("extra", "arguments", "models"),
    [
        ("lora: {r: 4, alpha: 8, dora: true}", ", learning_rate: 1.0e-2", 1),
        pytest.param("prefix: {tokens: 4}", ", learning_rate: 1.0e-1", 1, marks=pytest.mark.slow),
        ("", ", learning_rate: 2.0e-3", 1),
        ("", ", learning_rate: 2.0e-3, precompute_ref_log_probs: false", 2),
    ],
    ids=["dora", "prefix", "all weights", "as asked for"],
)
def test_the_reference_is_no_second_model(
    project: Project,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    arguments: str,
    models: int,
) -> None:
    from transformers import LlamaForCausalLM

    made = []
    begin = LlamaForCausalLM.__init__

    def counted(self: LlamaForCausalLM, *given: Any, **named: Any) -> None:
        made.append(type(self))
        begin(self, *given, **named)

    built(project)
    path = written(project, loaded.ref.source, extra, arguments)
    monkeypatch.setattr(LlamaForCausalLM, "__init__", counted)
    run = train(project, path)
    assert len(made) == models
    assert run.metrics["eval_rewards/accuracies"] == 1.0
    monkeypatch.undo()
    assert (run.path / MODEL_FOLDER).is_dir() == ("prefix" not in extra)


def test_a_model_with_a_prefix_writes_the_same_from_a_cache_as_from_the_start(
    loaded: Loaded, tmp_path: Path
) -> None:
    save_model(adapted(loaded, PREFIX, []), loaded.tokenizer, tmp_path / "run" / MODEL_FOLDER)
    found = load_model(ModelRef("again", str(tmp_path / "run" / "adapter")))
    prompts = [[10, 20, 30], [40]]
    rules = Sampling(temperature=0, max_new_tokens=6)
    once = sample_batch(found.model, prompts, np.zeros((2, 6)), rules, [])
    for prompt, sampled in zip(prompts, once, strict=True):
        tokens = list(prompt)
        for _ in range(6):
            tokens.append(int(found.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert sampled.tokens == tokens[len(prompt) :]


def test_a_run_with_a_prefix_is_sampled_and_evaluated(project: Project, loaded: Loaded) -> None:
    run, _ = adapters_alone(project, loaded, PREFIX)
    short = Sampling(max_new_tokens=4)
    source = read_prompts(project, "support-desk", split="train", count=2)
    made = generate(project, [run.id], source, sampling=short)
    assert made.metrics["models"][run.id]["outputs"] == 4
    choice = PromptChoice("support-desk", 2, None, 0)
    found = evaluate(project, run, against=["base"], choice=choice, sampling=short)
    assert found.metrics["model"] == run.id
