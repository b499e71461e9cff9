"""Training and sampling against TRL's and transformers' own, on the same data, model and batch.

    python bench/training.py [--quick] [--rounds N] [--models base,wide]

Three sides, each in a process of its own, one at work at a time: `trl` is the script of TRL's
documentation; `off` and `on` are `handloom train` without and with what `speed` of a recipe
switches on. A run is timed from loading the model to the saved one: tokens and the reference's
log-probabilities are made within it. `again` is `on` once more in the same project, which has kept
the reference's log-probabilities. All make the same steps, for TRL's default of three epochs; how
many rows they compute at once each side is free to choose, and its best is searched first. Sides
take turns; a ratio is that of TRL's time to the side's, its interval Student's t over the rounds,
on the logarithm. `cpu_ratio` is that of the processor time of all threads, which other processes on
the machine hardly change.

`share_of_peak` is over the device's best matrix product, and counts what the result needs: every
distinct token of a pair once, logits where something is predicted; a side that computes more has
the lower share. Where a target is missed, `profile` has the operations that `on` spends its
processor time on. Held-out loss is always measured by TRL. Data and models: training_data.py. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from training_data import operations, pairs, token_lengths, write_model

from annotate.statistics import LEVEL, Estimate

SIDES = ("trl", "off", "on")
TARGETS = {
    ("dpo", "off"): 1.0,
    ("dpo", "on"): 2.0,
    ("sft", "off"): 1.0,
    ("sft", "on"): 1.5,
    ("sampling", "ctranslate2"): 3.0,
    ("sampling", "ctranslate2 batched"): 3.0,
}
"""Ratios to TRL's script, and to transformers' `generate`, that are asked for."""


@dataclass(frozen=True)
class Sizes:
    """How much is trained."""

    rows: dict[str, int]
    """By model."""
    searched: int
    """Rows on which the best number of rows at once is searched."""
    held_out: int
    rounds: int
    epochs: int = 3
    batch: int = 16
    """Rows of an optimiser's step, on every side."""
    at_once: tuple[int, ...] = (1, 2, 4, 8, 16)
    prompts: int = 256
    new_tokens: int = 128


FULL = Sizes(rows={"base": 128, "wide": 48}, searched=32, held_out=96, rounds=5)
QUICK = Sizes(
    rows={"base": 16},
    searched=16,
    held_out=8,
    rounds=2,
    epochs=1,
    batch=8,
    at_once=(1, 8),
    prompts=16,
    new_tokens=16,
)


