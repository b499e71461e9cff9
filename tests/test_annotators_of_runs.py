"""Annotators of runs: orders, lengths, times, repeats and gold items found beside the votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_votes import item, ranking, response

from align.cli import main
from annotate.annotators.from_mixed import answers_to_tests
from annotate.annotators.from_votes import Beside, panels_of_votes
from annotate.annotators.panel import Panel
from annotate.annotators.questions import questions
from annotate.judge import judge
from annotate.paused import remember_pauses
from annotate.records import output_rows, table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan
from annotate.votes import votes_of_responses

ITEMS = [
    item("i-1", "o-1", "o-2"), item("i-2", "o-4", "o-3", prompt="p-2"),
    item("i-3", "o-1", "o-2"), item("i-4", "o-2", "o-1"),
    item("i-5", "o-5", "o-6", prompt="p-3"),
]  # fmt: skip
OUTPUTS = [
    {"output_id": f"o-{n}", "prompt_id": "p-1", "model": "m", "completion": text}
    for n, text in enumerate(["short one", "a longer answer", "same", "four", "g", "h"], start=1)
]
PROMPTS = [
    {"prompt_id": f"p-{n}", "messages": [text_message("user", "one two three four five six")]}
    for n in (1, 2)
]


def said(item_id: str, who: str, a: str, b: str, strength: int, **more: Any) -> dict[str, Any]:
    return response(item_id, who, "preference", {"a": a, "b": b, "strength": strength}, **more)


RESPONSES = [
    said("i-1", "ann", "o-1", "o-2", 2),  # for what stood first, and is shorter
    said("i-1", "bob", "o-1", "o-2", -1),
    said("i-2", "ann", "o-3", "o-4", 1),  # for what stood second; as long as the other
    said("i-2", "bob", "o-3", "o-4", 0),
]
TESTED = [
    said("i-3", "ann", "o-1", "o-2", 1, minute=5),  # the same again
    said("i-4", "ann", "o-1", "o-2", -3, minute=9),  # turned round, and another answer
    said("i-5", "ann", "o-5", "o-6", 1),
    said("i-5", "bob", "o-5", "o-6", 0),
]
MIXED = [
    {"item_id": "i-3", "role": "repeat", "of_item": "i-1"},
    {"item_id": "i-4", "role": "swap", "of_item": "i-1"},
    {
        "item_id": "i-5",
        "role": "gold",
        "answer": json.dumps({"preference": {"a": "o-5", "b": "o-6", "vote": "a"}}),
    },
]


def beside(**more: Any) -> Beside:
    known = {
        "items": table_from_rows("items", ITEMS),
        "mixed": table_from_rows("mixed", MIXED),
        "mixed_responses": table_from_rows("responses", TESTED),
        "prompts": table_from_rows("prompts", PROMPTS),
        "outputs": table_from_rows("outputs", OUTPUTS),
    }
    return Beside(**(known | more))


def panel(responses: list[dict[str, Any]] = RESPONSES, known: Beside | None = None) -> Panel:
    table = table_from_rows("responses", responses)
    votes = votes_of_responses(table, table_from_rows("items", ITEMS))
    (found,) = panels_of_votes(votes, table, known or beside())
    return found


def test_what_stood_first_and_what_is_longer() -> None:
    """ann: for o-1, first and shorter, and for o-3, second and as long; bob: for o-2, and a tie."""
    found = panel()
    assert found.first is not None
    assert found.longer is not None
    names = [found.labels.annotators[who] for who in found.labels.annotator]
    sides = [None if np.isnan(at) else int(at) for at in found.first]
    longer = [None if np.isnan(at) else int(at) for at in found.longer]
    told = sorted(zip(names, sides, longer, strict=True), key=str)
    assert told == [("ann", 0, None), ("ann", 1, 0), ("bob", 0, 1), ("bob", None, None)]


def test_reading_takes_words_at_three_hundred_a_minute() -> None:
    """Item 1: six words of the prompt, two and three of the outputs, five a second: 2.2 s."""
    found = panel()
    assert found.reading is not None
    assert sorted(set(found.reading.round(6))) == [pytest.approx(1.6), pytest.approx(2.2)]
    assert found.seconds is not None
    assert set(found.seconds) == {12.5}


def test_repeats_are_found_with_their_order_and_gold_with_its_answer() -> None:
    found = panel()
    names = found.labels.annotators
    repeats = found.repeats
    told = zip(repeats.annotator, repeats.same, repeats.swapped, strict=True)
    assert [(names[who], bool(same), bool(swap)) for who, same, swap in told] == [
        ("ann", True, False),
        ("ann", False, True),
    ]
    gold = zip(found.gold.annotator, found.gold.right, strict=True)
    assert [(names[who], bool(right)) for who, right in gold] == [("ann", True), ("bob", False)]


def test_a_pair_that_came_again_in_another_batch_is_a_repeat_too() -> None:
    again = [*RESPONSES, said("i-4", "bob", "o-1", "o-2", -2, minute=3)]
    found = panel(again, beside(mixed_responses=table_from_rows("responses", [])))
    assert [bool(same) for same in found.repeats.same] == [True]
    assert [bool(swap) for swap in found.repeats.swapped] == [True]


def test_without_texts_and_times_there_are_reasons() -> None:
    empty = Beside.empty()
    found = panel([{**row, "seconds": None} for row in RESPONSES], empty)
    assert (found.longer, found.reading, found.seconds) == (None, None, None)
    asked = {question.name: question for question in questions(found)}
    assert asked["length"].reason == "how long the outputs are is not known"
    assert asked["gold"].reason == "no gold item was answered"
    assert len(asked["position"].score) == 0


def test_who_answers_a_pair_under_two_versions_has_a_vote_under_each() -> None:
    """ann answered both pairs again under v2, where bob answered one of them."""
    again = [
        said("i-3", "ann", "o-1", "o-2", -2, minute=9, guideline="preference@v2"),
        said("i-2", "ann", "o-3", "o-4", 1, minute=9, guideline="preference@v2"),
        said("i-3", "bob", "o-1", "o-2", -2, minute=9, guideline="preference@v2"),
    ]
    known = beside(
        mixed=table_from_rows("mixed", []), mixed_responses=table_from_rows("responses", [])
    )
    table = table_from_rows("responses", [*RESPONSES, *again])
    votes = votes_of_responses(table, known.items)
    first, second = panels_of_votes(votes, table, known)
    assert (first.guideline, len(first.labels)) == ("preference@v1", 4)
    assert (second.guideline, len(second.labels)) == ("preference@v2", 3)
    (pooled,) = panels_of_votes(votes, table, known, pool=True)
    assert len(pooled.labels) == 4


def test_the_pairs_of_a_ranking_are_one_trial() -> None:
    """o-3 (shown first) is put last: all its pairs speak for what stood later."""
    ranks = {"o-1": 1, "o-2": 2, "o-3": 3}
    items = [item("i-9", "o-3", "o-1", "o-2")]
    table = table_from_rows("responses", [ranking("i-9", who, ranks) for who in ("ann", "bob")])
    votes = votes_of_responses(table, table_from_rows("items", items))
    (found,) = panels_of_votes(votes, table, beside(items=table_from_rows("items", items)))
    asked = {question.name: question for question in questions(found)}
    assert list(asked["position"].score) == [0, 0]
    assert (list(asked["ties"].score), list(asked["ties"].size)) == ([0, 0], [3, 3])
    assert len(asked["agreement"].score) == 2


def test_repeats_and_gold_of_other_questions_count_as_a_whole() -> None:
    """ann rated the two outputs of item 1 as before in item 3; the gold label is hers alone."""

    def rated(item_id: str, who: str, *ratings: int) -> list[dict[str, Any]]:
        return [
            response(item_id, who, "rating", {"output": f"o-{n}", "rating": given})
            for n, given in enumerate(ratings, start=1)
        ]

    mixed = [
        {"item_id": "i-3", "role": "repeat", "of_item": "i-1"},
        {"item_id": "i-4", "role": "swap", "of_item": "i-1"},
        {"item_id": "i-5", "role": "gold", "answer": json.dumps({"label": "urgent"})},
    ]
    first = [*rated("i-1", "ann", 3, 5), *rated("i-1", "bob", 3, 5)]
    again = [
        *rated("i-3", "ann", 3, 5)[::-1], *rated("i-4", "bob", 5, 3),
        response("i-5", "ann", "label", "urgent"), response("i-5", "bob", "label", "not_urgent"),
        *rated("i-5", "ann", 1, 1),
    ]  # fmt: skip
    tables = (
        table_from_rows("responses", first), table_from_rows("responses", again),
        table_from_rows("mixed", mixed),
    )  # fmt: skip
    repeats, gold = answers_to_tests("rating", "preference@v1", *tables, ["ann", "bob"])
    assert list(zip(repeats.annotator, repeats.same, repeats.swapped, strict=True)) == [
        (0, True, False),
        (1, False, True),
    ]
    assert len(gold.right) == 0
    repeats, gold = answers_to_tests("label", "", *tables, ["ann", "bob"])
    assert len(repeats.same) == 0
    assert list(zip(gold.annotator, gold.right, strict=True)) == [(0, True), (1, False)]


# --- the command, and what the judge step records


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "runs").mkdir()
    (tmp_path / "guidelines").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def pulled(project: Project, versions: int = 1) -> Run:
    """25 pairs by three people, of whom zoe has left and says tie to everything."""
    outputs, items, responses = [], [], []
    for n in range(25):
        rows = output_rows(f"p-{n}", [("m1", f"one {n}"), ("m2", f"the other {n}")])
        outputs += rows
        a, b = sorted(row["output_id"] for row in rows)
        items.append(item(f"i-{n:02}", b, a, prompt=f"p-{n}"))
        version = f"preference@v{1 + n % versions}"
        for who, strength in (("ann", 1), ("bob", 2 - 3 * (n % 2)), ("zoe", 0)):
            given = said(f"i-{n:02}", who, a, b, strength, minute=n, guideline=version)
            responses.append(given)
    prompts = [{"prompt_id": f"p-{n}", "messages": [text_message("user", "?")]} for n in range(25)]
    with project.draft(RunPlan("generate", 1)) as source:
        source.write("prompts", table_from_rows("prompts", prompts))
        source.write("outputs", table_from_rows("outputs", outputs))
    with project.draft(RunPlan("push", 1, (source.run,))) as push:
        push.write("items", table_from_rows("items", items))
    with project.draft(RunPlan("pull", 1, (push.run,))) as pull:
        pull.write("responses", table_from_rows("responses", responses))
        pull.write("items", table_from_rows("items", items))
    return pull.run


def test_the_command_reads_the_newest_pulls(project: Project) -> None:
    run = pulled(project)
    (project.root / ".handloom").mkdir(exist_ok=True)
    remember_pauses(project, {"bob": ["handloom"]})
    done = CliRunner().invoke(main, ["annotators"])
    assert done.exit_code == 0, done.output
    assert run.id in done.output
    assert "vote (preference@v1)" in done.output
    assert "zoe: says tie more than others on the same items (100%" in done.output
    assert "bob (paused since " in done.output
    assert "next handloom users pause " in done.output
    told = json.loads(CliRunner().invoke(main, ["annotators", run.id, "--json"]).output)
    (found,) = told["panels"]
    zoe = next(person for person in found["people"] if person["annotator"] == "zoe")
    assert zoe["figures"]["ties"]["value"] == 1
    assert zoe["figures"]["seconds"]["value"] == 12.5
    assert zoe["figures"]["longer"]["reason"]


def test_versions_of_the_guideline_have_their_own_figures(project: Project) -> None:
    run = pulled(project, versions=2)
    told = json.loads(CliRunner().invoke(main, ["annotators", run.id, "--json"]).output)
    assert [part["guideline"] for part in told["panels"]] == ["preference@v1", "preference@v2"]
    asked = ["annotators", run.id, "--pool-versions", "--json"]
    (pooled,) = json.loads(CliRunner().invoke(main, asked).output)["panels"]
    assert pooled["guideline"] == "preference@v1, preference@v2"
    assert [person["labels"] for person in pooled["people"]] == [25, 25, 25]


def test_the_judge_step_records_what_the_page_shows(project: Project) -> None:
    run = judge(project, pulled(project))
    told = json.loads((run.path / "annotators.json").read_text())
    assert {flag["annotator"] for flag in told["flags"]} >= {"zoe"}
    assert told["source"] == run.parents[0].id


def test_where_nothing_was_said_it_is_one_line(project: Project) -> None:
    with project.draft(RunPlan("push", 1)) as push:
        push.write("items", table_from_rows("items", ITEMS))
    with project.draft(RunPlan("pull", 1, (push.run,))) as pull:
        pull.write("responses", table_from_rows("responses", []))
    done = CliRunner().invoke(main, ["annotators", pull.run.id])
    assert done.exit_code == 1
    assert "says anything that annotators can be compared on" in done.stderr
    assert done.stderr.count("\n") == 1
