"""Sample completions from a causal language model, many rows at once, reproducibly.

Every row brings its own random numbers, drawn from the seed, the prompt and the sample's number
alone. A completion therefore does not depend on which other rows share its batch, on the order of
the prompts or on what was finished before an interruption. One reservation: padding moves logits by
about 1e-6, so a draw within that of a boundary between two tokens may fall on the other side.

The loop is its own and not `model.generate`: inverting the cumulative distribution costs a tenth
of `torch.multinomial`, keys and values stay where they are (align.cache), a prompt that several
rows share is read once, rows that have ended leave the batch, and the log-probabilities come along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from align.cache import roomy_cache

# Rows that have ended are computed along until they are this share of the batch. Closing up copies
# the rows that move; a cache that cannot is copied whole, which costs about as much as one step.
_ENDED_SHARE = 1 / 16
_ENDED_SHARE_COPIED = 1 / 4


class Sampling(BaseModel):
    """How completions are drawn; with the seed, part of what determines them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(1.0, ge=0)
    """Divides the logits; 0 takes the most probable token."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the most probable tokens that together have this probability; 1 draws from all."""

    max_new_tokens: int = Field(128, ge=1)
    """A completion that has not ended by then is cut."""

    seed: int = 0
    """Of every draw."""


@dataclass(frozen=True)
class Sampled:
    """One completion."""

    tokens: list[int]
    """Without the end token."""
    logprob: float
    """Natural log of the model's own probability (temperature 1), the end token's included."""
    ended: bool
    """False where `max_new_tokens` cut it."""


def draws(seed: int, prompt: str, sample: int, steps: int) -> NDArray[np.float64]:
    """The uniform numbers of one completion, one a token, shape (steps,), in [0, 1).

    A longer completion's numbers begin with those of a shorter one.
    """
    key = int.from_bytes(_digest(seed, prompt, sample)[:16], "big")
    return np.random.Generator(np.random.Philox(key=key)).random(steps)


def seed_of(seed: int, prompt: str, sample: int) -> int:
    """One completion's own seed, for a backend that draws for itself; below 2**31."""
    return int.from_bytes(_digest(seed, prompt, sample)[:4], "big") >> 1


def _digest(seed: int, prompt: str, sample: int) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{sample}\x1f{prompt}".encode()).digest()


def sample_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniform: NDArray[np.float64],
    rules: Sampling,
    stop: Sequence[int],
) -> list[Sampled]:
    """Complete each prompt once; prompts that are alike are read once.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids, none empty.
        uniform: `draws` of each row, shape (rows, max_new_tokens).
        rules: temperature, top_p, max_new_tokens.
        stop: ids of the tokens that end a completion.
    """
    with torch.inference_mode():
        batch = _Batch(model, prompts, uniform, rules, stop)
        batch.read(prompts)
        for step in range(rules.max_new_tokens):
            batch.draw(step)
            if step + 1 == rules.max_new_tokens or not batch.shrink():
                break
            batch.forward()
        return batch.sampled()


class _Batch:
    """Completions under way: what was drawn so far of every row, and the rows still computed."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        uniform: NDArray[np.float64],
        rules: Sampling,
        stop: Sequence[int],
    ) -> None:
        device, rows = model.device, len(prompts)
        # A sum over a large vocabulary needs doubles; Apple's GPUs have none.
        self.real = torch.float32 if device.type == "mps" else torch.float64
        self.model, self.rules = model, rules
        self.uniform = torch.as_tensor(uniform, dtype=self.real, device=device)
        self.stop = torch.tensor(list(stop), dtype=torch.long, device=device)
        self.tokens = torch.zeros((rows, rules.max_new_tokens), dtype=torch.long, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.logprob = torch.zeros(rows, dtype=self.real, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)
        # Of the rows still computed, `alive`: what the next forward pass reads, and what it gives.
        self.alive = torch.arange(rows, device=device)
        self.ids = self.mask = self.position = self.logits = torch.empty(0)
        self.cache: Any = roomy_cache(model)
        self.roomy = self.cache is not None

    def read(self, prompts: Sequence[Sequence[int]]) -> None:
        """The logits after each prompt."""
        place: dict[tuple[int, ...], int] = {}
        rows = [place.setdefault(tuple(prompt), len(place)) for prompt in prompts]
        self.ids, self.mask = left_padded(list(place), self.model.device)
        self.position = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.forward()
        if len(place) < len(rows):
            spread = torch.tensor(rows, device=self.model.device)
            self.cache.batch_select_indices(spread)
            self.mask, self.position = self.mask[spread], self.position[spread]
            self.logits = self.logits[spread]

    def forward(self) -> None:
        """The logits of each computed row's next token."""
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache, self.logits = out.past_key_values, out.logits[:, -1].float()

    def draw(self, step: int) -> None:
        """One token for each computed row."""
        logprobs = torch.log_softmax(self.logits, -1)
        chosen = _choose(logprobs, self.uniform[self.alive, step], self.rules)
        going = ~self.ended[self.alive]
        gain = logprobs.gather(1, chosen[:, None])[:, 0].to(self.real)
        self.logprob[self.alive] += torch.where(going, gain, 0.0)
        self.tokens[self.alive, step] = chosen
        self.ended[self.alive] |= torch.isin(chosen, self.stop)
        self.lengths[self.alive] += (~self.ended[self.alive]).long()
        self.ids = chosen[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], 1)
        self.position = self.position[:, -1:] + 1

    def shrink(self) -> bool:
        """Leave ended rows out once they are many; whether any row is going on."""
        going = ~self.ended[self.alive]
        rows, left = len(going), int(going.sum())
        share = _ENDED_SHARE if self.roomy else _ENDED_SHARE_COPIED
        if 0 < left <= (1 - share) * rows:
            stay = torch.arange(left, device=going.device)
            into = (~going[:left]).nonzero()[:, 0]
            out_of = going[left:].nonzero()[:, 0] + left
            stay[into] = out_of
            self.alive, self.ids = self.alive[stay], self.ids[stay]
            self.mask, self.position = self.mask[stay], self.position[stay]
            if self.roomy:
                for layer in self.cache.layers:
                    layer.close_up(into, out_of, left)
            else:
                self.cache.batch_select_indices(stay)
        return left > 0

    def sampled(self) -> list[Sampled]:
        """The completions, in the order of the prompts."""
        columns = (self.tokens, self.lengths, self.logprob, self.ended)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Sampled(row[:length], logprob, ended) for row, length, logprob, ended in rows]


def left_padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, shape (rows, longest); what stands under padding is masked."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[number, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)


def _choose(logprobs: Tensor, uniform: Tensor, rules: Sampling) -> Tensor:
    """One token a row: where the cumulative probability passes the row's number.

    Args:
        logprobs: natural logs of the model's probabilities, shape (rows, vocabulary).
        uniform: shape (rows,), in [0, 1); its type is that of the sum.
    """
    if rules.temperature == 0:
        return logprobs.argmax(-1)
    if rules.temperature == 1:
        probability = logprobs.exp()
    else:
        probability = torch.softmax(logprobs / rules.temperature, -1)
    if rules.top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        # A token stays if those before it have not reached top_p yet: the first always does.
        ordered = ordered * (ordered.cumsum(-1) - ordered < rules.top_p)
        probability = torch.zeros_like(probability).scatter(-1, order, ordered)
    cumulative = probability.cumsum(-1, dtype=uniform.dtype)
    target = uniform[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return found.clamp(max=logprobs.shape[-1] - 1)
