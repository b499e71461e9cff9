"""Pairs of real lengths in a made-up desk's words, and the models that `training.py` trains.

Lengths in words are log-normal with the moments of PandaLM's test set (945 of 999 pairs of real
models' answers, those with two that are not empty; WeOpenML/PandaLM, testset-v1.json):

    prompt     geometric mean 26, standard deviation of the logarithm 0.74
    completion geometric mean 17, standard deviation of the logarithm 1.34, correlated by 0.60
               between the two completions of a prompt and not at all with the prompt

The words are sentences of the support desk: of good answers in what was chosen, of bad ones in what
was rejected. So the lengths are people's, the content is simple, and there is something to learn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate import support_desk

PROMPT, PROMPT_SPREAD = 26.0, 0.74
COMPLETION, COMPLETION_SPREAD, CORRELATION = 17.0, 1.34, 0.60
LONGEST = 230
"""Words: PandaLM's longest completion; longer draws are cut to it."""
WIDE = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
"""A Llama of 5 million weights with a vocabulary eight times the base's, which the base's tokens
fill only in part: what a prediction costs does not depend on that."""

Pair = dict[str, list[dict[str, str]]]


def pairs(n: int, *, seed: int, split: str = "train") -> list[Pair]:
    """`n` pairs as prompt, chosen and rejected, each a list of messages."""
    rng = np.random.default_rng([seed, split == "eval"])
    between = [[1, 0, 0], [0, 1, CORRELATION], [0, CORRELATION, 1]]
    normal = rng.multivariate_normal(np.zeros(3), between, n)
    means = np.array([PROMPT, COMPLETION, COMPLETION])
    spreads = np.array([PROMPT_SPREAD, COMPLETION_SPREAD, COMPLETION_SPREAD])
    words = np.clip(np.round(means * np.exp(normal * spreads)), 1, LONGEST).astype(int)
    asked = _words(_customers(seed, split))
    good, bad = (_words(_agents(seed, split, quality)) for quality in ((30, 1), (1, 30)))
    made = []
    for row in words:
        turns = [" ".join(itertools.islice(source, int(many)))
                 for source, many in zip((asked, good, bad), row, strict=True)]  # fmt: skip
        if turns[1] == turns[2]:
            turns[2] += " Sorry."
        made.append(
            {
                "prompt": [{"role": "user", "content": turns[0]}],
                "chosen": [{"role": "assistant", "content": turns[1]}],
                "rejected": [{"role": "assistant", "content": turns[2]}],
            }
        )
    return made


def _words(sentences: Iterator[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from sentence.split()


def _customers(seed: int, split: str) -> Iterator[str]:
    for number in itertools.count(seed):
        for messages in support_desk.prompts(200, seed=number, split=split):
            yield messages[-1]["content"]


def _agents(seed: int, split: str, quality: tuple[float, float]) -> Iterator[str]:
    for number in itertools.count(seed):
        for messages in support_desk.dialogues(200, seed=number, quality=quality, split=split):
            yield messages[-1]["content"]


def token_lengths(rows: list[Pair], tokenizer: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens of prompt, chosen and rejected as the trainers see them, shape (rows, 3)."""
    lengths = []
    for row in rows:
        prompt = _tokens(tokenizer, row["prompt"], add_generation_prompt=True)
        lengths.append(
            [prompt]
            + [
                _tokens(tokenizer, row["prompt"] + row[side]) - prompt
                for side in ("chosen", "rejected")
            ]
        )
    return np.array(lengths)


def _tokens(tokenizer: Any, messages: list[dict[str, str]], **arguments: Any) -> int:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def operations(lengths: NDArray[np.int64], method: str, config: dict[str, int]) -> float:
    """What a forward pass needs: multiplications and additions of matrix products and attention.

    Args:
        lengths: tokens of prompt, chosen and rejected, shape (rows, 3).
        config: of the model, a Llama.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    kept = config["num_key_value_heads"] / config["num_attention_heads"]
    layer = hidden * (2 * hidden + 2 * kept * hidden + 3 * config["intermediate_size"])
    prompt, *answers = lengths.T.astype(float)
    completions = answers if method == "dpo" else answers[:1]
    tokens = prompt.sum() + sum(one.sum() for one in completions)
    # Each token looks at those before it: half of the square.
    looked = (prompt**2 / 2).sum() + sum(((prompt + one / 2) * one).sum() for one in completions)
    head = hidden * config["vocab_size"] * sum(one.sum() for one in completions)
    return float(2 * (layers * layer * tokens + head) + 4 * layers * hidden * looked)


def write_model(name: str, folder: Path) -> Path:
    """The model to start from, in a folder: the shipped one, or a wide one of random weights."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

    from align.model_ref import BASE

    if name == "base":
        return BASE
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = LlamaForCausalLM(LlamaConfig(**WIDE, **ends, tie_word_embeddings=True))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