class Side:
    """A process that answers jobs."""

    def __init__(self, name: str) -> None:
        script = Path(__file__).with_name("training_side.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def ask(self, **job: Any) -> dict[str, Any]:
        """Do a job and say what came of it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side has ended; job {job['kind']} {job.get('method')}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Estimate:
    """How many times as fast, over rounds: the geometric mean, Student's t of the logarithm."""
    logs = np.log(np.asarray(slow) / np.asarray(fast))
    n, mean = len(logs), float(logs.mean())
    over = "rounds in turn on this machine"
    if n < 2:
        return Estimate(float(np.exp(mean)), None, None, n, "none", over, reason="one round")
    half = float(student.ppf((1 + LEVEL) / 2, n - 1) * logs.std(ddof=1) / np.sqrt(n))
    low, high = np.exp([mean - half, mean + half])
    return Estimate(
        float(np.exp(mean)), float(low), float(high), n, "Student's t of the logarithm", over
    )


def best_at_once(side: Side, sizes: Sizes, job: dict[str, Any]) -> int:
    """The number of rows computed at once that takes least; the first job also warms up."""
    job = {**job, "rows": job["rows"][: sizes.searched], "epochs": 1}
    side.ask(**job, micro=sizes.at_once[0])
    tried = {micro: side.ask(**job, micro=micro)["cpu_seconds"] for micro in sizes.at_once}
    return min(tried, key=lambda micro: tried[micro])


def in_turns(
    sides: dict[str, Side], job: dict[str, Any], sizes: Sizes, scratch: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Every side's runs, each at its best number of rows at once, and those numbers."""
    jobs = {name: {**job, "out": str(scratch / name)} for name in sides}
    micro = {name: best_at_once(side, sizes, jobs[name]) for name, side in sides.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(sizes.rounds):
        for name in SIDES if number % 2 else SIDES[::-1]:
            found[name].append(sides[name].ask(**jobs[name], micro=micro[name]))
            if name == "on" and job["method"] == "dpo":
                again = sides[name].ask(**jobs[name], micro=micro[name], again=True)
                found.setdefault("again", []).append(again)
    return found, micro


def compare(
    sides: dict[str, Side], method: str, model: str, sizes: Sizes, scratch: Path
) -> dict[str, Any]:
    """One method on one model."""
    from transformers import AutoTokenizer

    folder = write_model(model, scratch / "model")
    rows, unseen = pairs(sizes.rows[model], seed=1), pairs(sizes.held_out, seed=2, split="eval")
    job = {"kind": "train", "method": method, "model": str(folder), "batch": sizes.batch}
    job |= {"epochs": sizes.epochs, "rows": rows}
    found, micro = in_turns(sides, job, sizes, scratch)
    lengths = token_lengths(rows, AutoTokenizer.from_pretrained(folder))
    prompt, chosen, rejected = lengths.sum(axis=0)
    # As TRL's rows have them: a pair is two rows with the prompt in both.
    tokens = sizes.epochs * (prompt + chosen + (prompt + rejected if method == "dpo" else 0))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # Forward and backward are three forward passes; DPO's reference is one for all epochs.
    passes = 3 * sizes.epochs + (method == "dpo")
    peak = sides["trl"].ask(kind="peak")["flops"]
    result = figures(found, int(tokens), passes * operations(lengths, method, config) / peak)
    trained = {name: runs[-1]["model"] for name, runs in found.items()}
    held_out = {**job, "kind": "held-out", "rows": unseen}
    result["held_out"] = {
        name: sides["trl"].ask(**held_out, trained=at) for name, at in trained.items()
    }
    result["rows_at_once"] = micro
    if result["ratio"]["on"]["value"] < TARGETS[method, "on"]:
        traced = {**job, "kind": "profile", "out": str(scratch / "on"), "epochs": 1}
        result["profile"] = sides["on"].ask(**traced, micro=micro["on"])
    return result


def figures(found: dict[str, list[dict[str, Any]]], tokens: int, needed: float) -> dict[str, Any]:
    """What the runs of each side took.

    Args:
        tokens: of all epochs.
        needed: seconds that the necessary operations take at the device's peak.
    """
    wall = {name: [one["seconds"] for one in runs] for name, runs in found.items()}
    cpu = {name: [one["cpu_seconds"] for one in runs] for name, runs in found.items()}
    typical = {name: float(np.median(seconds)) for name, seconds in wall.items()}
    return {
        "ratio": {n: ratio(wall["trl"], s).to_dict() for n, s in wall.items() if n != "trl"},
        "cpu_ratio": {n: ratio(cpu["trl"], s).to_dict() for n, s in cpu.items() if n != "trl"},
        "tokens_per_second": {n: tokens / seconds for n, seconds in typical.items()},
        "share_of_peak": {n: needed / seconds for n, seconds in typical.items()},
        "peak_mb": {n: max(one["peak_mb"] for one in runs) for n, runs in found.items()},
    }


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The comparison as text, one line a side."""
    said = [name]
    for side, speed in found["tokens_per_second"].items():
        share, loss = found["share_of_peak"][side], found["held_out"][side]["loss"]
        line = f"  {side:5} {speed:8,.0f} tokens/s {share:6.1%} of peak "
        line += f"{found['peak_mb'][side]:6,.0f} MB, held-out loss {loss:.5f}"
        if side != "trl":
            wall, cpu = (Estimate(**found[kind][side]) for kind in ("ratio", "cpu_ratio"))
            line += f", {wall} times trl, by processor time {cpu}"
        said.append(line)
    if "profile" in found:
        said.append(f"  the time of `on` goes to {found['profile']}")
    return said


def sampling(sizes: Sizes) -> dict[str, Any]:
    """Tokens a second of our backends against transformers' `generate`, at 128 rows at once."""
    from generation import seconds_per_token

    found = seconds_per_token(
        count=sizes.prompts,
        max_new_tokens=sizes.new_tokens,
        rounds=sizes.rounds,
        with_ctranslate2=not torch.cuda.is_available(),
    )
    theirs = found.pop("transformers")
    return {
        "ratio": {name: ratio(theirs, ours).to_dict() for name, ours in found.items()},
        "tokens_per_second": {
            name: 1 / float(np.median(each))
            for name, each in {"transformers": theirs, **found}.items()
        },
    }


def main() -> None:
    """Compare, print, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="about a minute; figures mean little")
    parser.add_argument("--rounds", type=int, help="repeats of each side")
    parser.add_argument("--models", help="base, wide or both: base,wide")
    parser.add_argument("--methods", default="dpo,sft,sampling", help="some of these")
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else FULL
    if chosen.rounds:
        sizes = replace(sizes, rounds=chosen.rounds)
    models = chosen.models.split(",") if chosen.models else list(sizes.rows)
    methods = chosen.methods.split(",")
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        if method == "sampling":
            found[method] = {"base": sampling(sizes)}
            continue
        for model in models:
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                sides = {name: stack.enter_context(Side(name)) for name in SIDES}
                result = compare(sides, method, model, sizes, Path(folder))
            found.setdefault(method, {})[model] = result
            print("\n".join(lines(f"{method} on {model}", result)), flush=True)
    print(json.dumps(summary(found)))


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One object: each figure by method and model, and which targets are met."""
    told: dict[str, Any] = {}
    for method, by_model in found.items():
        for model, result in by_model.items():
            for figure, value in result.items():
                told.setdefault(figure, {}).setdefault(method, {})[model] = value
    told["met"] = {
        f"{method} {side} {model}": result["ratio"][side]["value"] >= target
        for (method, side), target in TARGETS.items()
        for model, result in found.get(method, {}).items()
        if side in result["ratio"]
    }
    told["load"] = os.getloadavg()[0]
    told["threads"] = torch.get_num_threads()
    return told


if __name__ == "__main__":
    main()
