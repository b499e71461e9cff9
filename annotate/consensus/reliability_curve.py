"""How often what was stated with probability p came true: the reliability curve.

Murphy and Winkler (1977, Applied Statistics 26). Every statement is turned so that it is about its
likelier side, from 1/2 to 1; a tie is half a success. The expected calibration error is the mean
distance of stated and observed over the bins, weighted by their statements (Naeini, Cooper and
Hauskrecht 2015).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from annotate.consensus.result import Reals
from annotate.statistics import Estimate, wilson

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.93, 0.97, 0.99, 1.0)
"""Of the bins; the one from .93 to .97 shows what a stated .95 means."""


@dataclass(frozen=True)
class Bin:
    """Statements of about one probability."""

    low: float
    high: float
    stated: float
    """Their mean."""
    observed: Estimate
    """The share that came true, with Wilson's interval."""


@dataclass(frozen=True)
class ReliabilityCurve:
    """Stated against observed."""

    on: str
    """What was observed: "gold" or "held-out votes"."""
    n: int
    bins: list[Bin]
    """Those that hold a statement."""
    error: float | None
    """Expected calibration error; None without a statement."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> ReliabilityCurve:
        """The curve that `to_dict` stored."""
        bins = [Bin(**part | {"observed": Estimate(**part["observed"])}) for part in stored["bins"]]
        return cls(**stored | {"bins": bins})

    def lines(self) -> list[str]:
        """A table in text."""
        if not self.bins:
            return [f"no {self.on} to compare with"]
        table = [f"stated  observed on {self.on}"]
        table += [f"{part.stated:6.3f}  {part.observed}" for part in self.bins]
        return [*table, f"expected calibration error {self.error:.3f}, n={self.n:,}"]


def reliability_curve(stated: Reals, outcome: Reals, on: str) -> ReliabilityCurve:
    """The curve of statements that a is better, or is voted for.

    Args:
        stated: probabilities, shape (n,).
        outcome: 1 it came true, 0 it did not, 0.5 a tie, shape (n,).
        on: what was observed.
    """
    turned = stated < 0.5
    likely = np.where(turned, 1 - stated, stated)
    came_true = np.where(turned, 1 - outcome, outcome)
    place = np.minimum(np.searchsorted(EDGES, likely, side="right") - 1, len(EDGES) - 2)
    n = len(likely)
    bins, error = [], 0.0
    for at in np.unique(place):
        here = place == at
        count, share = int(here.sum()), float(likely[here].mean())
        successes = float(came_true[here].sum())
        observed = wilson(successes, count, over=f"{on} stated so")
        bins.append(Bin(EDGES[at], EDGES[at + 1], share, observed))
        error += abs(share * count - successes) / n
    return ReliabilityCurve(on, n, bins, error if n else None)
