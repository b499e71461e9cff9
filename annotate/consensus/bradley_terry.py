"""Bradley–Terry with reliability and Davidson's ties: what several compared responses are worth.

Every option of a prompt has a score θ ~ N(0, 1); annotator k votes on a pair with Davidson's
probabilities at r_k (θ_a - θ_b). Reliabilities are r_k ~ N(μ, 1), so that who has answered little
is taken to be like the others, and who votes against the others gets a negative one. All priors are
proper: everything is defined for a single vote too, when nobody ties and when everybody does.

The posterior of a prompt's scores is approximated by the normal distribution nearest to it
(variational Gaussian approximation: Opper and Archambeau 2009, Neural Computation 21), which takes
the uncertainty of the scores into account. Its bound on the penalised log-likelihood is maximised
over the scores' means and covariances and over r, μ and ν in turn, each by a Newton step that is
shortened until nothing is lost: the bound never falls.

Cost: 11 nodes a vote and an inverse of (options × options) a prompt and iteration; 100,000 votes
take a few seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from annotate.annotations import Codes
from annotate.consensus.comparisons import Comparisons
from annotate.consensus.davidson import (
    Expected,
    expected_vote,
    mean_probabilities,
    probabilities,
)
from annotate.consensus.result import Consensus, Reals, above_chance, symmetric_share
from annotate.consensus.scores import Scores, newton_aim, prior_scores, sums
from annotate.errors import InputError

# Of a reliability before anything is known: at 1.5 a vote agrees with the scores three times in
# four, and two annotators with each other on two pairs in three, as people do.
PRIOR_RELIABILITY = 1.5
# log ν before anything is known: of votes between equals one in five is a tie.
PRIOR_LOG_TIE = math.log(0.5)
TOLERANCE = 1e-7
MAX_ITERATIONS = 500
# ν of a model without ties, whose logarithm can still be taken.
_NO_TIES = 1e-300
# Cells of all covariances: 400 MB.
_MAX_CELLS = 50_000_000
_HALVINGS = 12


def bradley_terry(
    compared: Comparisons,
    *,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Consensus:
    """Fit scores, reliabilities and ties; `probability` holds P(b better), 0, P(a better).

    Args:
        compared: votes and what their pairs compare.
        tolerance: stop when an iteration gains less than this in the bound a vote.
        max_iterations: stop after these in any case; `converged` is then False.

    Raises:
        InputError: prompts with so many options that their covariances fill the memory.
    """
    people = len(compared.votes.annotators)
    fit = _Fit(
        compared, _People(np.full(people, PRIOR_RELIABILITY), PRIOR_LOG_TIE, PRIOR_RELIABILITY)
    )
    converged = fit.run(tolerance, max_iterations)
    mean, sd = fit.differences()
    lead = 2 * ndtr(np.abs(mean) / sd) - 1
    better, worse = symmetric_share(lead, np.sign(mean)), symmetric_share(lead, -np.sign(mean))
    accuracy = _accuracy(fit.people)
    return Consensus(
        method="bradley-terry",
        probability=np.stack([worse, np.zeros_like(better), better], axis=1),
        accuracy=accuracy,
        reliability=above_chance(accuracy, 2),
        objective=fit.objective,
        converged=converged,
        foresee=fit.foresee,
    )


@dataclass(frozen=True)
class DavidsonFit:
    """The most probable scores when all votes weigh alike."""

    difference: Reals
    """Of the scores of a and b, for each pair, shape (pairs,)."""
    tie: float
    """Davidson's ν."""


def davidson(
    compared: Comparisons, *, prior_sd: float = 1.0, tie: float | None = None
) -> DavidsonFit:
    """Plain Bradley–Terry with Davidson's ties: every annotator alike, a point for every score.

    Args:
        compared: votes and what their pairs compare.
        prior_sd: of the scores; the larger, the nearer to maximum likelihood.
        tie: ν; None to fit it, 0 for a model in which nobody ties.
    """
    log_tie = PRIOR_LOG_TIE if tie is None else math.log(max(tie, _NO_TIES))
    people = _People(np.ones(len(compared.votes.annotators)), log_tie)
    fit = _Fit(compared, people, point=True, variance=prior_sd**2, fit_tie=tie is None)
    fit.run(0.0, MAX_ITERATIONS)
    return DavidsonFit(fit.differences()[0], math.exp(fit.people.log_tie))


@dataclass(frozen=True)
class _People:
    """What votes depend on beside the scores."""

    reliability: Reals
    """Shape (annotators,)."""
    log_tie: float
    habit: float = 0.0
    """μ."""


def _accuracy(people: _People) -> Reals:
    """Chance that a vote on two options of the prior names the better one, a tie half of it."""
    quantiles = (np.arange(64) + 0.5) / 64
    difference = np.sqrt(2) * ndtri((1 + quantiles) / 2)  # |d| of two scores from N(0, 1)
    x = people.reliability[:, None] * difference
    _, tied, win = np.moveaxis(probabilities(x, math.exp(people.log_tie)), -1, 0)
    return np.asarray((win + tied / 2).mean(axis=1), dtype=np.float64)


