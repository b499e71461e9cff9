"""Every kind of task: what its guideline must ask, what an item shows, the way there and back."""

import html
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_arrangement import tables

from annotate.answers import Item, answer, undo
from annotate.arrangement import arrange
from annotate.display import record_fields, record_suggestions
from annotate.errors import InputError
from annotate.front_matter import GuidelineForm, read_front_matter
from annotate.guidelines import Guideline, load_guideline
from annotate.shown_text import EMPTY_RESPONSE, MAX_MARKED, PageOffsets, readable, shown_to_mark

ROOT = Path(__file__).parents[1]
PATH = Path("guidelines/taste/v1.md")

RATING = "{name: rating, type: rating, each: output, title: How good, values: [1, 2, 3]REQ}"
LABEL = "{name: urgency, type: label, title: Urgent, labels: {yes_: It is, no_: It is not}REQ}"
TOPICS = "{name: topics, type: labels, title: About, labels: {a: A, b: B, c: C}REQ}"
TEXT = "{name: correction, type: text, title: Mend itREQ}"
THUMBS = "{name: thumb, type: thumbs, each: output, title: Good, labels: {up: Good, down: Poor}REQ}"
SPANS = "{name: errors, type: spans, each: output, title: Mark, labels: {untrue: Untrue}}"
EACH_LABEL = LABEL.replace("type: label", "type: label, each: output")


def form(kind: str, *questions: str, required: bool = True) -> GuidelineForm:
    asked = [q.replace("REQ", ", required: true" if required else "") for q in questions]
    front = f"task: taste\nversion: 1\nkind: {kind}\nquestions: [{', '.join(asked)}]\n"
    return read_front_matter(f"---\n{front}---\n# Taste\n", PATH)[0]


@pytest.mark.parametrize(
    ("kind", "questions", "shows"),
    [
        ("rate", [RATING], 1),
        ("rate", [RATING, RATING.replace("name: rating", "name: kindness")], 1),
        ("label", [LABEL], 0),
        ("label", [TOPICS, LABEL], 0),
        ("label", [EACH_LABEL], 1),
        ("correct", [TEXT], 1),
        ("demonstrate", [TEXT.replace("correction", "demonstration")], 0),
        ("thumbs", [THUMBS], 1),
        ("span", [LABEL, SPANS], 1),
    ],
)
def test_a_kind_shows_so_many_outputs(kind: str, questions: list[str], shows: int) -> None:
    assert form(kind, *questions).outputs_shown == (shows, shows)


@pytest.mark.parametrize(
    ("kind", "questions", "message"),
    [
        ("rate", [LABEL], "kind rate takes a required question of type rating"),
        ("label", [RATING], "kind label takes a required question of type label or labels"),
        ("correct", [TEXT.replace("correction", "text")], "one required question of type text "),
        ("demonstrate", [TEXT], "one required question of type text named demonstration"),
        ("thumbs", [LABEL], "kind thumbs takes one required question of type thumbs"),
        ("thumbs", [THUMBS, THUMBS.replace("thumb,", "other,")], "takes one required question"),
        ("span", [LABEL], "kind span takes one question of type spans"),
        ("span", [SPANS], "one question must be required"),
        ("rate", [RATING, SPANS], "kind rate takes no question of type spans"),
        (
            "demonstrate",
            [TEXT.replace("correction", "demonstration"), THUMBS],
            "kind demonstrate shows no output",
        ),
        ("thumbs", [THUMBS.replace("down: Poor", "down: Poor, so: So")], "labels must be 2"),
        ("label", [TOPICS.replace("a: A, b: B, c: C", "a: A")], "labels must be two or more"),
        ("thumbs", [THUMBS.replace(", each: output", "")], "`each: output` belongs to"),
        ("correct", [TEXT.replace("type: text", "type: text, each: output")], "belongs to"),
    ],
)
def test_a_kind_asks_its_own_question(kind: str, questions: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        form(kind, *questions)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_required_does_not_decide() -> None:
    with pytest.raises(InputError, match="kind rate takes a required"):
        form("rate", RATING, required=False)


def guideline(folder: Path, kind: str, *questions: str) -> Guideline:
    asked = [q.replace("REQ", ", required: true") for q in questions]
    front = f"task: taste\nversion: 1\nkind: {kind}\nquestions: [{', '.join(asked)}]\n"
    path = folder / "guidelines" / "taste" / "v1.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{front}---\n# Taste\n", encoding="utf-8")
    return load_guideline(folder, "taste")


