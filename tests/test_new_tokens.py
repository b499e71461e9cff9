"""New special tokens: in every kind of model they get embeddings, and these are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import write_tiny_t5
from tiny_model import write_tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from align.adapters import adapter_config, save_model
from align.model import Loaded, add_special_tokens, load_model
from align.model_ref import MODEL_FOLDER, ModelRef
from align.recipe import Lora, SftRecipe
from annotate.errors import TrainingError

LORA = SftRecipe(method="sft", lora=Lora(r=2, alpha=4), new_special_tokens=("<|tool|>",))


def tiny(folder: Path, kind: str) -> Loaded:
    """A tiny model: `tied`, `untied`, `padded` (more rows than tokens), `gpt2` or `t5`."""
    if kind == "t5":
        write_tiny_t5(folder)
        return load_model(ModelRef(kind, str(folder)), task="seq2seq-lm", train="all")
    write_tiny_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = kind != "untied"
    if kind == "padded":
        config.vocab_size += 64 - config.vocab_size % 64
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=config.vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=2
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return load_model(ModelRef(kind, str(folder)), train="all")


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    words = torch.tensor([ids])
    more = {"decoder_input_ids": words} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model.eval()(words, **more).logits


@pytest.mark.parametrize("kind", ["tied", "untied", "padded", "gpt2", "t5"])
def test_each_gets_a_row_that_starts_from_the_mean(tmp_path: Path, kind: str) -> None:
    loaded = tiny(tmp_path / "model", kind)
    model, tokenizer = loaded.model, loaded.tokenizer
    known, rows = len(tokenizer), model.get_input_embeddings().weight.shape[0]
    before = logits(model, [10, 20, 30])
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    means = [table.weight[:known].detach().mean(dim=0) for table in tables]

    (new,) = add_special_tokens(model, tokenizer, ["<|tool|>"])

    assert new == known
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    shared = tables[0].weight is tables[1].weight
    assert shared == (kind != "untied")
    for table, mean in zip(tables, means, strict=True):
        # Rows kept for a round number are used up first.
        assert table.weight.shape[0] == max(rows, known + 1)
        torch.testing.assert_close(table.weight[new].detach(), mean)
    # What it made of words that it knew stays.
    torch.testing.assert_close(logits(model, [10, 20, 30])[..., :known], before[..., :known])
    # And it comes back from a folder as it was.
    expected = logits(model, [10, new])
    save_model(model, tokenizer, tmp_path / "again")
    task = "seq2seq-lm" if kind == "t5" else "causal-lm"
    found = load_model(ModelRef("again", str(tmp_path / "again")), task=task)
    torch.testing.assert_close(logits(found.model, [10, new]), expected)


@pytest.mark.parametrize("kind", ["tied", "untied", "padded"])
def test_beside_adapters_their_rows_are_trained(tmp_path: Path, kind: str) -> None:
    from peft import get_peft_model

    loaded = tiny(tmp_path / "model", kind)
    new = add_special_tokens(loaded.model, loaded.tokenizer, ["<|tool|>"])
    before = {
        "in": loaded.model.get_input_embeddings().weight[new].clone(),
        "out": loaded.model.get_output_embeddings().weight[new].clone(),
    }
    model = get_peft_model(loaded.model, adapter_config(LORA, new, loaded.model))
    step(model, [10, *new, 20])
    save_model(model, loaded.tokenizer, tmp_path / "run" / MODEL_FOLDER)
    found = load_model(ModelRef("again", str(tmp_path / "run" / MODEL_FOLDER))).model
    for name, table in (
        ("in", found.get_input_embeddings()),
        ("out", found.get_output_embeddings()),
    ):
        assert not torch.allclose(table.weight[new], before[name]), name
    assert (found.get_input_embeddings().weight is found.get_output_embeddings().weight) == (
        kind != "untied"
    )


def step(model: Any, ids: list[int]) -> None:
    """One step of gradient descent on these tokens."""
    words = torch.tensor([ids])
    model.train()
    model(words, labels=words).loss.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    torch.optim.SGD(trained, lr=0.1).step()


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_adapters_beside_tables_that_peft_cannot_share_are_refused(
    tmp_path: Path, kind: str
) -> None:
    loaded = tiny(tmp_path / "model", kind)
    new = add_special_tokens(loaded.model, loaded.tokenizer, ["<|tool|>"])
    with pytest.raises(TrainingError, match="cannot be trained beside adapters") as caught:
        adapter_config(LORA, new, loaded.model)
    assert "every weight" in caught.value.remedy
