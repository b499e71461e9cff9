"""Completions a second: our loop and CTranslate2 against transformers' `generate`, side by side.

    python bench/generation.py [--model base] [--batch 128] [--count 256] [--rounds 5]

The same prompts in the same batches (sorted by length, padded on the left), temperature 1, every
token of the vocabulary allowed, the same limit. A token counts if it belongs to a completion: what
`generate` computes of rows that have ended does not. Rounds of all sides alternate, so that a busy
machine slows them alike. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training import ratio

from align.backends import Batch, Job, Made, Wanted
from align.backends.ctranslate2_cpu import CTranslate2
from align.backends.tokens import prompt_tokens, reader
from align.backends.transformers_loop import complete_with
from align.model import Loaded, load_model
from align.model_ref import resolve_model
from align.prompts import support_desk_prompts
from align.sampling import Sampling, left_padded
from annotate.runs import Project

Side = Callable[[int], int]
"""Completes every prompt once, with this seed; the tokens of the completions."""


def seconds_per_token(
    model: str = "base",
    *,
    batch: int = 128,
    count: int = 256,
    max_new_tokens: int = 128,
    rounds: int = 5,
    with_ctranslate2: bool = False,
) -> dict[str, list[float]]:
    """Of each round, by side: `transformers`, `handloom` and, if wanted, `ctranslate2`, twice.

    `ctranslate2` computes completions one by one, `ctranslate2 batched` as many as the others.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("runs", "guidelines"):
            (Path(folder) / name).mkdir()
        project = Project.find(Path(folder))
        loaded = load_model(resolve_model(project, model))
        rules = Sampling(max_new_tokens=max_new_tokens)
        messages = support_desk_prompts(count, seed=0, split="train")["messages"].to_pylist()
        prompts = sorted(prompt_tokens(reader(loaded), messages), key=len)
        batches = [prompts[start : start + batch] for start in range(0, count, batch)]
        sides = {
            "transformers": by_generate(loaded, batches, rules),
            "handloom": by_our_loop(loaded, messages, rules, batch),
        }
        if with_ctranslate2:
            cache = project.state_dir / "ctranslate2"
            for name, size in {"ctranslate2": 1, "ctranslate2 batched": batch}.items():
                sides[name] = by_ctranslate2(loaded, cache, messages, rules, size)
        return measured(sides, rounds)


def measured(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """Seconds a token, after one round that is not counted; sides take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            tokens = side(seed)
            if seed:
                found[name].append((time.perf_counter() - start) / tokens)
    return found


def by_generate(loaded: Loaded, batches: list[list[list[int]]], rules: Sampling) -> Side:
    """transformers' own, its cache and its sampling."""
    model: Any = loaded.model
    ends = torch.tensor(sorted(reader(loaded).stop), device=model.device)

    def side(seed: int) -> int:
        torch.manual_seed(seed)
        tokens = 0
        for batch in batches:
            ids, mask = left_padded(batch, model.device)
            with torch.inference_mode():
                made = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=rules.max_new_tokens,
                )[:, ids.shape[1] :]
            ended = torch.isin(made, ends).cumsum(1) > 0
            tokens += int((~ended).sum())
        return tokens

    return side


def by_our_loop(loaded: Loaded, messages: list[Any], rules: Sampling, batch: int) -> Side:
    """The backend transformers of `handloom generate`, loading not counted, tokenizing counted."""
    return by_job(lambda job: complete_with(loaded, job), loaded, messages, rules, batch)


def by_ctranslate2(
    loaded: Loaded, cache: Path, messages: list[Any], rules: Sampling, batch: int
) -> Side:
    """The backend of that name, conversion not counted, tokenizing counted."""
    return by_job(CTranslate2(cache).complete, loaded, messages, rules, batch)


def by_job(
    complete: Callable[[Job], Iterable[Batch]],
    loaded: Loaded,
    messages: list[Any],
    rules: Sampling,
    batch: int,
) -> Side:
    """What completes a job."""
    named = {str(number): one for number, one in enumerate(messages)}
    wanted = [Wanted(one, one, 0) for one in named]

    def side(seed: int) -> int:
        job = Job(loaded.ref, wanted, named, rules.model_copy(update={"seed": seed}), batch)
        made = (one for each in complete(job) for one in each)
        return sum(one.tokens or 0 for one in made if isinstance(one, Made))

    return side


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="base", help="base, a folder, or a hub id")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--count", type=int, default=256, help="prompts")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    asked = vars(parser.parse_args())
    found = seconds_per_token(**asked, with_ctranslate2=True)
    theirs = found["transformers"]
    told = {
        "ratio": {n: ratio(theirs, ours).to_dict() for n, ours in found.items() if ours != theirs},
        "tokens_per_second": {name: 1 / float(np.median(each)) for name, each in found.items()},
        "threads": torch.get_num_threads(),
        **asked,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
