"""Which setting did best, by how much, and whether the data can tell: from trials to figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.tune.grid import Setting
from align.tune.trials import Trials
from align.tune.voted import Voted
from annotate.errors import InputError
from annotate.statistics import LEVEL, RESAMPLES, Estimate, undefined

Reals = NDArray[np.float64]

OVER = "held-out prompts and seeds"
_METHOD = "percentile bootstrap, prompts and seeds crossed"
_TOO_FEW = "it keeps too few pairs"


@dataclass(frozen=True)
class Tried:
    """One setting's figures."""

    setting: Setting
    kept: float
    """Pairs trained on at equal votes, mean over seeds and folds."""
    dropped: float
    """Share of judged pairs that it drops."""
    at_equal_votes: Estimate
    """Accuracy on held-out pairs."""
    at_equal_pairs: Estimate
    behind: Estimate
    """The choice's accuracy less this one's, at equal votes, paired."""
    behind_at_equal_pairs: Estimate
    same_as: str | None
    """A setting before it that kept the same pairs in every trial."""

    @property
    def told_apart(self) -> bool:
        """Whether the data tell it from the choice, at equal votes."""
        return self.behind.low is not None and self.behind.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "setting": self.setting.name,
            "overlap": self.setting.overlap,
            "method": self.setting.method,
            "filters": [rule.model_dump(mode="json") for rule in self.setting.filters],
            "pairs_kept": self.kept,
            "dropped": self.dropped,
            "accuracy_at_equal_votes": self.at_equal_votes.to_dict(),
            "accuracy_at_equal_pairs": self.at_equal_pairs.to_dict(),
            "behind_the_choice": self.behind.to_dict(),
            "behind_the_choice_at_equal_pairs": self.behind_at_equal_pairs.to_dict(),
            "told_apart": self.told_apart,
            "same_as": self.same_as,
        }


@dataclass(frozen=True)
class Tuned:
    """What tuning found."""

    origin: str
    model: str
    tried: list[Tried]
    """From the best at equal votes to the worst; first the choice, last those never scored."""
    unselected: Estimate
    """Accuracy of the choice on prompts that had no part in choosing."""
    votes: int
    """Bought by every setting in a fold, mean."""
    pairs: int
    """Trained on by every setting at equal pairs, mean."""
    counts: dict[str, int]
    """Judged pairs, those with enough votes for every setting, truths, seeds."""
    seed: int

    @property
    def choice(self) -> Tried:
        """The setting that did best at equal votes."""
        return self.tried[0]

    @property
    def as_good(self) -> list[Tried]:
        """Settings that the data cannot tell from the choice, each that differs in deed once."""
        return [
            each
            for each in self.distinct[1:]
            if each.behind.value is not None and not each.told_apart
        ]

    @property
    def distinct(self) -> list[Tried]:
        """Settings that kept other pairs than those before them."""
        return [each for each in self.tried if each.same_as is None]

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "origin": self.origin,
            "reward_model": self.model,
            "counts": self.counts,
            "votes_bought": self.votes,
            "equal_pairs": self.pairs,
            "choice": self.choice.setting.name,
            "cannot_be_told_from": [each.setting.name for each in self.as_good],
            "accuracy_of_the_choice_where_it_was_not_chosen": self.unselected.to_dict(),
            "settings": [each.to_dict() for each in self.tried],
            "seed": self.seed,
        }


def tuned(data: Voted, trials: Trials, seed: int) -> Tuned:
    """Figures of trials.

    Raises:
        InputError: no setting keeps enough pairs to train on.
    """
    by_prompt = {
        name: _by_prompt(right, trials.truth.cluster) for name, right in trials.right.items()
    }
    mean = by_prompt["votes"].mean(axis=(1, 2))
    if np.isnan(mean).all():
        raise InputError(
            "no setting keeps enough pairs to train on",
            where=data.origin,
            remedy="Collect more votes",
        )
    return Tuned(
        origin=data.origin,
        model=data.model,
        tried=_tried(trials, by_prompt, mean, seed),
        unselected=_unselected(by_prompt["votes"], seed),
        votes=round(float(trials.votes.mean())),
        pairs=round(float(trials.kept["pairs"].max(axis=0).mean())),
        counts={
            "pairs": data.pairs,
            "with_enough_votes": trials.pool,
            "largest_overlap": trials.most,
            "truths": len(trials.truth.label),
            "gold": len(trials.truth.label) if trials.truth.row is None else 0,
            "prompts": by_prompt["votes"].shape[2],
            "seeds": trials.seeds,
        },
        seed=seed,
    )


