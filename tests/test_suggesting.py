"""Suggestions reach a random, recorded share of the items; what they do to answers is measured."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunningArgilla
from factories import connected_project, make_generated, submit

from annotate.errors import InputError
from annotate.guidelines import load_guideline
from annotate.pull import pull
from annotate.push import push
from annotate.records import content_id, table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.server import connect
from annotate.suggesting import Anchoring, anchoring, shown_suggestions, suggest

ROOT = Path(__file__).parents[1]
URGENCY = load_guideline(ROOT, "label@v1")
TOPICS = load_guideline(ROOT, "topics@v1")


def item(number: int) -> dict[str, Any]:
    return {
        "item_id": content_id("i", number),
        "prompt_id": f"p-{number}",
        "output_ids": [],
        "kind": "label",
        "guideline": "label@v1",
        "batch": "b",
    }


def prelabelled(
    project: Project, labels: dict[str, list[str]], parents: tuple[Run, ...] = ()
) -> Run:
    """A finished prelabel run: prompt id → its labels."""
    rows = [
        {"prompt_id": prompt, "value": json.dumps(said), "score": 0.75, "agent": "tiny"}
        for prompt, said in labels.items()
    ]
    with project.draft(RunPlan("prelabel", 1, parents, {"labels": labels})) as draft:
        draft.write("suggestions", table_from_rows("suggestions", rows))
    return draft.run


ITEMS = table_from_rows("items", [item(number) for number in range(100)])


@pytest.fixture
def made(tmp_path: Path) -> Run:
    project = Project(tmp_path)
    (tmp_path / "runs").mkdir()
    labels = {f"p-{n}": ["URGENT" if n % 2 else "Not urgent"] for n in range(0, 90)}
    return prelabelled(project, labels)


def test_a_fifth_of_those_that_have_one_is_shown_none(made: Run) -> None:
    table = suggest(made, ITEMS, URGENCY, without=0.2, seed=3)
    assert table.num_rows == 90
    assert Counter(table["shown"].to_pylist()) == {True: 72, False: 18}
    assert suggest(made, ITEMS, URGENCY, without=0.2, seed=3) == table
    other = suggest(made, ITEMS, URGENCY, without=0.2, seed=4)
    assert other["shown"].to_pylist() != table["shown"].to_pylist()
    assert not any(suggest(made, ITEMS, URGENCY, without=1.0, seed=3)["shown"].to_pylist())


def test_it_is_said_in_the_guideline_s_words(made: Run) -> None:
    table = suggest(made, ITEMS, URGENCY, without=0.0, seed=0)
    values = Counter(table["value"].to_pylist())
    assert values == {'{"label": "urgent"}': 45, '{"label": "not_urgent"}': 45}
    first = shown_suggestions(table, ITEMS, URGENCY)[content_id("i", 1)]["urgency"]
    assert (first.value, first.score, first.agent) == ("urgent", 0.75, "tiny")


def test_several_labels_are_a_set(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    made = prelabelled(Project(tmp_path), {"p-1": ["return", "Payment and invoices"]})
    table = suggest(made, ITEMS, TOPICS, without=0.0, seed=0)
    assert table["value"].to_pylist() == ['{"labels": ["payment", "return"]}']
    [found] = shown_suggestions(table, ITEMS, TOPICS).values()
    assert found["topics"].value == ["payment", "return"]


def test_what_does_not_fit_is_one_clear_line(made: Run, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="'Not urgent', which is no label of the question 'topics'"
    ):
        suggest(made, ITEMS, TOPICS, without=0.2, seed=0)
    with pytest.raises(InputError, match="preference@v1 asks for no label"):
        suggest(made, ITEMS, load_guideline(ROOT, "preference@v1"), without=0.2, seed=0)
    with pytest.raises(InputError, match="--without is a share from 0 to 1, not 2"):
        suggest(made, ITEMS, URGENCY, without=2, seed=0)
    with pytest.raises(InputError, match="none of its suggestions fits"):
        suggest(made, ITEMS.slice(95), URGENCY, without=0.2, seed=0)


def told(number: int, value: str, shown: bool) -> dict[str, Any]:
    return {
        "item_id": f"i-{number}",
        "question": "urgency",
        "value": json.dumps({"label": value}),
        "shown": shown,
    }


def said(number: int, who: str, value: str, status: str = "submitted") -> dict[str, Any]:
    answer = {"question": "urgency", "value": json.dumps({"label": value}), "status": status}
    return {"item_id": f"i-{number}", "annotator": who, **answer}


def measured(told_: list[dict[str, Any]], said_: list[dict[str, Any]]) -> list[Anchoring]:
    return anchoring(table_from_rows("responses", said_), table_from_rows("suggested", told_))


def test_by_hand() -> None:
    """Shown: 3 of 4 answers as suggested; held back: 1 of 3; so seeing it adds .75 - .333."""
    told_ = [
        told(1, "yes", True),
        told(2, "yes", True),
        told(3, "yes", False),
        told(4, "no", False),
    ]
    said_ = [
        said(1, "ada", "yes"), said(1, "ben", "yes"), said(2, "ada", "yes"), said(2, "ben", "no"),
        said(3, "ada", "no"), said(3, "ben", "yes"), said(4, "ada", "yes"),
        said(4, "ben", "no", "draft"), said(9, "ada", "yes"),
    ]  # fmt: skip
    [found] = measured(told_, said_)
    assert found.question == "urgency"
    assert found.shown.value == 0.75
    assert found.held_back.value == pytest.approx(1 / 3)
    assert found.difference.value == pytest.approx(0.75 - 1 / 3)
    assert (found.shown.n, found.held_back.n, found.difference.n) == (2, 2, 4)
    assert "difference 0.417" in str(found)
    assert found.difference.low is not None
    assert found.difference.low <= 0.75 - 1 / 3 <= (found.difference.high or 0)


def test_one_group_alone_has_a_reason_and_no_figure() -> None:
    [found] = measured([told(1, "yes", True)], [said(1, "ada", "yes")])
    assert found.shown.value == 1.0
    assert found.difference.value is None
    assert "no answered item had its suggestion held back" in found.difference.reason
    assert measured([told(1, "yes", True)], []) == []


def test_all_alike_has_a_value_and_no_interval() -> None:
    told_ = [told(n, "yes", n % 2 == 0) for n in range(10)]
    [found] = measured(told_, [said(n, "ada", "yes") for n in range(10)])
    assert found.difference.value == 0.0
    assert found.difference.low is None
    assert found.difference.reason == "every resample gives this value"


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """People who follow a shown suggestion in 3 of 10 cases: truth .86 - .8 = .06, 95 % ± 4 σ."""
    hits, rounds = 0, 120
    for number in range(rounds):
        rng = np.random.default_rng(number)
        told_ = [told(n, "yes", bool(n % 4)) for n in range(240)]
        said_ = []
        for row in told_:
            for who in ("ada", "ben"):
                follows = row["shown"] and rng.random() < 0.3
                agrees = follows or rng.random() < 0.8
                said_.append(said(int(row["item_id"][2:]), who, "yes" if agrees else "no"))
        [found] = measured(told_, said_)
        assert found.difference.low is not None
        assert found.difference.high is not None
        hits += found.difference.low <= 0.06 <= found.difference.high
    assert abs(hits / rounds - 0.95) < 4 * (0.95 * 0.05 / rounds) ** 0.5


def test_argilla_shows_them_and_pull_can_tell(
    tmp_path: Path, argilla_server: RunningArgilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    source = make_generated(project, 10, 1)
    labels = {prompt: ["URGENT"] for prompt in source.read("prompts")["prompt_id"].to_pylist()}
    made = prelabelled(project, labels, (source,))
    pushed = push(project, source, guideline="label", suggestions=made, without=0.3, seed=1)

    suggested = pushed.read("suggested")
    assert Counter(suggested["shown"].to_pylist()) == {True: 7, False: 3}
    assert pushed.manifest["settings"]["suggestions"] == made.id
    with connect(project) as server:
        records = list(server.records(server.batch(*pushed.metrics["batches"])))
    seen = {record.item_id for record in records if record.suggestions}
    assert seen == set(suggested.filter(suggested["shown"])["item_id"].to_pylist())
    assert {record.suggestions["urgency"].value for record in records if record.suggestions} == {
        "urgent"
    }
    assert push(project, source, guideline="label", suggestions=made, without=0.3, seed=1) == pushed

    followed = {i: {"urgency": {"value": "urgent" if i in seen else "not_urgent"}} for i in
                pushed.read("items")["item_id"].to_pylist()}  # fmt: skip
    submit(project, pushed, "anna", followed)
    [found] = anchoring(pull(project, pushed).read("responses"), suggested)
    assert (found.shown.value, found.held_back.value) == (1.0, 0.0)
