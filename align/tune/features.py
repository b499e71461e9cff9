"""Outputs as rows of numbers, for the linear reward model.

By default from the text alone: hashed word n-grams (Weinberger et al. 2009), weighted by rarity
and reduced by a singular value decomposition (Deerwester et al. 1990), beside length, what the
completion takes up from its prompt, repetition and how it ends. Or the mean of the last hidden
states of any transformers model. Either way features know texts and no vote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.errors import TrainingError
from annotate.records import flat_text
from annotate.runs import Project

Reals = NDArray[np.float64]

DIMENSIONS = 96
"""Of the decomposition; with few texts, fewer."""
_BUCKETS = 2**15
_WORD = re.compile(r"\w+(?:'\w+)?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def text_features(prompts: Sequence[str], completions: Sequence[str], *, seed: int = 0) -> Reals:
    """Features of completions, each with its prompt; shape (n, at most 102).

    The decomposition is of these texts, so all that are to be compared come in one call.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashed = HashingVectorizer(
        n_features=_BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm=None
    ).transform(completions)
    rare = TfidfTransformer(sublinear_tf=True).fit_transform(hashed)
    dimensions = max(1, min(DIMENSIONS, len(completions) // 2))
    reduced = TruncatedSVD(dimensions, random_state=seed).fit_transform(rare)
    return np.hstack([_unit_scale(reduced), _surface(prompts, completions)])


def _unit_scale(columns: Reals) -> Reals:
    """One factor for all, so that rows have length 1 on average; directions keep their ratios."""
    centred = columns - columns.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=1).mean())
    return np.asarray(centred / size if size > 0 else centred, dtype=np.float64)


def _surface(prompts: Sequence[str], completions: Sequence[str]) -> Reals:
    """What n-grams of the completion do not show; each column of standard deviation 0.5."""
    rows = np.array(
        [_facts(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
    ).reshape(len(completions), -1)
    centred = rows - rows.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.asarray(0.5 * centred / np.where(deviation > 0, deviation, 1.0), dtype=np.float64)


def _facts(prompt: str, text: str) -> list[float]:
    asked = _WORD.findall(prompt.lower())
    said = _WORD.findall(text.lower())
    known, known_pairs = set(asked), set(pairwise(asked))
    pairs = set(pairwise(said))
    sentences = [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
    return [
        np.log1p(len(said)),
        sum(word in known for word in said) / max(1, len(said)),
        float(len(pairs & known_pairs)),
        float(len(sentences)),
        float(len(sentences) - len(set(sentences))),
        float(text.rstrip().endswith((".", "!", "?"))),
    ]


def model_features(
    project: Project,
    name: str,
    prompts: Sequence[Sequence[Mapping[str, str]]],
    completions: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> Reals:
    """The mean of a transformers model's last hidden states over each completion, and its surface.

    Any encoder or causal model; its weights stay as they are. Wide states are reduced to
    `DIMENSIONS`, so that a few hundred pairs can still teach a head.

    Args:
        name: base, a train run, a folder, or an id of the Hugging Face hub.
        prompts: conversations, one a completion.

    Raises:
        TrainingError: it cannot be loaded.
    """
    asked = [flat_text(turns) for turns in prompts]
    states = _hidden_states(project, name, asked, completions, batch_size)
    states = states - states.mean(axis=0)
    if states.shape[1] > DIMENSIONS:
        from sklearn.decomposition import TruncatedSVD

        dimensions = max(1, min(DIMENSIONS, len(states) // 2))
        states = TruncatedSVD(dimensions, random_state=seed).fit_transform(states)
    return np.hstack([_unit_scale(states), _surface(asked, completions)])


def _hidden_states(
    project: Project,
    name: str,
    asked: Sequence[str],
    completions: Sequence[str],
    batch_size: int,
) -> Reals:
    """Mean last hidden state of each completion's tokens after its prompt, shape (n, hidden)."""
    import torch

    tokenizer, model = _load(project, name)
    room = getattr(model.config, "max_position_embeddings", None) or 512
    found = []
    for start in range(0, len(completions), batch_size):
        rows = [
            tokenizer(text, text_pair=said, truncation=True, max_length=room)["input_ids"]
            for text, said in zip(
                asked[start : start + batch_size],
                completions[start : start + batch_size],
                strict=True,
            )
        ]
        own = [
            len(tokenizer(said, add_special_tokens=False)["input_ids"])
            for said in completions[start : start + batch_size]
        ]
        longest = max(1, *map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask, counted = torch.zeros_like(ids), torch.zeros_like(ids)
        for n, (row, length) in enumerate(zip(rows, own, strict=True)):
            ids[n, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[n, : max(1, len(row))] = 1
            counted[n, max(0, len(row) - max(1, length)) : max(1, len(row))] = 1
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = counted[:, :, None]
        found.append(((states * weight).sum(1) / weight.sum(1)).double().numpy())
    return np.concatenate(found)


def _load(project: Project, name: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    from align.model_ref import resolve_model

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    ref = resolve_model(project, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.source)
        model = AutoModel.from_pretrained(ref.source)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise TrainingError(
            f"the model cannot be loaded: {str(error).strip().splitlines()[0].rstrip('.')}",
            where=name,
            remedy="Name base, a train run, a folder with config.json, or an id of the hub",
        ) from None
    return tokenizer, model.eval()
