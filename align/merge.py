"""The step `merge`: adapters that stand alone → a whole model, in full precision.

Adapters trained beside weights of 4 bits belong to the weights as they were before these were
rounded: the base is loaded anew, and the adapters are added to it.
"""

from __future__ import annotations

from pathlib import Path

from align.adapters import holds_adapters, is_prefix, save_model
from align.model import load_model
from align.model_ref import MODEL, MODEL_FOLDER, resolve_model
from annotate.errors import ProjectError, TrainingError
from annotate.runs import Project, Run, RunPlan


def merge(project: Project, run: Run, *, again: bool = False) -> Run:
    """A run with the whole model of a train run's adapters; itself where it has one already.

    Raises:
        ProjectError: it is not a train run.
        TrainingError: it holds a prefix, or its base cannot be loaded.
    """
    if run.step != "train":
        raise ProjectError("this is not a train run", where=run.id, remedy="`handloom runs`")
    ref = resolve_model(project, run.id)
    if not holds_adapters(Path(ref.source)):
        return run
    if is_prefix(Path(ref.source)):
        raise TrainingError(
            "a prefix changes no weight, so that there is nothing to merge",
            where=run.id,
            remedy=f"`handloom generate {run.id}` reads it as it is",
        )
    plan = RunPlan("merge", run.round, (run,))
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    reward = run.metrics.get("makes", MODEL) != MODEL
    loaded = load_model(ref, task="reward" if reward else "causal-lm")
    with project.draft(plan) as draft:
        save_model(loaded.model, loaded.tokenizer, draft.path / MODEL_FOLDER)
        kept = ("method", "makes", "recipe")
        draft.note(
            started_from=run.id, **{key: run.metrics[key] for key in kept if key in run.metrics}
        )
    return draft.run
