"""What a new version of a guideline does to agreement: blind re-labelling with a control.

People answer prompts again that were answered under the old version. Half of these prompts, chosen
at random, go out under the new version, the other half once more under the old one, in two batches
that look alike. Both halves are met a second time, by people with more practice, perhaps by others
than before; only one half meets the new text. So the effect is the difference of differences:

    effect = (agreement after - before, under the new version) - (the same, under the old again)

The unit is a prompt: its agreement is the share of pairs of answers, on one pair of outputs, with
the same vote. The interval resamples the prompts of each half. The batches count as relabelling
and are no votes of their round: nobody's first answer is replaced by a second one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

from annotate.errors import InputError, ProjectError
from annotate.guideline_diff import guideline_diff
from annotate.guidelines import load_guideline
from annotate.judge import answers_of
from annotate.records import content_id
from annotate.runs import Project, Run, RunPlan
from annotate.statistics import LEVEL, RESAMPLES, Estimate, Reals, undefined
from annotate.votes import votes_of_responses

OVER = "prompts of both halves, this panel of annotators"
FEWEST = 10
"""Prompts of a half below which no interval is worth its name."""


def relabel(
    project: Project, before: Run, old: str, new: str, *, prompts: int = 100, seed: int = 0
) -> Run:
    """Push prompts that were answered under `old` again, half of them under `new`.

    Args:
        before: a pull run of answers under `old`.
        prompts: how many, both halves together; all there are if fewer.

    Returns:
        The run `relabel`; its parents are `before` and the pushes of the new and the old half.

    Raises:
        InputError: the versions cannot be compared, or too few prompts have two answers.
        ServerError: Argilla cannot be reached.
    """
    before.require("pull")
    was, now = load_guideline(project.root, old), load_guideline(project.root, new)
    changed = guideline_diff(was, now)
    if was.kind not in ("compare", "rank") or not changed.comparable:
        raise InputError(
            f"agreement under {was.name} and {now.name} cannot be compared: they ask other things",
            remedy=f"`handloom guideline diff {was.name} {now.name}` says what",
        )
    halves = _halves(_answered(before, was.name), prompts, seed)
    versions = {"new": now.name, "old": was.name}
    pushes = [
        _push_half(project, before, half, version, halves, seed)
        for half, version in versions.items()
    ]
    plan = RunPlan(
        "relabel", before.round, (before, *pushes), versions | {"prompts": prompts}, seed
    )
    if (finished := project.finished(plan)) is not None:
        return finished
    with project.draft(plan) as draft:
        draft.write_text("halves.json", json.dumps(halves, indent=1))
        batches = sorted(name for run in pushes for name in run.metrics["batches"])
        draft.note(prompts=len(halves), batches=batches)
    return draft.run


def most_answered(pull_runs: Sequence[Run], guideline: str) -> Run:
    """The pull run with the most prompts on which two people answered under this version; the
    newest of several."""
    found = {
        run.id: len(prompt_agreement(*answers_of([run]), guideline=guideline)) for run in pull_runs
    }
    return max(reversed(pull_runs), key=lambda run: found[run.id])


def _push_half(
    project: Project, before: Run, half: str, version: str, halves: dict[str, str], seed: int
) -> Run:
    from annotate.push import push

    asked = before.ancestor("push").manifest["settings"]
    # The names must not tell an annotator which half is the new one.
    name = content_id("b", before.id, version, half, seed, *sorted(halves))
    return push(
        project,
        before.ancestor("push").parents[0],
        guideline=version,
        batch=f"again-{name.rpartition('-')[2][:8]}",
        overlap=asked["overlap"],
        pairs_per_prompt=asked["pairs_per_prompt"],
        seed=seed,
        select=[prompt for prompt, of in halves.items() if of == half],
        workspace=asked.get("workspace"),
        purpose="relabel",
    )


def _answered(pull_run: Run, guideline: str) -> list[str]:
    """Prompts of a pull run on which two people voted on one pair under this version."""
    agreement = prompt_agreement(*answers_of([pull_run]), guideline=guideline)
    if len(agreement) < 2 * FEWEST:
        raise InputError(
            f"{len(agreement)} prompts have two answers under {guideline}, "
            f"an effect needs {2 * FEWEST} or more",
            where=pull_run.id,
            remedy="Let more people answer, then `handloom pull`; or name another pull run",
        )
    return sorted(agreement.index)


def _halves(prompts: Sequence[str], count: int, seed: int) -> dict[str, str]:
    """A random choice of the prompts, every second of it "new"."""
    if count < 2 * FEWEST:
        raise InputError(f"--prompts must be {2 * FEWEST} or more, not {count}")
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:count]
    return {prompts[at]: ("new", "old")[n % 2] for n, at in enumerate(drawn)}


def prompt_agreement(responses: pa.Table, items: pa.Table, *, guideline: str) -> pd.Series[float]:
    """By prompt: the share of pairs of answers with the same vote; only prompts that have any."""
    under = responses.filter(pc.equal(responses["guideline"], guideline))
    names = ["prompt_id", "pair_id", "annotator", "vote"]
    votes: pd.DataFrame = votes_of_responses(under, items).select(names).to_pandas()
    counts = votes.groupby(["prompt_id", "pair_id", "vote"]).size().rename("n").reset_index()
    counts["same"] = counts["n"] * (counts["n"] - 1)
    pairs = counts.groupby(["prompt_id", "pair_id"])[["n", "same"]].sum()
    pairs["all"] = pairs["n"] * (pairs["n"] - 1)
    of_prompt = pairs.groupby("prompt_id")[["same", "all"]].sum()
    of_prompt = of_prompt[of_prompt["all"] > 0]
    return of_prompt["same"] / of_prompt["all"]


@dataclass(frozen=True)
class Effect:
    """What the new version did, and what it is made of."""

    old: str
    new: str
    means: dict[str, dict[str, float]]
    """half → {"before", "after"}: mean agreement of its prompts that were answered twice."""
    prompts: dict[str, int]
    """half → prompts that two people answered both times."""
    effect: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "old": self.old,
            "new": self.new,
            "means": self.means,
            "prompts": self.prompts,
            "effect": self.effect.to_dict(),
        }

    def lines(self) -> list[str]:
        """The effect as text."""
        lines = []
        for half, version in (("new", self.new), ("old", f"{self.old} again")):
            if half in self.means:
                before, after = self.means[half]["before"], self.means[half]["after"]
                count = f"n={self.prompts[half]:,} prompts"
                lines.append(f"under {version}: agreement {before:.3f} → {after:.3f}, {count}")
        return [*lines, f"effect of {self.new} on raw agreement: {self.effect}"]


def effect(project: Project, relabel_run: Run, *, seed: int = 0) -> Effect:
    """The new version's effect on agreement, from the newest pulls of both halves.

    Raises:
        ProjectError: a half was not pulled yet.
    """
    relabel_run.require("relabel")
    asked = relabel_run.manifest["settings"]
    first, *pushes = relabel_run.parents
    before = prompt_agreement(*answers_of([first]), guideline=asked["old"])
    changes, means = {}, {}
    for half, pushed in zip(("new", "old"), pushes, strict=True):
        pulled = _newest_pull(project, pushed.id)
        after = prompt_agreement(*answers_of([pulled]), guideline=asked[half])
        both = pd.concat({"before": before, "after": after}, axis=1, join="inner")
        changes[half] = (both["after"] - both["before"]).to_numpy()
        if len(both):
            means[half] = {name: float(both[name].mean()) for name in ("before", "after")}
    return Effect(
        old=asked["old"],
        new=asked["new"],
        means=means,
        prompts={half: len(values) for half, values in changes.items()},
        effect=difference_of_means(changes["new"], changes["old"], seed=seed),
    )


def _newest_pull(project: Project, push_id: str) -> Run:
    pulls = [
        run
        for run in project.all_runs()
        if run.step == "pull" and any(parent.id == push_id for parent in run.parents)
    ]
    if not pulls:
        raise ProjectError(
            "the answers were not fetched yet", where=push_id, remedy=f"`handloom pull {push_id}`"
        )
    return pulls[-1]


def difference_of_means(
    first: Reals, second: Reals, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of `first` less mean of `second`, two samples of different units, shapes (n,), (m,).

    The percentile bootstrap resamples each sample by itself (Efron and Tibshirani 1993, chapter 8),
    as wide as few units make it: resamples of n vary √((n − 1)/n) times too little, and the
    quantiles are those of Student's t with Welch's degrees of freedom (Hesterberg 2015, section
    5.3). Without a value where a sample has fewer than `FEWEST` units.
    """
    n = len(first) + len(second)
    fewest = min(len(first), len(second))
    if fewest < FEWEST:
        return undefined(f"a half has {fewest} prompts answered twice, needs {FEWEST}", n, OVER)
    rng = np.random.default_rng(seed)

    def means(values: Reals) -> Reals:
        drawn = rng.integers(0, len(values), size=(resamples, len(values)))
        apart = values[drawn].mean(axis=1) - values.mean()
        return np.asarray(values.mean() + apart * math.sqrt(len(values) / (len(values) - 1)))

    draws = means(first) - means(second)
    value = float(first.mean() - second.mean())
    if np.ptp(draws) < 1e-12:
        reason = "every resample gives this value"
        return Estimate(value, None, None, n, "percentile bootstrap", OVER, seed, LEVEL, reason)
    errors = np.array([sample.var(ddof=1) / len(sample) for sample in (first, second)])
    free = np.array([len(first) - 1, len(second) - 1])
    freedom = float(errors.sum() ** 2 / (errors**2 / free).sum())
    tail = NormalDist().cdf(-float(student.ppf((1 + LEVEL) / 2, freedom)))
    low, high = (float(edge) for edge in np.quantile(draws, [tail, 1 - tail]))
    return Estimate(value, low, high, n, "percentile bootstrap", OVER, seed)
