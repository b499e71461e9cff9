"""What a filter costs and gains: policies compared at the same number of votes bought.

    python bench/filters_effect.py [--quick] [--seeds N] [--jobs N]

Each seed has a model of its own (SFT of the shipped base), its completions, and the same SIMULATED
annotators (annotate/simulated_annotators.yaml, fixed before the first run) who vote on pairs drawn
in one order. Every policy buys the same number of votes, keeps the pairs it trusts, and trains DPO
on them from the same model. The steps are the project's own (judge, build, train, evaluate); only
the way of the votes through Argilla is left out, which does not change them.

The win rate is over the SFT model on 200 held-out prompts, judged by the rubric behind the
simulated annotators. Policies are compared pairwise within a seed; intervals are Student's t over
seeds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

VOTES = 960
HELD_OUT = 200
COMMON = [{"rule": "ties"}, {"rule": "both_bad", "at_most": 0}, {"rule": "identical"}]
_AGREE = [{"rule": "agreement", "at_least": 1.0}]


@dataclass(frozen=True)
class Policy:
    """How votes are bought, and which pairs are trusted."""

    votes: int
    """A pair."""
    tie_break: bool = False
    """Whether a split pair gets one vote more."""
    filters: tuple[dict[str, Any], ...] = ()
    """Beside those that every policy has: ties, both bad, identical."""
    same_pairs_as: str | None = None
    """Keep so many pairs as this policy did, at random: the control without a filter."""


POLICIES = {
    "one vote": Policy(1),
    "two votes, agreement": Policy(2, filters=tuple(_AGREE)),
    "two votes, a third on a split, majority": Policy(2, tie_break=True),
    "three votes, majority": Policy(3),
    "three votes, unanimous": Policy(3, filters=tuple(_AGREE)),
    "unfiltered, as many pairs as agreement keeps": Policy(1, same_pairs_as="two votes, agreement"),
}
FILTERED, UNFILTERED = "two votes, agreement", "unfiltered, as many pairs as agreement keeps"


class Candidates:
    """One seed's pairs, and everybody's answer to each: a policy reads as many as it pays for."""

    def __init__(
        self,
        project: Any,
        generated: Any,
        seed: int,
        pairs: int,
        annotators: dict[str, Any] | None = None,
    ) -> None:
        from annotate.display import arrange
        from annotate.guidelines import load_guideline
        from annotate.simulated_annotators import (
            SimulatedAnnotator,
            SimulationSettings,
            load_settings,
        )
        from annotate.support_desk import score

        prompts, outputs = generated.read("prompts"), generated.read("outputs")
        self.guideline = load_guideline(project.root, "preference@v1")
        arranged = arrange(prompts, outputs, self.guideline, batch="bench", seed=seed)
        rows = arranged.items.to_pylist()
        rng = np.random.default_rng(seed)
        self.items = [rows[at] for at in rng.permutation(len(rows))[:pairs]]
        said = zip(prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist(), strict=True)
        messages = dict(said)
        self.scores = {
            row["output_id"]: 10 * score(messages[row["prompt_id"]], row["completion"])
            for row in outputs.to_pylist()
        }
        settings = SimulationSettings.model_validate(annotators) if annotators else load_settings()
        self.people = {
            name: SimulatedAnnotator(name, person, settings, seed)
            for name, person in settings.people.items()
        }
        # Everybody is asked in turn, so that each policy has the same mixture of people.
        names = sorted(self.people)
        self.order = [[names[(at + k) % len(names)] for k in range(3)] for at in range(len(rows))]

    def buy(self, policy: Policy, votes: int) -> tuple[list[dict[str, Any]], pa.Table]:
        """The items that the budget reaches, and the responses to them."""
        from annotate.records import table_from_rows

        rows: list[dict[str, Any]] = []
        bought, reached = 0, []
        for at, item in enumerate(self.items):
            if bought + policy.votes > votes:
                break
            signs = []
            for place, name in enumerate(self.order[at]):
                split = policy.tie_break and len(set(signs)) > 1
                if place >= policy.votes + split or bought >= votes:
                    break
                given = self.people[name].answers(item, self.guideline, self.scores)
                signs.append(np.sign(dict(given)["preference"]["strength"]))
                rows += self._rows(item, name, given)
                bought += 1
            reached.append(item)
        return reached, table_from_rows("responses", rows)

    def _rows(self, item: Any, name: str, given: Any) -> Iterator[dict[str, Any]]:
        for question, value in given:
            if question == "both_bad" and value is not True:
                continue
            yield {
                "item_id": item["item_id"],
                "annotator": name,
                "question": question,
                "value": json.dumps(value),
                "status": "submitted",
                "time": datetime(2026, 1, 1, tzinfo=UTC),
                "guideline": item["guideline"],
            }


def run_seed(seed: int, votes: int, folder: Path) -> dict[str, dict[str, float]]:
    """Every policy of one seed: pairs kept, label accuracy, win rate."""
    from align.evaluate.pools import PromptChoice
    from align.evaluate.step import evaluate
    from align.generate import generate
    from align.prompts import read_prompts
    from align.sampling import Sampling
    from align.train import train
    from annotate.project_init import init_project

    project, _ = init_project(folder)
    sft = train(project, "sft-support-desk", seed=seed)
    source = read_prompts(project, "support-desk", split="train", count=votes, seed=seed)
    generated = generate(project, [sft.id], source, n=2, sampling=Sampling(seed=seed))
    candidates = Candidates(project, generated, seed, votes)
    results: dict[str, dict[str, float]] = {}
    for name, policy in POLICIES.items():
        keep = int(results[policy.same_pairs_as]["pairs"]) if policy.same_pairs_as else None
        built = build_policy(project, generated, candidates, name, votes, keep, seed)
        model = train(project, "dpo-support-desk", data=built.id, model=sft.id, seed=seed)
        judged = evaluate(
            project,
            model,
            against=[sft.id],
            choice=PromptChoice("support-desk", HELD_OUT, pool_count=0),
            scorer="support-rubric",
            sampling=Sampling(seed=seed),
        )
        rate = judged.metrics["comparisons"][0]["win_rate"]["value"]
        pairs = built.read("preference")
        results[name] = {
            "pairs": pairs.num_rows,
            "label_accuracy": label_accuracy(pairs, candidates.scores),
            "win_rate": rate,
        }
        print(f"seed {seed}: {name}: {results[name]}", file=sys.stderr, flush=True)
    return results


def build_policy(
    project: Any,
    generated: Any,
    candidates: Candidates,
    name: str,
    votes: int,
    keep: int | None,
    seed: int,
) -> Any:
    """The training set of one policy, by the steps judge and build."""
    from align.build import build
    from annotate.judge import judge

    policy = POLICIES[name]
    items, responses = candidates.buy(policy, votes)
    if keep is not None:
        # One vote decides; a tie decides nothing and would not have been kept either.
        decided = decisive(responses)
        wanted = set(decided[:keep])
        items = [item for item in items if item["item_id"] in wanted]
        responses = responses.filter(pc.is_in(responses["item_id"], pa.array(sorted(wanted))))
    settings = {"policy": name, "votes": votes, "seed": seed}
    pull = pulled(project, generated, settings, items, responses)
    recipe = project.root / "recipes" / f"build-{pull.id}.yaml"
    filters = [*COMMON, *policy.filters]
    recipe.write_text(yaml.safe_dump({"filters": filters, "held_out": 0.0}))
    judged = judge(project, pull, method="majority")
    return build(project, [judged], recipe=str(recipe))


def pulled(
    project: Any, generated: Any, settings: dict[str, Any], items: Sequence[Any], responses: Any
) -> Any:
    """The pull run of these responses, as if they had come from a server."""
    from annotate.records import table_from_rows
    from annotate.runs import RunPlan

    settings = {**settings, "bench": "no server took part"}
    with project.draft(RunPlan("push", 1, (generated,), settings)) as push:
        push.write("items", table_from_rows("items", items))
    with project.draft(RunPlan("pull", 1, (push.run,), settings)) as pull:
        pull.write("items", table_from_rows("items", items))
        pull.write("responses", responses)
    return pull.run


def decisive(responses: pa.Table) -> list[str]:
    """Items whose only vote prefers one side and does not call both bad, in order."""
    bad = set(responses.filter(pc.equal(responses["question"], "both_bad"))["item_id"].to_pylist())
    votes = responses.filter(pc.equal(responses["question"], "preference"))
    pairs = zip(votes["item_id"].to_pylist(), votes["value"].to_pylist(), strict=True)
    return [item for item, value in pairs if json.loads(value)["strength"] and item not in bad]


def label_accuracy(pairs: pa.Table, scores: dict[str, float]) -> float:
    """The share of pairs whose chosen output truly scores higher, equal ones counting half."""
    chosen = np.array([scores[output] for output in pairs["chosen_output"].to_pylist()])
    rejected = np.array([scores[output] for output in pairs["rejected_output"].to_pylist()])
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))


def student(differences: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, Student's t."""
    from scipy.stats import t

    values = np.asarray(differences)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {"mean": mean, "ci95": None, "n": n, "reason": "one seed has no spread"}
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": n, "over": "seeds"}


