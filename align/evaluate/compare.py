"""One completion against another on the same prompt: who won, who says so, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from align.card import simulated
from align.evaluate.scorers import scorer_named
from align.filters import winners
from annotate.records import SCHEMAS, conform
from annotate.runs import Run
from annotate.statistics import Estimate, bootstrap_mean, paired_difference, undefined, win_rate

PEOPLE, SIMULATED = "people", "simulated annotators"
SAME = "same completion"
"""Says a tie where both models wrote the same: nobody is asked to compare that."""


def votes_held(judge_runs: Sequence[Run]) -> pd.DataFrame:
    """What annotators held of each pair: output_a, output_b, winner (1, 0, -1), held, judged_by.

    `held` is the number of votes. Where several runs hold a pair, the last counts. Pairs that only
    simulated annotators saw say so in `judged_by`.
    """
    held = [_votes(run.read("judgements")) for run in judge_runs]
    empty = _votes(SCHEMAS["judgements"].empty_table())
    return pd.concat([empty, *held]).drop_duplicates(["output_a", "output_b"], keep="last")


def _votes(judgements: pa.Table) -> pd.DataFrame:
    table: pd.DataFrame = judgements.select(["output_a", "output_b"]).to_pandas()
    made = [bool(who) and who == simulated(who) for who in judgements["annotators"].to_pylist()]
    return table.assign(
        winner=winners(judgements).astype(float),
        held=judgements["votes"].to_pandas(),
        judged_by=pd.Series([SIMULATED if one else PEOPLE for one in made], dtype="str"),
    )


def scored(outputs: pa.Table, prompts: pa.Table, scorer: str | None) -> pd.DataFrame:
    """Outputs as output_id, prompt_id, model, completion, tokens and, from the scorer, score."""
    columns = ["output_id", "prompt_id", "model", "completion", "tokens"]
    table: pd.DataFrame = outputs.select(columns).to_pandas()
    if scorer is None:
        return table.assign(score=np.nan)
    judge = scorer_named(scorer)
    ids, messages = prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist()
    asked = dict(zip(ids, messages, strict=True))
    texts = zip(outputs["prompt_id"].to_pylist(), outputs["completion"].to_pylist(), strict=True)
    return table.assign(score=[judge(asked[prompt], text) for prompt, text in texts])


def compare(
    own: pd.DataFrame, other: pd.DataFrame, votes: pd.DataFrame, scorer: str | None
) -> pa.Table:
    """The `scores` table: each completion of one model against the other's for the same prompt.

    Annotators decide where they judged the pair, the scorer otherwise. Where there is neither, two
    completions that are the same tie, and of others the outcome is null.

    Args:
        own: `scored` outputs of the model in question, one a prompt.
        other: those of its opponent.
        votes: as `votes_held` gives them.
        scorer: the scorer's name, None without one.
    """
    pairs = own.merge(other, on="prompt_id", suffixes=("", "_other"), validate="1:1")
    first = pairs["output_id"] < pairs["output_id_other"]
    pairs["output_a"] = pairs["output_id"].where(first, pairs["output_id_other"])
    pairs["output_b"] = pairs["output_id_other"].where(first, pairs["output_id"])
    pairs = pairs.merge(votes, on=["output_a", "output_b"], how="left")
    by_votes = pairs["winner"] * np.where(first, 1, -1)
    by_score = pd.Series(np.sign(pairs["score"] - pairs["score_other"]), pairs.index)
    judged = pairs["held"].notna()
    same = pairs["completion"].str.strip() == pairs["completion_other"].str.strip()
    outcome = (by_votes.where(judged, by_score.mask(same, 0.0)) + 1) / 2
    otherwise = pd.Series(SAME, pairs.index, dtype=object).where(same, None)
    if scorer is not None:
        otherwise[:] = f"scorer:{scorer}"
    columns = {
        "prompt_id": pairs["prompt_id"],
        "output_id": pairs["output_id"],
        "model": pairs["model"],
        "versus_output": pairs["output_id_other"],
        "versus_model": pairs["model_other"],
        "outcome": outcome,
        "judged_by": pairs["judged_by"].astype(object).where(judged, otherwise),
        "votes": pairs["held"],
        "score": pairs["score"],
        "versus_score": pairs["score_other"],
        "tokens": pairs["tokens"],
        "versus_tokens": pairs["tokens_other"],
    }
    return conform("scores", pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False))


def summary(scores: pa.Table, seed: int) -> dict[str, Any]:
    """Figures of one opponent's `scores`, JSON-able.

    win_rate (a tie is half, bootstrap over prompts), wins, ties, losses, unjudged, judged_by
    (counts), tokens, versus_tokens (means) and longer_by (tokens, paired over prompts).
    """
    table = scores.to_pandas()
    judged = table[table["outcome"].notna()]
    return {
        "win_rate": _win_rate(judged, seed).to_dict(),
        "wins": int((judged["outcome"] == 1).sum()),
        "ties": int((judged["outcome"] == 0.5).sum()),
        "losses": int((judged["outcome"] == 0).sum()),
        "unjudged": len(table) - len(judged),
        "judged_by": {name: int(n) for name, n in judged["judged_by"].value_counts().items()},
        "tokens": bootstrap_mean(table["tokens"], over="prompts", seed=seed).to_dict(),
        "versus_tokens": bootstrap_mean(
            table["versus_tokens"], over="prompts", seed=seed
        ).to_dict(),
        "longer_by": paired_difference(
            table["tokens"], table["versus_tokens"], over="prompts", seed=seed
        ).to_dict(),
    }


def _win_rate(judged: pd.DataFrame, seed: int) -> Estimate:
    if judged.empty:
        return undefined("nobody and no scorer judged these pairs", 0, "prompts")
    return win_rate(judged["outcome"], list(judged["prompt_id"]), seed=seed)