class _Fit:
    """The bound and its ascent; with `point` the penalised log-likelihood of points instead."""

    def __init__(
        self,
        compared: Comparisons,
        people: _People,
        *,
        point: bool = False,
        variance: float = 1.0,
        fit_tie: bool = True,
    ) -> None:
        cells = sum(len(block.prompts) * block.size**2 for block in compared.blocks)
        if cells > _MAX_CELLS:
            raise InputError(
                f"{compared.blocks[-1].size:,} compared outputs of one prompt are too many",
                where="votes",
                remedy="Use `--method dawid-skene`",
            )
        self.compared, self.people = compared, people
        self.pair, self.annotator = compared.votes.item, compared.votes.annotator
        self.point, self.variance, self.fit_tie = point, variance, fit_tie
        self.scores = [prior_scores(block, variance) for block in compared.blocks]
        self.objective: list[float] = []

    def run(self, tolerance: float, max_iterations: int) -> bool:
        """Ascend until an iteration gains no more than this a vote; True when it did."""
        now = self._expected(self.scores, self.people)
        before = -np.inf
        for _ in range(max_iterations):
            now = self._move_scores(now)
            now = self._move_people(now)
            bound = float(now.value.sum()) + self._prior_of(self.people)
            bound += sum(float(self._prior_of_scores(theirs).sum()) for theirs in self.scores)
            self.objective.append(bound)
            if bound - before <= tolerance * len(self.pair):
                return True
            before = bound
        return False

    def differences(self) -> tuple[Reals, Reals]:
        """Mean and standard deviation of each pair's difference, shape (pairs,)."""
        return self._differences(self.scores)

    def foresee(self, item: Codes, annotator: Codes) -> Reals:
        """The chance of b, tie, a in these annotators' votes on these pairs, shape (votes, 3)."""
        mean, sd = self.differences()
        reliability = self.people.reliability[annotator]
        return mean_probabilities(mean[item], sd[item], reliability, math.exp(self.people.log_tie))

    def _differences(self, scores: list[Scores]) -> tuple[Reals, Reals]:
        mean, variance = np.zeros((2, len(self.compared.prompt)))
        for block, theirs in zip(self.compared.blocks, scores, strict=True):
            mean[block.pairs], variance[block.pairs] = theirs.differences(block)
        return mean, np.zeros_like(mean) if self.point else np.sqrt(np.maximum(variance, 1e-12))

    def _expected(self, scores: list[Scores], people: _People) -> Expected:
        mean, sd = self._differences(scores)
        reliability = people.reliability[self.annotator]
        sign, tie = self.compared.sign, math.exp(people.log_tie)
        return expected_vote(sign, mean[self.pair], sd[self.pair], reliability, tie)

    def _prior_of_scores(self, scores: Scores) -> Reals:
        if self.point:
            return scores.negative_square(self.variance)
        return scores.negative_divergence(self.variance)

    def _prior_of(self, people: _People) -> float:
        if self.point:
            return 0.0
        spread = float(((people.reliability - people.habit) ** 2).sum())
        spread += (people.habit - PRIOR_RELIABILITY) ** 2
        return -(spread + (people.log_tie - PRIOR_LOG_TIE) ** 2) / 2

    def _move_scores(self, now: Expected) -> Expected:
        """One step of every prompt's scores, shortened for those prompts that would lose by it."""
        pairs = len(self.compared.prompt)
        slope = sums(self.pair, now.by_difference, pairs)
        bend = sums(self.pair, -now.by_difference_twice, pairs)
        old, blocks = self.scores, self.compared.blocks
        aims = [
            newton_aim(block, theirs, slope[block.pairs], bend[block.pairs], self.variance)
            for block, theirs in zip(blocks, old, strict=True)
        ]
        before = self._of_prompts(now, old)
        part = np.ones(len(before))
        for halving in range(_HALVINGS + 1):
            moved = [
                theirs.towards(aim, part[block.prompts])
                for block, theirs, aim in zip(blocks, old, aims, strict=True)
            ]
            then = self._expected(moved, self.people)
            worse = self._of_prompts(then, moved) < before
            if not worse.any():
                break
            part[worse] = part[worse] / 2 if halving < _HALVINGS - 1 else 0.0
        self.scores = moved
        return then

    def _of_prompts(self, now: Expected, scores: list[Scores]) -> Reals:
        """Each prompt's part of the bound, shape (prompts,)."""
        prompt = self.compared.prompt[self.pair]
        parts = sums(prompt, now.value, len(self.compared.options_of_prompt))
        for block, theirs in zip(self.compared.blocks, scores, strict=True):
            parts[block.prompts] += self._prior_of_scores(theirs)
        return parts

    def _move_people(self, now: Expected) -> Expected:
        """One joint Newton step of the reliabilities and μ, and one of ν."""
        old = self.people
        step = _People(np.zeros_like(old.reliability), 0.0) if self.point else self._step_of(now)
        weight = 0.0 if self.point else 1.0
        tie_slope = float(now.by_log_tie.sum()) - weight * (old.log_tie - PRIOR_LOG_TIE)
        tie_bend = max(weight - float(now.by_log_tie_twice.sum()), 1e-12)
        tie_step = tie_slope / tie_bend if self.fit_tie else 0.0
        before = float(now.value.sum()) + self._prior_of(old)
        part = 1.0
        for _ in range(_HALVINGS):
            moved = _People(
                old.reliability + part * step.reliability,
                old.log_tie + part * tie_step,
                old.habit + part * step.habit,
            )
            then = self._expected(self.scores, moved)
            if float(then.value.sum()) + self._prior_of(moved) >= before:
                self.people, now = moved, then
                break
            part /= 2
        return now

    def _step_of(self, now: Expected) -> _People:
        """Newton's step of r and μ together: apart they would crawl, each held by the other."""
        old, people = self.people, len(self.people.reliability)
        apart = old.reliability - old.habit
        slope = sums(self.annotator, now.by_reliability, people) - apart
        bend = 1 - sums(self.annotator, now.by_reliability_twice, people)
        habit_slope = float(apart.sum()) - (old.habit - PRIOR_RELIABILITY)
        pulled = habit_slope + float((slope / bend).sum())
        habit_step = pulled / (people + 1 - float((1 / bend).sum()))
        return _People((slope + habit_step) / bend, 0.0, habit_step)
