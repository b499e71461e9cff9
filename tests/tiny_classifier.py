"""A text classifier of a few thousand weights, trained in seconds, in a folder, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

_SPECIAL = ("<|pad|>", "<|cls|>")


def train_tiny_classifier(
    folder: Path,
    texts: Sequence[str],
    targets: Sequence[Sequence[int]],
    labels: Sequence[str],
    *,
    several: bool = False,
    steps: int = 60,
) -> Path:
    """Fit a BERT (hidden 32, 1 layer) on bytes and save it.

    Args:
        targets: 1 where a text has the label, shape (texts, labels); one a row unless `several`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *alphabet))}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, pad_token="<|pad|>", cls_token="<|cls|>", model_max_length=48
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type="multi_label_classification" if several else "single_label_classification",
        pad_token_id=0,
    )
    model = BertForSequenceClassification(config)
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    wanted = torch.tensor(targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # quicker at this size, and the same on every machine
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch, labels=wanted.float() if several else wanted.argmax(dim=1)).loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