def test_every_output_is_an_item_where_one_is_shown(tmp_path: Path) -> None:
    prompts, outputs = tables({"p-1": ["x", "y"], "p-2": ["x"], "p-3": []})
    found = arrange(
        prompts, outputs, guideline(tmp_path, "thumbs", THUMBS), batch="b", seed=0, pairs={}
    )

    assert sorted(found.items["output_ids"].to_pylist()) == sorted(
        [output] for output in outputs["output_id"].to_pylist()
    )
    assert set(found.items["kind"].to_pylist()) == {"thumbs"}
    assert set(found.items["batch"].to_pylist()) == {"b"}
    assert found.quarantine.select(["id", "reason"]).to_pylist() == [
        {"id": "p-3", "reason": "number of outputs is 0, taste@v1 takes 1 or more"}
    ]
    again = arrange(
        prompts, outputs, guideline(tmp_path, "thumbs", THUMBS), batch="b", seed=9,
        earlier=found.items,
    )  # fmt: skip
    assert again.items == found.items


def test_every_prompt_is_an_item_where_none_is_shown(tmp_path: Path) -> None:
    prompts, outputs = tables({"p-1": ["x", "y"], "p-2": []})
    found = arrange(prompts, outputs, guideline(tmp_path, "label", LABEL), batch="b", seed=0)

    assert sorted(found.items["prompt_id"].to_pylist()) == ["p-1", "p-2"]
    assert found.items["output_ids"].to_pylist() == [[], []]
    assert found.quarantine.num_rows == 0


def test_a_text_too_long_to_be_marked_is_set_aside(tmp_path: Path) -> None:
    prompts, outputs = tables({"p-1": ["x", "y"]})
    long = ["x" * (MAX_MARKED + 1), "x" * MAX_MARKED]
    at = outputs.schema.get_field_index("completion")
    outputs = outputs.set_column(at, "completion", [long])
    rules = guideline(tmp_path, "span", LABEL, SPANS)
    found = arrange(prompts, outputs, rules, batch="b", seed=0)
    assert found.items["output_ids"].to_pylist() == [[outputs["output_id"][1].as_py()]]
    assert found.quarantine["reason"].to_pylist() == [
        "its text has 32,769 characters, 32,768 can be marked"
    ]


def item(kind: str, *outputs: str) -> Item:
    return {
        "item_id": "i-1",
        "prompt_id": "p-1",
        "output_ids": list(outputs),
        "kind": kind,
        "guideline": "taste@v1",
        "batch": "b",
    }


