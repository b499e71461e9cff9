"""The backend `transformers`: our own sampling loop (align.sampling) on any causal model.

What a completion is depends on the model, its prompt's text, the sample's number and the sampling
settings alone, never on what it is computed with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from align.backends import Batch, Job, Made, Wanted
from align.backends.tokens import Reader, fitting, reader
from align.model import Loaded, load_model
from align.model_ref import ModelRef, resolve_model
from align.sampling import Sampling, draws, sample_batch
from annotate.errors import ResourceError
from annotate.runs import Project

_SMALL = 50_000_000
"""Weights of a model below which a core a batch beats all cores for one."""

_FEW = 32
"""Completions that a batch should have before another core takes some of them."""


@dataclass(frozen=True)
class Transformers:
    """On this machine, with the accelerator if there is one."""

    name: ClassVar[str] = "transformers"
    batch_size: ClassVar[int] = 128

    def settings(self, batch_size: int) -> dict[str, Any]:
        """Nothing: no batch size changes a completion."""
        return {}

    def model(self, project: Project, name: str) -> ModelRef:
        """Of this project, a folder or the hub."""
        return resolve_model(project, name)

    def complete(self, job: Job) -> Iterator[Batch]:
        """In batches of `job.batch_size` or fewer, several at once where that uses cores better."""
        yield from complete_with(load_model(job.ref), job)


def complete_with(loaded: Loaded, job: Job) -> Iterator[Batch]:
    """A job by a model that is loaded."""
    read = reader(loaded)
    wanted, tokens, unfit = fitting(read, job)
    yield list(unfit)
    workers = _workers(loaded)
    size = min(job.batch_size, max(_FEW, math.ceil(len(wanted) / workers)))
    batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]

    def completed(batch: Sequence[Wanted]) -> Batch:
        return _completed(loaded, read, batch, tokens, job.rules)

    if workers == 1 or len(batches) < 2:
        yield from map(completed, batches)
        return
    cores = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(completed, batches)
    finally:  # a worker's setting is everybody's
        torch.set_num_threads(cores)


def _workers(loaded: Loaded) -> int:
    """Batches to compute at once: a small model's operations are too small for several cores."""
    model = loaded.model
    small = sum(weights.numel() for weights in model.parameters()) < _SMALL
    return torch.get_num_threads() if small and model.device.type == "cpu" else 1


def _completed(
    loaded: Loaded,
    read: Reader,
    batch: Sequence[Wanted],
    tokens: Mapping[str, list[int]],
    rules: Sampling,
) -> Batch:
    steps = rules.max_new_tokens
    uniform = np.stack([draws(rules.seed, one.says, one.sample, steps) for one in batch])
    prompts = [tokens[one.prompt_id] for one in batch]
    try:
        sampled = sample_batch(loaded.model, prompts, uniform, rules, read.stop)
    except torch.OutOfMemoryError:
        raise ResourceError(
            f"{len(batch)} completions at once do not fit into memory",
            where=loaded.ref.name,
            remedy="Name a smaller --batch-size; the same command goes on where it stopped",
        ) from None
    return [
        Made(wanted, read.text(one.tokens), len(one.tokens), one.logprob)
        for wanted, one in zip(batch, sampled, strict=True)
    ]
