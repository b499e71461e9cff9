"""A causal language model of a few thousand weights, in a folder, for tests that need one."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_TEMPLATE = (
    "{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def write_tiny_model(
    folder: Path, *, seed: int = 0, context: int = 256, chats: bool = True
) -> Path:
    """Save a random Llama (hidden 32, 2 layers) with a tokenizer of bytes; about 40,000 weights.

    Args:
        chats: False: it knows no turns, as a model that was only pre-trained.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = _SPECIAL if chats else _SPECIAL[:2]
    vocabulary = {token: number for number, token in enumerate((*special, *alphabet))}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=list(special[2:]),
    )
    tokenizer.chat_template = _TEMPLATE if chats else None
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.3,  # enough to prefer some tokens over others
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