@pytest.mark.parametrize(
    ("kind", "questions", "raw", "ours"),
    [
        ("rate", [RATING], ("rating_a", 2), {"output": "o-1", "rating": 2}),
        ("label", [LABEL], ("urgency", "yes_"), {"label": "yes_"}),
        ("label", [EACH_LABEL], ("urgency_a", "no_"), {"output": "o-1", "label": "no_"}),
        ("label", [TOPICS], ("topics", ["c", "a"]), {"labels": ["a", "c"]}),
        ("thumbs", [THUMBS], ("thumb_a", "up"), {"output": "o-1", "thumb": "up"}),
        ("thumbs", [THUMBS], ("thumb_a", "down"), {"output": "o-1", "thumb": "down"}),
        ("correct", [TEXT], ("correction", "So."), {"text": "So."}),
    ],
)
def test_there_and_back(
    tmp_path: Path, kind: str, questions: list[str], raw: tuple[str, Any], ours: Any
) -> None:
    rules = guideline(tmp_path, kind, *questions)
    about = item(kind, *["o-1"][: rules.max_outputs])
    [found] = undo({raw[0]: {"value": raw[1]}}, about, rules).answers
    assert found.value == ours
    back = answer([found], about, rules)[raw[0]]["value"]
    assert sorted(back) == sorted(raw[1]) if isinstance(back, list) else back == raw[1]


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 2.5, True, "2", 4])
def test_a_rating_that_is_none_is_reported(tmp_path: Path, rubbish: Any) -> None:
    rules = guideline(tmp_path, "rate", RATING)
    found = undo({"rating_a": {"value": rubbish}}, item("rate", "o-1"), rules)
    assert found.answers == []
    assert found.problems == [f"rating_a: {rubbish!r} is none of 1, 2, 3"]


def test_a_question_added_in_mid_round_is_reported_and_the_rest_stands(tmp_path: Path) -> None:
    rules = guideline(tmp_path, "label", LABEL)
    raw = {"urgency": {"value": "yes_"}, "mood": {"value": "calm"}}
    answers, problems = undo(raw, item("label"), rules)
    assert answers == [("urgency", {"label": "yes_"})]
    assert problems == ["unknown question 'mood'"]


# Spans. A browser counts UTF-16 code units of the unescaped text; Python's own codec is the oracle.

