"""A classifier's labels become suggestions: the right ones, of the right texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import make_generated
from loop_runs import new_project, prompt_row
from tiny_classifier import train_tiny_classifier

from align.prelabel import Classifier, prelabel
from annotate.errors import InputError
from annotate.records import output_rows, table_from_rows
from annotate.runs import Project, Run, RunPlan

URGENT = ["it burns", "smoke here", "help now it burns", "there is smoke"]
CALM = ["thank you", "hello there", "many thanks", "hello and thank you"]


@pytest.fixture(scope="module")
def urgency(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says URGENT or "Not urgent"."""
    targets = [[1, 0]] * 4 + [[0, 1]] * 4
    folder = tmp_path_factory.mktemp("models") / "tiny-urgency"
    return train_tiny_classifier(folder, URGENT + CALM, targets, ["URGENT", "Not urgent"])


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says fire, thanks, both or neither."""
    texts = [*URGENT, *CALM, "it burns thank you", "many thanks there is smoke", "what", "why so"]
    targets = [[1, 0]] * 4 + [[0, 1]] * 4 + [[1, 1]] * 2 + [[0, 0]] * 2
    folder = tmp_path_factory.mktemp("models") / "tiny topics!"
    return train_tiny_classifier(
        folder, texts, targets, ["fire", "thanks"], several=True, steps=150
    )


def source(project: Project, texts: list[str]) -> Run:
    prompts = [prompt_row(f"p-{n}", text) for n, text in enumerate(texts)]
    outputs = [
        row
        for p in prompts
        for row in output_rows(p["prompt_id"], [("m", "hello"), ("m", "smoke")])
    ]
    with project.draft(RunPlan("generate", 1, (), {"texts": texts}, 0)) as draft:
        draft.write("prompts", table_from_rows("prompts", prompts))
        draft.write("outputs", table_from_rows("outputs", outputs))
    return draft.run


def test_the_most_probable_label_of_each_prompt(tmp_path: Path, urgency: Path) -> None:
    project = new_project(tmp_path)
    run = prelabel(project, source(project, CALM + URGENT), str(urgency))
    rows = run.read("suggestions").to_pylist()
    said = {row["prompt_id"]: json.loads(row["value"]) for row in rows}
    assert said == {
        **{f"p-{n}": ["Not urgent"] for n in range(4)},
        **{f"p-{n}": ["URGENT"] for n in range(4, 8)},
    }
    assert all(0.5 <= row["score"] <= 1 for row in rows)
    assert {row["agent"] for row in rows} == {"tiny-urgency"}
    assert {row["output_id"] for row in rows} == {None}
    assert run.metrics["labels"] == {"Not urgent": 4, "URGENT": 4}
    assert prelabel(project, run.parents[0], str(urgency)) == run


def test_labels_are_renamed_and_outputs_labelled_by_themselves(
    tmp_path: Path, urgency: Path
) -> None:
    project = new_project(tmp_path)
    run = prelabel(
        project, source(project, ["anything"]), str(urgency), about="output",
        labels={"URGENT": "hot"},
    )  # fmt: skip
    outputs = run.parents[0].read("outputs").to_pylist()
    said = {
        row["output_id"]: json.loads(row["value"]) for row in run.read("suggestions").to_pylist()
    }
    wanted = {"hello": ["Not urgent"], "smoke": ["hot"]}
    assert said == {row["output_id"]: wanted[row["completion"]] for row in outputs}


def test_several_labels_or_none(tmp_path: Path, topics: Path) -> None:
    project = new_project(tmp_path)
    texts = ["it burns", "many thanks", "it burns thank you", "what"]
    run = prelabel(project, source(project, texts), str(topics))
    rows = {row["prompt_id"]: row for row in run.read("suggestions").to_pylist()}
    assert {prompt: set(json.loads(row["value"])) for prompt, row in rows.items()} == {
        "p-0": {"fire"},
        "p-1": {"thanks"},
        "p-2": {"fire", "thanks"},
    }  # of "what" neither reaches the threshold, so nothing is suggested
    assert {row["agent"] for row in rows.values()} == {"tiny topics-"}  # as Argilla takes it


def test_texts_are_read_to_their_end_whatever_the_batch(urgency: Path, tmp_path: Path) -> None:
    project = new_project(tmp_path)
    texts = ["so " * 100 + "it burns", "it burns", "hello", *CALM * 12]
    classifier = Classifier.load(str(urgency))
    subjects = source(project, texts).read("prompts")
    table = subjects.select(["prompt_id"]).append_column("text", [texts])
    together = list(classifier(table))
    for number in (0, 1, 2, 30):
        [alone] = classifier(table.slice(number, 1))
        assert alone == pytest.approx(together[number], abs=1e-5)
    assert together[0][0] > 0.5  # the end decides, which left truncation keeps


def test_what_cannot_be_used_is_one_clear_line(tmp_path: Path, urgency: Path) -> None:
    project = new_project(tmp_path)
    run = source(project, ["hello"])
    with pytest.raises(InputError, match=r"no label 'LABEL_0'\. Its: URGENT, Not"):
        prelabel(project, run, str(urgency), labels={"LABEL_0": "urgent"})
    with pytest.raises(InputError, match="no text classifier can be loaded"):
        prelabel(project, run, str(tmp_path))
    with pytest.raises(InputError, match="--threshold is between 0 and 1, not 1"):
        prelabel(project, run, str(urgency), threshold=1.0)
    with project.draft(RunPlan("generate", 2, (), {}, 0)) as draft:
        draft.write("prompts", table_from_rows("prompts", []))
        draft.write("outputs", table_from_rows("outputs", []))
    with pytest.raises(InputError, match="this run has no prompts to label"):
        prelabel(project, draft.run, str(urgency))


def test_every_text_of_a_run_is_accounted_for(tmp_path: Path, urgency: Path) -> None:
    project = new_project(tmp_path)
    run = prelabel(project, make_generated(project, 40, turns=3), str(urgency))
    assert run.metrics["texts"] == run.metrics["suggestions"] == 40
