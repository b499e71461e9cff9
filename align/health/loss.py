"""Rules on the curve that training drives down: the loss, or in RL the reward upside down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from align.health.log import TrainingLog
from align.health.robust import at_end, at_start, noise, running_median, spread, trend
from align.health.rule import Rule, Verdict, figure


@dataclass(frozen=True)
class NotANumber(Rule):
    """A loss that is infinite or no number at all."""

    name: ClassVar[str] = "not a number"
    looks_at: ClassVar[str] = "every logged figure but grad_norm"
    threshold: ClassVar[str] = "none is infinite or not a number"
    reason: ClassVar[str] = (
        "weights that met one such gradient are lost; grad_norm alone may overflow in float16, "
        "where the scaler then skips the step"
    )
    remedy: ClassVar[str] = (
        "Lower trainer.learning_rate, keep trainer.max_grad_norm at 1.0, and look for rows without "
        "a token to learn from (max_length shorter than the prompt)"
    )
    serious: ClassVar[bool] = True

    def __call__(self, log: TrainingLog) -> Verdict:
        """Look at every entry."""
        odd = [entry for entry in log.not_finite if entry[1] != "grad_norm"]
        n = sum(map(len, log.curves.values())) + len(odd)
        if not n:
            return self.unknown("nothing was logged yet")
        if not odd:
            return self.fine("every figure is finite", n)
        step, name, value = odd[0]
        said = f"{name} is {value} at step {step}, and so are {len(odd) - 1} later values"
        return self.flag(said, n, log.curve(name), since=step)


@dataclass(frozen=True)
class Spike(Rule):
    """A loss that leaps up and comes back."""

    name: ClassVar[str] = "spike"
    looks_at: ClassVar[str] = "training loss (RL: reward)"
    threshold: ClassVar[str] = (
        "no value is over the median of its seven neighbours by more than {deviations:g} standard "
        "deviations and {share:g} of the curve's range (KTO: but where kl is in its top tenth)"
    )
    reason: ClassVar[str] = (
        "ten robust deviations are not met by chance in thousands of points, and the range keeps "
        "small leaps of a very smooth curve out; KTO's loss leaps with each batch's estimate of kl"
    )
    remedy: ClassVar[str] = (
        "Look at the rows of the batches before that step (broken or very long texts), lower "
        "trainer.max_grad_norm, or lengthen trainer.warmup_steps"
    )
    least: int = 12
    deviations: float = 10.0
    share: float = 0.3

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare each value with its neighbours."""
        curve = log.objective
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        smooth = running_median(curve.values, 7)
        above = curve.values - smooth
        least = max(self.deviations * spread(above), self.share * float(np.ptp(smooth)))
        leapt = (above > least) & (above > 0.05 * np.abs(smooth))
        leaps = np.flatnonzero(leapt & ~np.isin(curve.steps, _doubtful(log)))
        if not len(leaps):
            return self.fine("no leap", len(curve), curve)
        first, worst = leaps[0], leaps[np.argmax(above[leaps])]
        more = f", the largest of {len(leaps)} leaps" if len(leaps) > 1 else ""
        said = (
            f"{_shown(log, curve.values[worst])} at step {curve.steps[worst]} between values "
            f"around {_shown(log, smooth[worst])}{more}"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[first]))


