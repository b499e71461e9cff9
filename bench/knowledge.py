"""What the loop's own knowledge is worth to a model: filters, noise rates, margins.

    python bench/knowledge.py [--quick] [--seeds N] [--jobs N]

Each seed has a model of its own (SFT of the shipped base), its completions, and SIMULATED
annotators of whose votes 30 % are flipped (bench/knowledge.yaml, fixed before the first recorded
run). Compared, paired within a seed, intervals Student's t over seeds:

- filters at equal pairs: three unanimous votes with a margin of "slightly better" at least, against
  as many pairs of one vote each; both train DPO. What the filtered pairs cost is stated.
- filters at equal votes: the same two and "two votes that agree", each with the same votes bought.
- noise: three votes a pair, every pair that somebody wins; robust DPO with the build's own estimate
  of flipped labels against plain DPO on the same pairs.
- margin: a reward model on those pairs with people's margin in its loss against one without, by
  accuracy on held-out pairs of which the rubric knows the better one.

The win rate is over the SFT model on held-out prompts, judged by the rubric behind the simulated
annotators. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from filters_effect import COMMON, Candidates, Policy, in_processes, label_accuracy, pulled, student

SETTINGS = Path(__file__).with_suffix(".yaml")
_AGREE = {"rule": "agreement", "at_least": 1.0}
_MARGIN = {"rule": "margin", "at_least": 1 / 3}


@dataclass(frozen=True)
class Arm:
    """Which pairs are bought and kept, and what learns from them."""

    policy: Policy
    equal: str
    """"pairs" or "votes": what it has as many of as the arms it is compared with."""
    recipe: str = "dpo-support-desk"
    method: str = "majority"
    """Of the step judge."""


ARMS = {
    "one vote": Arm(Policy(1), "pairs"),
    "three unanimous, margin": Arm(Policy(3, filters=(_AGREE, _MARGIN)), "pairs"),
    "one vote, equal votes": Arm(Policy(1), "votes"),
    "two that agree, equal votes": Arm(Policy(2, filters=(_AGREE,)), "votes"),
    "three unanimous, margin, equal votes": Arm(Policy(3, filters=(_AGREE, _MARGIN)), "votes"),
    "three votes, plain": Arm(Policy(3), "pairs", method="auto"),
    "three votes, robust": Arm(Policy(3), "pairs", "dpo-robust", "auto"),
}
DIFFERENCES = (
    ("filters at equal pairs", "three unanimous, margin", "one vote"),
    (
        "filters at equal votes",
        "three unanimous, margin, equal votes",
        "one vote, equal votes",
    ),
    ("agreement at equal votes", "two that agree, equal votes", "one vote, equal votes"),
    ("noise rate in the loss", "three votes, robust", "three votes, plain"),
)
REWARD = {"margin": "true", "no margin": "false"}


def run_seed(seed: int, sizes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Every arm of one seed, and the two reward models."""
    from align.generate import generate
    from align.prompts import read_prompts
    from align.sampling import Sampling
    from align.train import train
    from annotate.project_init import init_project
    from annotate.simulated_annotators import load_settings

    project, _ = init_project(folder)
    sft = train(project, "sft-support-desk", seed=seed)
    source = read_prompts(project, "support-desk", split="train", count=sizes["prompts"], seed=seed)
    generated = generate(project, [sft.id], source, n=2, sampling=Sampling(seed=seed))
    people = load_settings().model_dump() | {"people": sizes["people"]}
    candidates = Candidates(project, generated, seed, sizes["prompts"], people)
    found: dict[str, Any] = {}
    for name, arm in ARMS.items():
        built, bought = build_arm(project, generated, candidates, arm, name, sizes, seed)
        model = train(project, arm.recipe, data=built.id, model=sft.id, seed=seed)
        pairs = built.read("preference")
        found[name] = {
            "pairs": pairs.num_rows,
            "votes": bought,
            "label_accuracy": label_accuracy(pairs, candidates.scores),
            "noise_rate": built.metrics["noise_rate"]["value"],
            "win_rate": win_rate(project, model, sft, sizes["held_out"], seed),
        }
        print(f"seed {seed}: {name}: {found[name]}", file=sys.stderr, flush=True)
    found["reward"] = reward_models(project, built, sft, sizes, seed)
    print(f"seed {seed}: reward models: {found['reward']}", file=sys.stderr, flush=True)
    return found


def build_arm(
    project: Any,
    generated: Any,
    candidates: Candidates,
    arm: Arm,
    name: str,
    sizes: Mapping[str, Any],
    seed: int,
) -> tuple[Any, int]:
    """The arm's training set by the steps judge and build, and how many votes it took."""
    from align.build import build
    from annotate.judge import judge

    limit = sizes["votes"] if arm.equal == "votes" else sizes["prompts"] * arm.policy.votes
    items, responses = candidates.buy(arm.policy, limit)
    # Who answers at random would betray it by calling half of all pairs "both bad".
    responses = responses.filter(pc.equal(responses["question"], "preference"))
    recipe = project.root / "recipes" / f"build-{name.replace(' ', '-').replace(',', '')}.yaml"
    filters = [*COMMON, *arm.policy.filters]
    recipe.write_text(yaml.safe_dump({"filters": filters, "held_out": 0.0}))

    def built(items: Sequence[Any], responses: pa.Table) -> Any:
        settings = {"arm": name, "items": len(items), "seed": seed}
        pull = pulled(project, generated, settings, items, responses)
        judged = judge(project, pull, method=arm.method)
        return build(project, [judged], recipe=str(recipe))

    run = built(items, responses)
    if arm.equal == "pairs":
        # Buying stops with the pair that makes the number full: kept ones stand in buying order.
        kept = set(run.read("preference")["prompt_id"].to_pylist())
        reached = np.cumsum([item["prompt_id"] in kept for item in items])
        if reached[-1] < sizes["pairs"]:
            raise SystemExit(f"{name}: {reached[-1]} pairs of {sizes['pairs']}: raise `prompts`")
        items = items[: int(np.searchsorted(reached, sizes["pairs"])) + 1]
        wanted = pa.array([item["item_id"] for item in items])
        responses = responses.filter(pc.is_in(responses["item_id"], wanted))
        run = built(items, responses)
    return run, responses.num_rows


