"""All rules on one training: its log, and what its model has written since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from align.health.gradients import DeadLearningRate, ExplodingGradients, VanishingGradients
from align.health.log import TrainingLog, log_path, read_log
from align.health.loss import (
    Divergence,
    NotANumber,
    Overfitting,
    Plateau,
    Spike,
    Underfitting,
)
from align.health.preference import ChosenFalls, MarginCollapse
from align.health.reinforcement import KlRunaway, LengthDrift, RewardHacking
from align.health.rule import Rule, Verdict
from align.health.texts import TEXT_RULES, written
from align.model_ref import MODEL
from annotate.errors import ProjectError
from annotate.runs import Project, Run

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        NotANumber(),
        Divergence(),
        Spike(),
        Plateau(),
        Underfitting(),
        Overfitting(),
        ExplodingGradients(),
        VanishingGradients(),
        DeadLearningRate(),
        MarginCollapse(),
        ChosenFalls(),
        KlRunaway(),
        LengthDrift(),
        RewardHacking(),
    )
}
"""By name, in the order of the report."""


@dataclass(frozen=True)
class Health:
    """Everything the rules say of one training."""

    run_id: str
    finished: bool
    log: TrainingLog
    verdicts: tuple[Verdict, ...]
    texts_of: str = ""
    """The run whose outputs the rules on texts looked at; empty if there is none."""
    writes: bool = True
    """Whether its model writes texts, which one that is unfinished or a reward model does not."""

    @property
    def flagged(self) -> list[Verdict]:
        """What is wrong, the serious first."""
        wrong = [verdict for verdict in self.verdicts if verdict.flagged]
        return sorted(wrong, key=lambda verdict: verdict.state != "serious")

    @property
    def serious(self) -> bool:
        """Whether anything is wrong that makes the model useless."""
        return any(verdict.state == "serious" for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves, JSON-able."""
        return {
            "run": self.run_id,
            "finished": self.finished,
            "serious": self.serious,
            "flagged": [verdict.rule for verdict in self.flagged],
            "texts_of": self.texts_of,
            "unreadable_lines": self.log.unreadable,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }


def examine(log: TrainingLog, *, finished: bool = True) -> tuple[Verdict, ...]:
    """What each rule of `RULES` finds; without those that only the end can tell, if it is not."""
    rules = [rule for rule in RULES.values() if finished or not rule.at_the_end]
    return tuple(rule(log) for rule in rules)


def health(project: Project, run_id: str) -> Health:
    """What is wrong with a training, finished or not.

    The rules on texts look at the newest `generate` or `evaluate` run with outputs of its model.

    Args:
        run_id: a train run's id or how it begins; that of an unfinished one as well.

    Raises:
        ProjectError: no such run, not a training, or it has no log.
    """
    path = log_path(project, run_id)
    finished = not path.parent.name.startswith(".")
    name = path.parent.name if finished else path.parent.name[1:].removesuffix(".partial")
    if finished:
        project.resolve(name).require("train")
    elif "-train-" not in name:
        raise ProjectError("this is not a training", where=name, remedy="Name a train run")
    log = read_log(path)
    verdicts = examine(log, finished=finished)
    writes = finished and project.resolve(name).metrics.get("makes", MODEL) == MODEL
    source = newest_texts(project, name) if writes else None
    if source is not None:
        verdicts += examine_texts(source, name)
    return Health(name, finished, log, verdicts, source.id if source else "", writes)


def newest_texts(project: Project, model: str) -> Run | None:
    """The newest generate or evaluate run that has outputs of this model."""
    for run in reversed(project.all_runs()):
        if run.step in ("generate", "evaluate") and run.has("outputs") and run.has("prompts"):
            models = run.read("outputs", ["model"])["model"]
            if pc.any(pc.equal(models, model), min_count=0).as_py():
                return run
    return None


def examine_texts(source: Run, model: str) -> tuple[Verdict, ...]:
    """What each rule of `TEXT_RULES` finds in this model's outputs in a run."""
    columns = ["prompt_id", "model", "completion", "tokens"]
    outputs, prompts = source.read("outputs", columns), source.read("prompts")
    others = [name for name in outputs["model"].unique().to_pylist() if name != model]
    what = written(outputs, prompts, model, _before(source, others))
    return tuple(rule(what) for rule in TEXT_RULES.values())


def _before(source: Run, others: Sequence[str]) -> str | None:
    """The model to compare lengths with: an evaluation's previous one, else the only other."""
    for comparison in source.metrics.get("comparisons", ()):
        if "previous" in comparison["roles"] and comparison["versus"] in others:
            return str(comparison["versus"])
    return others[0] if len(others) == 1 else None
