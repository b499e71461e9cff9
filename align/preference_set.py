"""Kept pairs as TRL's conversational preference data, one row a pair:

prompt   [{"role": "user", "content": "My order never arrived."}]
chosen   [{"role": "assistant", "content": "I am sorry. …"}]
rejected [{"role": "assistant", "content": "Orders arrive."}]
margin   0.67
p_chosen 0.94, noise_rate 0.06
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import t as student

from annotate.records import MESSAGES, conform, content_id
from annotate.statistics import LEVEL, Estimate, undefined


def preference_set(evidence: pa.Table, prompts: pa.Table) -> pa.Table:
    """The `preference` table, one row a pair, sorted by row id.

    `margin` is |strength_mean| / 3, or 0 where people's strengths point away from the winner, and
    null where nobody gave one. `p_chosen` is the judgement's probability, calibrated where `judge`
    could, that the chosen response is the better one; `noise_rate` is 1 - p_chosen.

    Args:
        evidence: of the kept pairs (`align.filters.evidence`): each has a winner, and two texts.
        prompts: with the column `split` set to each prompt's side.

    Raises:
        ValueError: a pair without a winner, or with equal texts, was kept.
    """
    won = np.asarray(evidence["winner"]) > 0
    texts = {
        "chosen": pc.if_else(won, evidence["completion_a"], evidence["completion_b"]),
        "rejected": pc.if_else(won, evidence["completion_b"], evidence["completion_a"]),
    }
    if (np.asarray(evidence["winner"]) == 0).any() or pc.any(pc.equal(*texts.values())).as_py():
        raise ValueError("a kept pair has no winner, or chosen equals rejected")
    chosen = evidence["winner_output"]
    rejected = pc.if_else(won, evidence["output_b"], evidence["output_a"])
    at = pc.index_in(evidence["prompt_id"], value_set=prompts["prompt_id"])
    table = pa.table(
        {
            "row_id": row_ids("pref", evidence["pair_id"], chosen),
            "prompt_id": evidence["prompt_id"],
            "pair_id": evidence["pair_id"],
            "prompt": prompts["messages"].take(at),
            **{name: assistant_turns(column) for name, column in texts.items()},
            "margin": pc.max_element_wise(evidence["winner_margin"], 0.0, skip_nulls=False),
            "p_chosen": evidence["p_winner"],
            "noise_rate": pc.subtract(1.0, evidence["p_winner"]),
            "chosen_output": chosen,
            "rejected_output": rejected,
            "split": prompts["split"].take(at),
        }
    )
    return conform("preference", table.sort_by("row_id"))


def assistant_turns(texts: pa.ChunkedArray) -> pa.Array:
    """Each text as a conversation of one assistant's turn: the form in which TRL reads it."""
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    role = pa.repeat(pa.scalar("assistant"), len(column))
    turns = pa.StructArray.from_arrays([role, column], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), turns)


def row_ids(prefix: str, *columns: pa.ChunkedArray) -> pa.Array:
    """A content id for each row of `columns`."""
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([content_id(prefix, *row) for row in rows], pa.string())


def mean_noise_rate(preference: pa.Table) -> Estimate:
    """How many of the pairs, as a share, have their worse response chosen, by the judgement itself.

    It is what the judge step believes, averaged: it is right only as far as that is calibrated.
    The interval is Student's t of a mean over pairs, with the pairs of a prompt as one cluster
    (the linearised ratio of sums, Cochran 1977, section 6.4). n counts pairs.
    """
    over = "kept pairs, the pairs of a prompt together"
    known = preference.filter(pc.is_valid(preference["noise_rate"]))
    n = known.num_rows
    if not n:
        return undefined("no kept pair has a posterior", 0, over)
    rates = np.asarray(known["noise_rate"], dtype=np.float64)
    value = float(rates.mean())
    prompts = known["prompt_id"].combine_chunks().dictionary_encode()
    deviations = np.bincount(np.asarray(prompts.indices), rates - value)
    clusters = len(deviations)
    if clusters < 2 or np.ptp(rates) < 1e-12:
        reason = "every pair has this rate" if clusters > 1 else "all pairs are of one prompt"
        return Estimate(value, None, None, n, "none", over, reason=reason)
    error = math.sqrt(clusters / (clusters - 1) * float(deviations @ deviations)) / n
    half = float(student.ppf((1 + LEVEL) / 2, clusters - 1)) * error
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Estimate(value, low, high, n, "Student's t, clustered", over)
