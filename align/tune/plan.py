"""`handloom plan`: how to buy the next votes, and how far the votes so far can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.tune.policies import POLICIES
from align.tune.simulation import DRAWS, Expected, VotesSoFar, expect
from align.tune.voted import Voted, voted
from annotate.errors import InputError
from annotate.runs import Project, Run
from annotate.statistics import LEVEL, Estimate

Reals = NDArray[np.float64]

_OVER = "simulated futures: what these votes leave open, new pairs and their voters"
_METHOD = "posterior simulation"


@dataclass(frozen=True)
class Outlook:
    """One policy at one budget."""

    policy: str
    how: str
    accuracy: Estimate
    """Of the reward model on new pairs, against what most people prefer."""
    behind: Estimate | None
    """The choice's accuracy less this one's, paired; None for the choice itself."""
    best_in: float
    """Share of the simulated futures in which no other policy does better."""

    @property
    def told_apart(self) -> bool:
        """Whether these votes tell this policy from the choice."""
        return self.behind is not None and (self.behind.low or 0.0) > 0


@dataclass(frozen=True)
class Budget:
    """All policies at one number of further votes, the choice first."""

    votes: int
    outlooks: list[Outlook]

    @property
    def choice(self) -> Outlook:
        """The policy expected to do best."""
        return self.outlooks[0]

    @property
    def as_good(self) -> list[str]:
        """The policies that these votes cannot tell from the choice."""
        return [each.policy for each in self.outlooks[1:] if not each.told_apart]


@dataclass(frozen=True)
class Plan:
    """What the votes so far say of the next ones."""

    origin: str
    model: str
    so_far: dict[str, int]
    """Votes, pairs, pairs with two votes or more, annotators."""
    noise: dict[str, Estimate]
    now: Estimate
    """The reward model's accuracy with the votes so far."""
    budgets: list[Budget]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "origin": self.origin,
            "reward_model": self.model,
            "so_far": self.so_far,
            "noise": {name: figure.to_dict() for name, figure in self.noise.items()},
            "accuracy_now": self.now.to_dict(),
            "budgets": [_budget_dict(budget) for budget in self.budgets],
            "seed": self.seed,
        }

    def lines(self) -> list[str]:
        """As text."""
        count = self.so_far
        found = [
            f"{self.origin}: {count['votes']:,} votes of {count['annotators']:,} people on "
            f"{count['pairs']:,} pairs, {count['repeated']:,} of them by two people or more",
            f"reward model: {self.model}",
            f"with these votes its accuracy is expected to be {_short(self.now)}",
            f"votes that are mistakes, however easy the pair: {_short(self.noise['flip'])}",
        ]
        for budget in self.budgets:
            found += ["", *_budget_lines(budget)]
        found += ["", "Simulated: brackets hold 95 % of the futures that these votes leave open."]
        return found


def _budget_dict(budget: Budget) -> dict[str, Any]:
    return {
        "votes": budget.votes,
        "choice": budget.choice.policy,
        "how": budget.choice.how,
        "cannot_be_told_from": budget.as_good,
        "policies": [
            {
                "policy": each.policy,
                "accuracy": each.accuracy.to_dict(),
                "behind_the_choice": each.behind.to_dict() if each.behind else None,
                "best_in": each.best_in,
            }
            for each in budget.outlooks
        ],
    }


def _budget_lines(budget: Budget) -> list[str]:
    title = f"{budget.votes:,} more votes"
    found = [f"{title:<36}{'accuracy':<22}behind the choice"]
    for each in budget.outlooks:
        behind = "the choice" if each.behind is None else _short(each.behind)
        found.append(
            f"  {each.policy:<32}  {_short(each.accuracy):<20}  {behind:<22}  "
            f"best in {each.best_in:.0%}"
        )
    if budget.as_good:
        found.append(f"  these votes cannot tell the choice from: {'; '.join(budget.as_good)}")
    else:
        found.append("  these votes tell the choice from every other policy")
    found.append(f"  to do it: {budget.choice.how}")
    return found


def _short(figure: Estimate) -> str:
    return f"{figure.value:z.3f} [{figure.low:z.3f}, {figure.high:z.3f}]"


def plan(
    project: Project,
    judge_runs: Sequence[Run],
    budgets: Sequence[int],
    *,
    model: str = "text",
    seed: int = 0,
    draws: int = DRAWS,
) -> Plan:
    """Which overlap and rule is expected to give the best reward model for further votes.

    Args:
        judge_runs: whose votes are the votes so far.
        budgets: numbers of further votes, 10 or more each.
        model: the reward model, as for `voted`.
        seed: of everything random.
        draws: simulated futures.

    Raises:
        InputError: the votes so far are too few to say anything, and which are missing.
        ProjectError: as `voted`.
        TrainingError: as `voted`.
    """
    data = voted(project, judge_runs, model=model, seed=seed)
    try:
        found = expect(_so_far(data), sorted(set(budgets)), seed=seed, draws=draws)
    except InputError as error:
        raise InputError(error.what, where=data.origin, remedy=error.remedy) from None
    return Plan(
        origin=data.origin,
        model=data.model,
        so_far=_size(data),
        noise={
            name: _over_futures([getattr(noise, name) for noise in found.noises], seed)
            for name in ("flip", "scale", "residual", "ties")
        },
        now=_over_futures(found.now, seed),
        budgets=[outlooks(found, votes, seed) for votes in found.budgets],
        seed=seed,
    )


def _size(data: Voted) -> dict[str, int]:
    given = data.given
    return {
        "votes": int(given.sum()),
        "pairs": data.pairs,
        "repeated": int((given >= 2).sum()),
        "annotators": len(set(data.votes["annotator"].to_pylist())),
    }


def _so_far(data: Voted) -> VotesSoFar:
    return VotesSoFar(data.differences, data.prompt, data.counts)


def outlooks(found: Expected, votes: int, seed: int) -> Budget:
    """The policies at one budget, from the best expected to the worst."""
    accuracy = found.accuracy[found.budgets.index(votes)]
    choice = found.best(votes)
    best = accuracy.argmax(axis=1)
    order = np.argsort(-accuracy.mean(axis=0), kind="stable")
    rows = [
        Outlook(
            policy=POLICIES[at].name,
            how=POLICIES[at].how,
            accuracy=_over_futures(accuracy[:, at], seed),
            behind=None
            if at == choice
            else _over_futures(accuracy[:, choice] - accuracy[:, at], seed),
            best_in=float(np.mean(best == at)),
        )
        for at in order
    ]
    return Budget(votes, rows)


def _over_futures(values: Sequence[float] | Reals, seed: int) -> Estimate:
    """The mean over simulated futures, with the range that holds 95 % of them."""
    array = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(array, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high), len(array), _METHOD, _OVER, seed)
