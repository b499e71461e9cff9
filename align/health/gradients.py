"""Rules on the gradient's length (before clipping) and on the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.health.log import TrainingLog
from align.health.robust import at_end, at_start, running_median
from align.health.rule import Rule, Verdict, figure


@dataclass(frozen=True)
class ExplodingGradients(Rule):
    """Gradients that grow without end."""

    name: ClassVar[str] = "exploding gradients"
    looks_at: ClassVar[str] = "grad_norm, of one step each, before clipping"
    threshold: ClassVar[str] = (
        "the running median stays below {times:g} times that of the first quarter, and at most two "
        "values are infinite"
    )
    reason: ClassVar[str] = (
        "one batch has a gradient several times that of another, and the pairs that DPO has not "
        "learnt yet keep theirs; ten times as long in most steps is neither"
    )
    remedy: ClassVar[str] = (
        "Lower trainer.learning_rate, set trainer.max_grad_norm to 1.0, lengthen "
        "trainer.warmup_steps; in float16 take bfloat16"
    )
    serious: ClassVar[bool] = True
    least: int = 8
    times: float = 10.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the longest level with the first."""
        curve = log.curve("grad_norm")
        endless = [step for step, name, _ in log.not_finite if name == "grad_norm"]
        # One in float16 only makes the scaler skip a step.
        if len(endless) > 2:
            said = f"{len(endless)} gradients are infinite or not a number"
            return self.flag(said, len(curve) + len(endless), curve, since=endless[0])
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        quarter = max(3, len(curve) // 4)
        base = float(np.median(curve.values[:quarter]))
        rest = curve.part(quarter)
        smooth = running_median(rest.values)
        over = np.flatnonzero(smooth > self.times * base)
        if not len(over) or base <= 0:
            return self.fine("no lasting growth", len(curve), curve)
        said = (
            f"around {figure(base)} at first, around {figure(float(smooth[over].max()))} from step "
            f"{rest.steps[over[0]]} on"
        )
        return self.flag(said, len(curve), curve, since=int(rest.steps[over[0]]))


@dataclass(frozen=True)
class VanishingGradients(Rule):
    """Gradients too small to train with while there is still something to learn."""

    name: ClassVar[str] = "vanishing gradients"
    looks_at: ClassVar[str] = "grad_norm at the end, loss, frac_reward_zero_std"
    threshold: ClassVar[str] = (
        "the last level is over {least_norm:g} and over {share:g} of the first, unless the loss "
        "has come within a twentieth of zero"
    )
    reason: ClassVar[str] = (
        "a gradient of length 1e-5 over a million weights is 1e-8 a weight, Adam's epsilon, below "
        "which its steps shrink; a loss near zero has small gradients because it is done"
    )
    remedy: ClassVar[str] = (
        "Look whether anything is left to learn from: labels masked or cut off by max_length, "
        "rewards equal within each group of completions, a beta too small, weights frozen"
    )
    least: int = 8
    least_norm: float = 1e-5
    share: float = 1e-3

    def __call__(self, log: TrainingLog) -> Verdict:
        """Look at the end."""
        curve = log.curve("grad_norm")
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        first, last = at_start(curve.values), at_end(curve.values)
        loss = log.curve("loss")
        done = not log.reinforced and len(loss) and at_end(loss.values) < 0.05 * loss.values[0]
        if last > max(self.least_norm, self.share * first) or done:
            return self.fine("long enough, or nothing is left to learn", len(curve), curve)
        said = f"around {figure(first)} at first, {figure(last)} at the end"
        equal = log.curve("frac_reward_zero_std")
        if len(equal) and at_end(equal.values) > 0.5:
            said += f"; {at_end(equal.values):.0%} of the groups have one reward only"
        low = curve.values <= max(self.least_norm, self.share * first)
        since = int(curve.steps[np.flatnonzero(~low)[-1]]) if (~low).any() else int(curve.steps[0])
        return self.flag(said, len(curve), curve, since=since)


@dataclass(frozen=True)
class DeadLearningRate(Rule):
    """Steps that change no weight."""

    name: ClassVar[str] = "dead learning rate"
    looks_at: ClassVar[str] = "learning_rate"
    threshold: ClassVar[str] = (
        "at most {share:.0%} of the points after the first have less than a thousandth of the "
        "highest rate"
    )
    reason: ClassVar[str] = (
        "a cosine spends a fiftieth of its steps there, a warm-up one; more is a schedule that "
        "ends before the training"
    )
    remedy: ClassVar[str] = (
        "Set trainer.learning_rate, or a schedule as long as the training "
        "(trainer.lr_scheduler_type, num_train_epochs or max_steps, a resumed run's as well)"
    )
    serious: ClassVar[bool] = True
    least: int = 5
    share: float = 0.2

    def __call__(self, log: TrainingLog) -> Verdict:
        """Count the points without a rate."""
        curve = log.curve("learning_rate")
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        rates = curve.values[1:]
        highest = float(rates.max())
        dead = rates < 1e-3 * highest if highest > 0 else np.ones(len(rates), dtype=bool)
        if dead.mean() <= self.share:
            return self.fine(f"up to {figure(highest)}", len(curve), curve)
        said = (
            f"{dead.sum()} of {len(rates)} points have next to none, the highest {figure(highest)}"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[1:][dead][0]))
