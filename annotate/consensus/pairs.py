"""The posterior of every pair: the method that suits its prompt, calibrated.

`auto` takes Bradley–Terry for prompts with three or more compared outputs, whose pairs inform each
other, and Dawid–Skene for the others. Both are fitted on all votes, so that what an annotator
proved on one kind of prompt counts on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from annotate.consensus.bradley_terry import bradley_terry
from annotate.consensus.calibration import (
    Fit,
    calibrated,
    difficulty_temperature,
    gold_temperature,
    held_out,
)
from annotate.consensus.comparisons import Comparisons
from annotate.consensus.dawid_skene import dawid_skene, pair_posterior
from annotate.consensus.majority import majority, pair_posterior_of_votes, vote_counts
from annotate.consensus.reliability_curve import ReliabilityCurve, reliability_curve
from annotate.consensus.result import Consensus, Reals

PairMethod = Literal["dawid-skene", "bradley-terry", "majority"]
PAIR_METHODS: tuple[PairMethod, ...] = get_args(PairMethod)
# Pairs that temperatures are found on: more change the third digit and cost seconds.
_SAMPLE = 10_000
_ROUGH = 1e-6


@dataclass(frozen=True)
class Calibration:
    """How one method's posteriors were corrected, and how far they can be trusted."""

    temperature: float
    """What the log-odds were divided by."""
    difficulty: float
    """The part of it that stands for pairs of unequal difficulty; 1 where the model has them."""
    slope: float
    """Of held-out votes on what was foreseen of them."""
    held_out: ReliabilityCurve
    gold: ReliabilityCurve | None
    """Of the posteriors as they are given, except that gold pairs helped to find the temperature;
    None without gold."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return {
            "temperature": self.temperature,
            "difficulty": self.difficulty,
            "slope": self.slope,
            "held_out": self.held_out.to_dict(),
            "gold": self.gold.to_dict() if self.gold else None,
        }

    def summary(self) -> dict[str, Any]:
        """Temperature and calibration errors, for a manifest."""
        return {
            "temperature": self.temperature,
            "slope": self.slope,
            "held_out_error": self.held_out.error,
            "held_out_votes": self.held_out.n,
            "gold_error": self.gold.error if self.gold else None,
            "gold_pairs": self.gold.n if self.gold else 0,
        }


@dataclass(frozen=True)
class PairConsensus:
    """What is held of every pair."""

    posterior: Reals
    """That a is better, calibrated, shape (pairs,)."""
    method: NDArray[np.str_]
    """Which gave it, shape (pairs,)."""
    weight: Reals | None
    """Of each vote, its annotator's reliability by that method, shape (votes,); None where all
    count alike."""
    consensus: Consensus
    """Of the method that judged most pairs."""
    calibration: dict[str, Calibration] = field(default_factory=dict)
    """By method; majority has none."""

    @property
    def converged(self) -> bool:
        """Whether the method that judged most pairs did."""
        return self.consensus.converged


def method_of_pairs(compared: Comparisons, method: str) -> NDArray[np.str_]:
    """The method of each pair, shape (pairs,): the one named, or the one that `auto` chooses."""
    if method != "auto":
        return np.full(len(compared.prompt), method)
    several = compared.options_of_prompt[compared.prompt] >= 3
    return np.where(several, "bradley-terry", "dawid-skene")


def judge_pairs(
    compared: Comparisons, method: str = "auto", *, gold: Mapping[int, float] | None = None
) -> PairConsensus:
    """Judge every pair.

    Args:
        compared: votes and what their pairs compare.
        method: "auto", "dawid-skene", "bradley-terry" or "majority".
        gold: by pair, where it is known: 1 if a is better, 0 if b is, 0.5 if neither.

    Returns:
        Posteriors that mirror exactly when a and b are swapped.
    """
    of_pair = method_of_pairs(compared, method)
    if method == "majority":
        return _by_majority(compared, of_pair)
    sample = _sample(compared)
    posterior, weight = np.empty(len(of_pair)), np.empty(len(compared.votes))
    found, calibration = {}, {}
    for name in np.unique(of_pair):
        found[name] = _fit(name, compared)
        here = of_pair == name
        raw = pair_posterior(found[name].probability)
        calibration[name] = _calibration(name, sample, raw, here, gold or {})
        posterior[here] = calibrated(raw[here], calibration[name].temperature)
        by_this = here[compared.votes.item]
        weight[by_this] = found[name].reliability[compared.votes.annotator[by_this]]
    most = max(found, key=lambda name: int((of_pair == name).sum()))
    return PairConsensus(posterior, of_pair, weight, found[most], calibration)


def _by_majority(compared: Comparisons, of_pair: NDArray[np.str_]) -> PairConsensus:
    for_b, ties, for_a = vote_counts(compared.votes).T
    posterior = pair_posterior_of_votes(for_a, for_b, ties)
    return PairConsensus(posterior, of_pair, None, majority(compared.votes))


def _fit(name: str, compared: Comparisons) -> Consensus:
    if name == "dawid-skene":
        return dawid_skene(compared.votes, symmetric=True)
    return bradley_terry(compared)


def _rough_dawid_skene(compared: Comparisons) -> Consensus:
    return dawid_skene(compared.votes, symmetric=True, tolerance=_ROUGH)


def _rough_bradley_terry(compared: Comparisons) -> Consensus:
    return bradley_terry(compared, tolerance=_ROUGH)


_ROUGHLY: dict[str, Fit] = {
    "dawid-skene": _rough_dawid_skene,
    "bradley-terry": _rough_bradley_terry,
}
"""Fits that are close enough for a temperature, in a fraction of the iterations."""


def _sample(compared: Comparisons) -> Comparisons:
    """The first prompts, up to about `_SAMPLE` pairs: their order says nothing about them."""
    per_prompt = np.cumsum(np.bincount(compared.prompt))
    last = int(np.searchsorted(per_prompt, _SAMPLE))
    return compared.of_pairs(compared.prompt <= last)


def _calibration(
    name: str,
    sample: Comparisons,
    raw: Reals,
    here: NDArray[np.bool_],
    gold: Mapping[int, float],
) -> Calibration:
    foreseen = held_out(sample, _ROUGHLY[name])
    difficulty = 1.0
    if name == "dawid-skene":
        both = [pair_posterior(fit(sample).probability) for fit in _ROUGHLY.values()]
        difficulty = max(1.0, difficulty_temperature(*both))
    temperature = difficulty / min(1.0, foreseen.slope)
    known = [pair for pair in sorted(gold) if here[pair]]
    truth = np.array([gold[pair] for pair in known], dtype=np.float64)
    if known:
        temperature = gold_temperature(raw[known], truth, temperature)
    return Calibration(
        temperature,
        difficulty,
        foreseen.slope,
        foreseen.curve,
        reliability_curve(calibrated(raw[known], temperature), truth, "gold") if known else None,
    )