def summarise(by_seed: list[dict[str, dict[str, float]]], votes: int) -> dict[str, Any]:
    """Each policy's figures, and the paired differences."""

    def rates(name: str) -> list[float]:
        return [seed[name]["win_rate"] for seed in by_seed]

    def paired(one: str, other: str) -> dict[str, Any]:
        return student([a - b for a, b in zip(rates(one), rates(other), strict=True)])

    equal_votes = [name for name, policy in POLICIES.items() if policy.same_pairs_as is None]
    return {
        "votes": votes,
        "judged_by": "the rubric behind the simulated annotators",
        "policies": {
            name: {
                "win_rate": student(rates(name)),
                "win_rates": rates(name),
                "pairs": [int(seed[name]["pairs"]) for seed in by_seed],
                "label_accuracy": float(
                    np.mean([seed[name]["label_accuracy"] for seed in by_seed])
                ),
            }
            for name in POLICIES
        },
        "filtered_minus_unfiltered_at_equal_pairs": paired(FILTERED, UNFILTERED),
        "differences_at_equal_votes": {
            f"{one} minus {other}": paired(one, other)
            for at, one in enumerate(equal_votes)
            for other in equal_votes[at + 1 :]
        },
    }


def in_processes(
    script: str, seeds: Sequence[int], options: Sequence[str], jobs: int
) -> list[dict[str, Any]]:
    """Each seed in a process of its own, `jobs` at a time, the cores shared out."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def one(seed: int) -> dict[str, Any]:
        command = [sys.executable, script, "--one-seed", str(seed), *options]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
        result: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, seeds))


def main() -> None:
    """Parse, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 120 votes: about a minute")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--votes", type=int, default=VOTES, help="bought by every policy")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--one-seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    votes = 120 if options.quick else options.votes
    if options.one_seed is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run_seed(options.one_seed, votes, Path(folder))))
        return
    seeds = range(1 if options.quick else options.seeds)
    by_seed = in_processes(__file__, seeds, ["--votes", str(votes)], options.jobs)
    found = summarise(by_seed, votes)
    for name, figures in found["policies"].items():
        mean, rates = figures["win_rate"]["mean"], figures["win_rates"]
        each = " ".join(f"{rate:.3f}" for rate in rates)
        print(f"{name:46} {mean:.3f}   [{each}]   pairs {figures['pairs']}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
