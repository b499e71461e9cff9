"""What stays split: shown to reviewers with the earlier votes, pulled, and deciding in judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from factories import Argilla, connected_project, make_generated, make_project, submit

from align.cli import main
from annotate.accounts import add_users
from annotate.adjudication import EarlierVotes, adjudicate, decide
from annotate.agreement_report import Measured
from annotate.display import answer
from annotate.errors import InputError
from annotate.guidelines import load_guideline
from annotate.judge import agreement_of_run, judge, newest_pulls
from annotate.judgements import judge_votes
from annotate.next_items import next_items
from annotate.pull import pull
from annotate.push import push
from annotate.records import content_id, table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.server import connect
from annotate.server_types import Record, Suggestion


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def vote(project: Project, push_run: Run, name: str, strengths: list[int]) -> None:
    """Answer a push in the order of its prompts; positive: the first id is better."""
    rules = load_guideline(project.root, "preference@v1")
    items = push_run.read("items").sort_by("prompt_id").to_pylist()
    answers = {}
    for item, strength in zip(items, strengths, strict=True):
        a, b = sorted(item["output_ids"])
        said = [("preference", {"a": a, "b": b, "strength": strength})]
        answers[item["item_id"]] = answer(said, item, rules)
    submit(project, push_run, name, answers)


VOTES = {"adj-1": [3, -2, 2, 1], "adj-2": [1, 2, 1, -2], "adj-3": [-1, 0, 1, 0]}
"""By prompt: 2-1 for a; one for each and a tie; 3-0; one for each and a tie."""


@pytest.fixture
def judged(project: Project) -> Run:
    push_run = push(project, make_generated(project, 4), guideline="preference@v1", overlap=3)
    for name, strengths in VOTES.items():
        vote(project, push_run, name, strengths)
    return judge(project, pull(project, push_run))


def by_prompt(judge_run: Run) -> dict[str, dict[str, object]]:
    return {row["prompt_id"]: row for row in judge_run.read("judgements").to_pylist()}


@pytest.fixture
def by_hand(tmp_path: Path) -> Run:
    """A judge run of VOTES that no server has seen."""
    project = make_project(tmp_path / "by-hand")
    source = make_generated(project, 4)
    pairs: dict[str, list[str]] = {}
    for row in source.read("outputs").to_pylist():
        pairs.setdefault(row["prompt_id"], []).append(row["output_id"])
    items = [
        {"item_id": f"i-{prompt}", "prompt_id": prompt, "output_ids": pair, "kind": "compare"}
        for prompt, pair in sorted(pairs.items())
    ]
    votes = [
        vote_row(item["prompt_id"], sorted(item["output_ids"]), name, strength)
        for name, strengths in VOTES.items()
        for item, strength in zip(items, strengths, strict=True)
    ]
    tables = {"items": table_from_rows("items", items)}
    parent = source
    for step in ("push", "pull", "judge"):
        with project.draft(RunPlan(step, 1, (parent,))) as draft:
            if step == "pull":
                tables["responses"] = table_from_rows("responses", [])
            if step == "judge":
                table = table_from_rows("votes", votes)
                tables = {"votes": table, "judgements": judge_votes(table).judgements}
            for name, table in tables.items():
                draft.write(name, table)
        parent = draft.run
    return parent


def vote_row(prompt: str, pair: list[str], name: str, strength: int) -> dict[str, Any]:
    return {
        "pair_id": content_id("j", *pair),
        "item_id": f"i-{prompt}",
        "prompt_id": prompt,
        "output_a": pair[0],
        "output_b": pair[1],
        "annotator": name,
        "vote": "a" if strength > 0 else "b" if strength < 0 else "tie",
        "strength": strength,
        "both_bad": False,
        "flags": [],
        "guideline": "preference@v1",
    }


def test_what_no_answer_has_most_of_is_split(by_hand: Run) -> None:
    run = adjudicate(by_hand.project, by_hand)
    assert set(run.read("chosen")["prompt_id"].to_pylist()) == {"p-001", "p-003"}
    assert set(run.read("prompts")["prompt_id"].to_pylist()) == {"p-001", "p-003"}
    assert run.read("outputs").num_rows == 4
    assert run.metrics["why"] == {"split votes": 2}
    doubtful = adjudicate(by_hand.project, by_hand, below=1.0)
    medians = doubtful.read("chosen").select(["prompt_id", "strength_median"]).to_pylist()
    # Of the leading answer's votes: of 3 and 1 it is 2, of 2, 1 and 1 it is 1; else none leads.
    assert {row["prompt_id"]: row["strength_median"] for row in medians} == {
        "p-000": 2, "p-001": None, "p-002": 1, "p-003": None,
    }  # fmt: skip
    assert adjudicate(by_hand.project, by_hand) == run
    with pytest.raises(InputError, match="--below is a posterior"):
        adjudicate(by_hand.project, by_hand, below=0.2)


def test_the_earlier_votes_are_told_in_the_order_shown(by_hand: Run) -> None:
    run = adjudicate(by_hand.project, by_hand, below=1.0)
    told = EarlierVotes.of(run, load_guideline(by_hand.project.root, "preference@v1"))
    row = next(r for r in run.read("chosen").to_pylist() if r["prompt_id"] == "p-000")
    ends = [row["output_a"], row["output_b"]]
    for outputs, counts, label in (
        (ends, "A 2, B 1, equal 0", "a_better"),
        (ends[::-1], "A 1, B 2, equal 0", "b_better"),
    ):
        item: Any = {"output_ids": outputs}
        shown = told.shown(Record("i", {}, {"batch": "b"}), item)
        assert shown.metadata == {"batch": "b", "votes": counts}
        assert shown.suggestions["preference"] == Suggestion(label, 2 / 3, "votes")
    with pytest.raises(InputError, match="compares no two responses"):
        EarlierVotes.of(run, load_guideline(by_hand.project.root, "ranking@v1"))


def test_reviewers_decide_by_most_of_them_and_the_counts_stay(by_hand: Run) -> None:
    judgements = by_hand.read("judgements")
    pairs = {row["prompt_id"]: [row["output_a"], row["output_b"]] for row in judgements.to_pylist()}
    given = [("r1", "p-001", 2), ("r2", "p-001", 1), ("r1", "p-003", 2), ("r2", "p-003", -2)]
    rows = [vote_row(prompt, pairs[prompt], who, strength) for who, prompt, strength in given]
    decided = decide(judgements, table_from_rows("votes", rows))
    assert decided.schema == judgements.schema
    after = {row["prompt_id"]: row for row in decided.to_pylist()}
    before = {row["prompt_id"]: row for row in judgements.to_pylist()}
    assert [after[p]["posterior"] for p in ("p-001", "p-003")] == [1.0, 0.5]
    assert (after["p-001"]["strength_mean"], after["p-001"]["margin"]) == (1.5, 0.5)
    assert after["p-001"]["annotators"] == ["r1", "r2"]
    assert [after[p]["method"] for p in ("p-001", "p-003")] == ["adjudicated"] * 2
    counts = ("votes_a", "votes_b", "ties", "votes")
    assert all(after[p][name] == before[p][name] for p in after for name in counts)
    assert [after[p] for p in ("p-000", "p-002")] == [before[p] for p in ("p-000", "p-002")]
    assert decide(judgements, table_from_rows("votes", [])) is judgements


def test_the_next_labels_go_where_they_lack_and_then_where_they_tell(by_hand: Run) -> None:
    project = by_hand.project
    run = next_items(project, [by_hand], 2, "entropy")
    assert set(run.read("chosen")["prompt_id"].to_pylist()) == {"p-001", "p-003"}
    assert run.metrics["why"] == {"entropy": 2}
    assert all(len(names) == 3 for names in run.read("chosen")["annotators"].to_pylist())
    assert next_items(project, [by_hand], 4, "entropy", first=4).metrics["why"] == {"few labels": 4}
    with pytest.raises(InputError, match="none of 4 pairs is left"):
        next_items(project, [by_hand], 1, "uniform", most=3)
    with pytest.raises(InputError, match="this takes 2 evaluate runs or more"):
        next_items(project, [evaluation(project, 0, [(1, 0)] * 4)], 1, "disagreement")


def evaluation(project: Project, number: int, scores: list[tuple[float, float]]) -> Run:
    """An evaluate run in which a scorer judged the outputs of each prompt so."""
    (source,) = [run for run in project.all_runs() if run.step == "generate"]
    outputs = source.read("outputs").to_pylist()
    rows = [
        {
            "prompt_id": first["prompt_id"],
            "output_id": first["output_id"],
            "versus_output": second["output_id"],
            "score": float(score),
            "versus_score": float(versus),
        }
        for first, second, (score, versus) in zip(outputs[::2], outputs[1::2], scores, strict=True)
    ]
    with project.draft(RunPlan("evaluate", 1, (source,), {"number": number})) as draft:
        draft.write("scores", table_from_rows("scores", rows))
    return draft.run


def test_where_reward_models_differ_people_are_asked(by_hand: Run) -> None:
    project = by_hand.project
    # The second scorer's scale is ten times the first's, and it disagrees about p-001 alone.
    runs = [
        evaluation(project, 1, [(1, 0), (0, 1), (2, 0), (0, 0)]),
        evaluation(project, 2, [(10, 0), (10, 0), (20, 0), (0, 0)]),
    ]
    chosen = next_items(project, runs, 1, "disagreement").read("chosen")
    assert chosen["prompt_id"].to_pylist() == ["p-001"]
    # Root mean squares sqrt(6 / 4) and sqrt(600 / 4); ∓1 / sqrt 1.5 each, so their spread is that.
    assert chosen["score"].to_pylist() == [pytest.approx(1.5**-0.5)]


def test_the_worst_failures_come_first(by_hand: Run) -> None:
    project = by_hand.project
    (source,) = [run for run in project.all_runs() if run.step == "generate"]
    outputs = source.read("outputs").to_pylist()
    rows = [
        {"prompt_id": a["prompt_id"], "output_id": a["output_id"], "versus_output": b["output_id"]}
        for a, b in zip(outputs[4:6][:1] + outputs[:1], outputs[5:6] + outputs[1:2], strict=True)
    ]
    with project.draft(RunPlan("failures", 2, (source,))) as draft:
        draft.write("failures", table_from_rows("failures", rows))
    chosen = next_items(project, [draft.run], 1, "failures").read("chosen")
    assert chosen["prompt_id"].to_pylist() == [rows[0]["prompt_id"]]


def test_items_without_a_vote_are_the_first_to_be_chosen(by_hand: Run) -> None:
    project = by_hand.project
    votes = by_hand.read("votes").filter(pc.field("prompt_id") == "p-002")
    (pulled,) = by_hand.parents
    with project.draft(RunPlan("judge", 1, (pulled,), {"only": 2})) as draft:
        draft.write("votes", votes)
        draft.write("judgements", judge_votes(votes).judgements)
    chosen = next_items(project, [draft.run], 3, "uniform").read("chosen")
    assert set(chosen["prompt_id"].to_pylist()) == {"p-000", "p-001", "p-003"}
    assert pc.sum(chosen["votes_a"]).as_py() == 0


def test_reviewers_see_the_votes_without_names_and_decide(project: Project, judged: Run) -> None:
    run = adjudicate(project, judged, below=1.0)
    pushed = push(project, run, guideline="preference@v1", overlap=1)
    (name,) = pushed.metrics["batches"]
    items = {row["item_id"]: row for row in pushed.read("items").to_pylist()}
    with connect(project) as server:
        (user,) = add_users(project, server, ["adj-boss"])
        with server.as_user(user) as desk:
            dataset = server.batch(name).id
            told = desk.request(
                "POST", f"me/datasets/{dataset}/records/search", json={}, include="suggestions"
            )["items"]
            questions = desk.request("GET", f"datasets/{dataset}/questions")["items"]
    preference = next(q["id"] for q in questions if q["name"] == "preference")
    seen = {}
    for record in (item["record"] for item in told):
        item = items[record["external_id"]]
        turned = item["output_ids"] != sorted(item["output_ids"])
        assert "adj-" not in str(record)
        suggested = [s for s in record["suggestions"] if s["question_id"] == preference]
        seen[item["prompt_id"]] = (record["metadata"]["votes"], turned, suggested)
    counts, turned, (suggestion,) = seen["p-000"]
    assert counts == ("A 1, B 2, equal 0" if turned else "A 2, B 1, equal 0")
    # Two of three for the first id, by 3 and by 1: their median is 2.
    assert suggestion["value"] == ("b_better" if turned else "a_better")
    assert (suggestion["agent"], suggestion["score"]) == ("votes", pytest.approx(2 / 3))
    counts, turned, suggested = seen["p-001"]
    assert (counts, suggested) == ("A 1, B 1, equal 1", [])
    vote(project, pushed, "adj-boss", [-3, 2, 1, 0])
    pull(project, pushed)
    decided = judge(project, *newest_pulls(project))
    after = by_prompt(decided)
    assert [after[p]["posterior"] for p in sorted(after)] == [0.0, 1.0, 1.0, 0.5]
    assert {row["method"] for row in after.values()} == {"adjudicated"}
    assert [row["votes"] for row in after.values()] == [3, 3, 3, 3]
    assert [after[p]["annotators"] for p in sorted(after)] == [["adj-boss"]] * 4
    assert decided.metrics["adjudicated"] == 4
    assert decided.read("votes").equals(judged.read("votes"))
    assert set(decided.read("adjudications")["annotator"].to_pylist()) == {"adj-boss"}
    with pytest.raises(InputError, match="no pair is split"):
        adjudicate(project, decided, below=1.0)
    blind = agreement_of_run(*newest_pulls(project))
    assert isinstance(blind, Measured)
    assert "adj-boss" not in str(blind.to_dict())


def test_the_commands(project: Project, judged: Run) -> None:
    with connect(project) as server:
        add_users(project, server, ["adj-1", "adj-4"])

    def handloom(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["-C", str(project.root), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    said = handloom("next", "2", "--by", "entropy", "--to", "adj-1", "--to", "adj-4")
    assert "2 of 4 pairs chosen (2 by entropy)" in said
    assert "2 items for adj-4" in said  # adj-1 has judged both
    assert said.splitlines()[-1].strip() == "next handloom pull, when they have answered"
    again = handloom("next", "2", "--by", "entropy", "--to", "adj-4", "--again")
    assert "2 pairs left over" in again  # they wait for adj-4 already
    assert "items for" not in again
    assert "--to OTHERS" in again.splitlines()[-1]
    runs = len(project.all_runs())
    refused = CliRunner().invoke(
        main, ["-C", str(project.root), "next", "3", "--to", "adj-1", "--to", "nobody"]
    )
    assert refused.exit_code == 1
    assert refused.output.startswith("error: nobody: no such account")
    assert len(project.all_runs()) == runs  # nothing was chosen for nobody
    said = handloom("adjudicate", "--to", "adj-4", "--workspace", f"rev-{judged.id[-8:]}")
    assert "2 pairs for reviewers (2 split votes)" in said
    text = handloom("judge")
    assert "decided by reviewers" not in text
    common = handloom("adjudicate", "--below", "0.9")
    assert "before everybody" in common
