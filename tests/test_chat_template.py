"""Chat templates are programs of strangers: they are tried within a limit, and told on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import new_project
from tiny_model import write_tiny_model

from align.backends.tokens import reader
from align.chat_template import (
    OutOfTimeError,
    TemplateCheck,
    check_template,
    processor_time,
)
from align.conversations import conversation_tokens
from align.model import PLAIN_TEMPLATE, Loaded, load_model
from align.model_ref import resolve_model
from annotate.errors import TrainingError
from annotate.records import text_message

SHORT = 0.3
"""Seconds of processor time, where the limit is to be reached."""

LOOPS = {
    "nested": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filters": "{% for a in range(99999) %}{{ range(99999) | map('string') | join | length }}"
    "{% endfor %}",
    "words": "{{ lipsum(n=999999999) }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) if n < 40 }}{{ f(n + 1) if n < 40 }}{% endmacro %}"
    "{{ f(0) }}",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    project = new_project(tmp_path_factory.mktemp("project"))
    return load_model(resolve_model(project, "base"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    project = new_project(tmp_path_factory.mktemp("project"))
    return load_model(resolve_model(project, str(write_tiny_model(project.root / "tiny"))))


@pytest.fixture
def with_template(tiny: Loaded) -> Iterator[Any]:
    tokenizer: Any = tiny.tokenizer
    before = tokenizer.chat_template

    def given_template(template: str) -> Loaded:
        tokenizer.chat_template = template
        return replace(tiny)

    yield given_template
    tokenizer.chat_template = before


def turns(answer: str, end: str = "<|end|>") -> str:
    """A template whose assistant turns are `answer`."""
    return (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}" + answer + "{% else %}"
        "<|user|>{{ m['content'] }}" + end + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


def test_the_shipped_template_does_all_that_is_asked(base: Loaded) -> None:
    found = check_template(base)
    assert found == TemplateCheck(begins_alike=True, ends=True, marks=True, forgeable=False)
    assert found.warnings() == []


def test_a_good_template_may_lack_marks(tiny: Loaded) -> None:
    assert check_template(tiny) == TemplateCheck(True, True, marks=False, forgeable=False)


@pytest.mark.parametrize("name", LOOPS)
def test_a_template_that_does_not_end_is_ended(
    with_template: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.chat_template.SECONDS", SHORT)
    with pytest.raises(TrainingError, match="did not end within") as caught:
        check_template(with_template(LOOPS[name]))
    assert caught.value.where == "tiny"


def test_nobody_samples_with_a_template_that_does_not_end(
    with_template: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.chat_template.SECONDS", SHORT)
    assert reader(with_template(turns("<|assistant|>{{ m['content'] }}"))).stop
    with pytest.raises(TrainingError, match="did not end within"):
        reader(with_template(LOOPS["nested"]))


def test_the_limit_holds_in_any_thread_and_leaves_nothing_behind(with_template: Any) -> None:
    loaded = with_template(LOOPS["nested"])
    ended = []

    def render() -> None:
        try:
            with processor_time(SHORT):
                loaded.tokenizer.apply_chat_template([text_message("user", "x")], tokenize=False)
        except OutOfTimeError:
            ended.append(True)

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == [True]
    with processor_time(SHORT):
        pass
    # Out of the block nothing is limited any more.
    assert sum(range(3_000_000)) > 0


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ raise_exception('no system role') }}", "fails on a plain dialogue: no system role"),
        ("{{ messages[9]['content'] }}", "fails on a plain dialogue"),
        ("{{ 1 // 0 }}", "fails on a plain dialogue: integer division"),
        ("{{ ''.__class__.__mro__ }}", "fails on a plain dialogue"),
        ("{% for m in messages", "fails on a plain dialogue"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on a plain dialogue"),
        ("{{ messages[0]['content'] }}", "leaves out or reorders what was said"),
        ("{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}", "leaves out or"),
    ],
)
def test_a_template_that_fails_is_one_clear_line(
    with_template: Any, template: str, what: str
) -> None:
    with pytest.raises(TrainingError, match=what) as caught:
        check_template(with_template(template))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_what_a_template_does_otherwise_is_said(with_template: Any) -> None:
    mute = check_template(with_template(turns("<|assistant|>{{ m['content'] }}")))
    assert not mute.ends
    assert "will not learn to stop" in mute.warnings()[0]
    assert mute.warnings(completes=False) == []

    other = turns("<|assistant|>think: {{ m['content'] }}<|end|>")
    moved = check_template(with_template(other))
    assert not moved.begins_alike
    assert "begins a dialogue otherwise" in moved.warnings()[0]

    plain = check_template(with_template(PLAIN_TEMPLATE))
    assert plain == TemplateCheck(True, ends=False, marks=False, forgeable=True)
    assert len(plain.warnings(completes=False)) == 1


@pytest.mark.parametrize(
    ("answer", "marks"),
    [
        ("<|assistant|>{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}", True),
        ("<|assistant|>{% generation %}{{ m['content'] }}{% endgeneration %}<|end|>", False),
        ("<|assistant|>{{ m['content'] }}<|end|>", False),
    ],
)
def test_marks_must_stand_around_the_answer_and_its_end(
    with_template: Any, answer: str, marks: bool
) -> None:
    assert check_template(with_template(turns(answer))).marks is marks


CONTROL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|", "|>", "<", "|")


@given(st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=4))).map("".join))
def test_no_text_forges_a_turn(tiny: Loaded, text: str) -> None:
    """Whatever a user types, a dialogue has the control tokens that its template writes."""
    messages = [text_message("user", text), text_message("assistant", text)]
    control = set(tiny.tokenizer.all_special_ids)
    (ids,) = conversation_tokens(tiny, [messages])
    wanted = tiny.tokenizer.convert_tokens_to_ids(
        ["<|user|>", "<|end|>", "<|assistant|>", "<|end|>"]
    )
    assert [token for token in ids if token in control] == wanted
