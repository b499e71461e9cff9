"""Rules for learning from rewards: RLOO, GRPO, online DPO, and KTO's estimate of the KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.health.log import REWARD, Curve, TrainingLog
from align.health.robust import at_end, at_start, noise, running_median, trend
from align.health.rule import Rule, Verdict, figure

LENGTH = "completions/mean_length"


@dataclass(frozen=True)
class KlRunaway(Rule):
    """A model that leaves its reference without end."""

    name: ClassVar[str] = "KL runaway"
    looks_at: ClassVar[str] = "kl (RLOO, GRPO: a token; KTO: a completion), objective/kl"
    threshold: ClassVar[str] = (
        "the end is below {a_token:g} nats a token, or {a_completion:g} a completion where only "
        "that is logged, or up to four times that if it no longer rises in the last half"
    )
    reason: ClassVar[str] = (
        "with tens of nats a completion the true reward falls while the learnt one rises (Gao et "
        "al. 2023, figure 1); half a nat a token is a text 1.6 times as surprising, token by token"
    )
    remedy: ClassVar[str] = (
        "Raise beta, the weight of the reference; lower trainer.learning_rate; stop earlier"
    )
    serious: ClassVar[bool] = True
    least: int = 8
    a_token: float = 0.5
    a_completion: float = 50.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Look at the level and at the last half."""
        curve = log.curve("kl", "objective/kl")
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        by_token = curve.name == "kl" and LENGTH in log.curves
        most, unit = (self.a_token, "token") if by_token else (self.a_completion, "completion")
        end = at_end(curve.values)
        half = curve.part(len(curve) // 2)
        rising = len(half) < 6 or trend(half.steps, half.values).rises
        if end <= most or not (rising or end > 4 * most):
            return self.fine(f"{figure(end)} nats a {unit} at the end", len(curve), curve)
        said = f"{figure(end)} nats a {unit} at the end, over {most:g}"
        said += " and rising" if rising else ""
        over = np.flatnonzero(running_median(curve.values) > most)
        since = int(curve.steps[over[0]]) if len(over) else None
        return self.flag(said, len(curve), curve, since=since)


@dataclass(frozen=True)
class LengthDrift(Rule):
    """Completions that grow or shrink all the time."""

    name: ClassVar[str] = "length drift"
    looks_at: ClassVar[str] = LENGTH
    threshold: ClassVar[str] = "the end is within a factor of {times:g} of the start"
    reason: ClassVar[str] = (
        "learnt rewards favour length: most of what RLHF gains may be length alone (Singhal et al. "
        "2023)"
    )
    remedy: ClassVar[str] = (
        "Look at the longest (or empty) completions, balance length in the pairs (filter "
        "length_ratio), subtract length from the reward, raise beta; of DPO take SimPO or "
        "sigmoid_norm"
    )
    least: int = 8
    times: float = 1.5

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the end with the start."""
        curve = log.curve(LENGTH)
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        first, last = at_start(curve.values), at_end(curve.values)
        lower, higher = sorted((first, last))
        sure = higher - lower > 2 * noise(curve.values)
        if not sure or higher <= self.times * lower:
            return self.fine(f"{figure(last)} tokens at the end", len(curve), curve)
        said = f"{figure(first)} tokens a completion at first, {figure(last)} at the end"
        return self.flag(said, len(curve), curve, since=int(curve.steps[0]))


@dataclass(frozen=True)
class RewardHacking(Rule):
    """A reward that rises while one that is not trained on falls."""

    name: ClassVar[str] = "reward hacking"
    looks_at: ClassVar[str] = "reward against rewards/held_out/mean, a reward of weight 0"
    threshold: ClassVar[str] = (
        "the held-out reward has not fallen from its best level by more than {deviations:g} "
        "standard deviations of its noise while the reward rose"
    )
    reason: ClassVar[str] = (
        "a learnt reward is right near the texts it was learnt from and no further (Gao et al. "
        "2023): what both rewards agree on is real"
    )
    remedy: ClassVar[str] = (
        "Stop where the held-out reward was best, raise beta, train the reward model on what this "
        "model writes now, or take the mean of several reward models"
    )
    serious: ClassVar[bool] = True
    least: int = 8
    deviations: float = 3.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the two directions."""
        reward, held_out = log.curve(*REWARD), held_out_reward(log)
        short = self.too_short(reward, self.least) or self.too_short(held_out, self.least)
        if short is not None:
            return short
        n = len(reward) + len(held_out)
        smooth = running_median(held_out.values)
        best = min(int(np.argmax(smooth)), len(held_out) - 6)
        after = held_out.part(max(0, best))
        fell = float(smooth.max()) - at_end(held_out.values)
        falls = trend(after.steps, after.values).falls
        rises = trend(reward.steps, reward.values).rises
        if not (rises and falls and fell > self.deviations * noise(held_out.values)):
            return self.fine("the held-out reward did not fall against it", n, reward, held_out)
        said = (
            f"{reward.name} rose from {figure(at_start(reward.values))} to "
            f"{figure(at_end(reward.values))} while {held_out.name} fell by {figure(fell)}"
        )
        return self.flag(said, n, held_out, reward, since=int(after.steps[0]))


def held_out_reward(log: TrainingLog) -> Curve:
    """The mean of a reward that is measured and not trained on; empty if there is none.

    Of the completions trained on, where it was logged for those, else of held-out prompts.
    """
    names = [f"{side}rewards/held_out/mean" for side in ("", "eval_")]
    return log.curve(*names)
