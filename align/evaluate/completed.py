"""One completion of each prompt by each model, made now or taken from an earlier evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.completions import Shards, complete, output_table, sampling_text
from align.model_ref import ModelRef
from align.sampling import Sampling
from annotate.runs import Project


def complete_all(
    project: Project,
    asked: Mapping[ModelRef, pa.Table],
    rules: Sampling,
    shards: Shards,
    batch_size: int,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The `outputs` table, and `quarantine` rows of prompts that do not fit a model.

    Args:
        project: where earlier evaluations are looked for.
        asked: the prompts of each model; those of the first model include all others'.
        rules: how to draw, alike for all.
        shards: what is made already.
        batch_size: completions computed together.
    """
    made, unfit = [], []
    for ref, prompts in asked.items():
        _reuse(project, ref, prompts, rules, shards)
        rows, bad = complete(ref, prompts, 1, rules, shards=shards, batch_size=batch_size)
        made.append(rows)
        unfit += [{"file": ref.name, **row} for row in bad]
    return output_table(next(iter(asked.values())), pa.concat_tables(made), rules), unfit


def _reuse(
    project: Project, ref: ModelRef, prompts: pa.Table, rules: Sampling, shards: Shards
) -> None:
    """Take over what earlier evaluations drew from this model, for the same prompts, drawn alike.

    Only of models trained here: a run never changes, a folder or a name on a hub may.
    """
    if ref.run is None or ref.name in shards.read()["model"].unique().to_pylist():
        return
    wanted = {text: prompt_id for prompt_id, text in _texts(prompts).items()}
    for run in project.all_runs():
        if run.step != "evaluate":
            continue
        outputs = run.read("outputs")
        own = pc.equal(outputs["model"], ref.name)
        alike = pc.and_(own, pc.equal(outputs["sampling"], sampling_text(rules, 0)))
        texts = _texts(run.read("prompts"))
        rows = [
            {name: row[name] for name in ("model", "completion", "tokens", "logprob")}
            | {"prompt_id": wanted.pop(texts[row["prompt_id"]]), "sample": 0}
            for row in outputs.filter(alike).to_pylist()
            if texts[row["prompt_id"]] in wanted
        ]
        if rows:
            shards.add(rows)


def _texts(prompts: pa.Table) -> dict[str, str]:
    """Each prompt's conversation, to the letter, by prompt_id."""
    ids, messages = prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist()
    return {prompt_id: json.dumps(said) for prompt_id, said in zip(ids, messages, strict=True)}
