"""Filters: each keeps and drops what it says, order decides the first reason, counts add up."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from align.filters import (
    RULES,
    Agreement,
    BothBad,
    Filter,
    Flags,
    Identical,
    LengthRatio,
    Margin,
    MinVotes,
    NearIdentical,
    Posterior,
    Reliability,
    Rule,
    Spread,
    Ties,
    apply,
    deciding,
    evidence,
    winners,
)
from annotate.judge import judge_votes
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


def strong(*strengths: int | None, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A judgement whose votes have these strengths, and the rows of `votes`."""
    given = [strength for strength in strengths if strength is not None]
    signs = [(strength > 0) - (strength < 0) for strength in given]
    row = pair(signs.count(1), signs.count(-1), signs.count(0), **more)
    votes = [
        {"pair_id": row["pair_id"], "annotator": f"p-{n}", "strength": strength}
        for n, strength in enumerate(strengths)
    ]
    return row, votes


def decide_votes(rule: Rule, *pairs: tuple[dict[str, Any], list[dict[str, Any]]]) -> list[Any]:
    """As `decide`, with the votes."""
    rows = [row | {"pair_id": f"j-{at}"} for at, (row, _) in enumerate(pairs)]
    votes = [vote | {"pair_id": f"j-{at}"} for at, (_, cast) in enumerate(pairs) for vote in cast]
    decisions = apply(
        [rule],
        table_from_rows("judgements", rows),
        OUTPUTS,
        votes=table_from_rows("votes", votes),
    )
    found = [json.loads(text) for text in decisions["reasons"].to_pylist()]
    mine = [[reason for reason in row if reason["rule"] == rule.rule] for row in found]
    return [row[0]["value"] if row else None for row in mine]


def test_spread_takes_the_most_similar_strengths() -> None:
    # Of five, 2 2 3 are most similar (0 to 1 apart, against -3 2 2): kept. 3 1 -1 are 4 apart.
    assert decide_votes(Spread(), strong(3, -3, 2, 2, -1), strong(3, 1, -1)) == [None, "4 apart"]
    # 2 2 2 alone count: with -3 -3 the mean would be 0.
    assert decide_votes(Spread(mean_over=1.9), strong(-3, -3, 2, 2, 2)) == [None]
    # 3 of 3 within 2, but -1 0 1 cancel out (their posterior gives nobody the win either).
    assert decide_votes(Spread(), strong(-1, 0, 1)) == ["mean 0 for the winner"]
    # A winner against the strengths: the three say a, the judgement says b.
    assert decide_votes(Spread(), strong(1, 1, 2, posterior=0.2)) == ["mean -1.33 for the winner"]
    assert decide_votes(Spread(), strong(3, 3), strong(3, 3, None)) == ["2 given", "2 given"]
    assert decide_votes(Spread(most_similar=2), strong(3, 3), strong(3, 0)) == [None, "3 apart"]
    # 0 0 1 has the mean 1/3, which rounds to no preference.
    assert decide_votes(Spread(mean_over=0.5), strong(0, 0, 1)) == ["mean 0.333 for the winner"]


def test_equally_similar_threes_count_together() -> None:
    # -2 -2 -2 and 2 2 2 spread over 0 both: neither is the pair's strength, whoever wins.
    split = strong(-2, -2, -2, 2, 2, 2, posterior=0.9)
    assert decide_votes(Spread(), split) == ["mean 0 for the winner"]
    # 0 1 2 and 1 2 3 (2 apart): means 1 and 2, together 1.5.
    assert decide_votes(Spread(mean_over=1.6), strong(0, 1, 2, 3)) == ["mean 1.5 for the winner"]


def test_spread_without_votes_knows_no_strength() -> None:
    assert decide(Spread(), pair()) == ["0 given"]


def test_strengths_are_those_of_the_pair_in_any_block() -> None:
    rows = [strong(3, 1, 2), strong(), strong(-1), strong(None)]
    judgements = [row | {"pair_id": f"j-{at}"} for at, (row, _) in enumerate(rows)]
    votes = [v | {"pair_id": f"j-{at}"} for at, (_, cast) in enumerate(rows) for v in cast]
    votes.append({"pair_id": "j-of-another-run", "annotator": "p-0", "strength": 3})
    table = evidence(
        table_from_rows("judgements", judgements),
        OUTPUTS,
        votes=table_from_rows("votes", votes[::-1]),
    )
    assert table["strengths"].to_pylist() == [[1, 2, 3], [], [-1], []]


