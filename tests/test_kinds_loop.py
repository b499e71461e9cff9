"""Every kind of task through the real Argilla: push, answers, pull, and the sets they make."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import RunningArgilla
from factories import MODELS, connected_project, make_generated, submit
from test_push import make_failures

from align.build import build
from annotate.display import answer
from annotate.guidelines import load_guideline
from annotate.pull import pull
from annotate.push import push
from annotate.question_labels import question_labels
from annotate.runs import Project, Run
from annotate.server import connect
from annotate.simulate import simulate
from annotate.votes import votes_of_responses

TEXT = "Ünder <b>100</b> °C & 😀\r\nso be it"
PEOPLE = ("anna", "ben")


@pytest.fixture
def project(
    tmp_path: Path, argilla_server: RunningArgilla, monkeypatch: pytest.MonkeyPatch
) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def given(kind: str, outputs: list[str]) -> list[tuple[str, Any]]:
    """An answer to every question that counts, in terms of outputs."""
    about = {"output": outputs[0]} if outputs else {}
    spans = [{"start": 9, "end": 12, "label": "untrue"}, {"start": 22, "end": 23, "label": "task"}]
    return {
        "rating": [
            ("rating", {**about, "rating": 4}),
            ("task", {**about, "rating": 5}),
            ("clarity", {**about, "rating": 1}),
            ("flags", {**about, "flags": ["unsafe", "untrue"]}),
        ],
        "label": [("urgency", {"label": "urgent"}), ("sure", True)],
        "topics": [("topics", {"labels": ["delivery", "return"]})],
        "correction": [("correction", {"text": "Mended <b> 😀."}), ("reason", {"text": "So."})],
        "demonstration": [("demonstration", {"text": "Written <i>."})],
        "thumbs": [("thumb", {**about, "thumb": "up"})],
        "spans": [
            ("verdict", {**about, "label": "errors"}),
            ("errors", {**about, "spans": spans, "length": len(TEXT)}),
        ],
    }[kind]


KINDS = ["rating", "label", "topics", "correction", "demonstration", "thumbs", "spans"]


@pytest.mark.parametrize(
    ("task", "turns"), [(task, 1 + 2 * (number % 2)) for number, task in enumerate(KINDS)]
)
def test_what_is_answered_comes_back_and_makes_its_set(
    project: Project, task: str, turns: int
) -> None:
    """Every other kind with prompts of several turns; Argilla itself checks each answer."""
    source = make_generated(project, 2, 2, texts=[TEXT] * 2, turns=turns)
    pushed = push(project, source, guideline=task)
    rules = load_guideline(project.root, task)
    items = pushed.read("items").to_pylist()
    texts = dict.fromkeys(source.read("outputs")["output_id"].to_pylist(), TEXT)
    assert len(items) == 2 * (2 if rules.max_outputs else 1)
    said = {item["item_id"]: given(task, item["output_ids"]) for item in items}
    sent = {item["item_id"]: answer(said[item["item_id"]], item, rules, texts) for item in items}
    for name in PEOPLE:
        submit(project, pushed, name, sent)

    pulled = pull(project, pushed)
    assert pulled.read("quarantine").num_rows == 0
    got: dict[tuple[str, str], list[Any]] = {}
    for row in pulled.read("responses").to_pylist():
        key = row["item_id"], row["annotator"]
        got.setdefault(key, []).append((row["question"], json.loads(row["value"])))
    assert got == {(item, who): answers for item, answers in said.items() for who in PEOPLE}
    measured(pulled, task)
    sets(project, pulled, task, turns)


def measured(pulled: Run, task: str) -> None:
    """Agreement can be measured on every question that was answered."""
    responses, items = pulled.read("responses"), pulled.read("items")
    found = question_labels(responses, items, votes_of_responses(responses, items))
    assert set(found) == {question for question, _ in given(task, ["o"])}
    for answers in found.values():
        assert {answers.annotators[at] for at in answers.annotator} == {*PEOPLE}


def sets(project: Project, pulled: Run, task: str, turns: int) -> None:
    """Texts and thumbs become training rows."""
    if task not in ("correction", "demonstration", "thumbs"):
        return
    run = build(project, [pulled])
    table = "kto" if task == "thumbs" else "sft"
    rows = run.read(table).to_pylist()
    assert len(rows) == (4 if task == "thumbs" else 2)  # one a prompt and text
    assert {len(row["prompt"]) for row in rows} == {turns}
    texts = {"correction": "Mended <b> 😀.", "demonstration": "Written <i>.", "thumbs": TEXT}
    assert {row["completion"][0]["content"] for row in rows} == {texts[task]}
    if table == "sft":
        assert {row["source"] for row in rows} == {task}


def test_a_text_to_be_mended_stands_in_the_box_as_typed(project: Project) -> None:
    pushed = push(project, make_generated(project, 1, 1, texts=[TEXT]), guideline="correction")
    with connect(project) as server:
        [record] = server.records(server.batch(*pushed.metrics["batches"]))
    assert record.suggestions["correction"].value == TEXT.replace("\r\n", "\n")
    assert "<" not in record.fields["response_a"]
    assert not any(model in repr(record) for model in MODELS)


def test_of_a_failure_what_failed_is_shown_by_itself(project: Project) -> None:
    """What it lost to is not: nobody is to mend that."""
    failures = make_failures(project, make_generated(project, 2, 3))
    shown = push(project, failures, guideline="correction").read("items")["output_ids"].to_pylist()
    lost = set(failures.read("failures")["output_id"].to_pylist())
    assert sorted(output for (output,) in shown) == sorted(lost)


@pytest.mark.parametrize("task", ["topics", "spans", "correction"])
def test_simulated_annotators_answer(project: Project, task: str) -> None:
    pushed = push(project, make_generated(project, 3, 2), guideline=task)
    simulate(project, pushed, per_item=2, scorer=lambda messages, text: len(text) % 7 + 1.0)
    pulled = pull(project, pushed)
    assert pulled.read("quarantine").num_rows == 0
    assert pulled.metrics["answered"] == pushed.metrics["items"]
    who = Counter(pulled.read("responses")["annotator"].to_pylist())
    assert all(name.startswith("sim-") for name in who)
