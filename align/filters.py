"""Keep a judged pair, or drop it with a reason.

A filter is a small pydantic model. Its call takes the table of evidence (judgements, the two
completions, the winner) and returns a column of text: the value that broke the rule, null where
the pair is kept. Filters run in the recipe's order; the first reason counts, all are kept:

    filters:
      - {rule: min_votes, at_least: 2}
      - {rule: agreement, at_least: 1.0}

To add one: write the model, and name it in `Filter`. A misspelt rule then lists the valid ones.

Every filter treats a and b alike: swapping them changes no decision. Everything is vectorised with
Arrow; a million pairs take seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from annotate.records import conform

# Shares like 2/3 are compared with thresholds that people type: 0.667 must not drop 2 of 3.
_ROUNDING = 5e-4


class Rule(BaseModel):
    """What every filter is; see the module's docstring for what a call means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str

    @property
    def threshold(self) -> str:
        """What the rule demands, as a decision states it."""
        raise NotImplementedError

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The value that broke the rule, null where the pair is kept; one text a row."""
        raise NotImplementedError


class MinVotes(Rule):
    """Drop a pair that too few people voted on."""

    rule: Literal["min_votes"] = "min_votes"
    at_least: int = Field(2, ge=0)
    """Votes, ties included."""

    @property
    def threshold(self) -> str:
        """As in "at least 2 votes"."""
        return f"at least {self.at_least} votes"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The number of votes."""
        votes = _numbers(evidence, "votes", 0.0)
        return _values(votes < self.at_least, votes, ".0f")


class Agreement(Rule):
    """Drop a pair whose winner has too small a share of the votes; 1.0 demands unanimity."""

    rule: Literal["agreement"] = "agreement"
    at_least: float = Field(1.0, ge=0, le=1)
    """Votes for the winner over all votes; a tie is a vote for neither."""

    @property
    def threshold(self) -> str:
        """As in "at least 100 % of the votes for the winner"."""
        return f"at least {100 * self.at_least:g} % of the votes for the winner"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The share of the winning side; of the larger side where neither wins."""
        a, b = _numbers(evidence, "votes_a", 0.0), _numbers(evidence, "votes_b", 0.0)
        winner = _numbers(evidence, "winner", 0.0)
        side = np.select([winner > 0, winner < 0], [a, b], np.maximum(a, b))
        votes = _numbers(evidence, "votes", 0.0)
        share = np.divide(side, votes, out=np.zeros_like(side), where=votes > 0)
        return _values(share < self.at_least - _ROUNDING, share, ".3g")


class Posterior(Rule):
    """Drop a pair whose winner is not probable enough."""

    rule: Literal["posterior"] = "posterior"
    at_least: float = Field(0.8, ge=0.5, le=1)
    """The judgement's probability that the winner is the better one."""

    @property
    def threshold(self) -> str:
        """As in "at least 0.8"."""
        return f"at least {self.at_least:g}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The winner's posterior; "unknown" where the judgement gives none."""
        posterior = _numbers(evidence, "posterior", np.nan)
        surest = np.maximum(posterior, 1 - posterior)
        # Not `<`: an unknown posterior is not enough.
        return _values(~(surest >= self.at_least - 1e-9), surest, ".4g")


class Margin(Rule):
    """Drop a pair whose winner is better by too little.

    The margin counts against the pair where people's strengths point away from the winner (the
    posterior may overrule a careless majority), so 0 still drops such a contradiction.
    """

    rule: Literal["margin"] = "margin"
    at_least: float = Field(0.0, ge=0, le=1)
    """Mean strength towards the winner over 3: 1/3 is "slightly better", 1 "much better"."""

    @property
    def threshold(self) -> str:
        """As in "at least 0.33"."""
        return f"at least {self.at_least:g}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The margin; pairs for which nobody gave a strength are dropped unless 0 is enough."""
        margin = _numbers(evidence, "winner_margin", np.nan)
        unknown = np.isnan(margin) & (self.at_least > 0)
        return _values((margin < self.at_least - _ROUNDING) | unknown, margin, ".3g")