def test_reliability_is_the_mean_of_the_winners_voters() -> None:
    rows = [
        pair(2, 0, weighted_a=1.0, weighted_b=0.0),  # (.5 + .5) / 2
        pair(2, 1, weighted_a=0.2, weighted_b=0.9, posterior=0.2),  # b wins by its one vote of .9
        pair(2, 1, weighted_a=0.2, weighted_b=0.9, posterior=0.8),  # a wins by two of .1
        pair(1, 0, 1, weighted_a=0.6, weighted_b=0.2),  # .4 + half of .4, by 1.5 votes
        pair(1, 1, weighted_a=0.6, weighted_b=0.6),  # nobody wins
        pair(2, 0),  # by majority: not weighed
    ]
    rule = Reliability(at_least=0.45)
    assert decide(rule, *rows) == [None, None, "0.1", "0.4", "unknown", "unknown"]
    assert decide(Reliability(at_least=0.4), rows[3]) == [None]


def test_posterior_reads_the_calibrated_noise_rate_where_there_is_one() -> None:
    row = pair(posterior=0.96)
    judgements = table_from_rows("judgements", [row, row])
    at = (
        judgements.column_names.index("noise_rate")
        if "noise_rate" in judgements.schema.names
        else -1
    )
    column = pa.array([0.2, None])
    if at >= 0:
        judgements = judgements.set_column(at, "noise_rate", column)
    else:
        judgements = judgements.append_column("noise_rate", column)
    decisions = apply([Posterior(at_least=0.95)], judgements, OUTPUTS)
    assert decisions["value"].to_pylist() == ["0.8", None]


LONG = table_from_rows(
    "outputs",
    [
        {"output_id": f"o-{n}", "prompt_id": "p", "model": "m", "completion": text}
        for n, text in enumerate(
            ["Open the lid.", "open  the\nlid!", "Open the lid, and wait.", "", "No.", None]
        )
    ],
)


def decide_texts(rule: Rule, *pairs: tuple[int, int]) -> list[Any]:
    rows = [pair(output_a=f"o-{a}", output_b=f"o-{b}") for a, b in pairs]
    return apply([rule], table_from_rows("judgements", rows), LONG)["value"].to_pylist()


def test_near_identical_ignores_case_and_space() -> None:
    # "open the lid." and "open the lid!": one edit of 13 characters.
    assert decide_texts(NearIdentical(), (0, 1), (0, 2), (3, 4)) == ["0.923", None, None]
    assert decide_texts(NearIdentical(at_most=0.95), (0, 1)) == [None]
    # One of 13 characters has 23: 10 edits, 13/23 alike.
    assert decide_texts(NearIdentical(at_most=0.5), (0, 2)) == ["0.565"]


def test_length_ratio_is_of_the_longer_text() -> None:
    # 13 and 23 characters, 3 and 23, one empty.
    pairs = [(0, 2), (4, 2), (2, 4), (3, 4)]
    assert decide_texts(LengthRatio(), *pairs) == [None, "7.67", "7.67", "inf"]
    # a wins all of these: only the longer winner is suspect.
    assert decide_texts(LengthRatio(only="longer wins"), *pairs) == [None, None, "7.67", None]
    assert decide_texts(LengthRatio(at_most=1.0), (3, 5)) == [None]  # both without a character


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


def test_the_documented_example_of_every_rule_is_sound() -> None:
    page = (Path(__file__).parent.parent / "docs" / "filters.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(filters:.*?)^```", page, re.M | re.S)
    shown = TypeAdapter(list[Filter]).validate_python(yaml.safe_load(block)["filters"])
    assert sorted(rule.rule for rule in shown) == sorted(RULES)
    table = re.findall(r"^\| `(\w+)` \| .* \| `", page, re.M)
    assert sorted(table) == sorted(RULES)


PEOPLE = (0.88, 0.85, 0.8, 0.8, 0.7, 0.5)
"""How often each is right: as the simulated annotators of the demo, one careless."""


