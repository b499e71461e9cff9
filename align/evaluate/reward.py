"""Accuracy of the implicit reward: does a tuned model prefer what people preferred?

The reward of a completion y to a prompt x is β log π(y|x) / π_ref(y|x), up to a term that cancels
between completions of one prompt (Rafailov et al. 2023, equation 5). A held-out pair is right if
the chosen completion's is higher; β > 0 does not matter for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from align.conversations import conversation_tokens
from align.model import Loaded
from annotate.records import conform
from annotate.runs import Run
from annotate.statistics import Estimate, undefined, win_rate


def held_out_pairs(train_run: Run) -> pa.Table | None:
    """The `preference` rows that were never trained on, from every build behind a model.

    None where no build is behind it.
    """
    # Of thumbs and texts alone a build makes no pairs.
    builds = [run for run in train_run.ancestors() if run.step == "build" and run.has("preference")]
    if not builds:
        return None
    # A build of an earlier release has fewer columns.
    rows = pa.concat_tables([conform("preference", run.read("preference")) for run in builds])
    rows = rows.filter(pc.equal(rows["split"], "eval"))
    return rows.take(pc.index_in(pc.unique(rows["row_id"]), value_set=rows["row_id"]))


def reward_accuracy(
    pairs: pa.Table | None,
    policy: dict[str, NDArray[np.float64]],
    reference: dict[str, NDArray[np.float64]],
    *,
    seed: int = 0,
) -> Estimate:
    """The share of held-out pairs whose chosen completion has the higher implicit reward.

    Args:
        pairs: as `held_out_pairs` gives them.
        policy: `pair_logprobs` of the tuned model.
        reference: those of the model it started from.
        seed: of the bootstrap over prompts.
    """
    if pairs is None:
        return undefined("trained without preferences", 0, "prompts")
    if not pairs.num_rows:
        return undefined("no pair is held out", 0, "prompts")
    chosen, rejected = (policy[name] - reference[name] for name in ("chosen", "rejected"))
    outcome = (np.sign(chosen - rejected) + 1) / 2
    return win_rate(outcome, pairs["prompt_id"].to_pylist(), seed=seed)


def pair_logprobs(loaded: Loaded, pairs: pa.Table) -> dict[str, NDArray[np.float64]]:
    """log π(y|x) of the chosen and of the rejected completions, shape (pairs,) each."""
    prompts = pairs["prompt"].to_pylist()
    return {
        name: completion_logprobs(loaded, prompts, pairs[name].to_pylist())
        for name in ("chosen", "rejected")
    }


def completion_logprobs(
    loaded: Loaded,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    batch_size: int = 32,
) -> NDArray[np.float64]:
    """Natural log-probability of each completion after its prompt, summed over tokens, shape (n,).

    Both are lists of messages, written by the chat template; the end of turn counts.
    """
    rows = _tokens(loaded, prompts, completions)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]))
    found = np.zeros(len(rows))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        found[batch] = _batch_logprobs(loaded, [rows[row] for row in batch])
    return found


def _tokens(
    loaded: Loaded, prompts: Sequence[Any], completions: Sequence[Any]
) -> list[tuple[list[int], int]]:
    """Each whole conversation's tokens, cut to the context, and how many are the prompt's."""
    room = getattr(loaded.model.config, "max_position_embeddings", None)
    alone = conversation_tokens(loaded, prompts, asks=True)
    both = [[*a, *b] for a, b in zip(prompts, completions, strict=True)]
    whole = conversation_tokens(loaded, both)
    return [
        (tokens[:room], _shared(asked, tokens)) for asked, tokens in zip(alone, whole, strict=True)
    ]


def _shared(alone: Sequence[int], whole: Sequence[int]) -> int:
    """As TRL counts: the prompt's tokens are those it shares with the prompt written alone."""
    pairs = enumerate(zip(alone, whole, strict=False))
    return next((at for at, (one, other) in pairs if one != other), len(alone))


def _batch_logprobs(loaded: Loaded, rows: Sequence[tuple[list[int], int]]) -> NDArray[np.float64]:
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask, counts = torch.zeros_like(ids), torch.zeros_like(ids)
    for number, (tokens, prompt) in enumerate(rows):
        ids[number, : len(tokens)] = torch.tensor(tokens)
        mask[number, : len(tokens)] = 1
        counts[number, prompt : len(tokens)] = 1
    device = loaded.model.device
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        every = torch.log_softmax(logits[:, :-1].float(), -1)
        said = every.gather(2, ids[:, 1:, None].to(device))[:, :, 0]
        total = (said * counts[:, 1:].to(device)).sum(1)
    return np.asarray(total.double().cpu())