def _tried(trials: Trials, by_prompt: dict[str, Reals], mean: Reals, seed: int) -> list[Tried]:
    """Figures of all settings, by their mean accuracy at equal votes."""
    at_votes, at_pairs = by_prompt["votes"], by_prompt["pairs"]
    _, seeds, prompts = at_votes.shape
    crossed, twins = Crossed(seeds, prompts, seed), _twins(trials)
    choice = int(np.nanargmax(mean))
    order = sorted(range(len(mean)), key=lambda at: (np.isnan(mean[at]), -mean[at], at))
    return [
        Tried(
            setting=trials.settings[at],
            kept=float(trials.kept["votes"][at].mean()),
            dropped=float(trials.dropped[at]),
            at_equal_votes=crossed.estimate(at_votes[at]),
            at_equal_pairs=crossed.estimate(at_pairs[at]),
            behind=crossed.estimate(at_votes[choice] - at_votes[at]),
            behind_at_equal_pairs=crossed.estimate(at_pairs[choice] - at_pairs[at]),
            same_as=twins.get(at),
        )
        for at in order
    ]


def _twins(trials: Trials) -> dict[int, str]:
    """Settings whose trials all came out as those of an earlier one, and that one's name."""
    first: dict[bytes, int] = {}
    found = {}
    for at in range(len(trials.settings)):
        key = b"".join(
            table[at].tobytes()
            for name in trials.right
            for table in (trials.right[name], trials.kept[name])
        )
        if first.setdefault(key, at) != at:
            found[at] = trials.settings[first[key]].name
    return found


def _by_prompt(right: Reals, prompt: NDArray[np.int64]) -> Reals:
    """Mean over each prompt's pairs, shape (settings, seeds, prompts)."""
    _, code = np.unique(prompt, return_inverse=True)
    n = np.bincount(code)
    member = np.zeros((len(code), len(n)))
    member[np.arange(len(code)), code] = 1 / n[code]
    return np.asarray(right @ member, dtype=np.float64)


class Crossed:
    """A bootstrap that draws seeds and prompts independently (Owen 2007, "The pigeonhole
    bootstrap"); every figure of one instance has the same draws, so that differences are paired.
    """

    def __init__(self, seeds: int, prompts: int, seed: int) -> None:
        self.prompts = prompts
        rng = np.random.default_rng([seed, 31])
        self.seed = seed
        self.of_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES) / seeds
        even = np.full(self.prompts, 1 / self.prompts)
        self.of_prompts = rng.multinomial(self.prompts, even, RESAMPLES) / self.prompts

    def estimate(self, values: Reals) -> Estimate:
        """The mean of values of shape (seeds, prompts), with its interval."""
        if np.isnan(values).any():
            return undefined(_TOO_FEW, self.prompts, OVER)
        value = float(values.mean())
        draws = ((self.of_seeds @ values) * self.of_prompts).sum(axis=1)
        if np.ptp(draws) < 1e-12:
            return Estimate(
                value, None, None, self.prompts, _METHOD, OVER, self.seed,
                reason="every resample gives this value",
            )  # fmt: skip
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, float(low), float(high), self.prompts, _METHOD, OVER, self.seed)


def _unselected(values: Reals, seed: int) -> Estimate:
    """Accuracy on each half of the prompts of the setting that is best on the other half.

    The best of many settings is partly lucky on the prompts it was found on; here it is not.
    """
    _, seeds, prompts = values.shape
    half = np.random.default_rng([seed, 37]).permutation(prompts) % 2 == 0
    found = np.empty((seeds, prompts))
    for chosen_on, scored_on in ((half, ~half), (~half, half)):
        means = values[:, :, chosen_on].mean(axis=(1, 2))
        found[:, scored_on] = values[int(np.nanargmax(means))][:, scored_on]
    return Crossed(seeds, prompts, seed).estimate(found)