def voted(pairs: int, each: int, seed: int) -> pa.Table:
    """Votes on pairs of which a is the better one, `each` by the next people in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for at in range(pairs):
        for k in range(each):
            person = (at + k) % len(PEOPLE)
            sign = 1 if rng.random() < PEOPLE[person] else -1
            ids = {"pair_id": f"j-{at:05}", "output_a": f"a-{at}", "output_b": f"b-{at}"}
            vote = "tie" if rng.random() < 0.1 else ("a" if sign > 0 else "b")
            strength = 0 if vote == "tie" else sign
            more = {"annotator": f"p-{person}", "both_bad": False, "flags": [], "guideline": "g"}
            rows.append({**ids, **more, "vote": vote, "strength": strength, "prompt_id": f"p-{at}"})
    return table_from_rows("votes", rows)


@pytest.mark.parametrize(("each", "low", "high"), [(2, 0.9, 1.7), (3, 1.9, 2.6)])
def test_the_default_threshold_keeps_what_its_recipe_says(
    each: int, low: float, high: float
) -> None:
    outputs = table_from_rows("outputs", [])
    judgements = judge_votes(voted(1500, each, seed=1)).judgements
    kept, right = {}, {}
    for rule in (Posterior(at_least=0.7), Agreement()):
        chosen = np.asarray(apply([rule], judgements, outputs)["kept"])
        kept[rule.rule] = chosen.sum()
        right[rule.rule] = (winners(judgements)[chosen] > 0).mean()
    assert low <= kept["posterior"] / kept["agreement"] <= high
    # What it keeps beside unanimous pairs is less sure, and still far from a coin's throw.
    assert right["posterior"] > right["agreement"] - 0.05 > 0.8


def mirrored(row: dict[str, Any]) -> dict[str, Any]:
    """The same judgement with a and b exchanged."""
    swapped = dict(row)
    for side, other in (("a", "b"), ("b", "a")):
        swapped[f"output_{side}"] = row[f"output_{other}"]
        swapped[f"votes_{side}"] = row[f"votes_{other}"]
    for name in ("posterior", "vote_share"):
        swapped[name] = None if row[name] is None else 1 - row[name]
    swapped["weighted_a"], swapped["weighted_b"] = row["weighted_b"], row["weighted_a"]
    if row["strength_mean"] is not None:
        swapped["strength_mean"] = -row["strength_mean"]
    return swapped


def mirrored_votes(votes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The votes on pairs with a and b exchanged."""
    return [
        vote | {"strength": None if vote["strength"] is None else -vote["strength"]}
        for vote in votes
    ]


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
    row["weighted_a"] = draw(st.none() | st.floats(0, 4))
    row["weighted_b"] = draw(st.none() | st.floats(0, 4))
    return row


strength_lists = st.lists(st.lists(st.none() | st.integers(-3, 3), max_size=6), max_size=6)


def numbered(rows: list[dict[str, Any]], strengths: list[list[int | None]]) -> tuple[Any, Any]:
    """The rows under ids of their own, and votes of these strengths on them, in order."""
    rows = [row | {"pair_id": f"j-{at}"} for at, row in enumerate(rows)]
    votes = [
        {"pair_id": f"j-{at}", "annotator": f"p-{n}", "strength": strength}
        for at, given in enumerate(strengths)
        for n, strength in enumerate(given)
    ]
    return rows, votes


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
        st.builds(
            Spread,
            most_similar=st.integers(1, 4),
            at_most=st.integers(0, 6),
            mean_over=st.floats(0, 2),
        ),
        st.builds(Reliability, at_least=st.floats(0, 1)),
        st.builds(NearIdentical, at_most=st.floats(0, 0.99)),
        st.builds(
            LengthRatio,
            at_most=st.floats(1, 9),
            only=st.sampled_from(["always", "longer wins"]),
        ),
    ),
    max_size=8,
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


@given(rules, st.lists(pairs(), max_size=4), strength_lists)
def test_swapping_a_and_b_changes_no_decision(
    rules: list[Rule], rows: list[dict[str, Any]], strengths: list[list[int | None]]
) -> None:
    rows, votes = numbered(rows, strengths)
    straight, swapped = (
        apply(
            rules,
            table_from_rows("judgements", judged),
            OUTPUTS,
            votes=table_from_rows("votes", cast),
        )
        for judged, cast in ((rows, votes), (map(mirrored, rows), mirrored_votes(votes)))
    )
    names = ["pair_id", "kept", "rule", "threshold"]
    assert straight.select(names).equals(swapped.select(names))


@given(rules, st.lists(pairs(), max_size=6), strength_lists, st.integers(1, 4))
def test_a_block_at_a_time_decides_alike(
    rules: list[Rule], rows: list[dict[str, Any]], strengths: list[list[int | None]], size: int
) -> None:
    rows, votes = numbered(rows, strengths)
    tables = (table_from_rows("judgements", rows), OUTPUTS)
    cast = table_from_rows("votes", votes)
    whole = apply(rules, *tables, votes=cast)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deciding, "_BLOCK", size)
        assert apply(rules, *tables, votes=cast).equals(whole)


def test_a_hundred_thousand_pairs() -> None:
    rows = table_from_rows("judgements", [pair(2, 1), pair(1, 1), pair(flags=["o-1:unsafe"])])
    judgements = pa.concat_tables([rows] * (33_333)).combine_chunks()
    rules: list[Rule] = [MinVotes(), Agreement(), Margin(), Ties(), BothBad(), Flags(), Identical()]
    decisions = apply(rules, judgements, OUTPUTS)
    assert decisions["rule"].value_counts().to_pylist() == [
        {"values": "agreement", "counts": judgements.num_rows * 2 // 3},
        {"values": "flags", "counts": judgements.num_rows // 3},
    ]
