"""What people together hold of what they labelled, rated or gave a thumb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import generated, new_project
from test_kto_set import pulled
from test_question_labels import answers
from test_votes import response

from align.build import build
from annotate.errors import ProjectError
from annotate.judge import judge
from annotate.label_judgements import label_judgements


def rows(*responses: dict[str, Any], method: Any = "majority") -> dict[tuple[str, str, str], Any]:
    table = label_judgements(answers(*responses), method)
    return {(row["question"], row["unit"], row["label"]): row for row in table.to_pylist()}


def urgency(item: str, who: str, label: str) -> dict[str, Any]:
    return response(item, who, "urgency", {"label": label})


def truth(item: str, output: str, who: str, rating: int) -> dict[str, Any]:
    return response(item, who, "truth", {"output": output, "rating": rating})


def test_most_people_decide_by_majority() -> None:
    """p-3 is urgent to two of three; o-3 was rated 4, 4 and 1: mean 3."""
    found = rows(
        urgency("i-4", "ada", "urgent"),
        urgency("i-4", "ben", "urgent"),
        urgency("i-4", "eve", "calm"),
        truth("i-2", "o-3", "ada", 4),
        truth("i-2", "o-3", "ben", 4),
        truth("i-2", "o-3", "eve", 1),
        truth("i-3", "o-4", "ada", 1),
        truth("i-3", "o-4", "ben", 4),
        response("i-2", "ada", "reason", {"text": "Texts are not judged."}),
    )
    urgent = found["urgency", "p-3", "urgent"]
    assert (urgent["given"], urgent["votes"], urgent["chosen"]) == (2, 3, True)
    assert urgent["probability"] == pytest.approx(2 / 3)
    assert urgent["mean"] is None
    assert found["urgency", "p-3", "calm"]["chosen"] is False
    assert found["truth", "o-3", "4"]["chosen"]
    assert {found["truth", "o-3", label]["mean"] for label in "14"} == {3.0}
    assert not any(found["truth", "o-4", label]["chosen"] for label in "14")  # one each
    assert {question for question, _, _ in found} == {"urgency", "truth"}


def test_of_several_labels_each_is_judged_by_itself() -> None:
    topics = {"ada": ["delivery", "return"], "ben": ["delivery"], "eve": ["delivery", "return"]}
    found = rows(
        *(response("i-4", who, "topics", {"labels": said}) for who, said in topics.items()),
        response("i-4", "flo", "topics", {"labels": ["payment"]}),
    )
    assert {label: (row["given"], row["chosen"]) for (_, _, label), row in found.items()} == {
        "delivery": (3, True),
        "payment": (1, False),
        "return": (2, False),  # two of four: undecided
    }
    assert found["topics", "p-3", "delivery"]["probability"] == pytest.approx(3 / 4)


def test_the_method_is_the_one_asked_for() -> None:
    told = [
        urgency(item, who, label)
        for item, label in (("i-4", "urgent"), ("i-1", "calm"), ("i-2", "urgent"))
        for who in ("ada", "ben")
    ]
    found = rows(*told, method="dawid-skene")
    assert all(row["chosen"] == (row["given"] == 2) for row in found.values())
    assert {row["method"] for row in found.values()} == {"dawid-skene"}


def test_a_run_that_only_labels_is_judged_and_has_no_pairs_to_build_of(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    source = generated(project, {f"Prompt {n}": ["good", "also good"] for n in range(3)})
    pull_run = pulled(project, source, {"thumb": ["up", "down"]})
    run = judge(project, pull_run)
    assert judge(project, pull_run) == run
    table = run.read("label_judgements").to_pylist()
    assert len(table) == 6 * 2
    assert run.metrics["questions"] == ["thumb"]
    assert json.dumps(run.metrics)
    with pytest.raises(ProjectError, match="nothing was compared in it"):
        build(project, [run])
