"""What annotators see of an item: text as it was written, never markup, never a model's name."""

import html
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.display import (
    EMPTY_RESPONSE,
    arrange,
    is_conversation,
    record_fields,
    record_metadata,
    texts_by_id,
)
from annotate.guidelines import load_guideline
from annotate.records import table_from_rows

PREFERENCE = load_guideline(Path(__file__).parents[1], "preference@v1")


def turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)
    ]


def fields_of(
    completion: str, prompt: list[tuple[str, str]], *, multi_turn: bool
) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in prompt]
    item: Any = {
        "item_id": "i-1",
        "prompt_id": "p-1",
        "output_ids": ["o-1", "o-2"],
        "kind": "compare",
    }
    return record_fields(
        item, {"p-1": messages}, {"o-1": completion, "o-2": "fine"}, multi_turn=multi_turn
    )


def test_markup_is_escaped_everywhere() -> None:
    script = "<script>alert('x')</script> & \"more\""
    escaped = "&lt;script&gt;alert('x')&lt;/script&gt; &amp; \"more\""
    assert fields_of(script, [("user", script)], multi_turn=False) == {
        "prompt": escaped,
        "response_a": escaped,
        "response_b": "fine",
    }
    chat = fields_of("", [("<b>", script), ("assistant", "")], multi_turn=True)["prompt"]
    assert chat == [
        {"role": "&lt;b&gt;", "content": escaped},
        {"role": "assistant", "content": "(empty message)"},
    ]


@pytest.mark.parametrize("nothing", ["", " ", "\n\t "])
def test_an_empty_completion_is_visible(nothing: str) -> None:
    assert fields_of(nothing, [("user", "Hi")], multi_turn=False)["response_a"] == EMPTY_RESPONSE


@given(st.text())
def test_any_text_reads_as_it_was_written_and_cannot_be_markup(text: str) -> None:
    shown = fields_of(text, [("user", "Hi")], multi_turn=False)["response_a"]
    assert not {"<", ">", "\0", "\x1b", "\r"} & set(shown)
    if text.isprintable() and text.strip():
        assert html.unescape(shown) == text


def test_a_turn_longer_than_argilla_takes_continues_without_loss() -> None:
    text = "<&" * 12_000
    pieces = fields_of("x", [("user", text), ("assistant", "short")], multi_turn=True)["prompt"]
    assert all(1 <= len(piece["content"]) <= 20_000 for piece in pieces)
    assert html.unescape("".join(p["content"] for p in pieces if p["role"] == "user")) == text
    assert pieces[-1] == {"role": "assistant", "content": "short"}


def test_no_model_is_named_in_a_record() -> None:
    prompts = table_from_rows("prompts", [{"prompt_id": "p-1", "messages": turns("Hi")}])
    outputs = table_from_rows(
        "outputs",
        [
            {
                "output_id": f"o-{n}",
                "prompt_id": "p-1",
                "model": f"secret-{n}",
                "completion": f"Ho {n}",
            }
            for n in range(3)
        ],
    )
    messages, completions = texts_by_id(prompts, outputs)
    items = arrange(prompts, outputs, PREFERENCE, batch="b1", seed=0).items.to_pylist()
    assert len(items) == 3
    for item in items:
        fields = record_fields(item, messages, completions, multi_turn=False)
        assert "secret" not in repr((fields, record_metadata(item), item["item_id"]))


def test_a_dataset_is_a_conversation_as_soon_as_one_prompt_is() -> None:
    prompts = table_from_rows("prompts", [{"prompt_id": "p-1", "messages": turns("Hi")}])
    chat = table_from_rows("prompts", [{"prompt_id": "p-2", "messages": turns("Hi", "Ho", "Hm")}])
    assert not is_conversation(prompts)
    assert is_conversation(pa.concat_tables([prompts, chat]))
    assert not is_conversation(prompts.slice(0, 0))
