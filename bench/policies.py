"""How well `handloom plan` chooses: its policy against each fixed one, at equal votes bought.

    python bench/policies.py [--quick] [--seeds N] [--jobs N]

Settings stand in bench/policies.yaml, fixed beforehand. Each seed has its own pairs, votes and test
pairs. The chooser reads the votes so far and nothing else; then every policy buys the same number
of further votes on the same pairs in the same order from the same SIMULATED annotators, and its
reward model (the linear one, trained on the votes so far too) is scored by the rubric on pairs that
nobody voted on.

Two comparisons, intervals Student's t over seeds, paired:

- "same past": everybody has the votes so far and N more. What `handloom plan` answers.
- "past charged": fixed policies spend all N by their own rule; the chooser's N include its votes
  so far. What choosing costs where nothing was known before.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

Reals = NDArray[np.float64]
Signs = NDArray[np.int8]

SETTINGS = Path(__file__).with_suffix(".yaml")


def read_settings(quick: bool) -> dict[str, Any]:
    """The settings file, with its smaller sizes where asked."""
    settings: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    smaller = settings.pop("quick")
    return settings | smaller if quick else settings


def desk_pairs(settings: dict[str, Any], seed: int) -> tuple[Reals, Reals]:
    """Feature differences (pairs, d) and rubric differences (pairs,) of all pairs, none of them 0.

    Features know the texts of all pairs and no vote.
    """
    from align.tune.features import text_features
    from annotate.records import flat_text
    from annotate.support_desk import answers, prompts, score

    wanted = settings["pairs"] + settings["test_pairs"]
    asked, said, scores = [], [], []
    conversations = prompts(min(3000, wanted), seed=seed)
    for at in range(int(1.1 * wanted)):
        messages = conversations[at % len(conversations)]
        for text in answers(messages, 2, seed=[seed, at]):
            asked.append(flat_text(messages))
            said.append(text)
            scores.append(score(messages, text))
    features = text_features(asked, said, seed=seed)
    lead = np.array(scores[0::2]) - np.array(scores[1::2])
    use = np.flatnonzero(lead)[:wanted]
    return (features[0::2] - features[1::2])[use], lead[use]


def cast_votes(world: dict[str, Any], lead: Reals, rng: np.random.Generator) -> Signs:
    """Three SIMULATED votes on each pair, 1 or -1."""
    shape = (len(lead), 3)
    if world["kind"] == "flat":
        mistaken = np.full(shape, world["rate"])
    elif world["kind"] == "difficulty":
        size = np.abs(lead)
        steep = brentq(lambda k: expit(-k * size).mean() - world["rate"], 1e-3, 1e3)
        mistaken = np.repeat(expit(-steep * size)[:, None], 3, axis=1)
    else:
        people = np.array(world["mistaken"])
        who = rng.permuted(np.tile(np.arange(len(people)), (len(lead), 1)), axis=1)[:, :3]
        mistaken = people[who]
    votes = np.sign(lead)[:, None] * np.where(rng.random(shape) < mistaken, -1, 1)
    return np.asarray(votes, dtype=np.int8)


def run_seed(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Every world of one seed."""
    differences, lead = desk_pairs(settings, seed)
    return {
        name: run_world(world, differences, lead, settings, seed)
        for name, world in settings["worlds"].items()
    }


