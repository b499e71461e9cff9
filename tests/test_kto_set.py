"""Thumbs become KTO rows; every judged output is kept, or dropped with a reason."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import generated, new_project, prompt_row

from align.answer_sets import THUMBS_SHARE, lines
from align.build import build
from align.kto_set import KtoSet, kto_set, thumbs
from annotate.errors import InputError, ProjectError
from annotate.records import SCHEMAS, conform, table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.trace import trace
from annotate.trace_text import trace_text

START = datetime(2026, 1, 1, tzinfo=UTC)
PROMPTS = table_from_rows(
    "prompts", [prompt_row("p", "Mend my lamp"), prompt_row("q", "And mine", split="eval")]
)
OUTPUTS = table_from_rows(
    "outputs",
    [
        {"output_id": output, "prompt_id": prompt, "model": "m", "completion": text}
        for output, prompt, text in [
            ("o-1", "p", "answer 1"),
            ("o-2", "q", "answer 2"),
            ("o-3", "p", " \n"),
            ("o-4", "lost", "answer 4"),
        ]
    ],
)
ITEMS = table_from_rows("items", [{"item_id": "i-1", "prompt_id": "p"}])


def thumb(output: str, who: str, way: Any, minute: int = 0, status: str = "submitted") -> Any:
    value = json.dumps({"output": output, "thumb": way}, sort_keys=True)
    return {
        "item_id": "i-1", "annotator": who, "question": "thumb", "value": value, "status": status,
        "time": START + timedelta(minutes=minute), "guideline": "thumbs@v1",
    }  # fmt: skip


def made(*responses: dict[str, Any], ambiguous: tuple[str, ...] = ()) -> KtoSet:
    given_ = thumbs(table_from_rows("responses", responses), ITEMS)
    return kto_set(given_, OUTPUTS, PROMPTS, pa.array(ambiguous, pa.string()), THUMBS_SHARE)


def reasons(found: KtoSet) -> dict[str, str | None]:
    return {row["output_id"]: row["reason"] for row in found.decisions.to_pylist()}


def test_rows_are_trl_s_unpaired_format() -> None:
    found = made(thumb("o-1", "ada", "up"), thumb("o-2", "ada", "down"))
    assert found.rows.schema.equals(SCHEMAS["kto"])
    rows = {row["output_id"]: row for row in found.rows.to_pylist()}
    assert rows["o-1"]["prompt"] == [{"role": "user", "content": "Mend my lamp"}]
    assert rows["o-1"]["completion"] == [{"role": "assistant", "content": "answer 1"}]
    assert (rows["o-1"]["label"], rows["o-2"]["label"]) == (True, False)
    assert (rows["o-1"]["split"], rows["o-2"]["split"]) == ("train", "eval")
    assert found.rows["row_id"].to_pylist() == sorted(found.rows["row_id"].to_pylist())


@pytest.mark.parametrize(
    ("ways", "label"),
    [
        ("u", True),
        ("d", False),
        ("ud", None),
        ("uud", True),  # two of three
        ("uudd", None),
        ("uuddd", None),  # three of five are not two thirds
        ("uddd", False),
    ],
)
def test_most_people_decide_and_the_divided_teach_nothing(ways: str, label: bool | None) -> None:
    votes = [
        thumb("o-1", f"person-{n}", "up" if way == "u" else "down") for n, way in enumerate(ways)
    ]
    found = made(*votes)
    assert found.rows["label"].to_pylist() == ([] if label is None else [label])
    assert reasons(found) == {"o-1": "people are divided" if label is None else None}
    [decision] = found.decisions.to_pylist()
    assert (decision["up"], decision["down"]) == (ways.count("u"), ways.count("d"))


def test_every_dropped_output_says_why() -> None:
    found = made(*(thumb(f"o-{n}", "ada", "up") for n in range(1, 6)), ambiguous=("q",))
    assert reasons(found) == {
        "o-1": None,
        "o-2": "its prompt's id stands for different prompts",
        "o-3": "the completion is empty",
        "o-4": "its prompt is in no run behind it",
        "o-5": "its output is in no run behind it",
    }


def test_only_the_latest_submitted_thumb_of_a_person_counts() -> None:
    found = made(
        thumb("o-1", "ada", "down", minute=2),
        thumb("o-1", "ada", "up", minute=1),
        thumb("o-1", "ben", "up", status="draft"),
        {**thumb("o-1", "eve", "up"), "question": "reason", "value": '{"text": "\\"thumb\\": up"}'},
    )
    assert found.rows["label"].to_pylist() == [False]
    assert found.decisions["down"].to_pylist() == [1]


def test_nobody_said_anything() -> None:
    found = made()
    assert found.rows.num_rows == found.decisions.num_rows == 0


def test_a_thumb_is_up_or_down() -> None:
    with pytest.raises(ProjectError, match="a thumb is up or down, not 'sideways'"):
        made(thumb("o-1", "ada", "sideways"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"o-{n}" for n in range(1, 7)]),
            st.sampled_from(["ada", "ben", "eve", "flo"]),
            st.sampled_from(["up", "down"]),
            st.integers(0, 3),
        )
    )
)
def test_kept_and_dropped_are_all(given_: list[tuple[str, str, str, int]]) -> None:
    found = made(*(thumb(*each) for each in given_))
    judged = {output for output, *_ in given_}
    decisions = found.decisions.to_pylist()
    assert {row["output_id"] for row in decisions} == judged
    assert all(row["kept"] == (row["reason"] is None) for row in decisions)
    assert Counter(row["kept"] for row in decisions)[True] == found.rows.num_rows
    for row in found.rows.to_pylist():
        assert row["label"] == (row["up"] > row["down"])


# The whole step, on runs as pull writes them.


def pulled(project: Project, source: Run, answers: dict[str, list[Any]]) -> Run:
    """A push and a pull of one-output items: question → values, by person in turn."""
    items, responses = [], []
    for output in source.read("outputs").to_pylist():
        items.append(
            {
                "item_id": f"i-{output['output_id']}",
                "prompt_id": output["prompt_id"],
                "output_ids": [output["output_id"]],
                "kind": "thumbs",
                "guideline": "thumbs@v1",
                "batch": "b1",
            }
        )
        for question, values in answers.items():
            for who, value in zip(("ada", "ben"), values, strict=False):
                if question == "thumb":
                    value = {"output": output["output_id"], "thumb": value}
                responses.append(
                    {
                        "item_id": items[-1]["item_id"],
                        "annotator": who,
                        "question": question,
                        "value": json.dumps(value),
                        "status": "submitted",
                        "time": START,
                        "guideline": "thumbs@v1",
                    }
                )
    parent = source
    for step in ("push", "pull"):
        with project.draft(RunPlan(step, 1, (parent,), {}, 0)) as draft:
            draft.write("items", table_from_rows("items", items))
            if step == "pull":
                draft.write("responses", table_from_rows("responses", responses))
        parent = draft.run
    return parent


def test_build_makes_both_sets_of_a_pull(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    source = generated(project, {f"Prompt {n}": ["good", "also good"] for n in range(20)})
    texts = [{"text": "Better."}, {"text": "Better."}]
    pull_run = pulled(project, source, {"thumb": ["up", "up"], "correction": texts})
    run = build(project, [pull_run])

    assert run.step == "build"
    assert build(project, [pull_run]) == run
    sft, kto = run.read("sft"), run.read("kto")
    assert kto.num_rows == 40
    assert sft.num_rows == 20  # the same words for one prompt count once
    assert set(sft["source"].to_pylist()) == {"correction"}
    assert all(sft["output_id"].to_pylist())
    side = dict(zip(kto["prompt_id"].to_pylist(), kto["split"].to_pylist(), strict=True))
    assert set(side.values()) == {"train", "eval"}
    for row in sft.to_pylist():
        assert row["split"] == side[row["prompt_id"]]  # by prompt, in every set
    text = (run.path / "README.md").read_text()
    assert "| `kto.parquet` | 40 | 40 up |" in text
    assert "Made by 2 people, under `thumbs@v1`." in text
    assert [line.split() for line in lines(run)][:2] == [
        ["SFT", "rows,", "correction", "20"],
        ["KTO", "rows,", "thumbs", "up", "40"],
    ]


def test_a_row_is_traced_to_the_thumbs_behind_it(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    source = generated(project, {"Prompt": ["good"]})
    run = build(project, [pulled(project, source, {"thumb": ["up", "up"]})])
    [row] = run.read("kto").to_pylist()
    found = trace(project, row["row_id"])
    assert found.kind == "KTO row"
    assert [answer["value"]["thumb"] for answer in found.responses] == ["up", "up"]
    text = trace_text(found)
    assert "thumbs up: 2 up, 0 down" in text
    assert f"output     {row['output_id']} by m1" in text


def test_a_pull_without_texts_or_thumbs_says_so(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    source = generated(project, {"Prompt": ["good"]})
    divided = pulled(project, source, {"thumb": ["up", "down"]})
    with pytest.raises(InputError, match="1 dropped: people are divided"):
        build(project, [divided])


@pytest.mark.slow
def test_trl_trains_on_it_as_it_is(tmp_path: Path) -> None:
    from datasets import load_dataset
    from tiny_model import write_tiny_model
    from transformers import AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    project = new_project(tmp_path / "project")
    source = generated(project, {f"Prompt {n}": ["good", "also good"] for n in range(4)})
    outputs = source.read("outputs").to_pylist()
    run = build(project, [pulled(project, source, {"thumb": ["up"]})])
    rows = run.read("kto").to_pylist()
    assert len(rows) == len(outputs)
    table = pa.Table.from_pylist([{**row, "label": n % 2 == 0} for n, row in enumerate(rows)])
    pq.write_table(conform("kto", table), tmp_path / "kto.parquet")
    data = load_dataset("parquet", data_files=str(tmp_path / "kto.parquet"), split="train")
    model = write_tiny_model(tmp_path / "model")
    trainer = KTOTrainer(
        str(model),
        train_dataset=data,
        args=KTOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=4,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            dataloader_pin_memory=False,
        ),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    assert np.isfinite(trainer.train().training_loss)
