"""What filters keep and how often it is right, on simulated votes with known truth.

    python bench/filters.py [--quick] [--seeds N]

The default filter keeps a pair for its calibrated posterior (`build-preference.yaml`); unanimity
keeps those on which all votes agree on a winner. Both are compared at the yield of unanimity, where
the default keeps its most probable pairs, as many as unanimity does; then at half of all pairs, and
with the threshold that the shipped recipe has. Precision is the share of kept pairs whose winner is
truly better. What a stated .95 means is counted over all seeds. Coverage of intervals is that of
`interval_coverage.py`. Settings: bench/filters.yaml. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from interval_coverage import coverage
from numpy.typing import NDArray

from annotate.consensus import vote_counts
from annotate.consensus.comparisons import Comparisons
from annotate.consensus.pairs import judge_pairs
from annotate.labels import Labels
from annotate.statistics import wilson

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]

SETTINGS = Path(__file__).with_name("filters.yaml")


@dataclass(frozen=True)
class Simulated:
    """Votes and the truth behind them."""

    compared: Comparisons
    a_is_better: Bools
    """Of each pair, shape (pairs,)."""


def simulate(
    settings: Mapping[str, Any], responses: int, bad: float, seed: int, *, equal: bool = False
) -> Simulated:
    """Votes on all pairs of each prompt's responses; `equal`: all differ by the same."""
    rng = np.random.default_rng(seed)
    people, votes = int(settings["people"]), int(settings["votes"])
    reliability = np.exp(rng.normal(0, settings["reliability_spread"], people))
    spoilt = rng.permutation(people)[: round(people * bad)]
    reliability[spoilt[0::2]] = 0.0
    reliability[spoilt[1::2]] = settings["adverse"]
    prompts = settings["prompts"][responses]
    score = rng.normal(0, settings["spread"], (prompts, responses))
    one, other = np.triu_indices(responses, 1)
    prompt = np.repeat(np.arange(prompts), len(one))
    a, b = np.tile(one, prompts), np.tile(other, prompts)
    difference = score[prompt, a] - score[prompt, b]
    if equal:
        difference = np.sign(difference) * settings["equal_difference"]
    pair = np.repeat(np.arange(len(prompt)), votes)
    who = np.argsort(rng.random((len(prompt), people)), axis=1)[:, :votes].ravel()
    seen = reliability[who] * difference[pair]
    chances = np.stack([np.exp(-seen / 2), np.full(len(seen), settings["tie"]), np.exp(seen / 2)])
    upto = np.cumsum(chances / chances.sum(axis=0), axis=0)
    said = (rng.random(len(seen)) > upto).sum(axis=0).clip(max=2)
    labels = Labels(
        pair, who, said, [f"{at:06}" for at in range(len(prompt))],
        [f"w{at:02}" for at in range(people)], ["b", "tie", "a"],
    )  # fmt: skip
    compared = Comparisons(labels, prompt, prompt * responses + a, prompt * responses + b)
    return Simulated(compared, difference > 0)


@dataclass(frozen=True)
class Kept:
    """What a filter kept."""

    share: float
    """Of all pairs: the yield."""
    precision: float


