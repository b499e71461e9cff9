"""Normal distributions of the scores of a prompt's options, for all prompts of one size at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotate.annotations import Codes
from annotate.consensus.comparisons import Block
from annotate.consensus.result import Reals


@dataclass(frozen=True)
class Scores:
    """One normal distribution a prompt."""

    mean: Reals
    """Shape (prompts, size)."""
    precision: Reals
    """Shape (prompts, size, size)."""
    covariance: Reals

    def towards(self, aim: Scores, part: Reals) -> Scores:
        """The part of the way to another, 0 to 1 for each prompt, shape (prompts,)."""
        far = part[:, None]
        precision = self.precision + far[..., None] * (aim.precision - self.precision)
        mean = self.mean + far * (aim.mean - self.mean)
        return Scores(mean, precision, np.asarray(np.linalg.inv(precision), dtype=np.float64))

    def differences(self, block: Block) -> tuple[Reals, Reals]:
        """Mean and variance of a - b for each pair of the block, shape (pairs,)."""
        row, a, b = block.row, block.slot_a, block.slot_b
        own = self.covariance[row, a, a] + self.covariance[row, b, b]
        return self.mean[row, a] - self.mean[row, b], own - 2 * self.covariance[row, a, b]

    def negative_divergence(self, prior_variance: float) -> Reals:
        """Minus the Kullback–Leibler divergence from the prior, shape (prompts,)."""
        size = self.mean.shape[1]
        trace = np.trace(self.covariance, axis1=1, axis2=2) / prior_variance
        log_determinant = -np.linalg.slogdet(self.precision)[1] - size * np.log(prior_variance)
        parts = size + log_determinant - trace + 2 * self.negative_square(prior_variance)
        return np.asarray(parts / 2, dtype=np.float64)

    def negative_square(self, prior_variance: float) -> Reals:
        """The logarithm of the prior's density at the mean, without its constant, (prompts,)."""
        return np.asarray(-(self.mean**2).sum(axis=1) / (2 * prior_variance), dtype=np.float64)


def prior_scores(block: Block, variance: float) -> Scores:
    """Before any vote: independent, around 0."""
    shape = (len(block.prompts), block.size, block.size)
    same = np.broadcast_to(np.eye(block.size), shape)
    return Scores(np.zeros(shape[:2]), same / variance, same * variance)


def newton_aim(block: Block, scores: Scores, slope: Reals, bend: Reals, variance: float) -> Scores:
    """Where the full Newton step leads; its covariance is left for `Scores.towards`.

    Args:
        block: whose scores.
        scores: where the step begins.
        slope: of the mean log-likelihood in each pair's difference, shape (pairs,).
        bend: minus its second derivative, shape (pairs,).
        variance: of the prior.
    """
    prompts, size = scores.mean.shape
    end_a, end_b = block.row * size + block.slot_a, block.row * size + block.slot_b
    pull = sums(end_a, slope, prompts * size) - sums(end_b, slope, prompts * size)
    cells = prompts * size * size
    precision = sums(end_a * size + block.slot_a, bend, cells)
    precision += sums(end_b * size + block.slot_b, bend, cells)
    precision -= sums(end_a * size + block.slot_b, bend, cells)
    precision -= sums(end_b * size + block.slot_a, bend, cells)
    curvature = precision.reshape(prompts, size, size) + np.eye(size) / variance
    gradient = pull.reshape(prompts, size) - scores.mean / variance
    step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
    return Scores(scores.mean + step, curvature, scores.covariance)


def sums(place: Codes, values: Reals, length: int) -> Reals:
    """The sum of the values at each place, shape (length,)."""
    return np.asarray(np.bincount(place, values, length), dtype=np.float64)
