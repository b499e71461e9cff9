"""What stays split goes to reviewers: `handloom adjudicate`.

    judge  →  adjudicate  (chosen, prompts, outputs)  →  push  →  pull  →  judge

Reviewers have a data set of their own and see the earlier votes without names: how many there were
for each answer, and as a suggestion the answer that most gave. So their votes are not independent
of the earlier ones, and are not counted with them: where a reviewer answered, that decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from annotate.answers import Item
from annotate.chosen_pairs import chosen_table, with_strengths, write_chosen
from annotate.errors import InputError
from annotate.guidelines import Guideline
from annotate.runs import Project, Run, RunPlan
from annotate.server_types import Record, Suggestion

ADJUDICATE = "adjudicate"
"""The step, and what `judgements.method` begins with where reviewers decided."""
VOTES = "votes"
"""Name of the metadata that counts the earlier votes, and the agent of the suggestion."""


def adjudicate(
    project: Project, judge_run: Run, *, below: float | None = None, again: bool = False
) -> Run:
    """Choose the pairs that stay split; the finished run, if there is one. `push` shows them.

    A pair is split if it has two votes or more and no answer has more than half of them.

    Args:
        below: pairs whose winner has a posterior under this are split too.
        again: make a new run although a finished one exists.

    Raises:
        InputError: nothing is split.
        ProjectError: not a judge run.
    """
    judge_run.require("judge", "judgements")
    if below is not None and not 0.5 <= below <= 1:
        raise InputError(f"--below is a posterior from 0.5 to 1, not {below:g}")
    plan = RunPlan(ADJUDICATE, judge_run.round, (judge_run,), {"below": below})
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    chosen = split_pairs(judge_run.read("judgements"), judge_run.read("votes"), below)
    if not chosen.num_rows:
        raise InputError(
            "no pair is split",
            where=judge_run.id,
            remedy="Nothing is left to adjudicate; --below POSTERIOR takes doubtful pairs too",
        )
    with project.draft(plan) as draft:
        write_chosen(draft, chosen)
    return draft.run


def split_pairs(judgements: pa.Table, votes: pa.Table, below: float | None = None) -> pa.Table:
    """The table `chosen` of the pairs that stay split, the most doubtful first; see `adjudicate`.

    Pairs that reviewers decided already are left out.
    """
    frame = judgements.to_pandas()
    counts = frame[["votes_a", "votes_b", "ties"]].to_numpy()
    split = (frame["votes"] >= 2) & (2 * counts.max(axis=1, initial=0) <= frame["votes"])
    sure = np.maximum(frame["posterior"], 1 - frame["posterior"])
    doubtful = sure < (below or 0.0)
    taken = (split | doubtful) & ~is_adjudicated(frame["method"])
    frame = frame.assign(score=1 - sure, why=np.where(split, "split votes", "doubtful"))[taken]
    frame = with_strengths(frame, votes).sort_values(["score", "pair_id"], ascending=[False, True])
    return chosen_table(frame)


def is_adjudicated(method: pd.Series[str]) -> pd.Series[bool]:
    """Which judgements reviewers decided."""
    return method.str.startswith(ADJUDICATE)


@dataclass(frozen=True)
class EarlierVotes:
    """What the reviewers of a data set are told of the votes so far."""

    rows: Mapping[frozenset[str], Mapping[str, Any]]
    """By pair of outputs: rows of the table `chosen`."""
    labels: Mapping[int, str]
    """Strength for the output shown first → label of the preference question."""
    question: str

    @classmethod
    def of(cls, source: Run, guideline: Guideline) -> EarlierVotes:
        """From an adjudicate run.

        Raises:
            InputError: the guideline asks no preference.
        """
        question = guideline.deciding
        if question.type != "preference":
            raise InputError(
                f"{guideline.name} compares no two responses",
                where=source.id,
                remedy="Adjudicate under a guideline of kind compare",
            )
        rows = source.read("chosen").to_pylist()
        return cls(
            {frozenset((row["output_a"], row["output_b"])): row for row in rows},
            {strength: label for label, strength in question.strengths().items()},
            question.name,
        )

    def shown(self, record: Record, item: Item) -> Record:
        """The item's record with the earlier votes, in the order that it shows.

        Where no answer leads there is none to suggest: only the counts stand there.
        """
        row = self.rows[frozenset(item["output_ids"])]
        turned = item["output_ids"][0] != row["output_a"]
        first, second = row["votes_a"], row["votes_b"]
        if turned:
            first, second = second, first
        told = f"A {first}, B {second}, equal {row['ties']}"
        suggestions = dict(record.suggestions)
        median = row["strength_median"]
        if median is not None:
            votes = (row["votes_a"], row["votes_b"], row["ties"])
            suggestions[self.question] = Suggestion(
                self.labels[-median if turned else median], max(votes) / sum(votes), VOTES
            )
        metadata = {**record.metadata, VOTES: told}
        return dataclasses.replace(record, metadata=metadata, suggestions=suggestions)


def is_adjudication(pull_run: Run) -> bool:
    """Whether a pull run holds what reviewers decided."""
    push = next((run for run in pull_run.parents if run.step == "push"), None)
    return push is not None and any(source.step == ADJUDICATE for source in push.parents)


def independent(pull_runs: Sequence[Run]) -> list[Run]:
    """The pull runs whose annotators saw nobody else's votes."""
    return [run for run in pull_runs if not is_adjudication(run)]


def decide(judgements: pa.Table, adjudications: pa.Table) -> pa.Table:
    """Judgements with those replaced that reviewers decided, each by most of its reviewers.

    The counts of votes stay those of the annotators. The posterior becomes 1, 0 or, of a tie or of
    reviewers who split, 0.5; the method is called "adjudicated".

    Args:
        adjudications: the reviewers' votes; schema "votes".
    """
    if not adjudications.num_rows:
        return judgements
    given = adjudications.to_pandas()
    sign = given["vote"].map({"a": 1.0, "tie": 0.0, "b": -1.0})
    decided = (
        given.assign(sign=sign)
        .groupby("pair_id")
        .agg(
            lead=("sign", "sum"),
            strength=("strength", "mean"),
            people=("annotator", lambda names: sorted(set(names))),
        )
    )
    frame = judgements.to_pandas()
    rows = frame["pair_id"].isin(decided.index).to_numpy()
    found = decided.loc[frame.loc[rows, "pair_id"]]
    frame.loc[rows, "posterior"] = (np.sign(found["lead"]) / 2 + 0.5).to_numpy()
    frame.loc[rows, "strength_mean"] = found["strength"].astype("float64").to_numpy()
    frame.loc[rows, "margin"] = (found["strength"].astype("float64").abs() / 3).to_numpy()
    frame.loc[rows, "method"] = ADJUDICATE + "d"
    if "noise_rate" in frame:
        frame.loc[rows, "noise_rate"] = np.where(found["lead"] == 0, 0.5, 0.0)
    frame.loc[rows, "annotators"] = pd.Series(
        [*found["people"]], index=frame.index[rows], dtype=object
    )
    return pa.Table.from_pandas(frame, schema=judgements.schema, preserve_index=False)
