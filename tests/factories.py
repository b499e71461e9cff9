"""Small makers of projects, tables and runs, for any test that needs some."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from annotate.records import output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

MODELS = ("llama-secret", "mistral-secret", "qwen-secret", "gemma-secret", "olmo-secret")


def make_project(folder: Path) -> Project:
    """A project with the guidelines that come with Handloom."""
    (folder / "runs").mkdir(parents=True)
    source = Path(__file__).parent.parent / "guidelines"
    shutil.copytree(
        source, folder / "guidelines", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    return Project(folder)


def make_prompts(n: int, *, turns: int = 1) -> pa.Table:
    """Prompts p-000, p-001, …; of several turns if asked."""
    roles = ("user", "assistant")
    rows = []
    for number in range(n):
        messages = [
            text_message(roles[turn % 2], f"question {number}, turn {turn}")
            for turn in range(turns)
        ]
        rows.append(
            {
                "prompt_id": f"p-{number:03}",
                "messages": messages,
                "source": "factory",
                "split": "train",
                "metadata": "{}",
            }
        )
    return table_from_rows("prompts", rows)


def make_outputs(prompts: pa.Table, per_prompt: int = 2, texts: Sequence[str] = ()) -> pa.Table:
    """`per_prompt` outputs of each prompt, one a model; `texts` replaces what they say."""
    rows = []
    for prompt_id in prompts["prompt_id"].to_pylist():
        said = [f"answer {n} to {prompt_id}" for n in range(per_prompt)]
        said[: len(texts)] = texts
        sampling = json.dumps({"temperature": 1.0, "seed": 7})
        rows += output_rows(prompt_id, list(zip(MODELS, said, strict=False)), sampling)
    return table_from_rows("outputs", rows)


def make_generated(
    project: Project,
    n_prompts: int = 4,
    per_prompt: int = 2,
    *,
    texts: Sequence[str] = (),
    turns: int = 1,
    round: int = 1,
) -> Run:
    """A finished `generate` run of `n_prompts` prompts."""
    prompts = make_prompts(n_prompts, turns=turns)
    settings = {"n": n_prompts, "per_prompt": per_prompt, "texts": list(texts), "turns": turns}
    with project.draft(RunPlan("generate", round, settings=settings, seed=0)) as draft:
        draft.write("prompts", prompts)
        draft.write("outputs", make_outputs(prompts, per_prompt, texts))
    return draft.run
