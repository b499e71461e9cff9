"""Which filters there are, and what they together decide of each pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from align.filters.belief import Posterior, Reliability
from align.filters.contaminated import Contaminated
from align.filters.counts import Agreement, BothBad, MinVotes, Ties
from align.filters.evidence import Evidence
from align.filters.flagged import Flags
from align.filters.rule import Rule
from align.filters.strengths import Margin, Spread
from align.filters.texts import Identical, LengthRatio, NearIdentical
from annotate.records import SCHEMAS, conform

Filter = Annotated[
    MinVotes
    | Agreement
    | Posterior
    | Margin
    | Ties
    | BothBad
    | Flags
    | Identical
    | Spread
    | Reliability
    | LengthRatio
    | NearIdentical
    | Contaminated,
    Field(discriminator="rule"),
]

RULES: dict[str, type[Rule]] = {
    rule.model_fields["rule"].default: rule for rule in get_args(get_args(Filter)[0])
}
"""By the name that a recipe calls them."""

ALWAYS: tuple[Rule, ...] = (Ties(), Identical())
"""Hold whether or not a recipe names them: chosen must never equal rejected."""

# Pairs whose texts lie in memory together: 50,000 pairs of two pages each are 400 MB.
_BLOCK = 50_000


def in_force(filters: Sequence[Rule]) -> tuple[Rule, ...]:
    """The filters, followed by those of `ALWAYS` that are not among them."""
    named = {rule.rule for rule in filters}
    return (*filters, *(rule for rule in ALWAYS if rule.rule not in named))


def apply(
    filters: Sequence[Rule],
    judgements: pa.Table,
    outputs: pa.Table,
    *,
    prompts: pa.Table | None = None,
    votes: pa.Table | None = None,
) -> pa.Table:
    """Decide each pair: the `decisions` table, in the order of `judgements`.

    A filter sees only its pair, so pairs are decided a block at a time.

    Args:
        filters: in order; what always holds comes last.
        judgements: the table of that name, with ids that `outputs` holds.
        outputs: the texts the judgements are about.
        prompts: what filters on prompts read.
        votes: what filters on single votes read.
    """
    found = Evidence(judgements, outputs, prompts=prompts, votes=votes)
    blocks = [
        _decisions(filters, found.rows(start, _BLOCK))
        for start in range(0, judgements.num_rows, _BLOCK)
    ]
    return pa.concat_tables(blocks) if blocks else SCHEMAS["decisions"].empty_table()


def _decisions(filters: Sequence[Rule], table: pa.Table) -> pa.Table:
    rows = table.num_rows
    nothing = pa.nulls(rows, pa.string())
    first = {"rule": nothing, "threshold": nothing, "value": nothing}
    reasons = pa.array(np.full(rows, ""), pa.string())
    for rule in in_force(filters):
        value = rule(table)
        broken = pc.is_valid(value)
        earlier = pc.is_valid(first["rule"])
        this = {"rule": rule.rule, "threshold": rule.threshold, "value": value}
        counts = pc.and_(broken, pc.invert(earlier))
        first = {name: pc.if_else(counts, this[name], column) for name, column in first.items()}
        comma = pc.if_else(earlier, ", ", "")
        text = pc.binary_join_element_wise(reasons, comma, _as_json(rule, value), "")
        reasons = pc.if_else(broken, text, reasons)
    votes = [
        pc.cast(pc.fill_null(table[name], 0), pa.string())
        for name in ("votes_a", "votes_b", "ties")
    ]
    return conform(
        "decisions",
        pa.table(
            {
                "pair_id": table["pair_id"],
                "prompt_id": table["prompt_id"],
                "kept": pc.is_null(first["rule"]),
                **first,
                "votes": pc.binary_join_element_wise(*votes, "-"),
                "reasons": pc.binary_join_element_wise("[", reasons, "]", ""),
            }
        ),
    )


def _as_json(rule: Rule, value: pa.Array) -> Any:
    """{"rule": …, "threshold": …, "value": …} of each row, null where the value is."""
    escaped = pc.replace_substring(value, "\\", "\\\\")
    escaped = pc.replace_substring(escaped, '"', '\\"')
    head = json.dumps({"rule": rule.rule, "threshold": rule.threshold}, ensure_ascii=False)
    head = head[:-1] + ', "value": "'
    return pc.binary_join_element_wise(head, escaped, '"}', "")
