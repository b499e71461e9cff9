"""The small base model: the shipped one is what its recipe makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loop_runs import new_project

from align.model import BASE, MODEL_FOLDER, Loaded, load_model, resolve_model
from align.pretrain import SPECIAL, dialogue_texts, make_tokenizer, perplexity
from align.recipe import SHIPPED, PretrainRecipe, load_recipe
from align.train import train
from annotate.errors import InputError
from annotate.runs import Project

PERPLEXITY = 1.524
"""Of the shipped model, a token of the held-out dialogues."""

MICRO = """
method: pretrain
demonstrations: {source: support-desk, n: 64, quality: [0.8, 1.2]}
vocab_size: 400
architecture: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
max_length: 64
trainer: {num_train_epochs: 2, per_device_train_batch_size: 16, learning_rate: 1.0e-2}
"""


@pytest.fixture(scope="module")
def recipe() -> PretrainRecipe:
    read = load_recipe(SHIPPED / "pretrain-support-desk.yaml")
    assert isinstance(read, PretrainRecipe)
    return read


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    project = new_project(tmp_path_factory.mktemp("project"))
    return load_model(resolve_model(project, "base"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def test_the_shipped_weights_have_the_recorded_perplexity(
    shipped: Loaded, recipe: PretrainRecipe
) -> None:
    measured = perplexity(shipped.model, shipped.tokenizer, recipe)
    assert measured == pytest.approx(PERPLEXITY, abs=1e-3)
    assert f"{measured:.3f}" in (BASE / "README.md").read_text(encoding="utf-8")


def test_the_recipe_makes_the_shipped_tokenizer(recipe: PretrainRecipe) -> None:
    made = make_tokenizer(recipe, (turn for texts in dialogue_texts(recipe) for turn in texts))
    shipped = json.loads((BASE / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(made.backend_tokenizer.to_str()) == shipped
    assert made.chat_template == (BASE / "chat_template.jinja").read_text(encoding="utf-8")


def test_the_shipped_model_has_the_recipes_form(shipped: Loaded, recipe: PretrainRecipe) -> None:
    config = shipped.model.config
    assert config.vocab_size == len(shipped.tokenizer) == recipe.vocab_size
    for name, size in recipe.architecture.model_dump().items():
        assert getattr(config, name) == size
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 5_000_000


def test_special_tokens_come_first_and_pad_is_not_the_end(shipped: Loaded) -> None:
    tokenizer = shipped.tokenizer
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIAL))) == list(SPECIAL)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_any_text_survives_the_tokenizer(shipped: Loaded) -> None:
    text = "Grüße, 東京! \n\t  two  spaces, 0 and 🧵"
    ids = shipped.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert shipped.tokenizer.decode(ids) == text


def test_the_template_marks_what_the_assistant_says_with_its_end(shipped: Loaded) -> None:
    turns = [
        {"role": "user", "content": "My lamp flickers."},
        {"role": "assistant", "content": "Which one?"},
        {"role": "user", "content": "The Wick lamp."},
        {"role": "assistant", "content": "Check the plug."},
    ]
    made = shipped.tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = zip(made["input_ids"], made["assistant_masks"], strict=True)
    said = shipped.tokenizer.decode([token for token, mask in marked if mask])
    assert said == "Which one?<|eos|>Check the plug.<|eos|>"


def test_a_prompt_is_the_beginning_of_its_dialogue(shipped: Loaded) -> None:
    """What a prompt and completion trainer relies on to find where the completion begins."""
    user = [{"role": "user", "content": "My lamp flickers."}]
    answer = [{"role": "assistant", "content": "Check the plug."}]
    prompt = shipped.tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    whole = shipped.tokenizer.apply_chat_template(user + answer, tokenize=False)
    assert whole.startswith(prompt)
    assert whole == f"{prompt}Check the plug.<|eos|>"


def test_pre_training_learns_records_and_is_done_once(project: Project) -> None:
    path = project.root / "micro.yaml"
    path.write_text(MICRO)
    run = train(project, path)
    assert run.round == 0
    assert run.parents == []
    assert run.metrics["method"] == "pretrain"
    assert run.metrics["steps"] == 2 * 64 / 16
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[1] < losses[0]
    assert 1 < run.metrics["perplexity"] < 400
    made = load_model(resolve_model(project, run.id))
    assert made.ref.source == str(run.path / MODEL_FOLDER)
    assert train(project, path).id == run.id
    with pytest.raises(InputError, match="neither --data nor --model"):
        train(project, path, model="base")


@pytest.mark.slow
def test_the_recipe_still_makes_an_equivalent_model(
    project: Project, recipe: PretrainRecipe
) -> None:
    """Four minutes on two idle cores. Weights differ with the processor, what they know hardly."""
    run = train(project, "pretrain-support-desk")
    made = load_model(resolve_model(project, run.id))
    assert perplexity(made.model, made.tokenizer, recipe) == pytest.approx(PERPLEXITY, abs=0.03)
