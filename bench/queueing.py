"""Labels needed for the accuracy that uniform labelling buys: by entropy against uniform.

By entropy the next label of a pair comes from anybody (`at_most_5`, `at_most_8`), or from the most
reliable person who has not judged it (`at_most_5_by_reliable`), reliability being what Dawid–Skene
holds of the votes bought so far and nobody giving more than twice the mean.

    python bench/queueing.py [--quick] [--seeds N] [--data pandalm/testset-v1.json]

Both policies draw from the same stream of answers to each pair, judge by the same Dawid–Skene, and
are compared at what uniform labelling reaches with 3, 4 and 5 labels a pair. `ratio` is the labels
that entropy needed over uniform's. Accuracy is by the truth in simulation, and on real votes (with
--data) by a vote that neither policy saw; what the posterior claims is never used. Intervals
resample seeds. Settings: bench/queueing.yaml. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from annotate.consensus import Consensus, dawid_skene
from annotate.labels import Labels
from annotate.queueing import choose, entropy, hand_out

Codes = NDArray[np.int64]
Reals = NDArray[np.float64]

SETTINGS = Path(__file__).with_name("queueing.yaml")
CLASSES = ["b", "tie", "a"]


@dataclass(frozen=True)
class Panel:
    """Every answer that could be bought."""

    said: Codes
    """Class, shape (pairs, people)."""
    turn: Codes
    """The people of each pair in the order in which they come to it, shape (pairs, people)."""

    def first(self, labels: Codes) -> NDArray[np.bool_]:
        """The first so many people of each pair; shape (pairs, people)."""
        there = np.zeros(self.said.shape, dtype=np.bool_)
        places = np.arange(self.said.shape[1])[None, :] < labels[:, None]
        np.put_along_axis(there, self.turn, places, axis=1)
        return there

    def judged(self, bought: NDArray[np.bool_]) -> Consensus:
        """Of the answers bought, shape (pairs, people); classes b, tie, a."""
        item, person = np.nonzero(bought)
        pairs, people = bought.shape
        labels = Labels(
            item, person, self.said[bought],
            [str(one) for one in range(pairs)], [str(one) for one in range(people)], CLASSES,
        )  # fmt: skip
        return dawid_skene(labels, symmetric=True)


Accuracy = Callable[[Reals], float]
"""Of class probabilities, by something that no policy has seen."""


def uniform(panel: Panel, accuracy: Accuracy, targets: Sequence[int]) -> Reals:
    """Accuracy with so many labels of every pair, shape (targets,)."""
    pairs = len(panel.said)
    bought = [panel.first(np.full(pairs, target)) for target in targets]
    return np.array([accuracy(panel.judged(some).probability) for some in bought])


def by_entropy(
    panel: Panel, accuracy: Accuracy, grid: Reals, policy: Mapping[str, Any], rng: Any
) -> Reals:
    """Accuracy with `grid` labels a pair on average, chosen by entropy; shape (grid,)."""
    pairs, people = panel.said.shape
    bought = np.zeros((pairs, people), dtype=np.bool_)
    scores, worth = np.zeros(pairs), None
    found = []
    for target in np.rint(grid * pairs).astype(np.int64):
        while (lacking := int(target - bought.sum())) > 0:
            keys = rng.integers(0, 2**63, pairs).astype(np.uint64)
            count = bought.sum(axis=1)
            some = choose(lacking, count, scores, keys, first=policy["first"], most=policy["most"])
            if worth is None:
                bought = panel.first(count + np.isin(np.arange(pairs), some))
                continue
            room = int(policy["busiest"] * target / people) - bought.sum(axis=0)
            who = hand_out(bought[some], np.maximum(room, 0), worth)
            if (who < 0).all():
                break
            bought[some[who >= 0], who[who >= 0]] = True
        state = panel.judged(bought)
        scores = entropy(state.probability)
        worth = state.reliability if policy["whom"] == "reliable" else None
        found.append(accuracy(state.probability))
    return np.array(found)


def simulated(what: Mapping[str, Any], careless: float, rng: Any) -> tuple[Panel, Accuracy]:
    """A panel's answers, and the accuracy by the truth, half a point for a tie."""
    pairs, people = what["pairs"], what["people"]
    truth = rng.integers(0, 2, pairs) * 2  # b or a
    bad = round(careless * people)
    ability = rng.uniform(*what["accuracy"], people)
    ability[:bad] = np.where(np.arange(bad) % 2 == 0, 0.5, what["adverse_accuracy"])
    turn = np.argsort(rng.random((pairs, people)), axis=1)
    logit = np.log(ability / (1 - ability))
    ease = np.exp(rng.normal(0, what["difficulty"], pairs))  # 1 in the middle
    chance = 1 / (1 + np.exp(-logit * ease[:, None]))
    right = rng.random((pairs, people)) < chance
    said = np.where(right, truth[:, None], 2 - truth[:, None])
    said = np.where(rng.random((pairs, people)) < what["says_tie"], 1, said)

    def accuracy(probability: Reals) -> float:
        lead = np.sign(probability[:, 2] - probability[:, 0])
        return float(np.mean((1 + lead * (truth - 1)) / 2))

    return Panel(said, turn), accuracy


