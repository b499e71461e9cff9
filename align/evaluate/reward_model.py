"""The step `evaluate` of a reward model: does it score higher what people preferred?

    train, build*  →  evaluate  (scores)

On the held-out pairs of every build behind it, none of which was ever trained on. A pair is right
if the chosen completion scores higher, half right on a tie.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from align.evaluate.reward import held_out_pairs
from align.model_ref import resolve_model
from align.reward_scores import load_reward_model, reward_scores
from annotate.errors import InputError
from annotate.records import conform
from annotate.runs import Project, Run, RunPlan
from annotate.statistics import win_rate


def evaluate_reward_model(
    project: Project, train_run: Run, *, seed: int = 0, again: bool = False
) -> Run:
    """Measure a reward model's accuracy; the finished run, if there is one.

    Its metrics hold `reward_accuracy`, an estimate over prompts, and `pairs`. Table `scores` has a
    row a pair: its `output_id` is the chosen completion, and `outcome` what the model says.

    Args:
        seed: of the bootstrap over prompts.
        again: make a new run although a finished one exists.

    Raises:
        InputError: no pair is held out.
        TrainingError: the model cannot be loaded.
    """
    pairs = held_out_pairs(train_run)
    if pairs is None or not pairs.num_rows:
        raise InputError(
            "no pair behind it is held out, so that nothing can be measured",
            where=train_run.id,
            remedy="Build with held_out above 0, and train again",
        )
    plan = RunPlan("evaluate", train_run.round, (train_run,), {"of": "reward-model"}, seed)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        loaded = load_reward_model(resolve_model(project, train_run.id))
        prompts = pairs["prompt"].to_pylist()
        chosen, rejected = (
            reward_scores(
                loaded,
                [[*a, *b] for a, b in zip(prompts, pairs[name].to_pylist(), strict=True)],
            )
            for name in ("chosen", "rejected")
        )
        outcome = (np.sign(chosen - rejected) + 1) / 2
        accuracy = win_rate(outcome, pairs["prompt_id"].to_pylist(), seed=seed)
        draft.write("scores", _scores(pairs, train_run.id, outcome, chosen, rejected))
        draft.note(
            model=train_run.id,
            makes=train_run.metrics["makes"],
            pairs=pairs.num_rows,
            held_out=accuracy.n,
            reward_accuracy=accuracy.to_dict(),
            comparisons=[],
            quarantined=0,
        )
    return draft.run


def _scores(
    pairs: pa.Table,
    model: str,
    outcome: NDArray[np.float64],
    chosen: NDArray[np.float64],
    rejected: NDArray[np.float64],
) -> pa.Table:
    table = pa.table(
        {
            "prompt_id": pairs["prompt_id"],
            "output_id": pairs["chosen_output"],
            "versus_output": pairs["rejected_output"],
            "outcome": outcome,
            "judged_by": pa.repeat(f"reward-model:{model}", pairs.num_rows),
            "score": chosen,
            "versus_score": rejected,
        }
    )
    return conform("scores", table)
