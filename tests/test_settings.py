"""Argilla takes the settings, shows what it should, and gives back what was answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argilla as rg
import pytest

from annotate.arrangement import arrange
from annotate.display import answer, record_fields, record_metadata, texts_by_id, undo
from annotate.errors import InputError
from annotate.guidelines import load_guideline
from annotate.records import table_from_rows
from annotate.server import Server
from annotate.server_types import Record, Submission
from annotate.settings import argilla_settings

if TYPE_CHECKING:
    from conftest import RunningArgilla

ROOT = Path(__file__).parents[1]
PREFERENCE = load_guideline(ROOT, "preference@v1")
RANKING = load_guideline(ROOT, "ranking@v1")


@pytest.fixture(scope="module")
def client(argilla_server: RunningArgilla) -> rg.Argilla:
    return rg.Argilla(api_url=argilla_server.url, api_key=argilla_server.api_key)


@pytest.fixture(scope="module")
def server(argilla_server: RunningArgilla) -> Iterator[Server]:
    with Server(argilla_server.url, argilla_server.api_key, workspace="test-settings") as server:
        yield server


def test_only_the_deciding_question_is_required(client: rg.Argilla) -> None:
    for guideline, n in ((PREFERENCE, 2), (RANKING, 4)):
        settings = argilla_settings(guideline, n, multi_turn=False, client=client)
        required = [question.name for question in settings.questions if question.required]
        assert required == [guideline.deciding.name]
        assert settings.distribution.min_submitted == guideline.overlap
        assert settings.guidelines == guideline.text


def test_nothing_is_rendered_and_nothing_names_a_model(client: rg.Argilla) -> None:
    for multi_turn in (False, True):
        settings = argilla_settings(RANKING, 5, multi_turn=multi_turn, client=client)
        assert [field.name for field in settings.fields] == [
            "prompt",
            *(f"response_{letter}" for letter in "abcde"),
        ]
        assert not any(field.use_markdown for field in settings.fields)
        assert isinstance(settings.fields[0], rg.ChatField if multi_turn else rg.TextField)
        assert {m.name for m in settings.metadata} == {"guideline", "batch"}
        assert not settings.allow_extra_metadata


def test_the_number_of_responses_must_fit_the_guideline(client: rg.Argilla) -> None:
    with pytest.raises(InputError, match="preference@v1 shows 2 to 2 responses, not 3"):
        argilla_settings(PREFERENCE, 3, multi_turn=False, client=client)
    with pytest.raises(InputError, match="ranking@v1 shows 3 to 5 responses, not 2"):
        argilla_settings(RANKING, 2, multi_turn=False, client=client)


def full_answer(shown: list[str], kind: str) -> list[tuple[str, Any]]:
    """An answer to every question, with a tie in the ranking."""
    first, last = sorted(shown)[0], sorted(shown)[-1]
    deciding: list[tuple[str, Any]] = (
        [("preference", {"a": first, "b": last, "strength": -3})]
        if kind == "compare"
        else [
            ("ranking", {"ranks": {output: 1 if output == last else 2 for output in shown}}),
            ("rating", {"output": last, "rating": 5}),
        ]
    )
    return [
        *deciding,
        ("both_bad", True),
        ("flags", {"output": first, "flags": ["unsafe", "untrue"]}),
        ("correction", {"text": "Canberra <b>"}),
        ("reason", {"text": "It is right."}),
    ]


@pytest.mark.parametrize("multi_turn", [False, True])
@pytest.mark.parametrize("guideline", [PREFERENCE, RANKING], ids=["preference", "ranking"])
def test_argilla_takes_items_and_gives_answers_back(
    server: Server, guideline: Any, multi_turn: bool
) -> None:
    turns = [{"role": "user", "content": "Which is <the> capital?"}]
    if multi_turn:
        turns = [*turns, {"role": "assistant", "content": "Of?"}, {"role": "user", "content": ""}]
    prompts = table_from_rows("prompts", [{"prompt_id": "p-1", "messages": turns}])
    texts = ["Canberra", "", "<script>alert(1)</script>"][: guideline.max_outputs]
    outputs = [
        {"output_id": f"o-{n}", "prompt_id": "p-1", "model": f"m{n}", "completion": text}
        for n, text in enumerate(texts)
    ]
    name = f"{guideline.task}-{'chat' if multi_turn else 'text'}"
    result = arrange(prompts, table_from_rows("outputs", outputs), guideline, batch=name, seed=0)
    [item] = result.items.to_pylist()
    n = len(item["output_ids"])
    batch = server.ensure_batch(item["batch"], guideline, n, multi_turn=multi_turn)
    messages, completions = texts_by_id(prompts, table_from_rows("outputs", outputs))
    fields = record_fields(item, messages, completions, multi_turn=multi_turn)
    server.publish(batch, [Record(item["item_id"], fields, record_metadata(item))])

    given = full_answer(item["output_ids"], guideline.kind)
    [record_id] = server.record_ids(batch).values()
    assert server.submit([Submission(record_id, answer(given, item, guideline))]) == [""]
    [response] = server.responses(batch)

    answers, problems = undo(response.values, item, guideline)
    assert problems == []
    assert sorted(answers) == sorted(given)
    assert batch.overlap == guideline.overlap
    assert guideline.name in batch.guideline_text
