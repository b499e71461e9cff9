"""Support desk pairs with SIMULATED votes, as judge runs: for tests of tuning and planning."""

from pathlib import Path

import numpy as np
from loop_runs import _response, _run, new_project
from numpy.typing import NDArray

from annotate.judge import judge
from annotate.records import content_id, output_rows, table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.support_desk import answers, prompts, score


def desk_project(
    folder: Path,
    pairs: int,
    votes: int,
    *,
    flip: float = 0.25,
    people: int = 6,
    seed: int = 0,
    prompts_said: int | None = None,
) -> tuple[Project, Run]:
    """A project whose judge run holds `votes` votes on each of `pairs` pairs.

    Args:
        flip: share of the votes against the rubric, whatever the pair.
        people: who share the votes evenly.
        prompts_said: how many different conversations there are, under an id a pair; all differ by
            default.
    """
    project = new_project(folder)
    rng = np.random.default_rng(seed)
    rows, outputs, items, responses = [], [], [], []
    said = prompts(prompts_said or pairs, seed=seed)
    for at in range(pairs):
        messages = said[at % len(said)]
        prompt_id = content_id("p", at)
        rows.append({"prompt_id": prompt_id, "messages": messages, "split": "train"})
        texts = answers(messages, 2, seed=[seed, at])
        both = output_rows(prompt_id, list(zip(("m1", "m2"), texts, strict=True)))
        outputs += both
        a, b = sorted(row["output_id"] for row in both)
        better = {row["output_id"]: score(messages, row["completion"]) for row in both}
        item = {"item_id": content_id("i", a, b), "prompt_id": prompt_id, "output_ids": [a, b]}
        items.append(item | {"kind": "compare", "guideline": "preference@v1", "batch": "b1"})
        for k, strength in enumerate(_strengths(better[a] - better[b], votes, flip, rng)):
            person = f"person-{(at + k) % people}"
            value = {"a": a, "b": b, "strength": int(strength)}
            responses.append(_response(item["item_id"], person, "preference", value))
    with project.draft(RunPlan("generate", 1, (), {"pairs": pairs}, seed)) as draft:
        draft.write("prompts", table_from_rows("prompts", rows))
        draft.write("outputs", table_from_rows("outputs", outputs))
    pushed = _run(project, "push", draft.run, items=items)
    pulled = _run(project, "pull", pushed, items=items, responses=responses)
    return project, judge(project, pulled, method="majority")


def _strengths(
    lead: float, votes: int, flip: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Signed strengths, larger where the difference is."""
    size = 1 + (abs(lead) > 0.2) + (abs(lead) > 0.5)
    side = 1 if lead > 0 else -1
    return side * size * np.where(rng.random(votes) < flip, -1.0, 1.0)