def win_rate(project: Any, model: Any, sft: Any, held_out: int, seed: int) -> float:
    """Of a model over the SFT model, by the rubric behind the simulated annotators."""
    from align.evaluate.pools import PromptChoice
    from align.evaluate.step import evaluate
    from align.sampling import Sampling

    judged = evaluate(
        project,
        model,
        against=[sft.id],
        choice=PromptChoice("support-desk", held_out, pool_count=0),
        scorer="support-rubric",
        sampling=Sampling(seed=seed),
    )
    rate: float = judged.metrics["comparisons"][0]["win_rate"]["value"]
    return rate


def reward_models(
    project: Any, built: Any, sft: Any, sizes: Mapping[str, Any], seed: int
) -> dict[str, float]:
    """Accuracy of a reward model with people's margins in its loss, and of one without."""
    from align.model import load_model
    from align.model_ref import resolve_model
    from align.reward_scores import reward_scores
    from align.train import train

    better, worse = known_pairs(project, sft, sizes["reward_pairs"], seed)
    found = {}
    for name, margin in REWARD.items():
        recipe = project.root / "recipes" / f"reward-{margin}.yaml"
        recipe.write_text(
            f"method: reward\nmargin: {margin}\nmax_length: 256\ntrainer: {{num_train_epochs: 2, "
            "per_device_train_batch_size: 16, learning_rate: 5.0e-4, warmup_steps: 6}\n"
        )
        run = train(project, str(recipe), data=built.id, model=sft.id, seed=seed)
        loaded = load_model(resolve_model(project, run.id), task="reward")
        first, second = reward_scores(loaded, better), reward_scores(loaded, worse)
        found[name] = float(np.mean((first > second) + 0.5 * (first == second)))
    return found


def known_pairs(project: Any, sft: Any, count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Conversations that the SFT model completed better and worse by the rubric, held out."""
    from align.generate import generate
    from align.prompts import read_prompts
    from align.sampling import Sampling
    from annotate.support_desk import score

    source = read_prompts(project, "support-desk", split="eval", count=2 * count, seed=seed + 1)
    run = generate(project, [sft.id], source, n=2, sampling=Sampling(seed=seed + 1))
    prompts = run.read("prompts")
    said = dict(zip(prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
    by_prompt: dict[str, list[str]] = {}
    for row in run.read("outputs").to_pylist():
        by_prompt.setdefault(row["prompt_id"], []).append(row["completion"])
    better, worse = [], []
    for prompt_id, texts in by_prompt.items():
        marks = [score(said[prompt_id], text) for text in texts]
        if len(texts) == 2 and marks[0] != marks[1] and len(better) < count:
            turns = [[*said[prompt_id], {"role": "assistant", "content": one}] for one in texts]
            best = int(np.argmax(marks))
            better.append(turns[best])
            worse.append(turns[1 - best])
    return better, worse


def summarise(by_seed: Sequence[Mapping[str, Any]], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Each arm's figures, and the paired differences."""

    def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
        return student([a - b for a, b in zip(one, other, strict=True)])

    def rates(name: str) -> list[float]:
        return [seed[name]["win_rate"] for seed in by_seed]

    accuracy = {name: [seed["reward"][name] for seed in by_seed] for name in REWARD}
    return {
        "judged_by": "the rubric behind the simulated annotators",
        "settings": {name: value for name, value in sizes.items() if name != "quick"},
        "arms": {
            name: {
                "win_rate": student(rates(name)),
                "win_rates": rates(name),
                **{
                    figure: [seed[name][figure] for seed in by_seed]
                    for figure in ("pairs", "votes", "label_accuracy", "noise_rate")
                },
            }
            for name in ARMS
        },
        "reward_accuracy": {name: student(values) for name, values in accuracy.items()},
        "differences": {
            **{what: paired(rates(one), rates(other)) for what, one, other in DIFFERENCES},
            "margin in the reward model": paired(accuracy["margin"], accuracy["no margin"]),
        },
    }


def main() -> None:
    """Parse, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, a fraction of the pairs")
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--one-seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    if options.quick:
        sizes |= sizes["quick"]
    if options.one_seed is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run_seed(options.one_seed, sizes, Path(folder))))
        return
    more = ["--quick"] if options.quick else []
    seeds = range(options.seeds or sizes["seeds"])
    by_seed = in_processes(__file__, seeds, more, options.jobs)
    found = summarise(by_seed, sizes)
    for name, figures in found["arms"].items():
        each = " ".join(f"{rate:.3f}" for rate in figures["win_rates"])
        mean = figures["win_rate"]["mean"]
        print(f"{name:40} {mean:.3f} [{each}] pairs {figures['pairs']} votes {figures['votes']}")
    for what, difference in found["differences"].items():
        print(f"{what}: {100 * difference['mean']:+.1f} points, 95 % {difference['ci95']}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
