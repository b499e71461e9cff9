"""What each policy is expected to make of further votes: the votes so far, simulated onwards.

For each draw from what the votes so far leave open (the reward model's weights; flips, residual
and ties of `align.tune.noise`), new pairs are made up, annotators vote on them, every policy
spends the same number of votes on the same pairs, and the reward model is trained for real on what
it keeps, together with the votes so far. Nothing here knows the truth about any real pair.

New pairs are random rotations of two voted ones, cos t · x + sin t · y, which keep the covariance
of the features and never repeat a pair.

Cost: one fit a draw, budget and policy; 24 draws of 8,000 votes about ten seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

from align.tune.noise import Evidence, Noise, posterior
from align.tune.policies import MOST_VOTES, POLICIES, Policy, buy
from align.tune.reward_model import RewardModel, fit
from annotate.errors import InputError

Reals = NDArray[np.float64]

DRAWS = 24
FEWEST_REPEATED = 20
"""Pairs with two votes or more, below which nothing is said about noise."""
FEWEST_PAIRS = 40
"""Pairs, below which no reward model is fitted."""
_FOLDS = 5
_TEST_PAIRS = 2000


@dataclass(frozen=True)
class VotesSoFar:
    """Voted pairs, as far as planning needs them."""

    differences: Reals
    """Features of the first output less those of the second, shape (pairs, d)."""
    prompt: NDArray[np.int64]
    """Code of each pair's prompt, shape (pairs,)."""
    counts: Reals
    """Votes for the first, for the second, for neither, shape (pairs, 3)."""

    @property
    def share(self) -> Reals:
        """Of the votes, for the first; a tie counts half to each. Shape (pairs,)."""
        shares = (self.counts[:, 0] + self.counts[:, 2] / 2) / self.counts.sum(axis=1)
        return np.asarray(shares, dtype=np.float64)

    @property
    def decided(self) -> tuple[Reals, Reals]:
        """Pairs with more votes for one side than for the other, and 1 where for the first."""
        lead = self.counts[:, 0] - self.counts[:, 1]
        return self.differences[lead != 0], (lead[lead != 0] > 0).astype(np.float64)


@dataclass(frozen=True)
class Expected:
    """Accuracy of the reward model under each policy, simulated."""

    budgets: tuple[int, ...]
    accuracy: Reals
    """Shape (budgets, draws, policies), the policies as in `POLICIES`."""
    noises: list[Noise]
    now: Reals
    """With the votes so far alone, shape (draws,)."""

    def best(self, budget: int) -> int:
        """The policy expected to do best with these votes, as an index into `POLICIES`."""
        return int(self.accuracy[self.budgets.index(budget)].mean(axis=0).argmax())


def expect(
    so_far: VotesSoFar, budgets: Sequence[int], *, seed: int = 0, draws: int = DRAWS
) -> Expected:
    """Simulate every policy at every budget.

    Args:
        so_far: at least `FEWEST_PAIRS` pairs, `FEWEST_REPEATED` of them with two votes.
        budgets: numbers of further votes.
        seed: of everything random.
        draws: simulated futures; policies and budgets of one draw share its pairs and voters.

    Raises:
        InputError: there are too few votes to say anything, and why.
    """
    _require_enough(so_far)
    with threadpool_limits(1, user_api="blas"):  # many small products: threads would only wait
        return _expect(so_far, budgets, seed, draws)


def _expect(so_far: VotesSoFar, budgets: Sequence[int], seed: int, draws: int) -> Expected:
    rng = np.random.default_rng([seed, 17])
    noises = posterior(_evidence(so_far, rng), draws, rng)
    model = fit(so_far.differences, so_far.share)
    accuracy = np.empty((len(budgets), draws, len(POLICIES)))
    now = np.empty(draws)
    for at, noise in enumerate(noises):
        future = _future(so_far, model, noise, max(budgets), rng)
        now[at] = future.accuracy_of(fit(*so_far.decided))
        for place, budget in enumerate(budgets):
            accuracy[place, at] = [future.outcome(policy, budget) for policy in POLICIES]
    return Expected(tuple(budgets), accuracy, noises, now)


