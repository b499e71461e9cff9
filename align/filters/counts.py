"""Filters on the votes as they were counted."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from align.filters.rule import ROUNDING, Rule, masked, numbers, ratio, values


class MinVotes(Rule):
    """Drop a pair that too few people voted on."""

    rule: Literal["min_votes"] = "min_votes"
    at_least: int = Field(2, ge=0)
    """Votes, ties included."""

    @property
    def threshold(self) -> str:
        """As in "at least 2 votes"."""
        return f"at least {self.at_least} votes"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The number of votes."""
        votes = numbers(evidence, "votes", 0.0)
        return values(votes < self.at_least, votes, "{:.0f}")


class Agreement(Rule):
    """Drop a pair whose winner has too small a share of the votes; 1.0 demands unanimity."""

    rule: Literal["agreement"] = "agreement"
    at_least: float = Field(1.0, ge=0, le=1)
    """Votes for the winner over all votes; a tie is a vote for neither."""

    @property
    def threshold(self) -> str:
        """As in "at least 100 % of the votes for the winner"."""
        return f"at least {100 * self.at_least:g} % of the votes for the winner"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The share of the winning side; of the larger side where neither wins."""
        a, b = numbers(evidence, "votes_a", 0.0), numbers(evidence, "votes_b", 0.0)
        winner = numbers(evidence, "winner", 0.0)
        side = np.select([winner > 0, winner < 0], [a, b], np.maximum(a, b))
        share = ratio(side, numbers(evidence, "votes", 0.0), 0.0)
        return values(share < self.at_least - ROUNDING, share, "{:.3g}")


class Ties(Rule):
    """Drop a pair that nobody wins."""

    rule: Literal["ties"] = "ties"

    @property
    def threshold(self) -> str:
        """Fixed: there must be a winner."""
        return "a winner"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """How many called it a tie, of how many."""
        tied = numbers(evidence, "winner", 0.0) == 0
        ties, votes = (
            pc.cast(pc.fill_null(evidence[name], 0), pa.string()) for name in ("ties", "votes")
        )
        return masked(tied, pc.binary_join_element_wise(ties, votes, " ties of "))


class BothBad(Rule):
    """Drop a pair of which people say that neither response is acceptable."""

    rule: Literal["both_bad"] = "both_bad"
    at_most: int = Field(0, ge=0)
    """How many may say so."""

    @property
    def threshold(self) -> str:
        """As in "at most 0 say both are bad"."""
        return f"at most {self.at_most} say both are bad"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """How many said so."""
        count = numbers(evidence, "both_bad", 0.0)
        return values(count > self.at_most, count, "{:.0f}")
