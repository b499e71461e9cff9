"""Filters on what the judgement believes: how probable the winner is, and on whose word."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from align.filters.rule import ROUNDING, Rule, numbers, ratio, values


class Posterior(Rule):
    """Drop a pair whose winner is not probable enough."""

    rule: Literal["posterior"] = "posterior"
    at_least: float = Field(0.8, ge=0.5, le=1)
    """The judgement's probability, calibrated where `judge` could, that the winner is better."""

    @property
    def threshold(self) -> str:
        """As in "at least 0.8"."""
        return f"at least {self.at_least:g}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The winner's probability; "unknown" where the judgement gives none."""
        sure = numbers(evidence, "p_winner", np.nan)
        # Not `<`: an unknown probability is not enough.
        return values(~(sure >= self.at_least - 1e-9), sure, "{:.4g}")


class Reliability(Rule):
    """Drop a pair whose winner rests on the word of people who proved unreliable.

    Reliability is `judge`'s: how often somebody is right, above chance; 0 is guessing, 1 is never
    wrong. By majority everybody counts alike, nothing is known, and every pair is dropped.
    """

    rule: Literal["reliability"] = "reliability"
    at_least: float = Field(0.3, ge=0, le=1)
    """Mean reliability of the winner's votes, a tie counting half."""

    @property
    def threshold(self) -> str:
        """As in "voters of reliability 0.3 on average"."""
        return f"voters of reliability {self.at_least:g} on average"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The mean; "unknown" where nobody was for the winner or nobody's word was weighed."""
        a_wins = numbers(evidence, "winner", 0.0) > 0
        ties = numbers(evidence, "ties", 0.0) / 2
        weight, count = (
            np.where(a_wins, numbers(evidence, f"{of}_a", none), numbers(evidence, f"{of}_b", none))
            for of, none in (("weighted", np.nan), ("votes", 0.0))
        )
        mean = ratio(weight, count + ties, np.nan)
        # Without a winner there is nobody's word to weigh: `ties` drops the pair.
        mean[numbers(evidence, "winner", 0.0) == 0] = np.nan
        return values(~(mean >= self.at_least - ROUNDING), mean, "{:.3g}")
