"""Disagreement by the clause that annotators say decided it."""

from __future__ import annotations

from typing import Any

import pytest
from test_votes import item, response

from annotate.clauses import clause_figures
from annotate.errors import ProjectError
from annotate.records import table_from_rows

ITEMS = [item(f"i-{n}", f"o-{n}a", f"o-{n}b", prompt=f"p-{n}") for n in range(1, 5)]


def said(number: int, who: str, strength: int, *clauses: str, **more: Any) -> list[dict[str, Any]]:
    of = f"i-{number}"
    value = {"a": f"o-{number}a", "b": f"o-{number}b", "strength": strength}
    rows = [response(of, who, "preference", value, **more)]
    if clauses:
        rows.append(response(of, who, "clause", {"labels": list(clauses)}, **more))
    return rows


def figures(*answers: list[dict[str, Any]]) -> dict[str, Any]:
    responses = table_from_rows("responses", [row for rows in answers for row in rows])
    found = clause_figures(responses, table_from_rows("items", ITEMS))
    return {each.clause: each for each in found}


def test_pairs_of_answers_are_counted_by_clause() -> None:
    """Truth: items 1 (both ticked, opposite votes), 2 (ann alone, same vote), 3 (three people,
    two ticked it): pairs ann-bob on 1 and 2; on 3 ann-bob, ann-cat, bob-cat. So five pairs; in
    two of them both ticked (1, and ann-bob on 3); the same vote in 2 and in ann-bob on 3.
    """
    found = figures(
        said(1, "ann", 2, "truth"), said(1, "bob", -1, "truth"),
        said(2, "ann", 1, "truth", "clear"), said(2, "bob", 3, "task"),
        said(3, "ann", 1, "truth"), said(3, "bob", 2, "truth"), said(3, "cat", 0, "clear"),
    )  # fmt: skip
    truth = found["truth"]
    assert (truth.answers, truth.items, truth.opposed) == (5, 3, 1)
    assert truth.shared.value == pytest.approx(2 / 5)
    assert truth.agreement.value == pytest.approx(2 / 5)
    assert truth.agreement.n == 3  # prompts
    assert (truth.agreement.low, truth.shared.low) == (None, None)
    assert truth.agreement.reason == "3 items or prompts, fewer than 6"
    assert truth.examples == ("i-1",)
    clear = found["clear"]  # ann-bob on 2; ann-cat and bob-cat on 3
    assert (clear.answers, clear.opposed, clear.agreement.value) == (2, 0, pytest.approx(1 / 3))
    assert clear.shared.value == 0
    assert next(iter(found)) == "truth"  # the most opposite votes first


def test_partners_are_people_who_were_asked_with_the_vote_given_then() -> None:
    """cat never answered under v2; bob did, for the same side as ann, and later under v1 against.

    So truth has one pair of answers, ann and bob under v2, with the same vote.
    """
    v1, v2 = {"guideline": "preference@v1"}, {"guideline": "preference@v2"}
    truth = figures(
        said(1, "ann", 2, "truth", **v2), said(1, "bob", 1, "taste", **v2),
        said(1, "bob", -3, minute=9, **v1), said(1, "cat", -2, **v1),
    )["truth"]  # fmt: skip
    assert (truth.pairs, truth.opposed, truth.agreement.value) == (1, 0, 1)
    assert truth.guideline == "preference@v2"
    head, same, _ = truth.lines()
    assert head == "truth (preference@v2): ticked in 1 answers on 1 items, in 1 pairs of answers"
    assert same.endswith("n=1 prompts")


def test_an_item_that_one_person_answered_gives_a_reason_not_a_figure() -> None:
    found = figures(said(4, "ann", 1, "harm"), said(1, "ann", 1), said(1, "bob", 1))
    assert found["harm"].agreement.value is None
    assert "no two people" in found["harm"].agreement.reason
    assert any("undefined" in line for line in found["harm"].lines())


def test_clauses_that_nobody_ticked_are_said() -> None:
    with pytest.raises(ProjectError, match="nobody ticked a clause"):
        figures(said(1, "ann", 1), said(1, "bob", 1))


def test_drafts_do_not_count() -> None:
    draft = [{**row, "status": "draft"} for row in said(2, "cat", 1, "harm")]
    assert "harm" not in figures(said(1, "ann", 1, "task"), said(1, "bob", 1), draft)
