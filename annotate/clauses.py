"""Where people disagree, by the clause of the guideline that they say decided it.

Annotators tick, in the question `clause`, which of the guideline's questions separated the
responses. So disagreement has an address: a clause under which two people who both read it vote
against each other is badly written, and one that only one of the two saw apply is badly placed.

Everything counts pairs of answers: two people on one pair of outputs, both under one version of a
guideline that asks for a clause, each with the vote given there. Such a pair belongs to a clause
where one of the two ticked it or both did; answers without any clause belong to none. Each version
has figures of its own. Intervals resample prompts. Cost: the sum over items of answers squared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.agreement.resampling import too_few
from annotate.errors import ProjectError
from annotate.statistics import FEWEST_UNITS, Estimate, Reals, bootstrap, undefined
from annotate.votes import votes_by_version

QUESTION = "clause"
"""The question of a guideline that asks which of its clauses decided."""
OVER = "prompts, this panel of annotators"
EXAMPLES = 5


@dataclass(frozen=True)
class ClauseFigures:
    """What happened where a clause was ticked."""

    clause: str
    guideline: str
    """The version answered under; empty where it is not known."""
    answers: int
    """Answers that ticked it."""
    items: int
    """Items on which somebody ticked it."""
    pairs: int
    """Pairs of answers in which one ticked it."""
    shared: Estimate
    """Of the pairs of answers in which one ticked it, the share in which both did."""
    agreement: Estimate
    """Of the same pairs of answers, the share with the same vote: a, b or tie."""
    opposed: int
    """Of them, those with opposite votes: one for a, one for b."""
    examples: tuple[str, ...]
    """Items with opposite votes, the most split first."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "clause": self.clause,
            "guideline": self.guideline or None,
            "answers": self.answers,
            "items": self.items,
            "pairs": self.pairs,
            "shared": self.shared.to_dict(),
            "agreement": self.agreement.to_dict(),
            "opposed": self.opposed,
            "examples": list(self.examples),
        }

    def lines(self) -> list[str]:
        """The figures as text."""
        under = f" ({self.guideline})" if self.guideline else ""
        lines = [
            f"{self.clause}{under}: ticked in {self.answers:,} answers on {self.items:,} items, "
            f"in {self.pairs:,} pairs of answers",
            f"  same vote       {self.agreement} prompts",
            f"  ticked by both  {self.shared} prompts",
        ]
        if self.opposed:
            lines.append(f"  opposite votes  {self.opposed:,}, as on {', '.join(self.examples)}")
        return lines


def clause_figures(responses: pa.Table, items: pa.Table, *, seed: int = 0) -> list[ClauseFigures]:
    """Agreement and disagreement of each clause, the one with most opposite votes first.

    Args:
        responses: table `responses`, those to the question `clause` among them.
        items: table `items`, every item that was answered.

    Raises:
        ProjectError: nobody ticked a clause.
    """
    asking = pc.unique(responses["guideline"].filter(pc.equal(responses["question"], QUESTION)))
    asked = responses.filter(pc.is_in(responses["guideline"], value_set=asking))
    found = []
    for version, votes in votes_by_version(asked, items).items():
        under = pc.equal(pc.fill_null(asked["guideline"], ""), version)
        found += _under(version, asked.filter(under), votes, seed)
    if not found:
        raise ProjectError(
            f"nobody ticked a clause: no response answers a question named {QUESTION!r}",
            remedy="Push under a guideline that asks it, as preference@v2 does",
        )
    return sorted(found, key=lambda each: (-each.opposed, each.clause, each.guideline))


def _under(version: str, responses: pa.Table, votes: pa.Table, seed: int) -> list[ClauseFigures]:
    """The clauses of one version of a guideline."""
    ticked = ticked_clauses(responses)
    met = _answer_pairs(votes)
    found = []
    for clause in sorted(ticked["clause"].unique()):
        who = ticked.loc[ticked["clause"] == clause, ["item_id", "annotator"]]
        key = pd.MultiIndex.from_frame(who)
        sides = [
            pd.MultiIndex.from_frame(met[[f"item_{side}", f"annotator_{side}"]]).isin(key)
            for side in ("1", "2")
        ]
        here = met.assign(both=sides[0] & sides[1])[sides[0] | sides[1]]
        found.append(_figures(clause, version, who, here, seed))
    return found


def ticked_clauses(responses: pa.Table) -> pd.DataFrame:
    """item_id, annotator, clause: one row a clause that a submitted response ticked."""
    asked = responses.filter(
        pc.and_(
            pc.equal(responses["question"], QUESTION), pc.equal(responses["status"], "submitted")
        )
    )
    rows: pd.DataFrame = asked.select(["item_id", "annotator"]).to_pandas()
    rows["clause"] = [json.loads(value)["labels"] for value in asked["value"].to_pylist()]
    return rows.explode("clause").dropna(subset=["clause"]).drop_duplicates()


def _answer_pairs(votes: pa.Table) -> pd.DataFrame:
    """Every two people who voted on one pair of outputs, once."""
    names = ["pair_id", "prompt_id", "item_id", "annotator", "vote"]
    rows: pd.DataFrame = votes.select(names).to_pandas().rename(columns={"item_id": "item"})
    met = rows.merge(rows.drop(columns="prompt_id"), on="pair_id", suffixes=("_1", "_2"))
    met = met[met["annotator_1"] < met["annotator_2"]]
    opposed = (met["vote_1"] != met["vote_2"]) & (met["vote_1"] != "tie") & (met["vote_2"] != "tie")
    return met.assign(same=met["vote_1"] == met["vote_2"], opposed=opposed)


def _figures(
    clause: str, version: str, who: pd.DataFrame, here: pd.DataFrame, seed: int
) -> ClauseFigures:
    split = here[here["opposed"]].groupby("item_1").size()
    worst = split.sort_values(ascending=False, kind="stable").head(EXAMPLES)
    return ClauseFigures(
        clause=clause,
        guideline=version,
        answers=len(who),
        items=int(who["item_id"].nunique()),
        pairs=len(here),
        shared=_share(here, "both", seed),
        agreement=_share(here, "same", seed),
        opposed=int(here["opposed"].sum()),
        examples=tuple(worst.index),
    )


def _share(rows: pd.DataFrame, column: str, seed: int) -> Estimate:
    """The share of the rows where `column` holds, prompts being resampled."""
    if rows.empty:
        return undefined("no two people answered an item on which it was ticked", 0, OVER)
    by_prompt = rows.groupby("prompt_id")[column].agg(["sum", "size"]).to_numpy(dtype=np.float64)
    distinct, multiplicity = np.unique(by_prompt, axis=0, return_counts=True)

    def share(weights: Reals) -> Reals:
        return np.asarray((weights @ distinct[:, 0]) / (weights @ distinct[:, 1]))

    found = bootstrap(share, multiplicity, over=OVER, seed=seed)
    if found.n < FEWEST_UNITS:
        return replace(found, low=None, high=None, method="none", reason=too_few(found.n))
    return found


def clause_lines(figures: Sequence[ClauseFigures]) -> list[str]:
    """All clauses as text."""
    return [line for each in figures for line in each.lines()]
