"""How long agreement and consensus take, and how much memory, beside three libraries.

    python bench/judgements.py [--quick] [--items N] [--growth N N] [--repeats N]

100,000 items get 4 of 500 people's answers: ordinal alpha with both intervals (2,000 resamples),
AC2, Dawid–Skene, all pairwise kappas, majority; then the same with up to 10,000,000 answers. The
libraries do the same task in the same run: krippendorff (ordinal alpha, whose bootstrap is as many
times one value), crowd-kit (Dawid–Skene), cleanlab (majority), scikit-learn (kappas of a sample of
pairs, times all). `--quick` is a tenth of the items and one larger size: about a minute.

Every measured thing runs in a process of its own, which makes its data first: `seconds` are of the
call alone, the median of `--repeats`, `rss_mb` the most memory the whole process ever had. `ratio`
is the library's time over ours. What the libraries find must be what we find. `growth` is the power
of the number of answers that time grows by, over all sizes: 1 is linear. Dawid–Skene's time depends
on how many iterations the answers take, too: `iterations` says it. The result has the load of the
machine. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from annotate.labels import Labels

ITEMS, QUICK_ITEMS = 100_000, 10_000
GROWTH, QUICK_GROWTH = (1_000_000, 2_500_000), (100_000,)
"""Items of the larger sizes, of our own measures only."""
PEOPLE, OVERLAP, CLASSES = 500, 4, 5
RESAMPLES = 2000
PAIRS = 300
"""Pairs of people whose kappa scikit-learn computes."""

Found = Callable[[Labels], Any]


def answers(items: int) -> Labels:
    """Answers of people who are right seven times in ten and else one or two off."""
    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(items), OVERLAP)
    annotator = rng.integers(0, PEOPLE, size=(items, OVERLAP))
    while len(again := np.flatnonzero((np.diff(np.sort(annotator), axis=1) == 0).any(axis=1))):
        annotator[again] = rng.integers(0, PEOPLE, size=(len(again), OVERLAP))
    off = rng.choice([-2, -1, 0, 1, 2], p=[0.05, 0.1, 0.7, 0.1, 0.05], size=len(item))
    label = np.clip(rng.integers(0, CLASSES, size=items)[item] + off, 0, CLASSES - 1)
    names = [str(number) for number in range(max(items, PEOPLE))]
    return Labels(item, annotator.ravel(), label, names[:items], names[:PEOPLE], names[:CLASSES])


def alpha_ordinal(labels: Labels) -> float | None:
    """Alpha with both intervals."""
    from annotate.agreement import krippendorff_alpha

    return krippendorff_alpha(labels, "ordinal", resamples=RESAMPLES).value


def ac2(labels: Labels) -> float | None:
    """AC2 with both intervals."""
    from annotate.agreement import gwet_ac2

    return gwet_ac2(labels, resamples=RESAMPLES).value


def kappas(labels: Labels) -> list[float]:
    """How many kappas there are, and their mean over the first pairs."""
    from annotate.agreement import kappa_table

    table = kappa_table(labels)
    return [len(table), float(np.nanmean(table.kappa[:PAIRS]))]


def dawid_skene(labels: Labels) -> dict[str, Any]:
    """The first items' classes, and how many iterations they took."""
    from annotate import consensus

    found = consensus.dawid_skene(labels)
    best = [int(best) for best in found.best[:QUICK_ITEMS]]
    return {"best": best, "iterations": len(found.objective)}


def majority(labels: Labels) -> list[int]:
    """The first items' classes, -1 where two are equally frequent."""
    from annotate import consensus

    return [int(best) for best in consensus.majority(labels).best[:QUICK_ITEMS]]


def krippendorff(labels: Labels) -> float:
    """One value: no interval."""
    from krippendorff import alpha

    counts = np.bincount(
        labels.item * CLASSES + labels.label, minlength=CLASSES * len(labels.items)
    )
    counts = counts.reshape(-1, CLASSES)
    return float(alpha(value_counts=counts, level_of_measurement="ordinal"))


def crowd_kit(labels: Labels) -> list[int]:
    """crowd-kit's Dawid–Skene, as it comes."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    columns = {"task": labels.item, "worker": labels.annotator, "label": labels.label}
    found = DawidSkene(n_iter=100).fit_predict(pd.DataFrame(columns))
    return [int(best) for best in found.sort_index()[:QUICK_ITEMS]]


def cleanlab(labels: Labels) -> list[int]:
    """cleanlab's majority, which wants a table of items by people."""
    import pandas as pd
    from cleanlab.multiannotator import get_majority_vote_label

    table = np.full((len(labels.items), PEOPLE), np.nan)
    table[labels.item, labels.annotator] = labels.label
    found = get_majority_vote_label(pd.DataFrame(table), verbose=False)
    return [int(best) for best in found[:QUICK_ITEMS]]


def scikit_learn(labels: Labels) -> float:
    """Mean kappa of the pairs with most items in common."""
    from sklearn.metrics import cohen_kappa_score

    from annotate.agreement import kappa_table

    table = kappa_table(labels)
    of_person = [np.flatnonzero(labels.annotator == person) for person in range(PEOPLE)]
    found = []
    for one, two in zip(table.first[:PAIRS], table.second[:PAIRS], strict=True):
        rows = of_person[one], of_person[two]
        _, here, there = np.intersect1d(*(labels.item[of] for of in rows), return_indices=True)
        found.append(cohen_kappa_score(labels.label[rows[0][here]], labels.label[rows[1][there]]))
    return float(np.nanmean(found))