class Ties(Rule):
    """Drop a pair that nobody wins."""

    rule: Literal["ties"] = "ties"

    @property
    def threshold(self) -> str:
        """Fixed: there must be a winner."""
        return "a winner"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """How many called it a tie, of how many."""
        tied = _numbers(evidence, "winner", 0.0) == 0
        text = pc.binary_join_element_wise(
            _texts(evidence, "ties"), _texts(evidence, "votes"), " ties of "
        )
        return _masked(tied, text)


class BothBad(Rule):
    """Drop a pair of which people say that neither response is acceptable."""

    rule: Literal["both_bad"] = "both_bad"
    at_most: int = Field(0, ge=0)
    """How many may say so."""

    @property
    def threshold(self) -> str:
        """As in "at most 0 say both are bad"."""
        return f"at most {self.at_most} say both are bad"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """How many said so."""
        count = _numbers(evidence, "both_bad", 0.0)
        return _values(count > self.at_most, count, ".0f")


class Flags(Rule):
    """Drop a pair with a flagged response (unsafe, personal data, off topic, untrue)."""

    rule: Literal["flags"] = "flags"
    whose: Literal["winner", "either"] = "winner"
    """Whose flags count. A flagged loser is what a preference should teach against."""
    names: tuple[str, ...] | None = None
    """Which flags; None means all of them."""

    @property
    def threshold(self) -> str:
        """As in "no flag on the winner"."""
        which = "no flag" if self.names is None else f"no {' or '.join(self.names)}"
        return f"{which} on {'the winner' if self.whose == 'winner' else 'either response'}"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The flags that count, as in "unsafe, untrue"."""
        flags = _flag_rows(evidence)
        if self.whose == "winner":
            flags = flags.filter(pc.equal(flags["output"], flags["winner_output"]))
        if self.names is not None:
            flags = flags.filter(pc.is_in(flags["flag"], value_set=pa.array(self.names)))
        flags = flags.group_by(["row", "flag"]).aggregate([])
        flags = flags.sort_by([("row", "ascending"), ("flag", "ascending")])
        rows = flags.group_by("row", use_threads=False).aggregate([("flag", "list")])
        text = pc.binary_join(rows["flag_list"], ", ")
        every = pa.array(np.arange(evidence.num_rows, dtype=np.int64))
        return _column(text.take(pc.index_in(every, value_set=rows["row"])))


class Identical(Rule):
    """Drop a pair of identical responses (but for surrounding white space)."""

    rule: Literal["identical"] = "identical"

    @property
    def threshold(self) -> str:
        """Fixed: the texts must differ."""
        return "two different texts"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """A fixed word: the texts themselves stand in `outputs`."""
        a, b = (pc.utf8_trim_whitespace(evidence[f"completion_{side}"]) for side in "ab")
        same = np.asarray(pc.fill_null(pc.equal(a, b), False))
        return _masked(same, pa.array(np.full(evidence.num_rows, "identical"), pa.string()))


Filter = Annotated[
    MinVotes | Agreement | Posterior | Margin | Ties | BothBad | Flags | Identical,
    Field(discriminator="rule"),
]

RULES: dict[str, type[Rule]] = {
    rule.model_fields["rule"].default: rule for rule in get_args(get_args(Filter)[0])
}
"""By the name that a recipe calls them."""

ALWAYS: tuple[Rule, ...] = (Ties(), Identical())
"""Hold whether or not a recipe names them: chosen must never equal rejected."""


def winners(judgements: pa.Table) -> NDArray[np.int8]:
    """1 where a wins, -1 where b wins, 0 where neither does, shape (n,).

    By the posterior; by the share of votes where there is none.
    """
    lead = _numbers(judgements, "posterior", np.nan) - 0.5
    lead = np.where(np.isnan(lead), _numbers(judgements, "vote_share", np.nan) - 0.5, lead)
    # A posterior made of sums may miss a half by rounding.
    winner = np.where(np.abs(lead) > 1e-9, np.sign(lead), 0.0)
    return np.nan_to_num(winner).astype(np.int8)


def in_force(filters: Sequence[Rule]) -> tuple[Rule, ...]:
    """The filters, followed by those of `ALWAYS` that are not among them."""
    named = {rule.rule for rule in filters}
    return (*filters, *(rule for rule in ALWAYS if rule.rule not in named))


def evidence(judgements: pa.Table, outputs: pa.Table) -> pa.Table:
    """Judgements with what filters need beside: five columns, one row a judgement, in order.

    - completion_a, completion_b: the texts, null for an output that `outputs` does not hold.
    - winner: as `winners` gives it.
    - winner_output: its id, null without a winner.
    - winner_margin: mean strength towards the winner over 3, -1 to 1, null where unknown.
    """
    texts = {}
    for side in "ab":
        at = pc.index_in(judgements[f"output_{side}"], value_set=outputs["output_id"])
        texts[side] = outputs["completion"].take(at)
    winner = winners(judgements)
    strength = _numbers(judgements, "strength_mean", np.nan)
    margin = np.where(winner == 0, np.abs(strength), strength * winner) / 3
    winning = pc.if_else(pa.array(winner > 0), judgements["output_a"], judgements["output_b"])
    columns = {
        "completion_a": texts["a"],
        "completion_b": texts["b"],
        "winner": pa.array(winner),
        "winner_output": pc.if_else(pa.array(winner != 0), winning, pa.scalar(None, pa.string())),
        "winner_margin": pa.array(margin, mask=np.isnan(margin)),
    }
    for name, column in columns.items():
        judgements = judgements.append_column(name, column)
    return judgements


def apply(filters: Sequence[Rule], judgements: pa.Table, outputs: pa.Table) -> pa.Table:
    """Decide each pair: the `decisions` table, in the order of `judgements`.

    Args:
        filters: in order; what always holds comes last.
        judgements: the table of that name, with ids that `outputs` holds.
        outputs: the texts the judgements are about.
    """
    table = evidence(judgements, outputs)
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
    votes = [_texts(table, name) for name in ("votes_a", "votes_b", "ties")]
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


def _as_json(rule: Rule, value: pa.Array) -> pa.Array:
    """{"rule": …, "threshold": …, "value": …} of each row, null where the value is."""
    escaped = pc.replace_substring(value, "\\", "\\\\")
    escaped = pc.replace_substring(escaped, '"', '\\"')
    head = json.dumps({"rule": rule.rule, "threshold": rule.threshold}, ensure_ascii=False)
    head = head[:-1] + ', "value": "'
    return pc.binary_join_element_wise(head, escaped, '"}', "")


def _numbers(table: pa.Table, column: str, null: float) -> NDArray[np.float64]:
    filled = pc.fill_null(pc.cast(table[column], pa.float64()), null)
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def _texts(table: pa.Table, column: str) -> pa.ChunkedArray:
    return pc.cast(pc.fill_null(table[column], 0), pa.string())


def _masked(broken: NDArray[np.bool_], text: Any) -> pa.Array:
    return _column(pc.if_else(pa.array(broken), text, pa.scalar(None, pa.string())))


def _column(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _values(broken: NDArray[np.bool_], numbers: NDArray[np.float64], form: str) -> pa.Array:
    """The numbers of the broken rows as text; a number is written out once, however frequent."""
    distinct, code = np.unique(numbers, return_inverse=True)
    words = ["unknown" if np.isnan(number) else format(number, form) for number in distinct]
    return _masked(broken, pa.array(words, pa.string()).take(pa.array(code.reshape(-1))))


def _flag_rows(evidence: pa.Table) -> pa.Table:
    """One row a (pair, flag): row, output, flag, winner_output, from "<output_id>:<flag>"."""
    flags = evidence["flags"].combine_chunks()
    row = pc.list_parent_indices(flags)
    parts = pc.extract_regex(pc.list_flatten(flags), "^(?P<output>.*):(?P<flag>[^:]*)$")
    return pa.table(
        {
            "row": row,
            "output": pc.struct_field(parts, "output"),
            "flag": pc.struct_field(parts, "flag"),
            "winner_output": evidence["winner_output"].take(row),
        }
    )
