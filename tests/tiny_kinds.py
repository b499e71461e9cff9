"""An encoder-decoder and an encoder of a few thousand weights, in folders, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_model import write_tiny_model
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)


def write_tiny_t5(folder: Path) -> Path:
    """A random T5 (hidden 32, 2 layers) over bytes; its tokenizer has no chat template."""
    tokenizer = _tokenizer(folder)
    config = T5Config(
        vocab_size=len(tokenizer) + 3,  # as T5's own: padded to a round number
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return _saved(T5ForConditionalGeneration, config, folder)


def write_tiny_bert(folder: Path) -> Path:
    """A random BERT (hidden 32, 2 layers) over bytes, with a separator but no end token."""
    tokenizer = _tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    content["sep_token"] = content.pop("eos_token")
    settings.write_text(json.dumps(content))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _saved(BertForMaskedLM, config, folder)


def _tokenizer(folder: Path) -> AutoTokenizer:
    """The tiny decoder's, without its chat template; the decoder is removed."""
    write_tiny_model(folder)
    for name in ("chat_template.jinja", "model.safetensors", "generation_config.json"):
        (folder / name).unlink()
    return AutoTokenizer.from_pretrained(folder)


def _saved(model: type[PreTrainedModel], config: T5Config | BertConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    return folder
