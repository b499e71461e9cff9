"""How often the intervals of agreement hold what they should: simulation with a known truth.

    python bench/interval_coverage.py [--replications N] [--people N] [--items N] [--overlap N]
                                      [--resamples N]

People are drawn from a population in which they differ in how often they are right and in which
class they prefer when they are wrong. In such a population alpha is known exactly: for the people
drawn (on infinitely many items), which the interval over items should hold, and for the population,
which the interval over annotators should. The last line is one JSON object.

`coverage` is the function; other benches call it.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from annotate.agreement import krippendorff_alpha
from annotate.labels import Labels

Reals = NDArray[np.float64]

# Shares of the true classes; the middle one is rare, as ties are.
CLASSES = np.array([0.42, 0.16, 0.42])
# People are right with a chance of Beta(8, 3): three quarters, give or take 13 points.
RIGHT = (8.0, 3.0)
# Which class somebody prefers when wrong: Dirichlet, so that habits differ widely.
HABIT = 2.0


@dataclass(frozen=True)
class Coverage:
    """The shares of replications in which an interval held the true value."""

    people: int
    items: int
    overlap: int
    replications: int
    over_items: float
    """Of intervals over items: the value of this panel on infinitely many items."""
    over_annotators: float
    """Of intervals over annotators: the value of the population."""
    over_items_of_others: float
    """Of intervals over items: the value of the population, which they do not promise."""
    error: float
    """Standard error of a share of .95."""


def coverage(
    *,
    people: int = 10,
    items: int = 200,
    overlap: int = 10,
    replications: int = 400,
    resamples: int = 400,
    seed: int = 0,
) -> Coverage:
    """Nominal alpha of simulated panels.

    Args:
        people: in each panel.
        items: that each panel judges.
        overlap: people who judge an item, chosen at random.
        replications: panels.
        resamples: of each bootstrap.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    population = alpha_of(confusions(rng, 20_000).mean(axis=0)[None])
    held = []
    for replication in range(replications):
        panel = confusions(rng, people)
        labels = answers(rng, panel, items, overlap)
        figure = krippendorff_alpha(labels, seed=replication, resamples=resamples)
        of_items, of_people = figure.over_items, figure.over_annotators
        held.append(
            (
                within(of_items.low, of_items.high, alpha_of(panel)),
                within(of_people.low, of_people.high, population),
                within(of_items.low, of_items.high, population),
            )
        )
    items_held, people_held, others_held = (float(share) for share in np.mean(held, axis=0))
    error = round(math.sqrt(0.95 * 0.05 / replications), 4)
    return Coverage(
        people, items, overlap, replications, items_held, people_held, others_held, error
    )


def within(low: float | None, high: float | None, value: float) -> bool:
    """Whether an interval holds a value; one that is missing does not."""
    return low is not None and high is not None and low <= value <= high


def confusions(rng: np.random.Generator, people: int) -> Reals:
    """How each says a class that is true, shape (people, true, said)."""
    classes = len(CLASSES)
    right = rng.beta(*RIGHT, size=people)[:, None, None]
    habit = rng.dirichlet(np.full(classes, HABIT), size=people)[:, None, :]
    return np.asarray(right * np.eye(classes) + (1 - right) * habit)


def alpha_of(panel: Reals) -> float:
    """Alpha on infinitely many items: of every two of a panel, or of a population given its mean.

    Every two of the panel meet equally often. Confusions of a population's mean, one person, are
    taken to be those of two independent people.
    """
    people = len(panel)
    total = panel.sum(axis=0)
    both = total**2
    if people > 1:
        both = (both - (panel**2).sum(axis=0)) / (people * (people - 1))
    given = CLASSES @ (total / people)
    observed = 1 - float((CLASSES @ both).sum())
    return 1 - observed / (1 - float((given**2).sum()))


def answers(rng: np.random.Generator, panel: Reals, items: int, overlap: int) -> Labels:
    """Labels of a panel, `overlap` of them on each item."""

    people = len(panel)
    truth = rng.choice(len(CLASSES), size=items, p=CLASSES)
    who = np.argsort(rng.random((items, people)), axis=1)[:, :overlap]
    chance = np.cumsum(panel[who, truth[:, None]], axis=2)
    said = (rng.random((items, overlap, 1)) > chance).sum(axis=2).clip(max=len(CLASSES) - 1)
    return Labels(
        np.repeat(np.arange(items), overlap), who.ravel(), said.ravel(),
        [str(item) for item in range(items)], [str(person) for person in range(people)],
        ["b", "tie", "a"],
    )  # fmt: skip


def main() -> None:
    """Print the coverage of one setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--overlap", type=int, default=10)
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=400)
    given = parser.parse_args()
    print(json.dumps(asdict(coverage(**vars(given)))))


if __name__ == "__main__":
    main()