def _require_enough(so_far: VotesSoFar) -> None:
    pairs = len(so_far.prompt)
    repeated = int((so_far.counts.sum(axis=1) >= 2).sum())
    if not repeated:
        raise InputError(
            f"none of the {pairs:,} pairs has votes of two people, so that nobody can say how "
            "noisy a vote is",
            remedy=f"Let a second person vote on at least {FEWEST_REPEATED} pairs",
        )
    if repeated < FEWEST_REPEATED:
        raise InputError(
            f"only {repeated} pairs have votes of two people; noise cannot be estimated from "
            f"fewer than {FEWEST_REPEATED}",
            remedy="Let a second person vote on more of them",
        )
    won = len(so_far.decided[1])
    if pairs >= FEWEST_PAIRS > won:
        raise InputError(
            f"only {won} of {pairs:,} pairs have a winner, the others are ties or split; "
            f"{FEWEST_PAIRS} are the least that a reward model learns from",
            remedy="Collect more votes, or show pairs that differ more",
        )
    if pairs < FEWEST_PAIRS:
        raise InputError(
            f"{pairs} pairs are too few for a reward model; {FEWEST_PAIRS} are the least",
            remedy="Collect more votes first",
        )


def _evidence(so_far: VotesSoFar, rng: np.random.Generator) -> Evidence:
    """Each pair's margin by a model that never saw its prompt."""
    fold = rng.integers(_FOLDS, size=int(so_far.prompt.max()) + 1)[so_far.prompt]
    margin, spread = np.zeros(len(fold)), np.zeros(len(fold))
    for one in np.unique(fold):
        out = fold == one
        model = fit(so_far.differences[~out], so_far.share[~out])
        margin[out] = model.margins(so_far.differences[out])
        spread[out] = model.spread(so_far.differences[out])
    return Evidence(margin, spread, so_far.counts)


@dataclass(frozen=True)
class _Future:
    """One simulated continuation."""

    so_far: VotesSoFar
    differences: Reals
    votes: NDArray[np.int8]
    test: Reals
    test_margin: Reals
    """Of the test pairs, what of their margin features tell."""
    residual: float

    def outcome(self, policy: Policy, budget: int) -> float:
        """The accuracy of the model that a policy leads to."""
        bought = buy(policy, self.votes, budget)
        known, label = self.so_far.decided
        rows = np.vstack([known, self.differences[bought.pairs]])
        return self.accuracy_of(fit(rows, np.concatenate([label, bought.label > 0])))

    def accuracy_of(self, model: RewardModel) -> float:
        """Chance that it prefers the better output, exact in what features do not tell."""
        side = np.sign(model.margins(self.test))
        return float(ndtr(side * self.test_margin / self.residual).mean())


def _future(
    so_far: VotesSoFar, model: RewardModel, noise: Noise, most: int, rng: np.random.Generator
) -> _Future:
    weights = noise.scale * model.draw(rng)
    pairs = _rotated(so_far.differences, most + MOST_VOTES, rng)
    margins = pairs @ weights + noise.residual * rng.standard_normal(len(pairs))
    test = _rotated(so_far.differences, _TEST_PAIRS, rng)
    votes = noise.draw(margins, MOST_VOTES, rng)
    return _Future(so_far, pairs, votes, test, test @ weights, noise.residual)


def _rotated(differences: Reals, n: int, rng: np.random.Generator) -> Reals:
    one, other = rng.integers(len(differences), size=(2, n))
    angle = rng.uniform(0, 2 * np.pi, (n, 1))
    mixed = np.cos(angle) * differences[one] + np.sin(angle) * differences[other]
    return np.asarray(mixed, dtype=np.float64)