TEXTS = st.text(
    st.one_of(
        st.sampled_from("<>&\"'\r\n \t\x00\x85ab;#é\u0301\u200d\ufe0f😀👩🏽🇩🇪"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def page(text: str) -> str:
    """What a browser makes of the record's field: the text of the page."""
    return html.unescape(shown_to_mark(text, EMPTY_RESPONSE))


@given(TEXTS)
def test_the_page_reads_as_written_and_the_server_takes_marks_to_its_end(text: str) -> None:
    if text.strip():
        assert page(text) == readable(text)
        assert len(PageOffsets.of(text)) == units(page(text))
        assert len(shown_to_mark(text, EMPTY_RESPONSE)) >= units(page(text))
    else:
        assert page(text) == EMPTY_RESPONSE


@given(st.data())
def test_a_stretch_of_the_page_is_the_stretch_of_the_text_that_it_shows(data: Any) -> None:
    text = data.draw(TEXTS.filter(str.strip))
    on_page = page(text)
    start = data.draw(st.integers(0, len(on_page) - 1))
    end = data.draw(st.integers(start + 1, len(on_page)))
    bounds = units(on_page[:start]), units(on_page[:end])

    found = PageOffsets.of(text).in_text(*bounds)
    assert readable(text[slice(*found)]) == on_page[start:end]
    assert PageOffsets.of(text).on_page(*found) == bounds


@given(st.data())
def test_a_stretch_of_the_text_comes_back_from_the_page(data: Any) -> None:
    text = data.draw(TEXTS.filter(str.strip))
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    offsets = PageOffsets.of(text)
    back = offsets.in_text(*offsets.on_page(start, end))
    # Only a line end of two characters that was cut in half is made whole.
    whole = (
        start - (text[start - 1 : start + 1] == "\r\n"),
        end + (text[end - 1 : end + 1] == "\r\n"),
    )
    assert back == whole


def test_by_hand() -> None:
    r"""A😀 <b>\r\nx: on the page A is 0, the emoji 1 and 2, a space, <b> 4 to 6, 7 a line end."""
    offsets = PageOffsets.of("A😀 <b>\r\nx")
    assert offsets.in_text(1, 3) == (1, 2)
    assert offsets.in_text(2, 3) == (1, 2)  # half an emoji is the emoji
    assert offsets.in_text(4, 7) == (3, 6)
    assert offsets.in_text(7, 9) == (6, 9)
    assert offsets.on_page(6, 9) == (7, 9)
    with pytest.raises(ValueError, match="0 to 10 is no stretch of 9 characters"):
        offsets.in_text(0, 10)


def test_marks_are_kept_as_characters_of_the_output(tmp_path: Path) -> None:
    rules = guideline(tmp_path, "span", LABEL, SPANS)
    texts = {"o-1": "😀 & <b>"}
    about = item("span", "o-1")
    marks = [{"start": 3, "end": 4, "label": "untrue"}, {"start": 0, "end": 2, "label": "untrue"}]
    raw = {"errors_a": {"value": marks}, "urgency": {"value": "yes_"}}
    answers, problems = undo(raw, about, rules, texts)
    assert problems == []
    spans = [{"start": 0, "end": 1, "label": "untrue"}, {"start": 2, "end": 3, "label": "untrue"}]
    assert answers[1].value == {"output": "o-1", "spans": spans, "length": 7}
    assert answer(answers, about, rules, texts)["errors_a"]["value"] == marks[::-1]


@pytest.mark.parametrize(
    ("marks", "problem"),
    [
        ([{"start": 0, "end": 99, "label": "untrue"}], "0 to 99 is no stretch of 3 characters"),
        ([{"start": 2, "end": 2, "label": "untrue"}], "2 to 2 is no stretch of 3 characters"),
        ([{"start": -1, "end": 2, "label": "untrue"}], "-1 to 2 is no stretch"),
        ([{"start": 0.5, "end": 2, "label": "untrue"}], "has no start and end"),
        ([{"start": 0, "end": 1, "label": "rude"}], "'rude' is none of untrue"),
        (["all of it"], "'all of it' is not a mark"),
    ],
)
def test_marks_that_cannot_be_are_reported(tmp_path: Path, marks: Any, problem: str) -> None:
    rules = guideline(tmp_path, "span", LABEL, SPANS)
    raw = {"urgency": {"value": "no_"}, "errors_a": {"value": marks}}
    answers, problems = undo(raw, item("span", "o-1"), rules, {"o-1": "abc"})
    assert [a.question for a in answers] == ["urgency"]
    assert len(problems) == 1
    assert problem in problems[0]


def test_nothing_marked_is_an_answer_and_nothing_answered_is_none(tmp_path: Path) -> None:
    rules = guideline(tmp_path, "span", LABEL, SPANS)
    texts = {"o-1": "abc"}
    answers, _ = undo({"urgency": {"value": "no_"}}, item("span", "o-1"), rules, texts)
    assert answers[1] == ("errors", {"output": "o-1", "spans": [], "length": 3})
    assert undo({}, item("span", "o-1"), rules, texts).answers == []
    empty = undo({"urgency": {"value": "no_"}}, item("span", "o-1"), rules, {"o-1": " "})
    assert empty.answers[1].value == {"output": "o-1", "spans": [], "length": 0}


RUBBISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["start", "end", "label"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(RUBBISH)
def test_rubbish_never_crashes(rubbish: Any) -> None:
    rules = load_guideline(ROOT, "spans@v1")
    for name in [asked.name for asked in rules.asked(1)]:
        answers, _ = undo({name: {"value": rubbish}}, item("span", "o-1"), rules, {"o-1": "abc"})
        assert all(isinstance(json.loads(part.json), dict) for part in answers)


def test_what_is_to_be_mended_stands_there_as_typed() -> None:
    turns = {"p-1": [{"role": "user", "content": "Hi"}]}
    about, texts = item("correct", "o-1"), {"o-1": "a < b &\r\nc\x00"}
    fields = record_fields(about, turns, texts, multi_turn=False)
    assert fields["response_a"] == "a &lt; b &amp;\nc\N{REPLACEMENT CHARACTER}"
    suggested = record_suggestions(about, texts)
    assert suggested["correction"].value == "a < b &\nc\N{REPLACEMENT CHARACTER}"
    assert record_suggestions(about, {"o-1": " "}) == {}
    assert record_suggestions(item("thumbs", "o-1"), texts) == {}
