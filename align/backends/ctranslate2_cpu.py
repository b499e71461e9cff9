"""The backend `ctranslate2`: CTranslate2 on the processor, for decoders that it can convert.

CTranslate2 draws from one stream of random numbers a thread, seeded when the thread first draws,
and gives no way to bring numbers of one's own. So each batch has an engine of its own, of one
thread, and a seed made of what is in it: the same command gives the same completions, also after an
interruption, but a completion depends on its batch. Of a batch of one it depends on nothing else,
as with transformers.
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
from align.model import ModelRef, resolve_model
from align.sampling import seed_of
from annotate.runs import Project

_SEEDING = threading.Lock()
"""CTranslate2's seed is one for the process."""


@dataclass(frozen=True)
class CTranslate2:
    """On this machine's processor."""

    cache: Path
    """Where converted models are kept."""
    name: ClassVar[str] = "ctranslate2"

    def settings(self, batch_size: int) -> dict[str, Any]:
        """The batch size: what shares a batch shares its random numbers."""
        return {"batch_size": batch_size}

    def model(self, project: Project, name: str) -> ModelRef:
        """Of this project, a folder or the hub."""
        return resolve_model(project, name)

    def complete(self, job: Job) -> Iterator[Batch]:
        """Batches in their order, as many at once as there are cores."""
        read = reader_of(job.ref)
        wanted, tokens, unfit = fitting(read, job)
        yield list(unfit)
        if not wanted:
            return
        folder = converted(read, self.cache)
        size = job.batch_size
        batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            yield from pool.map(lambda batch: _completed(folder, read, job, batch, tokens), batches)


def _completed(
    folder: Path,
    read: Reader,
    job: Job,
    batch: Sequence[Wanted],
    tokens: Mapping[str, list[int]],
) -> Batch:
    library, rules = ctranslate2(), job.rules
    words = [read.tokenizer.convert_ids_to_tokens(tokens[one.prompt_id]) for one in batch]
    engine = library.Generator(str(folder), device="cpu", compute_type="float32", intra_threads=1)
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
            engine.generate_batch(words[:1], max_length=1, **how)  # the thread takes the seed
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
