"""Guidelines as code: what ships is whole and published; what is wrong is one clear line."""

from pathlib import Path

import pytest

from annotate.errors import InputError
from annotate.guidelines import (
    LOCK_FILE,
    MAX_TEXT,
    load_guideline,
    publish_guideline,
    published_versions,
)

ROOT = Path(__file__).parents[1]

FRONT = """\
task: taste
version: 1
kind: compare
questions:
  - name: preference
    type: preference
    title: Which?
    required: true
    labels: {a3: A, a2: A, a1: A, none: none, b1: B, b2: B, b3: B}
"""


def write(folder: Path, front: str = FRONT, *, name: str = "v1.md", body: str = "# Taste") -> Path:
    path = folder / "guidelines" / "taste" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{front}---\n{body}\n", encoding="utf-8")
    return path


def refusal(folder: Path, name: str = "taste") -> str:
    with pytest.raises(InputError) as caught:
        load_guideline(folder, name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_ships_is_published_and_unchanged() -> None:
    files = {f"{p.parent.name}@{p.stem}" for p in (ROOT / "guidelines").glob("*/v*.md")}
    assert files == set(published_versions(ROOT)) >= {"preference@v1", "ranking@v1"}
    for name in files:
        assert load_guideline(ROOT, name).sha256 == published_versions(ROOT)[name]


def test_the_preference_that_ships() -> None:
    guideline = load_guideline(ROOT, "preference@v1")

    assert (guideline.name, guideline.kind, guideline.overlap) == ("preference@v1", "compare", 2)
    assert list(guideline.deciding.strengths().values()) == [3, 2, 1, 0, -1, -2, -3]
    assert next(iter(guideline.deciding.strengths())) == "a_much_better"
    asked = guideline.asked(2)
    assert [a.name for a in asked] == [
        "preference",
        "both_bad",
        "flags_a",
        "flags_b",
        "correction",
        "reason",
    ]
    assert [a.title for a in asked if a.slot == 1] == ["Problems in response B"]
    assert [q.name for q in guideline.questions if q.required] == ["preference"]


def test_the_ranking_that_ships() -> None:
    guideline = load_guideline(ROOT, "ranking@v1")

    assert (guideline.min_outputs, guideline.max_outputs) == (3, 5)
    assert guideline.deciding.name == "ranking"
    ratings = [a for a in guideline.asked(4) if a.question.name == "rating"]
    assert [a.name for a in ratings] == ["rating_a", "rating_b", "rating_c", "rating_d"]
    assert ratings[0].question.values == (1, 2, 3, 4, 5)
    assert [q.name for q in guideline.questions if q.required] == ["ranking"]


@pytest.mark.parametrize("name", sorted(published_versions(ROOT)))
def test_what_annotators_read_says_its_version_and_fits_argilla(name: str) -> None:
    guideline = load_guideline(ROOT, name)
    assert name in guideline.text
    assert guideline.text.startswith("# ")
    assert len(guideline.text) <= MAX_TEXT
    assert "{letter}" not in "".join(
        a.title + a.description for a in guideline.asked(guideline.max_outputs)
    )


def test_the_latest_version_is_the_default(tmp_path: Path) -> None:
    write(tmp_path)
    for version in (2, 10):
        write(tmp_path, FRONT.replace("version: 1", f"version: {version}"), name=f"v{version}.md")

    assert load_guideline(tmp_path, "taste").name == "taste@v10"
    assert load_guideline(tmp_path, "taste@v2").version == 2
    assert load_guideline(tmp_path / "guidelines", "taste@v2").version == 2
    assert "there is no taste@v3. Known: taste@v1, taste@v2, taste@v10" in refusal(
        tmp_path, "taste@v3"
    )


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path)
    assert "there is no guideline 'tastes'. Did you mean taste?" in refusal(tmp_path, "tastes")
    assert "not the name of a guideline" in refusal(tmp_path, "../taste")
    assert "handloom init" in refusal(tmp_path / "guidelines" / "taste")


def test_a_published_version_cannot_be_edited(tmp_path: Path) -> None:
    path = write(tmp_path)
    guideline = load_guideline(tmp_path, "taste")
    assert publish_guideline(tmp_path, guideline)
    assert not publish_guideline(tmp_path, guideline)
    assert load_guideline(tmp_path, "taste") == guideline

    path.write_text(path.read_text(encoding="utf-8") + "One more rule.\n", encoding="utf-8")
    message = refusal(tmp_path)
    assert "taste@v1 is published and was edited since" in message
    assert "Copy it to v2.md, set version: 2" in message
    assert str(path) in message

    write(tmp_path, FRONT.replace("version: 1", "version: 2"), name="v2.md")
    publish_guideline(tmp_path, load_guideline(tmp_path, "taste"))
    assert list(published_versions(tmp_path)) == ["taste@v1", "taste@v2"]


def test_line_ends_do_not_count_as_an_edit(tmp_path: Path) -> None:
    path = write(tmp_path)
    publish_guideline(tmp_path, load_guideline(tmp_path, "taste"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_guideline(tmp_path, "taste").name == "taste@v1"


def test_a_damaged_lock_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "guidelines" / LOCK_FILE).write_text("taste/v1.md\n", encoding="utf-8")
    assert f"{LOCK_FILE}:1: not a line of the form" in refusal(tmp_path)


def test_the_place_must_fit_what_the_file_says(tmp_path: Path) -> None:
    write(tmp_path, FRONT.replace("version: 1", "version: 2"))
    assert "task and version say that this is taste/v2.md" in refusal(tmp_path)


def test_a_guideline_longer_than_argilla_takes(tmp_path: Path) -> None:
    write(tmp_path, body="x" * MAX_TEXT)
    assert "Argilla takes 10,000" in refusal(tmp_path)
    write(tmp_path, body="")
    assert "no text below the front matter" in refusal(tmp_path)


def test_two_questions_of_one_name(tmp_path: Path) -> None:
    flags = "  - {name: flags, type: flags, each: output, title: T, labels: {x: X, y: Y}}\n"
    write(tmp_path, FRONT + flags + "  - {name: flags_b, type: text, title: T}\n")
    assert "the name 'flags_b' is taken" in refusal(tmp_path)
    write(tmp_path, FRONT + "  - {name: response_a, type: text, title: T}\n")
    assert "the name 'response_a' is taken" in refusal(tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    write(tmp_path).write_bytes(b"---\n\xff\n---\n")
    assert "cannot be read" in refusal(tmp_path)
