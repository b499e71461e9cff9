"""How votes can be bought, and which pairs are then trained on.

One vote a pair; two, kept where they agree; three, the majority; two, and a third where they
differ. A vote for neither (a tie) is paid for like any other and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signs = NDArray[np.int8]
MOST_VOTES = 3
"""That any policy buys of one pair."""


@dataclass(frozen=True)
class Policy:
    """Votes a pair, and what becomes of those that differ."""

    name: str
    how: str
    """What to set where."""
    votes: int
    third: bool = False
    """Whether a pair whose votes differ gets one more."""
    agree: bool = False
    """Whether a pair is kept only if all its votes agree; otherwise the majority decides."""


POLICIES = (
    Policy("one vote", "overlap 1; no rule on agreement", 1),
    Policy("two, kept where they agree", "overlap 2; rule agreement, at_least 1.0", 2, agree=True),
    Policy("three, majority", "overlap 3; rule ties", 3),
    Policy(
        "two, a third where they differ",
        "overlap 2; adjudicate what stays split; rule ties",
        2,
        third=True,
    ),
)
BY_NAME = {policy.name: policy for policy in POLICIES}


@dataclass(frozen=True)
class Bought:
    """What a policy makes of its votes."""

    pairs: NDArray[np.int64]
    """The pairs kept, as indices into the votes' rows."""
    label: Signs
    """1 where the first won, -1 where the second did, shape of `pairs`."""
    reached: int
    """Pairs voted on, kept or not."""
    votes: int
    """Bought; at most `MOST_VOTES` - 1 fewer than allowed, where they bought no whole pair."""


def buy(policy: Policy, votes: Signs, budget: int) -> Bought:
    """Spend `budget` votes on pairs in order.

    Args:
        votes: what each pair's first, second and third voter says, 1, -1 or 0 for a tie; shape
            (pairs, 3). Only what is paid for is looked at.
        budget: votes.

    Raises:
        ValueError: there are too few pairs to spend them on.
    """
    first = votes[:, : policy.votes]
    differ = (first != first[:, :1]).any(axis=1)
    cost = policy.votes + (differ & policy.third)
    spent = np.cumsum(cost)
    reached = int(np.searchsorted(spent, budget, side="right"))
    if reached == len(votes) and (not reached or spent[-1] + MOST_VOTES <= budget):
        raise ValueError(f"{len(votes)} pairs are too few for {budget} votes")
    total = first.sum(axis=1) + np.where(differ & policy.third, votes[:, policy.votes % 3], 0)
    label = np.sign(total[:reached]).astype(np.int8)
    kept = label != 0
    if policy.agree:
        kept &= ~differ[:reached]
    pairs = np.flatnonzero(kept)
    return Bought(pairs, label[pairs], reached, int(spent[reached - 1]) if reached else 0)
