"""Models by name; what stands between a name and a model that can be trained and sampled."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import logging as hub_logging
from loop_runs import new_project
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny_model
from transformers.utils import logging as transformers_logging

from align.adapters import save_model
from align.backends.tokens import reader, reader_of
from align.model import add_special_tokens, device_arguments, load_model, stop_tokens
from align.model_kind import quiet_loading
from align.model_ref import (
    BASE,
    MODEL_FOLDER,
    ModelRef,
    model_before,
    newest_model,
    resolve_model,
    weights,
)
from align.training import quiet_libraries
from annotate.errors import ProjectError, TrainingError
from annotate.runs import Project, Run, RunPlan


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny")


def trained(project: Project, round: int, seed: int = 0) -> Run:
    with project.draft(RunPlan("train", round, seed=seed)) as draft:
        write_tiny_model(draft.path / MODEL_FOLDER, seed=seed)
    return draft.run


def test_a_model_is_named_in_four_ways(project: Project, tiny: Path) -> None:
    run = trained(project, 1)
    assert resolve_model(project, "base").source == str(BASE)
    assert resolve_model(project, str(tiny)).source == str(tiny)
    assert resolve_model(project, str(tiny)).name == "tiny"
    for name in (run.id, run.id[:-2], str(run.path)):
        ref = resolve_model(project, name)
        assert (ref.name, ref.run) == (run.id, run)
        assert ref.source == str(run.path / MODEL_FOLDER)
    hub = resolve_model(project, "some-team/some-model")
    assert (hub.name, hub.source, hub.run) == ("some-team/some-model", "some-team/some-model", None)


def test_a_round_starts_from_the_newest_model_of_an_earlier_one(project: Project) -> None:
    assert newest_model(project).name == "base"
    assert model_before(project, 1).name == "base"
    zero, one = trained(project, 0), trained(project, 1)
    again = trained(project, 1, seed=1)
    assert model_before(project, 0).name == "base"
    assert model_before(project, 1).run == zero
    assert model_before(project, 2).run == again
    assert newest_model(project).run == again != one


def test_a_run_names_the_checkpoints_that_it_kept(project: Project) -> None:
    run = trained(project, 1)
    with pytest.raises(ProjectError, match="this run has no checkpoint-200") as caught:
        resolve_model(project, f"{run.id}/checkpoint-200")
    assert caught.value.where == run.id
    assert "keep_checkpoints: true" in caught.value.remedy
    for step in (1000, 100):
        write_tiny_model(run.path / f"checkpoint-{step}")
    with pytest.raises(ProjectError) as caught:
        resolve_model(project, f"{run.id}/checkpoint-200")
    assert caught.value.remedy == "It kept checkpoint-100, checkpoint-1000"
    for name in (run.id, run.id[:-2]):
        ref = resolve_model(project, f"{name}/checkpoint-100")
        assert (ref.name, ref.run) == (f"{run.id}/checkpoint-100", run)
        assert ref.source == str(run.path / "checkpoint-100")
    with pytest.raises(ProjectError, match="no such run"):
        resolve_model(project, "r1-train-00000000/checkpoint-1")


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing", "a/b/c"])
def test_a_folder_that_does_not_exist_is_no_hub_id(project: Project, name: str) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        resolve_model(project, name)


def test_a_run_that_does_not_exist_or_trained_nothing(project: Project) -> None:
    with pytest.raises(ProjectError, match="no such run"):
        resolve_model(project, "r1-train-00000000")
    with project.draft(RunPlan("train", 2)) as draft:
        pass
    with pytest.raises(ProjectError, match="holds no model"):
        resolve_model(project, draft.run.id)


def test_an_unknown_hub_model_is_one_line(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError) as caught:
        load_model(resolve_model(project, "no-such-team/no-such-model"))
    assert "no-such-team/no-such-model" in str(caught.value)
    assert "Name `base`" in str(caught.value)
    assert ".." not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["no config", "no weights", "cut weights", "no tokenizer"])
def test_a_damaged_folder_is_one_line(project: Project, tiny: Path, damage: str) -> None:
    if damage == "no config":
        (tiny / "config.json").unlink()
    elif damage == "no weights":
        (tiny / "model.safetensors").unlink()
    elif damage == "cut weights":
        whole = (tiny / "model.safetensors").read_bytes()
        (tiny / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    else:
        for path in tiny.glob("tokenizer*"):
            path.unlink()
    with pytest.raises(TrainingError) as caught:
        load_model(resolve_model(project, str(tiny)))
    assert caught.value.where == "tiny"
    assert "\n" not in str(caught.value)


def test_a_reward_model_that_is_to_write_is_refused_before_it_is_loaded(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((tiny / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (tiny / "config.json").write_text(json.dumps(config))
    (tiny / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="it scores completions and writes none"):
        load_model(ModelRef("tiny", str(tiny)))
    assert capfd.readouterr() == ("", "")


def test_weights_that_a_folder_lacks_are_one_line(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(tiny / "model.safetensors")
    name = next(name for name in tensors if "mlp" in name)
    del tensors[name]
    save_file(tensors, tiny / "model.safetensors", {"format": "pt"})
    load_model(ModelRef("tiny", str(tiny)))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: tiny: its files lack 1 of its weights, {name} the first")


def test_libraries_are_silent_while_a_model_is_loaded_and_adapters_saved(
    capfd: pytest.CaptureFixture[str],
) -> None:
    saves = "Setting `save_embedding_layers` to `True` as embedding layers found"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_loading():
            warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
            transformers_logging.get_logger("transformers.modeling_utils").warning("REPORT")
            hub_logging.get_logger("huggingface_hub.utils").warning("Retrying in 8s")
        with quiet_libraries():
            warnings.warn(saves, UserWarning, stacklevel=1)
            warnings.warn("another", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["another"]
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_without_chat_template_is_refused(project: Project, tiny: Path) -> None:
    (tiny / "chat_template.jinja").unlink()
    with pytest.raises(TrainingError, match="no chat template"):
        load_model(resolve_model(project, str(tiny)))


def test_pad_and_end_differ_and_stand_in_the_generation_settings(
    project: Project, tiny: Path
) -> None:
    settings = tiny / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "pad_token": content["eos_token"]}))
    loaded = load_model(resolve_model(project, str(tiny)))
    tokenizer, model = loaded.tokenizer, loaded.model
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for holder in (model.config, model.generation_config):
        assert holder.pad_token_id == tokenizer.pad_token_id
        assert holder.eos_token_id == tokenizer.eos_token_id


def test_what_else_ends_a_turn_stays_beside_the_tokenizers_end(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    """Gemma and Phi-3 end a turn by another token than a text, and list both."""
    settings = tiny / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [4, 1]}))
    ref = resolve_model(project, str(tiny))
    loaded = load_model(ref)
    assert loaded.model.generation_config.eos_token_id == [1, 4]
    assert loaded.model.config.eos_token_id == 1
    assert stop_tokens(loaded) == [1, 4]
    assert reader(loaded).stop == reader_of(ref).stop == (1, 4)
    save_model(loaded.model, loaded.tokenizer, tmp_path / "saved")
    again = load_model(resolve_model(project, str(tmp_path / "saved")))
    assert again.model.generation_config.eos_token_id == [1, 4]


def test_new_special_tokens_grow_the_embeddings_from_their_mean(
    project: Project, tiny: Path
) -> None:
    loaded = load_model(resolve_model(project, str(tiny)))
    table = loaded.model.get_input_embeddings().weight
    before = table.shape[0]
    mean = table.detach().mean(dim=0)
    ids = add_special_tokens(loaded.model, loaded.tokenizer, ["<|tool|>", "<|user|>", "<|call|>"])
    known = loaded.tokenizer.convert_tokens_to_ids("<|user|>")
    assert ids == [before, known, before + 1]
    grown = loaded.model.get_input_embeddings().weight
    assert grown.shape[0] == before + 2 == loaded.model.config.vocab_size
    torch.testing.assert_close(grown[before].detach(), mean)
    torch.testing.assert_close(grown[before + 1].detach(), mean)
    assert loaded.model.get_output_embeddings().weight is grown
    assert loaded.tokenizer.tokenize("a<|tool|>b")[1] == "<|tool|>"
    assert loaded.tokenizer.convert_tokens_to_ids("<|assistant|>") == 4


def test_local_weights_identify_a_model(project: Project, tiny: Path, tmp_path: Path) -> None:
    assert weights(resolve_model(project, str(tiny))) == (tiny / "model.safetensors",)
    assert weights(resolve_model(project, "some-team/some-model")) == ()
    shutil.rmtree(tiny)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without GPU wants")
def test_a_cpu_trains_in_single_precision() -> None:
    wanted = device_arguments()
    assert wanted["use_cpu"]
    assert not wanted["bf16"]
    assert not wanted["dataloader_pin_memory"]
