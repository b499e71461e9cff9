"""The backend `ctranslate2`: CTranslate2 on the processor, for decoders that it can convert.

CTranslate2 draws from one stream of random numbers a thread, seeded when that thread first draws,
and takes no numbers from outside. So each batch gets an engine of its own, of one thread, with a
seed made of what is in it. A batch is one completion unless more are asked for: that completion
then depends on the model, its prompt's text, its number and the sampling settings alone. A batch of
128 is four times as fast even for a small model, whose weights lie in the processor's cache and of
which an engine is made in about a millisecond; a large one reads all its weights once a token and a
batch.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from align.backends import Batch, Job, Made, Wanted
from align.backends.conversion import converted, ctranslate2
from align.backends.tokens import Reader, fitting, reader_of
from align.model_ref import ModelRef, resolve_model
from align.resources.device import free_bytes
from align.sampling import seed_of
from annotate.runs import Project

_SEEDING = threading.Lock()
"""CTranslate2's seed is one for the process."""

_TOGETHER = 128
"""Completions handed on, and so kept, at a time."""

_IN_MEMORY = 64 * 2**20
"""Bytes of a model up to which engines are made from memory, in half the time."""


@dataclass(frozen=True)
class CTranslate2:
    """On this machine's processor."""

    cache: Path
    """Where converted models are kept."""
    name: ClassVar[str] = "ctranslate2"
    batch_size: ClassVar[int] = 1

    def settings(self, batch_size: int) -> dict[str, Any]:
        """The batch size: what shares a batch shares a stream of random numbers."""
        return {"batch_size": batch_size}

    def model(self, project: Project, name: str) -> ModelRef:
        """Of this project, a folder or the hub."""
        return resolve_model(project, name)

    def complete(self, job: Job) -> Iterator[Batch]:
        """Batches in their order, computed as many at once as there are cores and memory for."""
        read = reader_of(job.ref)
        wanted, tokens, unfit = fitting(read, job)
        ready: Batch = list(unfit)
        if wanted:
            files = _Files(converted(read, self.cache))
            starts = range(0, len(wanted), job.batch_size)
            batches = [wanted[start : start + job.batch_size] for start in starts]
            with ThreadPoolExecutor(files.engines(torch.get_num_threads())) as pool:
                for made in pool.map(
                    lambda one: _completed(files, read, job, one, tokens), batches
                ):
                    ready += made
                    if len(ready) >= _TOGETHER:
                        yield ready
                        ready = []
        yield ready


class _Files:
    """A converted model, of which engines are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = (folder / "model.bin").stat().st_size
        small = self.size <= _IN_MEMORY
        self.content = {one.name: one.read_bytes() for one in folder.iterdir()} if small else None

    def engines(self, cores: int) -> int:
        """How many to have at once: each has the weights for itself."""
        return max(1, min(cores, free_bytes("cpu") // (2 * self.size)))

    def engine(self) -> Any:
        """A new one, of one thread."""
        return ctranslate2().Generator(
            str(self.folder),
            device="cpu",
            compute_type="float32",
            intra_threads=1,
            files=self.content,
        )


def _completed(
    files: _Files,
    read: Reader,
    job: Job,
    batch: Sequence[Wanted],
    tokens: Mapping[str, list[int]],
) -> Batch:
    library, rules = ctranslate2(), job.rules
    words = [read.tokenizer.convert_ids_to_tokens(tokens[one.prompt_id]) for one in batch]
    engine = files.engine()
    how: dict[str, Any] = {
        "end_token": list(read.stop),
        "include_prompt_in_result": False,
        "beam_size": 1,
    }
    if rules.temperature > 0:
        how |= {
            "sampling_topk": 0,
            "sampling_topp": rules.top_p,
            "sampling_temperature": rules.temperature,
        }
        with _SEEDING:
            library.set_random_seed(_seed(rules.seed, batch))
            # With its first draw the engine's thread takes the seed.
            engine.generate_batch([words[0][:1]], max_length=1, **how)
    found = engine.generate_batch(
        words,
        max_length=rules.max_new_tokens,
        return_scores=True,
        length_penalty=0,  # the sum of the log-probabilities
        **how,
    )
    return [_made(read, *pair) for pair in zip(batch, found, strict=True)]


def _seed(seed: int, batch: Sequence[Wanted]) -> int:
    """A batch's seed, of what is in it alone; below 2**31."""
    each = (seed_of(seed, one.says, one.sample) for one in batch)
    digest = hashlib.sha256(" ".join(map(str, each)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _made(read: Reader, wanted: Wanted, found: Any) -> Made:
    tokens = [token for token in found.sequences_ids[0] if token not in read.stop]
    return Made(wanted, read.text(tokens), len(tokens), float(found.scores[0]))
