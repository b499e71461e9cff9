"""The backend `vllm`: vLLM's offline engine, for GPUs.

Written to its published interface, and never run: vLLM pins torch and needs an accelerator, so it
is no part of Handloom's extras nor of its tests. Every completion has a
seed of its own; vLLM itself promises the same result only on the same hardware and version, with
scheduling made deterministic or batch invariance on (its page "Reproducibility").
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from align.backends import Batch, Job, Made, Wanted
from align.backends.tokens import Reader, fitting, reader_of
from align.model_ref import ModelRef, resolve_model
from align.sampling import seed_of
from annotate.errors import InputError, TrainingError
from annotate.runs import Project

_AT_ONCE = 8
"""Batches given to the engine together; it schedules them itself, and needs many to be busy."""


@dataclass(frozen=True)
class Vllm:
    """On this machine's accelerator."""

    name: ClassVar[str] = "vllm"
    batch_size: ClassVar[int] = 128

    def settings(self, batch_size: int) -> dict[str, Any]:
        """Nothing: each completion is asked for with a seed of its own."""
        return {}

    def model(self, project: Project, name: str) -> ModelRef:
        """Of this project, a folder or the hub."""
        return resolve_model(project, name)

    def complete(self, job: Job) -> Iterator[Batch]:
        """Several batches at once.

        Raises:
            InputError: vLLM is not installed.
            TrainingError: the engine cannot load the model.
        """
        vllm = _vllm()
        read = reader_of(job.ref)
        wanted, tokens, unfit = fitting(read, job)
        yield list(unfit)
        if not wanted:
            return
        engine = _engine(vllm, job.ref)
        size = job.batch_size * _AT_ONCE
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            made = engine.generate(
                [{"prompt_token_ids": tokens[one.prompt_id]} for one in some],
                [_parameters(vllm, job, one, read) for one in some],
                use_tqdm=False,
            )
            yield [_made(read, *pair) for pair in zip(some, made, strict=True)]


def _vllm() -> Any:
    try:
        return importlib.import_module("vllm")
    except ImportError:
        raise InputError(
            "vLLM is not installed",
            where="--backend vllm",
            remedy="`pip install vllm` where a GPU is (untested with Handloom), or let vLLM serve "
            "the model and name its address with --url",
        ) from None


def _engine(vllm: Any, ref: ModelRef) -> Any:
    try:
        return vllm.LLM(
            model=ref.source,
            generation_config="vllm",  # else the model's own settings limit the length
            logprobs_mode="raw_logprobs",  # the model's own, before temperature and top_p
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise TrainingError(f"vLLM cannot load the model: {first}", where=ref.name) from None


def _parameters(vllm: Any, job: Job, wanted: Wanted, read: Reader) -> Any:
    rules = job.rules
    return vllm.SamplingParams(
        temperature=rules.temperature,
        top_p=rules.top_p,
        max_tokens=rules.max_new_tokens,
        seed=seed_of(rules.seed, wanted.says, wanted.sample),
        stop_token_ids=list(read.stop),
        logprobs=0,  # of the drawn token alone
        detokenize=False,
    )


def _made(read: Reader, wanted: Wanted, answer: Any) -> Made:
    (one,) = answer.outputs
    tokens = list(one.token_ids)
    if tokens and tokens[-1] in read.stop:
        tokens.pop()
    return Made(wanted, read.text(tokens), len(tokens), one.cumulative_logprob)