def measure(simulated: Simulated, threshold: float, band: Sequence[float]) -> dict[str, Any]:
    """Both filters on one simulated set, and the pairs whose posterior is stated to be .95."""
    counts = vote_counts(simulated.compared.votes)
    unanimous = counts.max(axis=1) == counts.sum(axis=1)
    unanimous &= counts[:, 1] < counts.sum(axis=1)
    posterior = judge_pairs(simulated.compared).posterior
    sure = np.maximum(posterior, 1 - posterior)
    right = (posterior > 0.5) == simulated.a_is_better
    # A pair that nobody wins is never kept before one that somebody wins.
    best = np.argsort(np.where(posterior == 0.5, 0.0, -sure), kind="stable")

    def top(n: int) -> Kept:
        return Kept(n / len(best), float(right[best[:n]].mean()))

    by_votes = (counts[:, 2] > counts[:, 0]) == simulated.a_is_better
    stated = (sure >= band[0]) & (sure <= band[1])
    return {
        "unanimity": Kept(float(unanimous.mean()), float(by_votes[unanimous].mean())),
        "default_at_unanimity": top(int(unanimous.sum())),
        "default_at_half": top(len(best) // 2),
        "default_as_shipped": top(int((sure >= threshold).sum())),
        "stated": (int(stated.sum()), float(sure[stated].sum()), int(right[stated].sum())),
    }


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds with their standard errors, and what a stated .95 meant in all of them."""
    found: dict[str, Any] = {}
    for name in ("unanimity", "default_at_unanimity", "default_at_half", "default_as_shipped"):
        precision = np.array([run[name].precision for run in runs])
        found[name] = {
            "precision": float(precision.mean()),
            "standard_error": float(precision.std(ddof=1) / math.sqrt(len(runs))),
            "yield": float(np.mean([run[name].share for run in runs])),
            "by_seed": [round(float(each), 4) for each in precision],
        }
    n, stated, right = (sum(run["stated"][at] for run in runs) for at in range(3))
    observed = wilson(right, n, over="pairs of all seeds")
    found["stated_95"] = {"stated": stated / n, "right": observed.to_dict()}
    return found


def shipped_threshold() -> float:
    """The posterior that the shipped recipe demands."""
    recipe = files("align") / "recipes" / "build-preference.yaml"
    rules = yaml.safe_load(recipe.read_text(encoding="utf-8"))["filters"]
    return float(next(rule["at_least"] for rule in rules if rule["rule"] == "posterior"))


def judged_against(found: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, bool]:
    """Which targets are met, by name."""
    met = {}
    for bad, least in targets["at_unanimity"].items():
        precision = found["filters"][f"2 responses, {bad:.0%} bad"]["default_at_unanimity"]
        met[f"unanimity's yield, {bad:.0%} bad"] = precision["precision"] >= least
    for bad, least in targets["at_half"].items():
        pairs = found["filters"][f"2 responses, {bad:.0%} bad"]["default_at_half"]
        met[f"half, {bad:.0%} bad"] = pairs["precision"] >= least
        four = found["filters"][f"4 responses, {bad:.0%} bad"]["default_at_half"]
        met[f"half of four, {bad:.0%} bad"] = four["precision"] >= targets["at_half_of_four"]
    low, high = targets["stated_95"]
    for name, figures in found["filters"].items():
        if name.endswith("equally hard"):
            continue
        met[f"stated .95, {name}"] = low <= figures["stated_95"]["right"]["value"] <= high
    low, high = targets["coverage"]
    for panel in found["coverage"]:
        for kind in ("over_items", "over_annotators"):
            met[f"{kind}, {panel['people']} people"] = low <= panel[kind] <= high
    return met


def run(settings: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """Everything, as one document."""
    simulation, threshold = settings["simulation"], shipped_threshold()
    band = settings["stated"]
    filters = {}
    for responses, equal in ((2, False), (4, False), (2, True)):
        for bad in simulation["bad"]:
            runs = [
                measure(simulate(simulation, responses, bad, seed, equal=equal), threshold, band)
                for seed in range(seeds)
            ]
            name = f"{responses} responses, {bad:.0%} bad" + (", equally hard" if equal else "")
            filters[name] = over_seeds(runs)
    intervals = settings["coverage"]
    panels = [
        coverage(**panel, replications=intervals["replications"], resamples=intervals["resamples"])
        for panel in intervals["panels"]
    ]
    found = {"seeds": seeds, "threshold": threshold, "filters": filters}
    found["coverage"] = [asdict(panel) for panel in panels]
    return found | {"met": judged_against(found, settings["targets"])}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The figures as a table in text."""
    table = []
    for name, figures in found["filters"].items():
        table.append(name)
        for rule in ("unanimity", "default_at_unanimity", "default_at_half", "default_as_shipped"):
            kept = figures[rule]
            error = kept["standard_error"]
            table.append(
                f"  {rule:22} precision {kept['precision']:.3f} ± {error:.3f}"
                f"  yield {kept['yield']:.3f}"
            )
        right = figures["stated_95"]["right"]
        table.append(
            f"  stated {figures['stated_95']['stated']:.3f}: right {right['value']:.3f}"
            f" [{right['low']:.3f}, {right['high']:.3f}], n={right['n']:,}"
        )
    for panel in found["coverage"]:
        table.append(
            f"intervals, {panel['people']} people: over items {panel['over_items']:.3f},"
            f" over annotators {panel['over_annotators']:.3f} ± {panel['error']:.3f}"
        )
    return [*table, *(f"missed: {name}" for name, met in found["met"].items() if not met)]


def main() -> None:
    """Parse, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer seeds and replications")
    parser.add_argument("--seeds", type=int, help="how many; by default as the settings say")
    options = parser.parse_args()
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    seeds = settings["seeds"]
    if options.quick:
        seeds = settings["quick"]["seeds"]
        settings["simulation"]["prompts"] = settings["quick"]["prompts"]
        settings["coverage"]["replications"] = settings["quick"]["replications"]
    start = time.perf_counter()
    found = run(settings, options.seeds or seeds)
    found["seconds"] = round(time.perf_counter() - start, 1)
    print("\n".join(lines(found)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
