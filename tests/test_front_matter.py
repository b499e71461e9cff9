"""What is wrong with a guideline's front matter is said in one line, with the place and the key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.errors import InputError
from annotate.front_matter import read_front_matter

PATH = Path("guidelines/taste/v1.md")

TEXT = """\
---
task: taste
version: 1
kind: compare
questions:
  - name: preference
    type: preference
    title: Which?
    required: true
    labels: {a3: A, a2: A, a1: A, none: none, b1: B, b2: B, b3: B}
  - name: quality
    type: rating
    each: output
    title: How good is {letter}?
    values: [1, 2, 3]
---
# Taste
"""


def test_a_good_file_is_split() -> None:
    form, body = read_front_matter(TEXT, PATH)
    assert body == "# Taste"
    assert (form.overlap, form.outputs_shown) == (2, (2, 2))
    assert [question.name for question in form.questions] == ["preference", "quality"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind:", "knd:", "guidelines/taste/v1.md, knd: unknown key 'knd'. Did you mean kind?"),
        ("title: How", "titel: How", "questions.quality.titel: unknown key 'titel'. Did you mean"),
        ("    title: Which?\n", "", "questions.preference.title: Field required"),
        ("- name: quality", "- name: [1]", "questions.number 2.name: "),
        ("kind: compare", "kind: vote", "kind: Input should be 'compare', 'rank', 'rate'"),
        ("version: 1", "version: one", "version: Input should be a valid integer"),
        ("version: 1", "version: 0", "version: Input should be greater than or equal to 1"),
        (
            "{a3: A, a2",
            "{Yes: A, a2",
            "Input should be a valid string. YAML reads True here, and no word: put the word in",
        ),
        ("title: Which?", "title: 2026", "YAML reads 2026 here"),
        ("type: rating", "type: stars", "questions.quality.type: Input should be 'preference'"),
        ("none: none, ", "", "questions.preference: labels must be 7, there are 6"),
        ("[1, 2, 3]", "[3, 2, 1]", "questions.quality: values must be two or more, ascending"),
        ("[1, 2, 3]", "[1, 2, 11]", "questions.quality.values.2: Input should be less than"),
        (
            "    each: output\n",
            "",
            "questions.quality: `each: output` belongs to rating, flags, thumbs, spans",
        ),
        ("required: true", "required: false", "takes one required question of type preference"),
        ("kind: compare", "kind: rank", "kind rank takes one required question of type ranking"),
        ("version: 1", "version: 1\nmax_outputs: 4", "kind compare shows two outputs"),
        ("version: 1", "version: 1\noverlap: 0", "overlap: Input should be greater than"),
        ("none: none", "no: none", "questions.preference.labels"),  # YAML reads `no` as false
        ("kind: compare", "kind: [", "guidelines/taste/v1.md:6: not YAML"),
        ("version: 1", "version: 2026-13-45", "not YAML: month must be in 1..12"),
        ("---\ntask", "task", "there is no front matter between two lines of ---"),
    ],
)
def test_one_line_says_what_is_wrong_and_where(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(InputError) as caught:
        read_front_matter(TEXT.replace(old, new, 1), PATH)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("front", ["", "- a list", "only text", "questions: 3", "questions: [3]"])
def test_other_shapes_are_refused(front: str) -> None:
    with pytest.raises(InputError):
        read_front_matter(f"---\n{front}\n---\nbody\n", PATH)


@given(st.text())
def test_any_text_gives_an_answer_or_our_error(text: str) -> None:
    with pytest.raises(InputError):
        read_front_matter(f"---\n{text}\n---\nbody\n", PATH)
