"""One trial of a sweep: a training under values that Optuna suggests, stopped early if it is worse.

A trial is stopped when its held-out figure is worse than the median of the earlier trials' at the
same step (the median rule of Golovin et al. 2017, Google Vizier, section 3.2.2). What is suggested
follows from the seed, the trial's number and the trials before it alone, so that a sweep that was
interrupted goes on with the same suggestions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from align.sweep.space import Dimension, Value

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

COMPLETE, STOPPED, FAILED = "complete", "stopped", "failed"
# Trials that run to their end before any is stopped early.
_UNDISTURBED = 5


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    number: int
    values: dict[str, Value]
    state: str
    """complete, stopped (early) or failed."""
    run: str | None = None
    """The train run; None where it failed."""
    figure: float | None = None
    """The held-out figure of the saved model; None where it failed."""
    steps: int | None = None
    path: tuple[tuple[int, float], ...] = ()
    """The held-out figure by step."""
    reason: str | None = None
    """Why it failed."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Outcome:
        """From what `to_dict` gave."""
        steps = tuple((int(step), float(figure)) for step, figure in content["path"])
        return cls(**{**content, "path": steps})


def study_of(
    outcomes: Sequence[Outcome], space: Sequence[Dimension], *, maximise: bool, seed: int
) -> Study:
    """Optuna's study of the trials so far, ready to suggest the next.

    The sampler is the tree-structured Parzen estimator (Bergstra et al. 2011), seeded by `seed` and
    the number of trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    digest = hashlib.sha256(f"{seed}\x1f{len(outcomes)}".encode()).digest()
    study = optuna.create_study(
        direction="maximize" if maximise else "minimize",
        sampler=optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big")),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNDISTURBED),
    )
    study.add_trials([_frozen(one, space) for one in outcomes])
    return study


def _frozen(outcome: Outcome, space: Sequence[Dimension]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    states = {COMPLETE: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}
    return create_trial(
        state=states[outcome.state],
        params=outcome.values,
        distributions={one.key: one.distribution() for one in space},
        value=outcome.figure if outcome.state == COMPLETE else None,
        intermediate_values=dict(outcome.path),
    )


class Median(TrainerCallback):
    """Stops a training that is worse than half of the trials before it were at this step."""

    def __init__(self, trial: Trial, figure: str) -> None:
        self.trial, self.figure = trial, figure
        self.path: dict[int, float] = {}
        self.stopped = False

    def see(self, history: Sequence[dict[str, Any]]) -> None:
        """Report the log's evaluations that were not yet; an interrupted training has old ones."""
        for entry in history:
            value, step = entry.get(self.figure), int(entry.get("step", 0))
            if value is None or step in self.path or not math.isfinite(value):
                continue
            self.path[step] = float(value)
            self.trial.report(float(value), step)
            self.stopped = self.stopped or self.trial.should_prune()

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at what has been measured."""
        self.see(state.log_history)
        if self.stopped:
            control.should_training_stop = True
