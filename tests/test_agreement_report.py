"""The agreement report: its figures, its forms, and what bad input makes of it, end to end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loop_runs import new_project

from align.cli import main
from annotate.judge import judge
from annotate.records import table_from_rows
from annotate.runs import Project, RunPlan

HEADER = "item,annotator,label"
PAIR = ("ann", "bob")
# Three people compare four pairs; p-4 splits them three ways.
VOTES = """item,annotator,label
p-1,ann,a
p-1,bob,a
p-1,cat,a
p-2,ann,b
p-2,bob,b
p-2,cat,tie
p-3,ann,tie
p-3,bob,tie
p-3,cat,tie
p-4,ann,a
p-4,bob,tie
p-4,cat,b
"""


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def handloom(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["agreement", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str | Path) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(handloom(*arguments, "--json"))
    return measured


def question(path: Path, name: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = told("--table", path, *options)["questions"][name]
    return found


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["agreement", *map(str, arguments)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    return result.output


# Forms


def test_every_figure_says_what_it_rests_on(tmp_path: Path) -> None:
    report = question(table(tmp_path, VOTES), "vote", "--kind", "pairwise", "--seed", "3")
    for name, figure in (report["figures"] | report["baseline"]).items():
        assert {"value", "over_items", "over_annotators", "n_items", "n_pairable"} <= set(figure)
        assert figure["definition"], name
        assert (figure["value"] is None) == bool(figure["reason"]), name
    headline = report["figures"]["Krippendorff's alpha (nominal)"]
    assert headline["seed"] == 3
    assert (headline["n_items"], headline["n_pairable"], headline["n_annotators"]) == (4, 4, 3)
    # Four items have no interval, and readers who show one interval find its reason in one place.
    assert report["alpha"] == headline | {"reason": headline["over_items"]["reason"]}


def test_pairwise_figures_with_and_without_ties_by_hand(tmp_path: Path) -> None:
    figures = question(table(tmp_path, VOTES), "vote", "--kind", "pairwise")["figures"]
    # Of three pairs of answers an item agree 3, 1, 3 and 0.
    assert figures["raw agreement"]["value"] == pytest.approx(7 / 12)
    assert figures["tie rate"]["value"] == pytest.approx(5 / 12)
    # Without ties p-1 has aaa, p-2 bb and p-4 ab: 3 + 1 of 3 + 1 + 1 pairs agree.
    assert figures["raw agreement, no ties"]["value"] == pytest.approx(4 / 5)
    # Coincidences without ties: aa 3, bb 2, ab and ba 1 each; 4 a and 3 b of 7 answers.
    alpha = 1 - (2 / 7) / (2 * 4 * 3 / (7 * 6))
    assert figures["Krippendorff's alpha, no ties"]["value"] == pytest.approx(alpha)


def test_strengths_are_votes_with_a_degree(tmp_path: Path) -> None:
    rows = ["p-1,ann,3", "p-1,bob,1", "p-2,ann,-2", "p-2,bob,-2", "p-3,ann,0", "p-3,bob,1"]
    found = told("--table", table(tmp_path, "\n".join([HEADER, *rows])), "--kind", "pairwise")
    vote, strength = found["questions"]["vote"], found["questions"]["strength"]
    assert vote["classes"] == {"b": 2, "tie": 1, "a": 3}
    assert vote["figures"]["raw agreement"]["value"] == pytest.approx(2 / 3)
    assert strength["figures"]["raw agreement"]["value"] == pytest.approx(1 / 3)
    assert strength["level"] == "ordinal"
    words = table(tmp_path, f"{HEADER}\np-1,ann,a\np-1,bob,2\n")
    assert list(told("--table", words, "--kind", "pairwise")["questions"]) == ["vote"]


def test_sets_of_labels(tmp_path: Path) -> None:
    text = f"{HEADER}\nq,ann,spam|rude\nq,bob,rude | spam\nr,ann,|\nr,bob,spam\n"
    report = question(table(tmp_path, text), "labels", "--kind", "multi-label")
    assert report["classes"] == {"rude": 2, "spam": 3}
    # rude: both, neither. spam: both, one of two, so that 2 of 2 + 2 answers differ where 3 · 1
    # of 4 · 3 ordered pairs would each way: 1 - (2 / 4) / (2 · 3 / 12).
    assert report["per_label"]["rude"]["value"] == 1
    assert report["per_label"]["spam"]["value"] == pytest.approx(0)
    assert "spam" in handloom("--table", tmp_path / "labels.csv", "--kind", "multi-label")


def test_rankings(tmp_path: Path) -> None:
    text = f"{HEADER}\nq,ann,x>y=z\nq,bob,x > z > y\nr,ann,x>y\nr,bob,y>x\n"
    report = question(table(tmp_path, text), "ranking", "--kind", "ranking")
    assert (report["items"], report["answers"], report["annotators"]) == (2, 4, 2)
    assert report["figures"]["top-1 agreement"]["value"] == pytest.approx(1 / 2)


def test_texts(tmp_path: Path) -> None:
    text = f"{HEADER}\nq,ann,Paris\nq,bob, PARIS\nr,ann,2\nr,bob,2.5\n"
    report = question(table(tmp_path, text), "text", "--kind", "text")
    assert report["figures"]["normalised exact match"]["value"] == pytest.approx(1 / 2)
    assert report["classes"] == {}
    assert "alpha" not in report


def test_spans_of_a_table_by_hand(tmp_path: Path) -> None:
    # As in test_agreement_kinds: two answers to a text of ten characters, and one alone.
    rows = ["q,ann,0-4:x,10", "q,bob,2-4:x|6-8:x,10", "r,ann,|,10"]
    path = table(tmp_path, "\n".join([f"{HEADER},length", *rows]))
    figures = question(path, "span", "--kind", "span")["figures"]
    values = [figure["value"] for figure in figures.values()]
    assert values == pytest.approx([1 - (8 / 20) / (192 / 380), 0, 2 / 3])
    unknown = table(tmp_path, "\n".join([HEADER, *(row.rpartition(",")[0] for row in rows)]))
    figures = question(unknown, "span", "--kind", "span")["figures"]
    alpha, exact, overlap = figures.values()
    assert "give them a column length" in alpha["reason"]
    assert (exact["value"], overlap["value"]) == (0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("q,ann,0-14:x,10\nq,bob,|,10\n", "item q: a span ends at 14 in a text of 10 characters"),
        ("q,ann,0-4:x,ten\n", "labels.csv:2: no usable row: its length is no whole number"),
    ],
)
def test_lengths_that_cannot_be_are_one_line(tmp_path: Path, rows: str, said: str) -> None:
    path = table(tmp_path, f"{HEADER},length\n{rows}")
    assert said in refused("--table", path, "--kind", "span")


def test_each_persons_offset_and_scale(tmp_path: Path) -> None:
    # bob rates one higher than ann throughout, and as widely.
    ratings = {"ann": [2, 3, 4, 3], "bob": [3, 4, 5, 4]}
    rows = [f"q{at},{who},{r}" for who, given in ratings.items() for at, r in enumerate(given)]
    path = table(tmp_path, "\n".join([HEADER, *rows]))
    people = question(path, "rating", "--kind", "rating")["people"]
    found = {one["annotator"]: (one["offset"]["value"], one["scale"]["value"]) for one in people}
    assert found == {"ann": pytest.approx((-1, 1)), "bob": pytest.approx((1, 1))}
    assert "each annotator's scale" in handloom("--table", path, "--kind", "rating")


def test_the_confusion_counts_pairs_of_annotators(tmp_path: Path) -> None:
    report = question(table(tmp_path, VOTES), "label")
    assert list(report["classes"]) == ["a", "b", "tie"]
    # a a a: 6 ordered pairs; b b tie: bb 2, b-tie 2 each way; tie tie tie: 6; a tie b: 1 each way.
    assert report["confusion"] == [[6, 1, 1], [1, 2, 3], [1, 3, 6]]


# The terminal's table and Markdown


def test_the_terminal_shows_both_intervals_and_what_figures_mean(tmp_path: Path) -> None:
    text = handloom("--table", table(tmp_path, VOTES), "--kind", "pairwise")
    for words in (
        "vote (pairwise: 12 answers to 4 items by 3 annotators)",
        "95 %: these annotators",
        "95 %: annotators like these",
        "raw agreement, no ties",
        "the longer text wins: undefined: the texts are not known here",
        "every two annotators",
        "seed 0",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) < 200


def test_markdown_is_a_table_in_which_names_stay_text(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADER}\nq,a|nn,*yes*\nq,bob,no\nr,a|nn,no\nr,bob,no\n")
    text = handloom("--table", path, "--markdown")
    assert "| figure | value |" in text
    assert "a\\|nn" in text
    assert "\\*yes\\*" in text
    row = next(line for line in text.splitlines() if line.startswith("| Krippendorff"))
    assert row.replace("\\|", "").count("|") == 8


def test_no_control_character_of_a_name_reaches_the_terminal(tmp_path: Path) -> None:
    text = handloom("--table", table(tmp_path, f"{HEADER}\nq,\x1b[2Jann,1\nq,bob,2\n"))
    assert "\x1b" not in text
    assert "\\x1b[2Jann" in text


# Bad input


def test_one_annotator_only(tmp_path: Path) -> None:
    report = question(table(tmp_path, f"{HEADER}\nq,ann,1\nr,ann,2\n"), "label")
    for figure in report["figures"].values():
        assert (figure["value"], figure["reason"]) == (None, "only one annotator")
    assert "undefined: only one annotator" in handloom("--table", tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("kind", "cell"),
    [("label", "yes"), ("rating", "4"), ("pairwise", "a"), ("pairwise", "2")],
)
def test_all_the_same_answer(tmp_path: Path, kind: str, cell: str) -> None:
    rows = "\n".join(f"{item},{who},{cell}" for item in "qrs" for who in ("ann", "bob"))
    for report in told("--table", table(tmp_path, f"{HEADER}\n{rows}\n"), "--kind", kind)[
        "questions"
    ].values():
        assert report["alpha"]["value"] is None
        assert report["alpha"]["reason"] == "every answer is the same"
        assert report["raw"]["value"] == 1


def test_an_annotator_who_answered_everything_tie(tmp_path: Path) -> None:
    rows = [f"p-{n},ann,{'ab'[n % 2]}" for n in range(4)] + [f"p-{n},bob,tie" for n in range(4)]
    path = table(tmp_path, "\n".join([HEADER, *rows]))
    figures = question(path, "vote", "--kind", "pairwise")["figures"]
    assert figures["tie rate"]["value"] == pytest.approx(1 / 2)
    assert figures["raw agreement"]["value"] == 0
    without = figures["raw agreement, no ties"]
    assert (without["value"], without["reason"]) == (None, "only one annotator")


def test_everybody_answered_everything_tie(tmp_path: Path) -> None:
    rows = [f"p-{n},{who},tie" for n in range(4) for who in ("ann", "bob")]
    path = table(tmp_path, "\n".join([HEADER, *rows]))
    figures = question(path, "vote", "--kind", "pairwise")["figures"]
    assert figures["tie rate"]["value"] == 1
    assert figures["Krippendorff's alpha (nominal)"]["reason"] == "every answer is the same"
    assert figures["Krippendorff's alpha, no ties"]["reason"] == "every answer is a tie"


def test_ratings_that_are_no_finite_numbers_are_set_aside(tmp_path: Path) -> None:
    cells = ["4", "inf", "-Infinity", "nan", "good", "1e400", "5", "4.5"]
    rows = [f"q{at // 2},{'ab'[at % 2]},{cell}" for at, cell in enumerate(cells)]
    found = told("--table", table(tmp_path, "\n".join([HEADER, *rows])), "--kind", "rating")
    assert [(row["line"], row["reason"]) for row in found["quarantine"]] == [
        (3, '"inf" is no finite number'),
        (4, '"-Infinity" is no finite number'),
        (5, "no label"),
        (6, '"good" is no number'),
        (7, '"1e400" is no finite number'),
    ]
    assert found["questions"]["rating"]["answers"] == 3
    assert "line 3: " in handloom("--table", tmp_path / "labels.csv", "--kind", "rating")


@pytest.mark.parametrize(
    ("kind", "cell", "reason"),
    [
        ("pairwise", "better", "neither a, b nor tie, nor a whole number from -3 to 3"),
        ("pairwise", "4", "neither a, b nor tie"),
        ("pairwise", "0.5", "neither a, b nor tie"),
        ("multi-label", "spam||rude", "an empty label between its |"),
        ("multi-label", "spam|spam", "names a label twice"),
        ("span", "9-3:x", "a span that ends before it begins"),
        ("span", "word:x", "a span that is not like 3-9:error"),
        ("rating", "1e16", "is too large to be told from its neighbours"),
        ("ranking", "x", "ranks one option"),
        ("ranking", "x>>y", "an empty place"),
        ("ranking", "x>y>x", "ranks an option twice"),
    ],
)
def test_a_cell_of_another_form_is_set_aside_with_its_line(
    tmp_path: Path, kind: str, cell: str, reason: str
) -> None:
    good = {"pairwise": "a", "multi-label": "spam", "ranking": "x>y", "span": "1-2"}.get(kind, "4")
    path = table(tmp_path, f"{HEADER}\nq,ann,{good}\nq,bob,{good}\nr,ann,{cell}\n")
    (row,) = told("--table", path, "--kind", kind)["quarantine"]
    assert row["line"] == 4
    assert reason in row["reason"]


def test_a_file_without_a_usable_cell_is_one_line(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADER}\nq,ann,x\n")
    assert 'labels.csv:2: no usable row: "x" is no number' in refused(
        "--table", path, "--kind", "rating"
    )


def test_two_guideline_versions_are_two_reports_unless_asked(tmp_path: Path) -> None:
    rows = [
        "q,ann,yes,v1", "q,bob,no,v1", "r,ann,yes,v1", "r,bob,yes,v1",
        "q,ann,no,v2", "q,bob,no,v2", "r,ann,yes,v2", "r,bob,yes,v2",
    ]  # fmt: skip
    path = table(tmp_path, "\n".join([f"{HEADER},guideline", *rows]))
    found = told("--table", path)["questions"]
    assert {name: report["guideline"] for name, report in found.items()} == {
        "label (v1)": "v1", "label (v2)": "v2",
    }  # fmt: skip
    assert [report["raw"]["value"] for report in found.values()] == [pytest.approx(1 / 2), 1]
    assert [report["answers"] for report in found.values()] == [4, 4]
    mixed = told("--table", path, "--mix-guidelines")["questions"]
    assert mixed["label"]["guideline"] == "v1, v2"
    # Each person's answer under v2 is the later one.
    assert (mixed["label"]["answers"], mixed["label"]["raw"]["value"]) == (4, 1)


def test_so_few_items_have_no_interval_but_a_reason(tmp_path: Path) -> None:
    """Five items that two people answered, then six; alike in their shares of agreement."""
    rows = [f"q-{n},{who},{n % 3 + (n == 4 and who == 'ann')}" for n in range(5) for who in PAIR]
    few = told("--table", table(tmp_path, "\n".join([HEADER, *rows])))["questions"]["label"]
    assert few["alpha"]["value"] is not None
    assert few["alpha"]["low"] is None
    assert few["alpha"]["over_items"]["reason"] == "5 items or prompts, fewer than 6"
    assert few["kappas"][0]["kappa"]["low"] is None
    more = "\n".join([HEADER, *rows, "q-5,ann,2", "q-5,bob,2"])
    enough = told("--table", table(tmp_path, more))["questions"]["label"]
    assert enough["alpha"]["low"] is not None
    assert enough["kappas"][0]["kappa"]["low"] is not None


def test_a_tie_rate_of_one_has_an_interval(tmp_path: Path) -> None:
    """Three items, all answers ties. Wilson's lower end for 3 of 3: 3/(3 + 1.96²) = .438."""
    rows = [f"q-{n},{who},tie" for n in range(3) for who in PAIR]
    report = question(table(tmp_path, "\n".join([HEADER, *rows])), "vote", "--kind", "pairwise")
    rate = report["figures"]["tie rate"]
    assert (rate["value"], rate["high"], rate["method"]) == (1, 1, "Wilson")
    assert rate["low"] == pytest.approx(3 / (3 + 1.959964**2))


