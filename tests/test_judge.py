"""The step `judge`, and the commands `judge` and `agreement`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_votes import item, preference, ranking, response

from align.cli import main
from annotate.errors import InputError, ProjectError
from annotate.judge import agreement_of_run, judge, judge_votes
from annotate.judge_table import judge_table
from annotate.records import SCHEMAS, content_id, table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.votes import votes_of_responses

ITEMS = [item("i-1", "o-1", "o-2"), item("i-2", "o-3", "o-4", "o-5", prompt="p-2")]
RESPONSES = [
    preference("i-1", "ann", 2),
    preference("i-1", "bob", 3),
    preference("i-1", "cat", -1, guideline="preference@v2"),
    response("i-1", "cat", "both_bad", True),
    response("i-1", "cat", "flags", {"output": "o-2", "flags": ["untrue"]}),
    response("i-1", "bob", "flags", {"output": "o-2", "flags": ["untrue", "unsafe"]}),
    ranking("i-2", "ann", {"o-3": 1, "o-4": 1, "o-5": 2}),
    ranking("i-2", "bob", {"o-3": 1, "o-4": 2, "o-5": 3}),
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "runs").mkdir()
    (tmp_path / "guidelines").mkdir()
    return Project(tmp_path)


def pulled(project: Project, responses: list[dict[str, Any]] = RESPONSES) -> Run:
    with project.draft(RunPlan("push", 1)) as push:
        push.write("items", table_from_rows("items", ITEMS))
    with project.draft(RunPlan("pull", 1, (push.run,), {"rows": len(responses)})) as pull:
        pull.write("responses", table_from_rows("responses", responses))
    return pull.run


def test_every_pair_is_judged_with_its_votes(project: Project) -> None:
    run = judge(project, pulled(project))
    table = run.read("judgements")
    assert table.schema == SCHEMAS["judgements"]
    rows = {row["pair_id"]: row for row in table.to_pylist()}
    assert len(rows) == 4
    pair = rows[content_id("j", "o-1", "o-2")]
    assert (pair["votes_a"], pair["votes_b"], pair["ties"], pair["votes"]) == (2, 1, 0, 3)
    assert pair["vote_share"] == pytest.approx(2 / 3)
    assert 0.5 < pair["posterior"] < 1
    assert pair["strength_mean"] == pytest.approx((2 + 3 - 1) / 3)
    assert pair["margin"] == pytest.approx((2 + 3 - 1) / 9)
    assert (pair["both_bad"], pair["flags"]) == (1, ["o-2:unsafe", "o-2:untrue"])
    assert pair["annotators"] == ["ann", "bob", "cat"]
    assert pair["guideline"] == "preference@v1, preference@v2"
    assert 0 < pair["weighted_b"] < pair["weighted_a"] < 2
    ranked = rows[content_id("j", "o-3", "o-4")]
    assert (ranked["votes_a"], ranked["ties"], ranked["vote_share"]) == (1, 1, 0.75)
    assert (ranked["strength_mean"], ranked["margin"], ranked["flags"]) == (None, None, [])
    assert ranked["annotators"] == ["ann", "bob"]


def test_the_manifest_says_how_far_they_agreed_and_who_is_reliable(project: Project) -> None:
    run = judge(project, pulled(project), seed=7)
    told = run.metrics
    assert (told["pairs"], told["votes"], told["items_without_vote"]) == (4, 9, 0)
    assert told["annotators"]["bob"]["votes"] == 4
    assert 0 <= told["annotators"]["bob"]["reliability"] <= 1
    # Two versions of the guideline are two figures.
    assert told["agreement"]["vote (preference@v1)"]["alpha"]["seed"] == 7
    assert told["agreement"]["strength (preference@v2)"]["level"] == "ordinal"
    full = json.loads((run.path / "agreement.json").read_text())
    assert len(full["vote (preference@v1)"]["kappas"]) == 1
    assert run.read("votes").num_rows == 9


def test_the_same_command_finds_the_finished_run(project: Project) -> None:
    pull = pulled(project)
    run = judge(project, pull)
    assert judge(project, pull).id == run.id
    other = judge(project, pull, again=True)
    assert other.id != run.id
    assert other.read("judgements") == run.read("judgements")
    assert judge(project, pull, method="majority").id not in (run.id, other.id)


def test_two_pulls_of_one_push_count_once(project: Project) -> None:
    first = pulled(project)
    with project.draft(RunPlan("pull", 1, tuple(first.parents), {"later": True})) as draft:
        for table in ("responses", "items"):
            if first.has(table):
                draft.write(table, first.read(table))
    once, twice = judge(project, first), judge(project, first, draft.run)
    assert twice.read("judgements") == once.read("judgements")
    assert twice.metrics["items_without_vote"] == once.metrics["items_without_vote"]
    assert agreement_of_run(first, draft.run).questions == agreement_of_run(first).questions


def test_majority_weighs_everyone_alike(project: Project) -> None:
    table = judge(project, pulled(project), method="majority").read("judgements")
    row = next(r for r in table.to_pylist() if r["output_a"] == "o-1")
    assert row["posterior"] == pytest.approx(11 / 16)  # two to one: P(binomial(4, 1/2) <= 2)
    assert (row["weighted_a"], row["method"]) == (None, "majority")


def test_nothing_submitted_is_said_and_leaves_nothing(project: Project) -> None:
    pull = pulled(project, [preference("i-1", "ann", 1, status="draft")])
    with pytest.raises(ProjectError, match="no submitted response"):
        judge(project, pull)
    with pytest.raises(ProjectError, match="no response was submitted yet"):
        agreement_of_run(pull)
    with pytest.raises(ProjectError, match="a run of push, not of pull"):
        judge(project, pull.parents[0])
    assert {run.step for run in project.all_runs()} == {"push", "pull"}
    assert project.unfinished() == []


strengths = st.dictionaries(
    st.tuples(st.integers(0, 4), st.sampled_from(["ann", "bob", "cat"])),
    st.integers(-3, 3),
    min_size=1,
)


@settings(deadline=None, max_examples=30)
@given(strengths, st.sampled_from(["dawid-skene", "majority"]))
def test_judging_the_swapped_pair_mirrors_everything(
    given_strengths: dict[tuple[int, str], int], method: Any
) -> None:
    def judged(sign: int) -> list[dict[str, Any]]:
        rows = [
            response(
                f"i-{n}", who, "preference", {"a": f"o-{n}a", "b": f"o-{n}b", "strength": sign * s}
            )
            for (n, who), s in given_strengths.items()
        ]
        items = [item(f"i-{n}", f"o-{n}a", f"o-{n}b") for n in range(5)]
        votes = votes_of_responses(
            table_from_rows("responses", rows), table_from_rows("items", items)
        )
        found: list[dict[str, Any]] = judge_votes(votes, method).judgements.to_pylist()
        return found

    for one, two in zip(judged(1), judged(-1), strict=True):
        assert (one["votes_a"], one["ties"], one["votes"]) == (
            two["votes_b"],
            two["ties"],
            two["votes"],
        )
        assert one["vote_share"] == pytest.approx(1 - two["vote_share"])
        assert one["posterior"] == pytest.approx(1 - two["posterior"])
        assert one["strength_mean"] == pytest.approx(-two["strength_mean"])
        assert one["margin"] == pytest.approx(two["margin"])
        if method == "dawid-skene":
            assert one["weighted_a"] == pytest.approx(two["weighted_b"])


def test_agreement_of_a_run_and_of_what_was_made_from_it(project: Project) -> None:
    pull = pulled(project)
    measured = agreement_of_run(pull)
    compared = {f"{name} (preference@v{n})" for n in (1, 2) for name in ("vote", "strength")}
    assert set(measured.questions) == compared | {"ranking", "flags"}
    assert measured.questions["vote (preference@v1)"].answers == 8
    assert agreement_of_run(judge(project, pull)) == measured


LABELS = "item,annotator,label\nq,ann,good\nq,bob,good\nq,cat,bad\nr,ann,bad\nr,bob,\ns,ann,good\n"


def test_a_table_of_labels_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    found = judge_table(path, "majority").items.to_pylist()
    assert found[0] == {
        "item": "q", "label": "good", "probability": pytest.approx(2 / 3),
        "margin": pytest.approx(1 / 3), "votes": 3, "p(bad)": pytest.approx(1 / 3),
        "p(good)": pytest.approx(2 / 3),
    }  # fmt: skip
    modelled = judge_table(path)
    for row in modelled.items.to_pylist():
        assert row["p(bad)"] + row["p(good)"] == pytest.approx(1)
        assert row["probability"] == row[f"p({row['label']})"]
    assert set(modelled.annotators) == {"ann", "bob", "cat"}


def test_only_labels_that_are_right_or_wrong_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("item,annotator,label\nq,ann,4\nq,bob,5\nr,ann,2\nr,bob,3\n")
    for command in ("judge", "annotators"):
        asked = [command, "--table", str(path), "--kind"]
        refused = CliRunner().invoke(main, [*asked, "rating"])
        assert refused.exit_code == 1
        assert "nobody's labels are right or wrong" in refused.output
        assert f"handloom agreement --table {path} --kind rating" in refused.output
        plain = CliRunner().invoke(main, asked[:-1])
        assert "labels are taken as names" in plain.output
        assert "look like --kind rating" in plain.output
        assert "taken as names" not in CliRunner().invoke(main, [*asked, "label"]).output


def test_comparisons_of_a_table_are_judged_by_their_side(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("item,annotator,label\nq,ann,3\nq,bob,1\nq,cat,-1\n")
    (row,) = judge_table(path, "majority", kind="pairwise").items.to_pylist()
    assert (row["label"], row["p(a)"], row["p(tie)"]) == ("a", pytest.approx(2 / 3), 0)


def test_versions_of_a_task_are_judged_together_and_tasks_are_not(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = "q,ann,yes,urgent@v1\nq,ann,no,urgent@v2\nq,bob,no,urgent@v1\n"
    path.write_text(f"item,annotator,label,guideline\n{rows}")
    found = judge_table(path, "majority")
    assert [row["label"] for row in found.items.to_pylist()] == ["no"]
    assert "answers under urgent@v1, urgent@v2 are judged together" in found.note
    path.write_text(f"item,annotator,label,guideline\n{rows}q,ann,angry,tone@v1\n")
    with pytest.raises(InputError, match="answers to several tasks: tone, urgent"):
        judge_table(path)


def test_an_even_split_has_no_label(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("item,annotator,label\nq,ann,good\nq,bob,bad\n")
    (row,) = judge_table(path, "majority").items.to_pylist()
    assert (row["label"], row["margin"]) == (None, 0)


def run_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(main, [*arguments])


def test_judge_table_prints_csv_writes_files_and_speaks_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.csv").write_text(LABELS)
    arguments = ("judge", "--table", "labels.csv", "--method", "majority")
    printed = run_in(tmp_path, monkeypatch, *arguments)
    assert (
        printed.stdout.splitlines()[0]
        == '"item","label","probability","margin","votes","p(bad)","p(good)"'
    )
    assert "line 6: no label" in printed.stderr
    for name in ("out.csv", "out.parquet"):
        assert run_in(tmp_path, monkeypatch, *arguments, "--out", name).exit_code == 0
    assert (tmp_path / "out.csv").read_text() == printed.stdout
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 3
    told = json.loads(run_in(tmp_path, monkeypatch, *arguments, "--json").stdout)
    assert told["quarantine"][0]["line"] == 6
    assert len(told["items"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "--table", "labels.csv", "--out", "x.txt"], "neither .csv nor .parquet"),
        (["judge", "--table", "labels.csv", "--out", "no/x.csv"], "No such file"),
        (["judge", "--table", "labels.csv", "--out", "./labels.csv"], "the file of the labels"),
        (["judge", "--out", "x.csv"], "--out goes with --table"),
        (["judge", "r1", "--table", "labels.csv"], "exclude each other"),
        (["agreement", "--table", "labels.csv", "--level", "ordinal"], '"bad" is none'),
        (["agreement", "--level", "ordinal"], "--level goes with --table"),
        (["agreement"], "no project here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.csv").write_text(LABELS)
    result = run_in(tmp_path, monkeypatch, *arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert message in result.output
    assert result.output.count("\n") == 1
    assert (tmp_path / "labels.csv").read_text() == LABELS


def test_the_commands_on_a_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pull = pulled(project)
    text = run_in(project.root, monkeypatch, "agreement")
    assert "Krippendorff's alpha (nominal)" in text.output
    told = json.loads(run_in(project.root, monkeypatch, "agreement", pull.id, "--json").stdout)
    assert told["source"] == pull.id
    answers = {name: report["answers"] for name, report in told["questions"].items()}
    assert (answers["vote (preference@v1)"], answers["vote (preference@v2)"]) == (8, 1)
    made = run_in(project.root, monkeypatch, "judge")
    assert made.exit_code == 0, made.output
    run = project.latest("judge")
    assert made.output.startswith(f"{run.id}: 4 pairs judged from 9 votes by 3 annotators")
    assert f"handloom build {run.id}" in made.output
    again = json.loads(run_in(project.root, monkeypatch, "judge", pull.id, "--json").stdout)
    assert again["run"] == run.id


def test_a_hundred_thousand_pairs_are_judged_in_seconds() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    strength = np.clip(np.rint(rng.normal(1, 1.5, (3, n))), -3, 3).astype(int)
    rows = {
        "pair_id": np.tile([f"j-{at:06}" for at in range(n)], 3),
        "annotator": np.repeat(["ann", "bob", "cat"], n),
        "vote": np.select([strength > 0, strength < 0], ["a", "b"], "tie").ravel(),
    }
    columns = {
        **rows,
        "prompt_id": rows["pair_id"], "output_a": np.tile(["o-1"], 3 * n),
        "output_b": np.tile(["o-2"], 3 * n),
        "strength": pa.array(strength.ravel(), pa.int32()),
        "both_bad": np.zeros(3 * n, dtype=bool),
        "flags": pa.array([[]] * (3 * n), pa.list_(pa.string())),
        "guideline": pa.repeat("preference@v1", 3 * n),
    }  # fmt: skip
    judged = judge_votes(pa.table(columns)).judgements
    assert judged.num_rows == n
    means = judged["strength_mean"].to_numpy()
    assert np.allclose(means, strength.mean(axis=0))


def test_another_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    with pytest.raises(InputError, match="neither"):
        judge_table(path).write(tmp_path / "x.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.csv"]
