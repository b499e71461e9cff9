"""The step `generate`: prompts and models in, outputs for people to judge out.

    prompts, models  →  generate  (prompts, outputs, quarantine)

By transformers, the same prompt, model and seed give the same completion, whatever else is
generated with it; what other backends promise, align.backends says. A run that is killed goes on
where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.backends import Backend
from align.backends.transformers_loop import Transformers
from align.completions import Shards, complete, output_table
from align.model_ref import ModelRef, newest_model
from align.prompts import PromptSource
from align.sampling import Sampling
from annotate.errors import InputError
from annotate.records import table_from_rows
from annotate.runs import Draft, Project, Run, RunPlan

SHARDS = "shards"


def generate(
    project: Project,
    models: Sequence[str],
    source: PromptSource,
    *,
    n: int = 2,
    sampling: Sampling | None = None,
    batch_size: int | None = None,
    backend: Backend | None = None,
    round: int | None = None,
    again: bool = False,
) -> Run:
    """Complete every prompt `n` times by each model; the finished run, if there is one.

    Args:
        models: each "base", a train run's id, a folder, or a hub's model id; a server's own names.
        source: the prompts (align.prompts.read_prompts).
        n: completions of one prompt by one model.
        sampling: temperature, top_p, max_new_tokens, seed.
        batch_size: completions computed together; None: as many as suit the backend.
        backend: what computes them; None: transformers, whose results no batch size changes.
        round: the round that begins with these outputs; None: the one after the newest model's.
        again: make a new run although a finished one exists.

    Raises:
        InputError: an unknown model, one named twice, or no prompt that fits.
        TrainingError: a model cannot be loaded or sampled.
        ServerError: a server refuses, or is away for too long.
    """
    rules, backend = sampling or Sampling(), backend or Transformers()
    batch_size = batch_size or backend.batch_size
    refs = [backend.model(project, name) for name in models]
    names = [ref.name for ref in refs]
    if len(set(names)) < len(names) or not names:
        raise InputError("name each model once", where=", ".join(names) or "no model")
    parents = tuple(ref.run for ref in refs if ref.run is not None) + source.parents
    if round is None:
        round = 1 + max((ref.run.round for ref in refs if ref.run is not None), default=0)
    settings = {"models": names, "n": n, **source.settings, **rules.model_dump(exclude={"seed"})}
    if backend.name != Transformers.name:
        settings |= {"backend": backend.name, **backend.settings(batch_size)}
    inputs = source.inputs + tuple(path for ref in refs for path in model_files(ref))
    plan = RunPlan("generate", round, parents, settings, rules.seed, inputs)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        _write(draft, refs, source, n, rules, batch_size, backend)
    return draft.run


def default_models(project: Project, backend: Backend) -> list[str]:
    """What is generated from where no model is named: the one trained last.

    Raises:
        InputError: a server's models have no such order.
    """
    if backend.name == "openai":
        raise InputError("name the server's model", remedy="`handloom generate MODEL --url URL`")
    return [newest_model(project).name]


def model_files(ref: ModelRef) -> list[Path]:
    """What identifies a model that no run here has trained: its weights, settings and tokenizer."""
    if ref.run is not None or not Path(ref.source).is_dir():
        return []
    return sorted(
        path for path in Path(ref.source).iterdir() if path.suffix in (".safetensors", ".json")
    )


def _write(
    draft: Draft,
    refs: Sequence[ModelRef],
    source: PromptSource,
    n: int,
    rules: Sampling,
    batch_size: int,
    backend: Backend,
) -> None:
    shards = Shards(draft.path / SHARDS)
    made, bad = [], []
    for ref in refs:
        rows, unfit = complete(
            ref, source.prompts, n, rules, shards=shards, batch_size=batch_size, backend=backend
        )
        made.append(rows)
        bad += [{"file": ref.name, **row} for row in unfit]
    outputs = output_table(source.prompts, pa.concat_tables(made), rules, backend.name)
    if not outputs.num_rows:
        raise InputError(bad[0]["reason"], where=f"all {source.prompts.num_rows} prompts")
    quarantine = pa.concat_tables([source.quarantine, table_from_rows("quarantine", bad)])
    completed = pc.is_in(source.prompts["prompt_id"], value_set=outputs["prompt_id"].unique())
    draft.write("prompts", source.prompts.filter(completed))
    draft.write("outputs", outputs)
    draft.write("quarantine", quarantine)
    draft.note(**_figures(outputs, rules), backend=backend.name, quarantined=quarantine.num_rows)
    shutil.rmtree(draft.path / SHARDS)


def _figures(outputs: pa.Table, rules: Sampling) -> dict[str, Any]:
    """Counts and lengths by model; how many completions repeat another of the same prompt."""
    lengths = outputs.group_by("model").aggregate([("tokens", "mean"), ("tokens", "count")])
    cut = outputs.filter(pc.equal(outputs["tokens"], rules.max_new_tokens))
    distinct = outputs.group_by(["prompt_id", "completion"]).aggregate([])
    return {
        "prompts": len(outputs["prompt_id"].unique()),
        "outputs": outputs.num_rows,
        "duplicates": outputs.num_rows - distinct.num_rows,
        "cut": cut.num_rows,
        "models": {
            row["model"]: {"outputs": row["tokens_count"], "mean_tokens": row["tokens_mean"]}
            for row in lengths.to_pylist()
        },
    }
