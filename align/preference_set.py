"""Kept pairs as TRL's conversational preference data, one row a pair:

prompt   [{"role": "user", "content": "My order never arrived."}]
chosen   [{"role": "assistant", "content": "I am sorry. …"}]
rejected [{"role": "assistant", "content": "Orders arrive."}]
margin   0.67
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotate.records import MESSAGES, conform, content_id


def preference_set(evidence: pa.Table, prompts: pa.Table) -> pa.Table:
    """The `preference` table, one row a pair, sorted by row id.

    `margin` is |strength_mean| / 3, or 0 where people's strengths point away from the winner, and
    null where nobody gave one.

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
