"""Rules for training on preferences: DPO and its kin, KTO, ORPO, CPO, reward models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.health.log import Curve, TrainingLog
from align.health.robust import at_end, at_start, noise, running_median, trend
from align.health.rule import Rule, Verdict, figure

# TRL's names: DPO's kin and KTO log the first, reward models the second.
MARGIN = ("rewards/margins", "margin")
MARGIN_HELD_OUT = ("eval_rewards/margins", "eval_margin")


@dataclass(frozen=True)
class MarginCollapse(Rule):
    """A margin between chosen and rejected that had grown, and is lost again."""

    name: ClassVar[str] = "margin collapse"
    looks_at: ClassVar[str] = "rewards/margins or margin; the held-out one where it has 4 points"
    threshold: ClassVar[str] = (
        "the end keeps {share:g} of the best level, or the best level is within {deviations:g} "
        "standard deviations of the noise; a margin that falls does not end below zero"
    )
    reason: ClassVar[str] = (
        "training on preferences exists to widen the margin; half of it lost is more than one "
        "noisy batch"
    )
    remedy: ClassVar[str] = (
        "Lower trainer.learning_rate, and look whether the pairs contradict each other (chosen "
        "and rejected swapped in a part of the set); go back to the best checkpoint"
    )
    serious: ClassVar[bool] = True
    least: int = 8
    share: float = 0.5
    deviations: float = 4.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the end with the best level."""
        held_out = log.curve(*MARGIN_HELD_OUT)
        curve = held_out if len(held_out) >= 4 else log.curve(*MARGIN)
        if (short := self.too_short(curve, 4 if curve is held_out else self.least)) is not None:
            return short
        smooth = running_median(curve.values, 3 if curve is held_out else 5)
        best, end = int(np.argmax(smooth)), at_end(curve.values)
        doubt = noise(curve.values)
        lost = end < self.share * smooth[best] and smooth[best] - end > self.deviations * doubt
        if not lost and not self._sinks(curve, end, doubt):
            return self.fine(f"{figure(end)} at the end", len(curve), curve)
        said = (
            f"{curve.name} was {figure(float(smooth[best]))} at step {curve.steps[best]} and is "
            f"{figure(end)} at the end"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[best]))

    def _sinks(self, curve: Curve, end: float, doubt: float) -> bool:
        if end >= -self.deviations * doubt / 2 or len(curve) < self.least:
            return False
        return trend(curve.steps, curve.values).falls


@dataclass(frozen=True)
class ChosenFalls(Rule):
    """Chosen texts that become less probable together with the rejected ones."""

    name: ClassVar[str] = "chosen falls with rejected"
    looks_at: ClassVar[str] = "rewards/chosen and rewards/rejected: beta times log-probabilities"
    threshold: ClassVar[str] = (
        "the chosen have not lost more than {least_fall:g} and {times:g} times what the margin has "
        "gained"
    )
    reason: ClassVar[str] = (
        "DPO rewards the difference alone, so that both may sink (Pal et al. 2024; Razin et al. "
        "2024); a little of that is usual, but who loses more than is gained moves probability to "
        "texts that nobody judged"
    )
    remedy: ClassVar[str] = (
        "Add the likelihood of the chosen to the loss (loss_type: [sigmoid, sft]), lower "
        "trainer.learning_rate or raise beta, and drop pairs that are nearly identical"
    )
    least: int = 8
    least_fall: float = 0.1
    times: float = 1.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare what both have lost."""
        chosen, rejected = log.curve("rewards/chosen"), log.curve("rewards/rejected")
        short = self.too_short(chosen, self.least) or self.too_short(rejected, self.least)
        if short is not None:
            return short
        n = len(chosen) + len(rejected)
        lost, lost_too = (at_start(one.values) - at_end(one.values) for one in (chosen, rejected))
        gained = lost_too - lost
        sure = lost > 2 * noise(chosen.values) and trend(chosen.steps, chosen.values).falls
        if lost_too <= 0 or not sure or lost <= max(self.least_fall, self.times * gained):
            return self.fine("the chosen did not sink with the rejected", n, chosen, rejected)
        said = (
            f"rewards/chosen fell by {figure(lost)} and rewards/rejected by {figure(lost_too)}: "
            f"the margin gained {figure(gained)}"
        )
        under = np.flatnonzero(running_median(chosen.values) < chosen.values[0] - self.least_fall)
        since = int(chosen.steps[under[0]]) if len(under) else None
        return self.flag(said, n, chosen, rejected, since=since)