@pytest.mark.parametrize(("kind", "figure"), [("rating", "AC2 (quadratic)"), ("label", "AC1")])
def test_a_figure_of_a_version_knows_no_other_versions_classes(
    tmp_path: Path, kind: str, figure: str
) -> None:
    ratings = [
        (f"q{at}", who, 1 + (at * 7 + n * at) % 4)
        for at in range(12)
        for n, who in enumerate("abc")
    ]
    alone = [f"{item},{who},{r},v1" for item, who, r in ratings]
    others = [f"q{at},{who},{9 + at % 2},v2" for at in range(3) for who in "abc"]
    stranger = ["q0,troll,1000,v1"]
    heads = f"{HEADER},guideline"
    path = table(tmp_path, "\n".join([heads, *alone]))
    expected = question(path, kind, "--kind", kind)["figures"][figure]["value"]
    path = table(tmp_path, "\n".join([heads, *alone, *others, *stranger]))
    found = question(path, f"{kind} (v1)", "--kind", kind, "--without", "troll")
    assert found["figures"][figure]["value"] == pytest.approx(expected, abs=1e-12)


def test_an_annotator_can_be_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, VOTES)
    report = question(path, "vote", "--kind", "pairwise", "--without", "cat")
    assert (report["annotators"], report["answers"]) == (2, 8)
    assert report["raw"]["value"] == pytest.approx(3 / 4)
    assert "nobody of this name answered" in refused("--table", path, "--without", "dan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "rating"], "--kind goes with --table"),
        (["--mix-guidelines", "--json", "--markdown"], "exclude each other"),
        (["--table", "labels.csv", "--kind", "rating", "--level", "nominal"], "has levels of its"),
        (["--table", "none.csv"], "none.csv"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    table(tmp_path, VOTES)
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)


# Runs


def pulled(folder: Path, responses: list[dict[str, Any]], texts: dict[str, str]) -> Project:
    """A project in which p-1 to p-4 each have an output "o-<n>a" and one "o-<n>b"."""
    project = new_project(folder)
    outputs = [
        {"output_id": f"o-{n}{side}", "prompt_id": f"p-{n}", "model": f"m-{side}",
         "completion": texts.get(f"o-{n}{side}", "same")}
        for n in range(1, 5) for side in "ab"
    ]  # fmt: skip
    items = [
        {"item_id": f"i-{n}", "prompt_id": f"p-{n}", "output_ids": [f"o-{n}a", f"o-{n}b"],
         "kind": "compare", "guideline": "preference@v1", "batch": "b"}
        for n in range(1, 5)
    ]  # fmt: skip
    with project.draft(RunPlan("generate", 1)) as made:
        made.write("outputs", table_from_rows("outputs", outputs))
    with project.draft(RunPlan("push", 1, (made.run,))) as push:
        push.write("items", table_from_rows("items", items))
    with project.draft(RunPlan("pull", 1, (push.run,))) as pull:
        pull.write("items", table_from_rows("items", items))
        pull.write("responses", table_from_rows("responses", responses))
    return project


def said(
    n: int, who: str, strength: int, *, version: int = 1, minute: int = 0, **more: Any
) -> list[dict[str, Any]]:
    """A response to item n: a preference, positive for a, and answers to other questions."""
    answers = {"preference": {"a": f"o-{n}a", "b": f"o-{n}b", "strength": strength}} | more
    return [
        {"item_id": f"i-{n}", "annotator": who, "question": name, "value": json.dumps(value),
         "status": "submitted", "time": datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
         "seconds": 9.0, "guideline": f"preference@v{version}"}
        for name, value in answers.items()
    ]  # fmt: skip


def test_the_longer_text_wins_by_hand(tmp_path: Path) -> None:
    # a is longer of pairs 1 and 2, b of pair 3; the texts of pair 4 are equally long.
    texts = {"o-1a": "longer than", "o-2a": "longer than", "o-3b": "longer than"}
    votes = {1: (2, 1, -1), 2: (1, 0, 3), 3: (-1, 2, 0), 4: (0, 1, 0)}
    responses = [
        row
        for n, strengths in votes.items()
        for who, strength in zip(("ann", "bob", "cat"), strengths, strict=True)
        for row in said(n, who, strength)
    ]
    project = pulled(tmp_path / "p", responses, texts)
    report = told_of(project)["vote"]
    # With ties: 2 of 3, 2 of 3, 1 of 3 and, predicted tied, 2 of 3.
    with_ties, without = report["baseline"].values()
    assert with_ties["value"] == pytest.approx(7 / 12)
    # Without: 2 of 3, 2 of 2, 1 of 2.
    assert without["value"] == pytest.approx(5 / 7)
    assert (without["n_pairable"], without["n_annotators"]) == (3, 3)
    assert without["over_items"]["reason"] == "3 items or prompts, fewer than 6"
    assert without["guideline"] == "preference@v1"
    assert without["over_items"]["over"] == "prompts, this panel of annotators"
    text = CliRunner().invoke(main, ["-C", str(project.root), "agreement"]).output
    assert "beside it, the longer text wins" in text


def told_of(project: Project, *options: str) -> dict[str, Any]:
    arguments = ["-C", str(project.root), "agreement", "--json", *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    questions: dict[str, Any] = json.loads(result.stdout)["questions"]
    return questions


def test_versions_of_a_run_are_apart_and_the_earlier_answer_is_not_lost(tmp_path: Path) -> None:
    responses = [
        *said(1, "ann", 2), *said(1, "bob", -2), *said(2, "ann", 1), *said(2, "bob", 1),
        # Under v2 bob answers the first pair again, and there is a new question.
        *said(1, "bob", 2, version=2, minute=5, urgency={"label": "now"}),
        *said(1, "ann", 2, version=2, minute=6, urgency={"label": "later"}),
    ]  # fmt: skip
    project = pulled(tmp_path / "p", responses, {})
    found = told_of(project)
    assert [found[f"vote (preference@v{n})"]["raw"]["value"] for n in (1, 2)] == [0.5, 1]
    # Asked under v2 only, so its name is plain.
    assert (found["urgency"]["guideline"], found["urgency"]["answers"]) == ("preference@v2", 2)
    assert found["urgency"]["raw"]["value"] == 0
    mixed = told_of(project, "--mix-guidelines")
    assert mixed["vote"]["guideline"] == "preference@v1, preference@v2"
    assert mixed["vote"]["raw"]["value"] == 1
    alone = told_of(project, "--without", "bob")
    assert alone["vote (preference@v1)"]["alpha"]["reason"] == "only one annotator"


def test_versions_of_one_task_are_mixed_and_tasks_never(tmp_path: Path) -> None:
    """The question `score` of two tasks, one of which has two versions."""
    of_task = {"first@v1": "4", "first@v2": "5", "second@v1": "1"}
    responses = [
        row | {"guideline": version, "question": "score", "value": f'{{"label": "{value}"}}'}
        for version, value in of_task.items()
        for n, who in [(1, "ann"), (1, "bob"), (2, "ann"), (2, "bob")]
        for row in said(n, who, 1, minute=int(version[-1]))
    ]
    project = pulled(tmp_path / "p", responses, {})
    mixed = told_of(project, "--mix-guidelines")
    assert {name: found["guideline"] for name, found in mixed.items()} == {
        "score (first@v1, first@v2)": "first@v1, first@v2", "score (second@v1)": "second@v1",
    }  # fmt: skip
    # Of two answers under the first task the later counts, and none is the second task's.
    assert [found["answers"] for found in mixed.values()] == [4, 4]
    assert mixed["score (second@v1)"]["classes"]["1"] == 4


def test_one_question_of_a_run_can_be_asked_for(tmp_path: Path) -> None:
    responses = [row for who in ("ann", "bob") for row in said(1, who, 1, urgency={"label": "now"})]
    project = pulled(tmp_path / "p", responses, {})
    assert list(told_of(project, "--question", "urgency")) == ["urgency"]
    arguments = ["-C", str(project.root), "agreement", "--question", "urgent"]
    message = CliRunner().invoke(main, arguments).output
    assert "urgent: nobody answered a question of this name" in message
    assert "Answered: strength, urgency, vote" in message


def test_labels_that_nobody_used_are_named_and_fill_no_table(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADER}\np,ann,a\np,bob,b\nq,ann,a\n")
    text = handloom("--table", path, "--kind", "pairwise")
    assert "given by nobody: tie" in text
    grid = text.split("another the column's\n")[1].splitlines()[:3]
    assert [line.split() for line in grid] == [["b", "a"], ["b", "0", "1"], ["a", "1", "0"]]
    alone = table(tmp_path, f"{HEADER}\np,ann,a\nq,bob,b\n")
    assert "another the column's" not in handloom("--table", alone, "--kind", "pairwise")


def test_a_judge_run_records_what_the_command_says(tmp_path: Path) -> None:
    responses = [row for n in (1, 2, 3) for who in ("ann", "bob") for row in said(n, who, n - 2)]
    project = pulled(tmp_path / "p", responses, {})
    run = judge(project, project.latest("pull"))
    assert json.loads((run.path / "agreement.json").read_text()) == told_of(project)
    assert run.metrics["agreement"]["vote"]["alpha"]["value"] == pytest.approx(1)


def test_marks_in_a_text_have_a_report_of_their_own_kind(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "untrue"}]
    marked = {"output": "o-1a", "length": 10, "spans": spans}
    responses = [
        *said(1, "ann", 1, errors=marked),
        *said(1, "bob", 1, errors=marked | {"spans": [*spans, spans[0] | {"start": 6, "end": 8}]}),
    ]
    report = told_of(pulled(tmp_path / "p", responses, {}))["errors"]
    assert (report["kind"], report["answers"], report["items"]) == ("span", 2, 1)
    # One of ann's one and bob's two marks is the same: F1 = 2 · 1 / (1 + 2).
    assert report["figures"]["exact span F1"]["value"] == pytest.approx(2 / 3)
    assert "alpha" in report
