"""Filters on how much better people found the winner."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from align.filters.rule import ROUNDING, Rule, numbers, one_array, values


class Margin(Rule):
    """Drop a pair whose winner is better by too little.

    The margin counts against the pair where people's strengths point away from the winner (the
    posterior may overrule a careless majority), so 0 still drops such a contradiction.
    """

    rule: Literal["margin"] = "margin"
    at_least: float = Field(0.0, ge=0, le=1)
    """Mean strength towards the winner over 3: 1/3 is "slightly better", 1 "much better"."""

    @property
    def threshold(self) -> str:
        """As in "at least 0.33"."""
        return f"at least {self.at_least:g}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The margin; pairs for which nobody gave a strength are dropped unless 0 is enough."""
        margin = numbers(evidence, "winner_margin", np.nan)
        unknown = np.isnan(margin) & (self.at_least > 0)
        return values((margin < self.at_least - ROUNDING) | unknown, margin, "{:.3g}")


class Spread(Rule):
    """Drop a pair on which even the most similar strengths lie far apart, or cancel out.

    HelpSteer2-Preference's rule (Wang et al. 2024, section 3): of a pair's strengths, -3 to 3, the
    three most similar count; the pair goes if they spread over more than 2, or if their mean is 0.
    Where several threes spread alike, their common mean counts, so that no side is favoured.
    """

    rule: Literal["spread"] = "spread"
    most_similar: int = Field(3, ge=1)
    """So many strengths count. A pair with fewer is dropped."""
    at_most: int = Field(2, ge=0, le=6)
    """The largest of them less the smallest."""
    mean_over: float = Field(0.0, ge=0, lt=3)
    """Their mean must be over this, towards the winner; 0.5 rounds to a whole strength."""

    @property
    def threshold(self) -> str:
        """As in "3 strengths within 2, mean over 0"."""
        return f"{self.most_similar} strengths within {self.at_most}, mean over {self.mean_over:g}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """As in "3 apart", "mean 0 for the winner" or "2 strengths"."""
        count, apart, mean = _most_similar(evidence["strengths"], self.most_similar)
        towards = mean * numbers(evidence, "winner", 0.0)
        few = count < self.most_similar
        wide = ~few & (apart > self.at_most)
        # Of thirds and the like: a mean typed as 0.667 is not over 2/3.
        weak = ~few & ~(towards > self.mean_over + 1e-9)
        wrong = [
            values(few, count, "{:.0f} given"),
            values(wide, apart, "{:.0f} apart"),
            values(weak, np.round(towards, 3) + 0.0, "mean {:.3g} for the winner"),
        ]
        return one_array(pc.coalesce(*wrong))


def _most_similar(strengths: Any, most: int) -> tuple[Any, Any, Any]:
    """Of each row's most similar strengths: how many there are, how far apart, their mean.

    Args:
        strengths: ascending lists, shape (n,).
        most: so many are compared; they stand side by side, since the lists are sorted.

    Returns:
        Three arrays of shape (n,); apart and mean are NaN where a row has fewer than `most`.
    """
    lists = one_array(strengths)
    n = len(lists)
    flat = np.asarray(lists.flatten(), dtype=np.float64)
    row = np.asarray(pc.list_parent_indices(lists), dtype=np.int64)
    count = np.bincount(row, minlength=n).astype(np.float64)
    ends = len(flat) - most + 1
    first = np.flatnonzero(row[:ends] == row[most - 1 :]) if ends > 0 else np.array([], np.int64)
    apart = flat[first + most - 1] - flat[first]
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    mean = (sums[first + most] - sums[first]) / most
    least: NDArray[np.float64] = np.full(n, np.inf)
    np.minimum.at(least, row[first], apart)
    best = apart == least[row[first]]
    owner = row[first][best]
    shared = np.bincount(owner, minlength=n)
    total = np.bincount(owner, mean[best], minlength=n)
    means = np.divide(total, shared, out=np.full(n, np.nan), where=shared > 0)
    return count, np.where(np.isinf(least), np.nan, least), means