def run_world(
    world: dict[str, Any], differences: Reals, lead: Reals, settings: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """What was chosen at each budget, and the accuracy of every policy in both comparisons."""
    from align.tune.policies import POLICIES
    from align.tune.simulation import VotesSoFar, expect

    pool, past = settings["pairs"], settings["so_far"]["pairs"]
    votes = cast_votes(world, lead[:pool], np.random.default_rng([seed, 1]))
    early = votes[:past, : settings["so_far"]["votes"]]
    counts = np.stack([(early == sign).sum(axis=1) for sign in (1, -1, 0)], axis=1)
    # All that the chooser is given; the rubric is not among it.
    so_far = VotesSoFar(differences[:past], np.arange(past), counts.astype(float))
    expected = expect(so_far, settings["budgets"], seed=seed, draws=settings["draws"])
    flips = [noise.flip for noise in expected.noises]
    trial = Trial(differences[:pool], votes, so_far, differences[pool:], lead[pool:])
    rows = []
    for at, budget in enumerate(settings["budgets"]):
        choice = expected.best(budget)
        charged = budget - early.size
        rows.append(
            {
                "budget": budget,
                "choice": POLICIES[choice].name,
                "expected": expected.accuracy[at].mean(axis=0).tolist(),
                "flip": [float(np.mean(flips)), float(np.min(flips)), float(np.max(flips))],
                "same_past": [trial.accuracy(policy, budget, past) for policy in POLICIES],
                "from_nothing": [trial.accuracy(policy, budget, 0) for policy in POLICIES],
                "charged": trial.accuracy(POLICIES[choice], charged, past) if charged > 0 else None,
            }
        )
    return rows


class Trial:
    """One seed's pairs and votes, on which policies are tried."""

    def __init__(
        self, differences: Reals, votes: Signs, so_far: Any, test: Reals, truth: Reals
    ) -> None:
        self.differences, self.votes, self.so_far = differences, votes, so_far
        self.test, self.truth = test, np.sign(truth)

    def accuracy(self, policy: Any, budget: int, past: int) -> float:
        """Of the model of `budget` votes bought after the first `past` pairs, and of those pairs'
        own votes.
        """
        from align.tune.policies import buy
        from align.tune.reward_model import fit

        rest = slice(past, None)
        bought = buy(policy, self.votes[rest], budget)
        rows, label = self.differences[rest][bought.pairs], bought.label > 0
        if past:
            known, known_label = self.so_far.decided
            rows, label = np.vstack([known, rows]), np.concatenate([known_label, label])
        model = fit(rows, label.astype(np.float64))
        return float(np.mean(np.sign(model.margins(self.test)) == self.truth))


def student(differences: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, Student's t."""
    from scipy.stats import t

    values = np.asarray(differences)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {"mean": mean, "ci95": None, "n": n, "reason": "one seed has no spread"}
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": n, "over": "seeds"}


def summarise(by_seed: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Each world and budget: the chosen policy against each fixed one."""
    return {
        "settings": settings,
        "annotators": "simulated",
        "worlds": {
            world: {
                str(budget): compared([seed[world][at] for seed in by_seed], settings["within"])
                for at, budget in enumerate(settings["budgets"])
            }
            for world in settings["worlds"]
        },
    }


def compared(rows: list[dict[str, Any]], within: float) -> dict[str, Any]:
    """One world and budget over seeds."""
    from align.tune.policies import POLICIES

    names = [policy.name for policy in POLICIES]
    same = np.array([row["same_past"] for row in rows])
    chosen = np.array([row["same_past"][names.index(row["choice"])] for row in rows])
    found = against(names, same, chosen, within)
    found["choices"] = {name: sum(row["choice"] == name for row in rows) for name in names}
    found["expected"] = dict(
        zip(names, np.mean([row["expected"] for row in rows], axis=0).tolist(), strict=True)
    )
    found["flip_estimated"] = [row["flip"] for row in rows]
    if all(row["charged"] is not None for row in rows):
        fixed = np.array([row["from_nothing"] for row in rows])
        paid = np.array([row["charged"] for row in rows])
        found["past_charged"] = against(names, fixed, paid, within)
    return found


def against(names: list[str], fixed: Reals, chosen: Reals, within: float) -> dict[str, Any]:
    """The chooser's accuracy (seeds,) against that of each fixed policy (seeds, policies)."""
    means = fixed.mean(axis=0)
    best, worst = int(means.argmax()), int(means.argmin())
    return {
        "accuracy": {name: student(fixed[:, at].tolist()) for at, name in enumerate(names)}
        | {"chosen": student(chosen.tolist())},
        "accuracies": {name: fixed[:, at].tolist() for at, name in enumerate(names)}
        | {"chosen": chosen.tolist()},
        "chosen_minus": {
            name: student((chosen - fixed[:, at]).tolist()) for at, name in enumerate(names)
        },
        "best_fixed": names[best],
        "worst_fixed": names[worst],
        "behind_the_best": float(means[best] - chosen.mean()),
        "within": bool(means[best] - chosen.mean() <= within),
        "worst": bool(chosen.mean() <= means[worst]),
        "seeds_within": int((fixed.max(axis=1) - chosen <= within).sum()),
    }


def in_processes(seeds: Sequence[int], quick: bool, jobs: int) -> list[dict[str, Any]]:
    """Each seed in a process of its own with one thread, `jobs` at a time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def one(seed: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--one-seed", str(seed)]
        command += ["--quick"] if quick else []
        started = time.monotonic()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        result: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, seeds))


def print_table(found: dict[str, Any]) -> None:
    """The figures as text."""
    for world, budgets in found["worlds"].items():
        for budget, figures in budgets.items():
            print(f"\n{world}, {budget} votes: chosen {figures['choices']}")
            for name, figure in figures["accuracy"].items():
                minus = figures["chosen_minus"].get(name)
                gain = f"chosen − this {_interval(minus)}" if minus else ""
                print(f"  {name:32} {_interval(figure)}   {gain}")
            print(
                f"  behind the best by {figures['behind_the_best']:.4f}"
                + (", WORST" if figures["worst"] else "")
                + (
                    f"; with the past charged by {figures['past_charged']['behind_the_best']:.4f}"
                    if "past_charged" in figures
                    else ""
                )
            )


def _interval(figure: dict[str, Any]) -> str:
    if figure["ci95"] is None:
        return f"{figure['mean']:+.4f}"
    low, high = figure["ci95"]
    return f"{figure['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    """Parse, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: about a minute")
    parser.add_argument("--seeds", type=int, help="how many instead of the settings'")
    parser.add_argument("--first-seed", type=int, default=0, help="1000: for trying things out")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--one-seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = read_settings(options.quick)
    if options.one_seed is not None:
        print(json.dumps(run_seed(options.one_seed, settings)))
        return
    count = options.seeds or settings["seeds"]
    seeds = range(options.first_seed, options.first_seed + count)
    found = summarise(in_processes(seeds, options.quick, options.jobs), settings)
    print_table(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