def replayed(path: Path, held_out: int, rng: Any) -> tuple[Panel, Accuracy]:
    """PandaLM's votes: two people's as a panel, the third's as the judge of accuracy."""
    rows = json.loads(path.read_text())
    votes = np.array([[row[f"annotator{n}"] for n in (1, 2, 3)] for row in rows])
    classes = np.array([1, 2, 0])[votes]  # 0 a tie, 1 the first, 2 the second
    others = np.array([person for person in range(3) if person != held_out])
    turn = np.argsort(rng.random((len(rows), 2)), axis=1)
    judge = classes[:, held_out]

    def accuracy(probability: Reals) -> float:
        return float(np.mean(probability.argmax(axis=1) == judge))

    return Panel(classes[:, others], turn), accuracy


def labels_to_reach(grid: Reals, curve: Reals, target: float) -> float:
    """Labels a pair at which a curve first reaches the target; NaN if it never does."""
    reached = np.flatnonzero(curve >= target - 1e-12)  # of two means of the same, one may be less
    if not len(reached):
        return float("nan")
    at = int(reached[0])
    if at == 0:
        return float(grid[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(grid[at - 1] + share * (grid[at] - grid[at - 1]))


def compared(
    grid: Reals, even: Reals, chosen: Reals, targets: Sequence[int], resamples: int
) -> dict[str, Any]:
    """Ratios of labels at each target.

    The mean curve over seeds is what reaches a target: a single one crosses it by luck.

    Args:
        even: accuracy by uniform labelling, shape (seeds, targets).
        chosen: accuracy by entropy, shape (seeds, grid).
    """
    draws = np.random.default_rng(0).integers(0, len(even), (resamples, len(even)))
    found: dict[str, Any] = {}
    for number, target in enumerate(targets):
        value = labels_to_reach(grid, chosen.mean(axis=0), float(even[:, number].mean())) / target
        reached = np.array(
            [
                labels_to_reach(grid, chosen[draw].mean(axis=0), float(even[draw, number].mean()))
                for draw in draws
            ]
        )
        ratios = np.where(np.isnan(reached), np.inf, reached / target)  # not reached: no saving
        low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
        at = int(np.argmin(np.abs(grid - target)))
        found[f"uniform-{target}"] = {
            "accuracy": round(float(even[:, number].mean()), 4),
            "accuracy_at_equal_labels": round(float(chosen[:, at].mean()), 4),
            "ratio": _number(value),
            "interval": [_number(low), _number(high)],
            "reason": "not reached" if np.isnan(value) else None,
        }
    return found


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def run(settings: dict[str, Any], data: Path | None) -> dict[str, Any]:
    """Every panel of the settings, and the real votes if there are any."""
    result: dict[str, Any] = {
        "seeds": settings["seeds"],
        "pairs": settings["simulation"]["pairs"],
        "interval_over": "seeds",
    }
    for careless in settings["simulation"]["careless"]:
        result[f"simulated_{round(100 * careless)}"] = on_simulation(settings, careless)
    if data is not None:
        result["real"] = on_real_votes(settings, data)
    return result


def on_simulation(settings: dict[str, Any], careless: float) -> dict[str, Any]:
    """One panel: for each way of choosing, the ratio at each target."""
    policy, targets = settings["policy"], settings["targets"]
    grid = _grid(policy["first"], max(targets), policy["step"])
    even: list[Reals] = []
    ways = {
        f"at_most_{way['most']}" + ("_by_reliable" if way["whom"] == "reliable" else ""): way
        for way in policy["ways"]
    }
    chosen: dict[str, list[Reals]] = {name: [] for name in ways}
    for seed in range(settings["seeds"]):
        rng = np.random.default_rng([seed, round(100 * careless)])
        panel, accuracy = simulated(settings["simulation"], careless, rng)
        even.append(uniform(panel, accuracy, targets))
        for name, way in ways.items():
            chosen[name].append(by_entropy(panel, accuracy, grid, policy | way, rng))
        print(f"careless {careless:.0%}, seed {seed}: uniform {np.round(even[-1], 4).tolist()}")
    return {
        name: compared(grid, np.array(even), np.array(curves), targets, settings["resamples"])
        for name, curves in chosen.items()
    }


def _grid(first: int, last: int, step: float) -> Reals:
    return np.round(np.arange(first, last + step / 2, step), 6)


def on_real_votes(settings: dict[str, Any], data: Path) -> dict[str, Any]:
    """From one to two votes a pair, judged by the third: all that three votes can tell."""
    policy = settings["policy"] | {"first": 1, "most": 2, "whom": "anybody"}
    grid = _grid(1, 2, policy["step"])
    even, chosen = [], []
    for seed in range(settings["seeds"]):
        panels = [
            replayed(data, held_out, np.random.default_rng([seed, held_out]))
            for held_out in range(3)
        ]
        # Who is held out is no sample: a seed's three are one draw.
        even.append(np.mean([uniform(*panel, (1, 2)) for panel in panels], axis=0))
        rng = np.random.default_rng(seed)
        curves = [by_entropy(*panel, grid, policy, rng) for panel in panels]
        chosen.append(np.mean(curves, axis=0))
    votes, curves = np.array(even), np.array(chosen)
    found = compared(grid, votes[:, 1:], curves, [2], settings["resamples"])
    one, two = votes.mean(axis=0)
    if one >= two:
        found["uniform-2"]["reason"] = "one vote is as accurate as two: there is nothing to save"
    return found | {"uniform-1_accuracy": round(float(one), 4)}


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pairs and seeds")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--data", type=Path, help="PandaLM's testset-v1.json, for real votes")
    options = parser.parse_args()
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    if options.quick:
        settings["simulation"]["pairs"] = settings["quick"]["pairs"]
        settings["seeds"] = settings["quick"]["seeds"]
    settings["seeds"] = options.seeds or settings["seeds"]
    print(json.dumps(run(settings, options.data)))


if __name__ == "__main__":
    main()