@dataclass(frozen=True)
class Divergence(Rule):
    """A loss that rises and stays up."""

    name: ClassVar[str] = "divergence"
    looks_at: ClassVar[str] = "training loss (RL: reward)"
    threshold: ClassVar[str] = (
        "the end does not stay over the lowest level by {deviations:g} standard deviations of the "
        "noise until then and {share:g} of what had been gained (at least of a tenth of the first "
        "level; RL: of a quarter of the reward's standard deviation)"
    )
    reason: ClassVar[str] = (
        "the lowest of many noisy levels lies two deviations too low by chance alone; a fifth lost "
        "again is more than a learning rate schedule does"
    )
    remedy: ClassVar[str] = (
        "Lower trainer.learning_rate to a third, lengthen trainer.warmup_steps, keep "
        "trainer.max_grad_norm at 1.0; go back to a checkpoint from before"
    )
    serious: ClassVar[bool] = True
    least: int = 8
    deviations: float = 4.0
    share: float = 0.2

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the end with the lowest level before it."""
        curve = log.objective
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        smooth, end = running_median(curve.values), at_end(curve.values)
        low = int(np.argmin(smooth))
        until = curve.values[: low + 1]
        doubt = noise(until if len(until) >= self.least else curve.values)
        gained = max(at_start(curve.values) - smooth[low], _scale(log))
        stays = float(smooth[-max(3, len(curve) // 8) :].min()) - smooth[low]
        if stays <= self.deviations * doubt or end - smooth[low] <= self.share * gained:
            return self.fine("the end is near the best level", len(curve), curve)
        said = (
            f"{_shown(log, smooth[low])} at step {curve.steps[low]}, {_shown(log, end)} at the end"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[low]))


@dataclass(frozen=True)
class Plateau(Rule):
    """A loss that falls early and then no more."""

    name: ClassVar[str] = "plateau"
    looks_at: ClassVar[str] = "training loss (RL: reward)"
    threshold: ClassVar[str] = (
        "after the first third the loss falls by {share:g} of what the first third gained, or may "
        "do so (95 % interval of the Theil–Sen line)"
    )
    reason: ClassVar[str] = (
        "a healthy curve flattens, but its long tail still has a slope; a loss within a tenth of "
        "zero has nowhere to go and is left alone"
    )
    remedy: ClassVar[str] = (
        "Stop earlier, or give it something to learn: a larger model or LoRA rank, cleaner or "
        "other data, or another trainer.learning_rate"
    )
    at_the_end: ClassVar[bool] = True
    least: int = 24
    share: float = 0.03

    def __call__(self, log: TrainingLog) -> Verdict:
        """Look at the last two thirds."""
        curve = log.objective
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        third = len(curve) // 3
        rest = curve.part(third)
        start, knee = at_start(curve.values), float(np.median(curve.values[third - 3 : third + 3]))
        gained = start - knee
        if gained <= 4 * noise(curve.values):
            return self.fine("no early gain after which to stand still", len(curve), curve)
        line = trend(rest.steps, rest.values)
        low_enough = not log.reinforced and knee < 0.1 * start
        if low_enough or line.rises or -line.low > self.share * gained:
            return self.fine("it went on after the first third", len(curve), curve)
        said = (
            f"from {_shown(log, start)} to {_shown(log, knee)} by step {curve.steps[third]}, "
            f"and no further in the {rest.steps[-1] - rest.steps[0]} steps after it"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[third]))


@dataclass(frozen=True)
class Underfitting(Rule):
    """A training that learnt nothing."""

    name: ClassVar[str] = "underfitting"
    looks_at: ClassVar[str] = "training loss (RL: reward)"
    threshold: ClassVar[str] = (
        "the loss changes over the whole training, or may fall by a tenth of its first level (95 % "
        "interval of the Theil–Sen line; RL: by a quarter of the reward's standard deviation)"
    )
    reason: ClassVar[str] = (
        "fine-tuning may gain as little as one part in fifty, so only a curve that can be told "
        "neither from a flat one nor from a useful one is fine"
    )
    remedy: ClassVar[str] = (
        "Raise trainer.learning_rate threefold, train longer, and look whether labels and prompts "
        "belong together: shuffled labels look like this"
    )
    at_the_end: ClassVar[bool] = True
    least: int = 12
    share: float = 1.0

    def __call__(self, log: TrainingLog) -> Verdict:
        """Look for any slope at all."""
        curve = log.objective
        if (short := self.too_short(curve, self.least)) is not None:
            return short
        line = trend(curve.steps, curve.values)
        if line.falls or line.rises or -line.low > self.share * _scale(log):
            return self.fine("it changed, or may have", len(curve), curve)
        said = (
            f"{_shown(log, at_start(curve.values))} at first, "
            f"{_shown(log, at_end(curve.values))} at the end: no change that noise does not make"
        )
        return self.flag(said, len(curve), curve, since=int(curve.steps[0]))


@dataclass(frozen=True)
class Overfitting(Rule):
    """A training loss that falls while the held-out one rises, or texts known by heart."""

    name: ClassVar[str] = "overfitting"
    looks_at: ClassVar[str] = "eval_loss against loss; without eval_loss, mean_token_accuracy"
    threshold: ClassVar[str] = (
        "the last eval_loss is not over the lowest by {share:g} of it while loss fell on; without "
        "evaluations, fewer than {by_heart:g} of the tokens are predicted at the end"
    )
    reason: ClassVar[str] = (
        "from one evaluation to the next a loss wavers by a few parts in a hundred; no text that "
        "is new to a model lets it predict 995 tokens of 1,000"
    )
    remedy: ClassVar[str] = (
        "Train fewer epochs or keep the best checkpoint, lower trainer.learning_rate, use LoRA, "
        "raise trainer.weight_decay, or collect more rows; hold some out to see it"
    )
    least: int = 3
    share: float = 0.05
    by_heart: float = 0.995

    def __call__(self, log: TrainingLog) -> Verdict:
        """Compare the two losses since the best evaluation."""
        held_out, train = log.curve("eval_loss"), log.curve("loss")
        if not len(held_out):
            return self._by_heart(log)
        short = self.too_short(held_out, self.least) or self.too_short(train, 6)
        if short is not None:
            return short
        best = int(np.argmin(held_out.values))
        lowest, last = held_out.values[best], held_out.values[-1]
        rise = last - lowest
        then = running_median(train.values)
        near = int(np.searchsorted(train.steps, held_out.steps[best]))
        fell = then[min(near, len(then) - 1)] - at_end(train.values)
        wide = max(self.share * abs(lowest), 0.02 * abs(at_start(train.values)))
        n = len(held_out) + len(train)
        if rise <= wide or fell <= 0:
            return self.fine("the held-out loss did not turn upwards", n, held_out, train)
        said = (
            f"eval_loss was {figure(lowest)} at step {held_out.steps[best]} and is {figure(last)} "
            f"at the end, while loss fell by {figure(fell)}"
        )
        return self.flag(said, n, held_out, train, since=int(held_out.steps[best]))

    def _by_heart(self, log: TrainingLog) -> Verdict:
        known = log.curve("mean_token_accuracy")
        if not len(known):
            why = "nothing was held out, and mean_token_accuracy was not logged"
            return Verdict(self.name, "not logged", why, 0)
        if (short := self.too_short(known, 8)) is not None:
            return short
        share = at_end(known.values)
        if share < self.by_heart:
            return self.fine(
                "the texts are not known by heart; nothing held out", len(known), known
            )
        said = f"{share:.2%} of the tokens trained on are predicted: known by heart"
        return self.flag(said, len(known), known)


def _scale(log: TrainingLog) -> float:
    """What a change of the objective is measured by: a tenth of the first loss, or a quarter of
    the standard deviation of one batch's rewards."""
    if log.reinforced and len(deviation := log.curve("reward_std")):
        return 0.25 * float(np.median(deviation.values))
    return 0.1 * abs(at_start(log.objective.values))


def _doubtful(log: TrainingLog) -> NDArray[np.int64]:
    """Steps at which KTO's loss says more of its batch's estimate of the KL than of the model."""
    kl = log.curve("kl")
    if log.reinforced or not len(kl):
        return kl.steps[:0]
    return kl.steps[kl.values > np.quantile(kl.values, 0.9)]


def _shown(log: TrainingLog, value: float) -> str:
    """An objective's value as it was logged."""
    return figure(-value if log.reinforced else value)