OURS: dict[str, Found] = {
    "alpha_ordinal": alpha_ordinal,
    "ac2": ac2,
    "dawid_skene": dawid_skene,
    "kappas": kappas,
    "majority": majority,
}
THEIRS: dict[str, tuple[str, Found]] = {
    "krippendorff": ("alpha_ordinal", krippendorff),
    "crowd-kit": ("dawid_skene", crowd_kit),
    "cleanlab": ("majority", cleanlab),
    "scikit-learn": ("kappas", scikit_learn),
}


def one(name: str, items: int, repeats: int) -> None:
    """Measure one thing in this process and print it as JSON."""
    measure = OURS[name] if name in OURS else THEIRS[name][1]
    measure(answers(1000))  # imports, and whatever is made once
    labels = answers(items)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = measure(labels)
        seconds.append(time.perf_counter() - start)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": statistics.median(seconds), "rss_mb": rss, "found": found}))


def apart(name: str, items: int, repeats: int) -> dict[str, Any]:
    """Measure one thing in a process of its own."""
    say(f"{name}, {items * OVERLAP:,} answers")
    command = [sys.executable, __file__, "--one", name, "--items", str(items)]
    ran = subprocess.run(
        [*command, "--repeats", str(repeats)], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"{name}: {ran.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    say(f"  {measured['seconds']:.3f} s, {measured['rss_mb']:,.0f} MB")
    return measured


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def compare(items: int, ours: dict[str, dict[str, Any]], repeats: int) -> dict[str, Any]:
    """Each library's time and memory on the same data, and whether it finds the same."""
    ratio: dict[str, Any] = {}
    for name, (task, _) in THEIRS.items():
        measured = apart(name, items, 1 if name in ("crowd-kit", "cleanlab") else repeats)
        own = ours[task]
        seconds = measured["seconds"]
        if name == "krippendorff":
            seconds *= RESAMPLES + 1  # a value, and one a resample
        elif name == "scikit-learn":
            seconds *= own["found"][0] / PAIRS
        ratio[name] = {
            "task": task,
            "seconds": round(seconds, 3),
            "rss_mb": round(measured["rss_mb"]),
            "ratio": round(seconds / own["seconds"], 1),
            "memory_ratio": round(measured["rss_mb"] / own["rss_mb"], 2),
            "same": same(own["found"], measured["found"]),
        }
    return ratio


def same(ours: Any, theirs: Any) -> float:
    """The share of classes that are the same, of those that we decide; or that numbers are."""
    if isinstance(theirs, float):
        number = ours[-1] if isinstance(ours, list) else ours
        return float(abs(number - theirs) < 1e-9)
    if isinstance(ours, dict):
        ours = ours["best"]
    decided = [at for at, best in enumerate(ours) if best >= 0]
    return round(float(np.mean([ours[at] == theirs[at] for at in decided])), 4)


def run(items: int, growth: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Everything, as the result that is printed."""
    load = os.getloadavg()[0]
    seconds: dict[str, dict[str, float]] = {name: {} for name in OURS}
    rss: dict[str, dict[str, int]] = {name: {} for name in OURS}
    first: dict[str, dict[str, Any]] = {}
    iterations: dict[str, int] = {}
    for size in (items, *growth):
        for name in OURS:
            measured = apart(name, size, repeats)
            first.setdefault(name, measured)
            if name == "dawid_skene":
                iterations[str(size * OVERLAP)] = measured["found"]["iterations"]
            seconds[name][str(size * OVERLAP)] = round(measured["seconds"], 3)
            rss[name][str(size * OVERLAP)] = round(measured["rss_mb"])
    return {
        "seconds": seconds,
        "rss_mb": rss,
        "ratio": compare(items, first, repeats),
        "growth": {name: power(each) for name, each in seconds.items()},
        "iterations": {"dawid_skene": iterations},
        "kappas": first["kappas"]["found"][0],
        "people": PEOPLE,
        "resamples": RESAMPLES,
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("numpy", "scipy", "krippendorff", "crowd-kit", "cleanlab", "scikit-learn")
        },
    }


def power(seconds: dict[str, float]) -> float:
    """The exponent of growth, by least squares of the logarithms."""
    times = [max(took, 1e-3) for took in seconds.values()]
    slope, _ = np.polyfit(np.log([int(size) for size in seconds]), np.log(times), 1)
    return round(float(slope), 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument("--items", type=int, help="items of the comparison")
    parser.add_argument("--growth", type=int, nargs="+", help="items of the larger sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=[*OURS, *THEIRS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    items = given.items or (QUICK_ITEMS if given.quick else ITEMS)
    if given.one:
        one(given.one, items, given.repeats)
        return
    growth = tuple(given.growth or (QUICK_GROWTH if given.quick else GROWTH))
    print(json.dumps(run(items, growth, given.repeats)))


if __name__ == "__main__":
    main()
