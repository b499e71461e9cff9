"""Runs of the people's side, written as the steps write them, for tests of what comes after."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotate.judge import judge
from annotate.records import content_id, output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

PEOPLE = ("ada", "ben", "eve")


def new_project(folder: Path) -> Project:
    """An empty project."""
    for name in ("runs", "guidelines"):
        (folder / name).mkdir(parents=True)
    return Project.find(folder)


def prompt_row(prompt_id: str, text: str, split: str = "train") -> dict[str, Any]:
    """A prompt of one user turn."""
    return {
        "prompt_id": prompt_id,
        "messages": [text_message("user", text)],
        "source": "test",
        "split": split,
        "metadata": "{}",
    }


def generated(
    project: Project,
    prompts: Mapping[str, Sequence[str]],
    *,
    split: str = "train",
    round: int = 1,
    parents: tuple[Run, ...] = (),
) -> Run:
    """A `generate` run: prompt text → completions, the first by model m1, the others by m2."""
    rows, outputs = [], []
    for text, completions in prompts.items():
        prompt_id = content_id("p", text)
        rows.append(prompt_row(prompt_id, text, split))
        models = ["m1"] + ["m2"] * (len(completions) - 1)
        outputs += output_rows(prompt_id, list(zip(models, completions, strict=True)))
    plan = RunPlan("generate", round, parents, {"prompts": sorted(prompts)}, 0)
    with project.draft(plan) as draft:
        draft.write("prompts", table_from_rows("prompts", rows))
        draft.write("outputs", table_from_rows("outputs", outputs))
    return draft.run


def judged(
    project: Project,
    source: Run,
    votes: Mapping[str, Sequence[int]],
    extra: Sequence[tuple[str, str, str, Any]] = (),
    method: str = "majority",
) -> Run:
    """Push, pull and judge what people said of a run's first two outputs of each prompt.

    Args:
        votes: prompt text → each person's signed strength, positive for the first completion.
        extra: (prompt text, annotator, question, value) of other answers; of `flags`, the value
            is (0 or 1, flag): which completion.
    """
    by_prompt: dict[str, list[str]] = {}
    for row in source.read("outputs").to_pylist():
        by_prompt.setdefault(row["prompt_id"], []).append(row["output_id"])
    items, responses = [], []
    for text, strengths in votes.items():
        prompt_id = content_id("p", text)
        first, second = by_prompt[prompt_id][:2]
        item = {"item_id": content_id("i", first, second), "output_ids": [first, second]}
        more = {"kind": "compare", "guideline": "preference@v1", "batch": "b1"}
        items.append({**item, **more, "prompt_id": prompt_id})
        a, b = sorted((first, second))
        for person, strength in zip(PEOPLE, strengths, strict=False):
            value = {"a": a, "b": b, "strength": strength if a == first else -strength}
            responses.append(_response(item["item_id"], person, "preference", value))
        for about, person, question, value in extra:
            if about == text and question == "flags":
                value = {"output": (first, second)[value[0]], "flags": [value[1]]}
            if about == text:
                responses.append(_response(item["item_id"], person, question, value))
    push = _run(project, "push", source, items=items)
    pull = _run(project, "pull", push, items=items, responses=responses)
    return judge(project, pull, method=method)  # type: ignore[arg-type]


def _response(item_id: str, annotator: str, question: str, value: Any) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "annotator": annotator,
        "question": question,
        "value": json.dumps(value),
        "status": "submitted",
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "seconds": 12.0,
        "guideline": "preference@v1",
    }


def _run(project: Project, step: str, parent: Run, **tables: list[dict[str, Any]]) -> Run:
    with project.draft(RunPlan(step, parent.round, (parent,), {}, 0)) as draft:
        for name, rows in tables.items():
            draft.write(name, table_from_rows(name, rows))
    return draft.run


def trained(project: Project, start: str, round: int, parents: tuple[Run, ...], seed: int) -> Run:
    """A `train` run whose model is a random one of this seed, started from the model `start`."""
    from tiny_model import write_tiny_model

    plan = RunPlan("train", round, parents, {"model": start, "method": "dpo"}, seed)
    with project.draft(plan) as draft:
        write_tiny_model(draft.path / "model", seed=seed)
        draft.note(method="dpo", started_from=start)
    return draft.run
