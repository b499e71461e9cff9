"""Which pairs people judge next: `handloom next`.

    judge | evaluate … | failures  →  next  (chosen, prompts, outputs)  →  push

`uniform` and `entropy` go by the votes so far (`annotate.queueing`), `disagreement` by how far the
scores of several reward models differ, `failures` by what the last round's model lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from annotate.adjudication import is_adjudicated
from annotate.chosen_pairs import chosen_table, with_strengths, write_chosen
from annotate.consensus import dawid_skene
from annotate.errors import InputError
from annotate.judge import answers_of, pulls_of
from annotate.orders import random_keys
from annotate.queueing import (
    BUSIEST,
    FIRST_LABELS,
    MOST_LABELS,
    choose,
    disagreement,
    entropy,
    hand_out,
)
from annotate.records import content_id
from annotate.runs import Project, Run, RunPlan
from annotate.votes import CLASSES, labels_of_votes

By = Literal["uniform", "entropy", "disagreement", "failures"]

_EMPTY = {"votes_a": 0, "votes_b": 0, "ties": 0, "votes": 0}


def next_items(
    project: Project,
    runs: Sequence[Run],
    n: int,
    by: By,
    *,
    first: int = FIRST_LABELS,
    most: int = MOST_LABELS,
    seed: int = 0,
    again: bool = False,
) -> Run:
    """Choose `n` pairs for one more label each; the finished run, if there is one.

    Args:
        runs: a judge run for uniform and entropy, a failures run, or two evaluate runs and more
            whose scorers judged the same completions.
        first: labels that every pair gets before any is chosen by entropy.
        most: labels after which a pair is left alone.
        seed: decides between equals.

    Raises:
        InputError: runs of another kind, or no pair is left to choose.
    """
    if n < 1 or not 0 <= first <= most:
        raise InputError("N must be 1 or more, and --first no more than --most")
    settings = {"n": n, "by": by, "first": first, "most": most}
    plan = RunPlan("next", max(run.round for run in runs), tuple(runs), settings, seed)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    frame = _CANDIDATES[by](runs)
    scores = None if by == "uniform" else frame["score"].to_numpy(dtype=np.float64)
    chosen = choose(
        n,
        frame["votes"].to_numpy(dtype=np.int64),
        scores,
        random_keys(frame["pair_id"].tolist(), seed),
        first=first if by == "entropy" else 0,
        most=most,
    )
    if not len(chosen):
        raise InputError(
            f"none of {len(frame)} pairs is left to choose by {by}",
            where=", ".join(run.id for run in runs),
            remedy="Generate more outputs, or raise --most",
        )
    table = chosen_table(_told(frame.iloc[chosen], by, first))
    with project.draft(plan) as draft:
        write_chosen(draft, table)
        draft.note(candidates=len(frame))
    return draft.run


def _told(frame: pd.DataFrame, by: By, first: int) -> pd.DataFrame:
    """The chosen pairs with why; what lacks its first labels was not chosen by its score."""
    early = (frame["votes"] < first) if by == "entropy" else pd.Series(False, index=frame.index)
    uniform = early | (by == "uniform")
    return frame.assign(
        why=np.where(uniform, "few labels", by),
        score=frame["score"].where(~uniform),
    )


def _judged(runs: Sequence[Run]) -> pd.DataFrame:
    """Every pair that was shown, with its votes and the entropy of its posterior."""
    (judge_run,) = _of_step(runs, "judge", 1)
    votes = judge_run.read("votes")
    labels = labels_of_votes(votes)
    bits = entropy(dawid_skene(labels, symmetric=True).probability)
    frame = judge_run.read("judgements").to_pandas()
    frame["score"] = frame["pair_id"].map(dict(zip(labels.items, bits, strict=True)))
    frame = with_strengths(frame, votes)
    unseen = _unjudged(judge_run, set(frame["pair_id"])).assign(score=math.log2(len(CLASSES)))
    return pd.concat([frame[~is_adjudicated(frame["method"])], unseen], ignore_index=True)


def _unjudged(judge_run: Run, known: set[str]) -> pd.DataFrame:
    """Pairs that were shown and have no vote yet."""
    items = answers_of(pulls_of(judge_run))[1].to_pandas()
    pairs = items[items["kind"] == "compare"]
    ends = np.array([sorted(ids) for ids in pairs["output_ids"]], dtype=object).reshape(-1, 2)
    frame = _pairs(pairs["prompt_id"].tolist(), ends)
    return frame[~frame["pair_id"].isin(known)]


def _pairs(prompts: Sequence[str], ends: NDArray[np.object_]) -> pd.DataFrame:
    """Pairs without votes, each once; `ends` are two outputs a row, the smaller id first."""
    frame = pd.DataFrame(
        {
            "pair_id": [content_id("j", *pair) for pair in ends],
            "prompt_id": prompts,
            "output_a": ends[:, 0],
            "output_b": ends[:, 1],
            "score": np.nan,
            "strength_median": pd.array([pd.NA] * len(ends), dtype="Int32"),
            "annotators": [[] for _ in range(len(ends))],
            **_EMPTY,
        }
    )
    return frame.drop_duplicates("pair_id", ignore_index=True)


def _disagreed(runs: Sequence[Run]) -> pd.DataFrame:
    """Every pair that several evaluations scored, with how far their scores differ."""
    parts = []
    for number, run in enumerate(_of_step(runs, "evaluate", 2)):
        frame = run.read("scores").to_pandas().dropna(subset=["score", "versus_score"])
        turned = (frame["output_id"] > frame["versus_output"]).to_numpy()
        ends = np.where(
            turned[:, None],
            frame[["versus_output", "output_id"]].to_numpy(),
            frame[["output_id", "versus_output"]].to_numpy(),
        )
        gap = (frame["score"] - frame["versus_score"]).to_numpy() * np.where(turned, -1, 1)
        pairs = pd.DataFrame({"a": ends[:, 0], "b": ends[:, 1], "gap": gap})
        parts.append(pairs.assign(run=number, prompt_id=frame["prompt_id"].to_numpy()))
    table = pd.concat(parts)
    table = table[table["a"] != table["b"]]
    wide = table.pivot_table(index=["prompt_id", "a", "b"], columns="run", values="gap")
    spread = disagreement(wide.reindex(columns=range(len(runs))).to_numpy(dtype=np.float64))
    index = wide.index.to_frame()
    frame = _pairs(index["prompt_id"].tolist(), index[["a", "b"]].to_numpy(dtype=object))
    return frame.assign(score=spread)


def _failed(runs: Sequence[Run]) -> pd.DataFrame:
    """The failures of a round, those that a failures run puts first with the highest score."""
    (failures_run,) = _of_step(runs, "failures", 1)
    rows = failures_run.read("failures", ["prompt_id", "output_id", "versus_output"]).to_pandas()
    ends = np.sort(rows[["output_id", "versus_output"]].to_numpy(dtype=object), axis=1)
    frame = _pairs(rows["prompt_id"].tolist(), ends)
    return frame.assign(score=np.arange(len(frame), 0, -1, dtype=np.float64))


def _of_step(runs: Sequence[Run], step: str, at_least: int) -> Sequence[Run]:
    for run in runs:
        run.require(step, "judgements" if step == "judge" else None)
    if len(runs) < at_least or (at_least == 1 and len(runs) > 1):
        raise InputError(
            f"this takes {at_least} {step} run{'s or more' if at_least > 1 else ''}, "
            f"{len(runs)} named",
        )
    return runs


_CANDIDATES: dict[By, Callable[[Sequence[Run]], pd.DataFrame]] = {
    "uniform": _judged,
    "entropy": _judged,
    "disagreement": _disagreed,
    "failures": _failed,
}


def share_out(
    chosen: pa.Table,
    people: Sequence[str],
    cap: int | None = None,
    reliability: Mapping[str, float] | None = None,
    before_them: Mapping[str, Collection[str]] | None = None,
) -> tuple[dict[str, list[str]], int]:
    """Give each chosen pair to one person who has not judged it; pairs that nobody can take.

    The most wanted pairs go first, each to whoever has the fewest so far (the first by name among
    equals), or to the most reliable who has fewer than `cap`. O(pairs × people).

    Args:
        chosen: table `chosen`.
        cap: pairs for one person at most. None: no limit; with `reliability` twice an even share.
        reliability: of each person, as `reliability_of` gives it.
        before_them: pair → people whom it waits for already, as `given_out` says.

    Returns:
        Person → pair ids, of those who get any; and how many pairs are left over.
    """
    names = sorted(set(people))
    if cap is None and reliability is not None:
        cap = math.ceil(BUSIEST * chosen.num_rows / max(len(names), 1))
    room = np.full(len(names), chosen.num_rows if cap is None else cap, dtype=np.int64)
    waits = before_them or {}
    behind = [
        {*known, *waits.get(pair, ())}
        for pair, known in zip(
            chosen["pair_id"].to_pylist(), chosen["annotators"].to_pylist(), strict=True
        )
    ]
    judged = [[name in known for name in names] for known in behind]
    worth = None
    if reliability is not None:
        worth = np.array([reliability.get(name, np.nan) for name in names])
    known = np.array(judged, dtype=np.bool_).reshape(-1, len(names))
    person = hand_out(known, room, worth)
    given: dict[str, list[str]] = {}
    for pair, who in zip(chosen["pair_id"].to_pylist(), person.tolist(), strict=True):
        if who >= 0:
            given.setdefault(names[who], []).append(pair)
    return dict(sorted(given.items())), int((person < 0).sum())


def given_out(project: Project, besides: Run) -> dict[str, set[str]]:
    """Pair → the people by name before whom earlier pushes have put it, answered or not.

    Args:
        besides: a run whose own pushes do not count: giving it out again gives the same.
    """
    found: dict[str, set[str]] = {}
    for run in project.all_runs():
        names = run.manifest["settings"].get("to") if run.step == "push" else None
        if not names or besides.id in {parent["id"] for parent in run.manifest["parents"]}:
            continue
        for outputs in run.read("items", ["output_ids"])["output_ids"].to_pylist():
            found.setdefault(content_id("j", *sorted(outputs)), set()).update(names)
    return found


def reliability_of(judge_run: Run) -> dict[str, float]:
    """How far above chance each person's votes are (Dawid–Skene), of those who voted.

    0 guesses, or answers against the others; 1 is never wrong. Few votes lean on the panel's habit.
    """
    labels = labels_of_votes(judge_run.read("votes"))
    reliability = dawid_skene(labels, symmetric=True).reliability
    return dict(zip(labels.annotators, reliability.tolist(), strict=True))
