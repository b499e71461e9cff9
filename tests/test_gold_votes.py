"""Gold in the step `judge`: it tells what posteriors are worth, and is itself not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_votes import item, preference

from annotate.gold_votes import gold_votes, known_pairs
from annotate.judge import judge
from annotate.records import content_id, table_from_rows
from annotate.runs import Project, Run, RunPlan

PAIRS = 12
GOLD_PAIRS = 30


def gold_answer(number: int) -> str:
    """Output o-b is better of every second pair, o-a of the others."""
    vote = "b" if number % 2 else "a"
    answer = {"a": f"g-{number:02}a", "b": f"g-{number:02}b", "vote": vote}
    return json.dumps({"preference": answer})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "runs").mkdir()
    (tmp_path / "guidelines").mkdir()
    return Project(tmp_path)


def said(what: str, number: int, who: str, strength: int) -> dict[str, Any]:
    pair = {"a": f"{what}-{number:02}a", "b": f"{what}-{number:02}b", "strength": strength}
    return preference(f"i-{what}{number:02}", who, strength) | {"value": json.dumps(pair)}


def pulled(project: Project, *, gold: bool) -> Run:
    """Ann and bob agree on everything; cat contradicts them. Gold proves cat right."""
    items = [
        item(f"i-{what}{at:02}", f"{what}-{at:02}a", f"{what}-{at:02}b", prompt=f"p-{what}{at:02}")
        for what, count in (("o", PAIRS), ("g", GOLD_PAIRS))
        for at in range(count)
    ]
    sides = {"ann": -1, "bob": -1, "cat": 1}
    responses = [said("o", at, who, 2 * side) for at in range(PAIRS) for who, side in sides.items()]
    tests = [
        said("g", at, who, 2 * side * (-1 if at % 2 else 1))
        for at in range(GOLD_PAIRS)
        for who, side in sides.items()
    ]
    with project.draft(RunPlan("push", 1, (), {"gold": gold})) as push:
        push.write("items", table_from_rows("items", items))
    with project.draft(RunPlan("pull", 1, (push.run,), {"gold": gold})) as pull:
        pull.write("items", table_from_rows("items", items[:PAIRS]))
        pull.write("responses", table_from_rows("responses", responses))
        if gold:
            rows = [
                {"item_id": f"i-g{at:02}", "role": "gold", "answer": gold_answer(at)}
                for at in range(GOLD_PAIRS)
            ]
            pull.write("mixed", table_from_rows("mixed", rows))
            pull.write("mixed_responses", table_from_rows("responses", tests))
    return pull.run


def test_gold_votes_and_what_is_known_of_them(project: Project) -> None:
    found = gold_votes([pulled(project, gold=True)])
    assert found.votes.num_rows == 3 * GOLD_PAIRS
    assert found.better[content_id("j", "g-00a", "g-00b")] == "a"
    assert found.better[content_id("j", "g-01a", "g-01b")] == "b"
    assert gold_votes([pulled(project, gold=False)]).votes.num_rows == 0


def test_gold_tempers_posteriors_and_is_itself_not_judged(project: Project) -> None:
    plain = judge(project, pulled(project, gold=False))
    tested = judge(project, pulled(project, gold=True))
    assert plain.read("judgements").num_rows == tested.read("judgements").num_rows == PAIRS
    assert tested.metrics["pairs"] == PAIRS
    figures = tested.metrics["calibration"]["dawid-skene"]
    assert figures["gold_pairs"] == GOLD_PAIRS
    assert plain.metrics["calibration"]["dawid-skene"]["gold_error"] is None
    # Ann and bob are wrong about all gold, so that little is left of their agreement.
    doubts = [run.read("judgements")["noise_rate"].to_numpy().mean() for run in (plain, tested)]
    assert doubts[0] + 0.05 < doubts[1] < 0.5
    curve = json.loads((tested.path / "calibration.json").read_text())["dawid-skene"]["gold"]
    assert curve["n"] == GOLD_PAIRS


def test_known_rankings_tell_about_their_pairs() -> None:
    answer = {"ranking": {"ranks": {"o-2": 1, "o-1": 2, "o-3": 2}}, "both_bad": True}
    assert dict(known_pairs(answer)) == {
        content_id("j", "o-1", "o-2"): "b",
        content_id("j", "o-1", "o-3"): "tie",
        content_id("j", "o-2", "o-3"): "a",
    }
