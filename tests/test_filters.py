"""Filters: each keeps and drops what it says, order decides the first reason, counts add up."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from align.filters import (
    Agreement,
    BothBad,
    Filter,
    Flags,
    Identical,
    Margin,
    MinVotes,
    Posterior,
    Rule,
    Ties,
    apply,
)
from annotate.records import table_from_rows

OUTPUTS = table_from_rows(
    "outputs",
    [
        {"output_id": "o-1", "prompt_id": "p", "model": "m", "completion": "Open the lid."},
        {"output_id": "o-2", "prompt_id": "p", "model": "m", "completion": "Close the lid."},
        {"output_id": "o-3", "prompt_id": "p", "model": "n", "completion": " Open the lid.\n"},
        {"output_id": "o-4", "prompt_id": "p", "model": "n", "completion": ""},
    ],
)


def pair(a: int = 2, b: int = 0, ties: int = 0, **more: Any) -> dict[str, Any]:
    """A judgement of o-1 against o-2 with these votes; the posterior is the share of votes."""
    votes = a + b + ties
    share = (a + ties / 2) / votes if votes else None
    strength = (2 * a - 2 * b) / votes if votes else None
    return {
        "pair_id": "pair",
        "prompt_id": "p",
        "output_a": "o-1",
        "output_b": "o-2",
        "votes_a": a,
        "votes_b": b,
        "ties": ties,
        "votes": votes,
        "both_bad": 0,
        "flags": [],
        "vote_share": share,
        "posterior": share,
        "strength_mean": strength,
        "margin": None if strength is None else abs(strength) / 3,
        **more,
    }


def decide(rule: Rule, *rows: dict[str, Any]) -> list[str | None]:
    """The value with which `rule` drops each row, None where it keeps it."""
    decisions = apply([rule], table_from_rows("judgements", rows), OUTPUTS)
    found = [json.loads(text) for text in decisions["reasons"].to_pylist()]
    mine = [[reason for reason in row if reason["rule"] == rule.rule] for row in found]
    return [row[0]["value"] if row else None for row in mine]


def test_min_votes_counts_ties() -> None:
    assert decide(MinVotes(at_least=3), pair(2, 0), pair(2, 0, 1)) == ["2", None]


def test_agreement_is_the_winners_share_of_all_votes() -> None:
    # 2 of 3 is enough for a threshold typed as 0.667; a tie among the votes lowers the share.
    rows = [pair(2, 1), pair(2, 0, 2), pair(1, 1), pair(0, 3)]
    assert decide(Agreement(at_least=0.667), *rows) == [None, "0.5", "0.5", None]
    assert decide(Agreement(), *rows) == ["0.667", "0.5", "0.5", None]


def test_agreement_follows_the_posterior_against_a_careless_majority() -> None:
    # Two careless votes for a, one reliable vote for b: b wins, with a third of the votes.
    assert decide(Agreement(at_least=0.5), pair(2, 1, posterior=0.2)) == ["0.333"]


def test_posterior_is_the_winners() -> None:
    rows = [pair(posterior=0.96), pair(posterior=0.04), pair(posterior=0.7), pair(posterior=None)]
    assert decide(Posterior(at_least=0.95), *rows) == [None, None, "0.7", "unknown"]


def test_margin_counts_towards_the_winner() -> None:
    rows = [
        pair(strength_mean=1.0),  # a wins, a third of the way
        pair(0, 2, strength_mean=-3.0),  # b wins, all the way
        pair(strength_mean=-1.0, posterior=0.9),  # a wins although people lean to b
        pair(strength_mean=None),
    ]
    assert decide(Margin(at_least=0.5), *rows) == ["0.333", None, "-0.333", "unknown"]
    assert decide(Margin(at_least=0.3333), *rows) == [None, None, "-0.333", "unknown"]
    assert decide(Margin(), *rows) == [None, None, "-0.333", None]


def test_ties_drops_what_nobody_wins() -> None:
    assert decide(Ties(), pair(1, 1), pair(0, 0, 2), pair(2, 1, 1)) == [
        "0 ties of 2",
        "2 ties of 2",
        None,
    ]


def test_both_bad() -> None:
    assert decide(BothBad(), pair(both_bad=0), pair(both_bad=1)) == [None, "1"]
    assert decide(BothBad(at_most=1), pair(both_bad=1)) == [None]


def test_flags_of_the_winner_or_of_either() -> None:
    rows = [
        pair(flags=["o-1:untrue", "o-1:unsafe"]),
        pair(flags=["o-2:unsafe"]),
        pair(),
        pair(flags=None),
    ]
    assert decide(Flags(), *rows) == ["unsafe, untrue", None, None, None]
    assert decide(Flags(whose="either"), *rows) == ["unsafe, untrue", "unsafe", None, None]
    assert decide(Flags(whose="either", names=("untrue",)), *rows) == ["untrue", None, None, None]


def test_identical_ignores_surrounding_space_only() -> None:
    rows = [pair(output_b="o-3"), pair(), pair(output_b="o-4")]
    assert decide(Identical(), *rows) == ["identical", None, None]


def test_ties_and_identical_hold_without_being_named() -> None:
    rows = [pair(1, 1), pair(output_b="o-3"), pair()]
    decisions = apply([], table_from_rows("judgements", rows), OUTPUTS)
    assert decisions["rule"].to_pylist() == ["ties", "identical", None]


def test_first_reason_counts_and_all_are_kept() -> None:
    rows = [pair(1, 1, both_bad=2, flags=['o-1:say "no"\\'])]
    rules = [Flags(whose="either"), BothBad(), MinVotes(at_least=3)]
    (decision,) = apply(rules, table_from_rows("judgements", rows), OUTPUTS).to_pylist()
    assert (decision["rule"], decision["value"]) == ("flags", 'say "no"\\')
    assert decision["threshold"] == "no flag on either response"
    assert decision["votes"] == "1-1-0"
    reasons = json.loads(decision["reasons"])
    assert [reason["rule"] for reason in reasons] == ["flags", "both_bad", "min_votes", "ties"]
    assert reasons[0]["value"] == 'say "no"\\'


def test_no_judgements_give_no_decisions() -> None:
    assert apply([Flags(), Ties()], table_from_rows("judgements", []), OUTPUTS).num_rows == 0


def test_a_misspelt_rule_lists_the_valid_ones() -> None:
    with pytest.raises(ValidationError, match="'min_votes', 'agreement', 'posterior', 'margin'"):
        TypeAdapter(Filter).validate_python({"rule": "agrement"})
    with pytest.raises(ValidationError, match="atleast"):
        TypeAdapter(Filter).validate_python({"rule": "min_votes", "atleast": 2})


def mirrored(row: dict[str, Any]) -> dict[str, Any]:
    """The same judgement with a and b exchanged."""
    swapped = dict(row)
    for side, other in (("a", "b"), ("b", "a")):
        swapped[f"output_{side}"] = row[f"output_{other}"]
        swapped[f"votes_{side}"] = row[f"votes_{other}"]
    for name in ("posterior", "vote_share"):
        swapped[name] = None if row[name] is None else 1 - row[name]
    if row["strength_mean"] is not None:
        swapped["strength_mean"] = -row["strength_mean"]
    return swapped


counts = st.integers(0, 4)
flag = st.sampled_from(["o-1:unsafe", "o-2:unsafe", "o-1:untrue", "o-3:untrue"])


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    row = pair(draw(counts), draw(counts), draw(counts))
    row["output_b"] = draw(st.sampled_from(["o-2", "o-3", "o-4"]))
    row["posterior"] = draw(st.none() | st.integers(0, 1000).map(lambda n: n / 1000))
    row["strength_mean"] = draw(st.none() | st.floats(-3, 3))
    row["both_bad"] = draw(counts)
    row["flags"] = draw(st.lists(flag, max_size=3))
    return row


rules = st.lists(
    st.one_of(
        st.builds(MinVotes, at_least=counts),
        st.builds(Agreement, at_least=st.floats(0, 1)),
        st.builds(Posterior, at_least=st.floats(0.5, 1)),
        st.builds(Margin, at_least=st.floats(0, 1)),
        st.just(Ties()),
        st.builds(BothBad, at_most=counts),
        st.builds(Flags, whose=st.sampled_from(["winner", "either"])),
        st.just(Identical()),
    ),
    max_size=5,
    unique_by=lambda rule: rule.rule,
)


@given(rules, st.lists(pairs(), max_size=6))
def test_properties_of_every_list_of_filters(rules: list[Rule], rows: list[dict[str, Any]]) -> None:
    judgements = table_from_rows("judgements", rows)
    decisions = apply(rules, judgements, OUTPUTS).to_pylist()
    assert len(decisions) == len(rows)
    order = [rule.rule for rule in rules]
    for decision in decisions:
        reasons = json.loads(decision["reasons"])
        assert decision["kept"] == (not reasons)
        assert decision["rule"] == (reasons[0]["rule"] if reasons else None)
        # Reasons stand in the recipe's order, those that always hold after them.
        named = [reason["rule"] for reason in reasons if reason["rule"] in order]
        assert named == sorted(named, key=order.index)
    # A filter sees only its pair: the order of rules moves the reason, never whether it is kept.
    backwards = apply(rules[::-1], judgements, OUTPUTS)
    assert [row["kept"] for row in decisions] == backwards["kept"].to_pylist()


@given(rules, st.lists(pairs(), max_size=4))
def test_swapping_a_and_b_changes_no_decision(
    rules: list[Rule], rows: list[dict[str, Any]]
) -> None:
    straight = apply(rules, table_from_rows("judgements", rows), OUTPUTS)
    swapped = apply(rules, table_from_rows("judgements", map(mirrored, rows)), OUTPUTS)
    names = ["pair_id", "kept", "rule", "threshold"]
    assert straight.select(names).equals(swapped.select(names))


def test_a_hundred_thousand_pairs() -> None:
    rows = table_from_rows("judgements", [pair(2, 1), pair(1, 1), pair(flags=["o-1:unsafe"])])
    judgements = pa.concat_tables([rows] * (33_333)).combine_chunks()
    rules: list[Rule] = [MinVotes(), Agreement(), Margin(), Ties(), BothBad(), Flags(), Identical()]
    decisions = apply(rules, judgements, OUTPUTS)
    assert decisions["rule"].value_counts().to_pylist() == [
        {"values": "agreement", "counts": judgements.num_rows * 2 // 3},
        {"values": "flags", "counts": judgements.num_rows // 3},
    ]
