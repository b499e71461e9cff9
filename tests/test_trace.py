"""From any id back to the people, the guideline version and the model."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from factories import MODELS, make_generated, make_project

from annotate.display import answer, arrange
from annotate.errors import ProjectError
from annotate.guidelines import load_guideline
from annotate.judge import judge
from annotate.ledger import Entry, Ledger
from annotate.pull import tabulate
from annotate.records import table_from_rows
from annotate.runs import Project, Run, RunPlan
from annotate.trace import trace
from annotate.trace_text import trace_text

NAMES = ("anna", "ben", "eva")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One pass from a trained model's outputs to a training row, and a failure; no server."""
    project = make_project(tmp_path_factory.mktemp("trace") / "project")
    with project.draft(RunPlan("train", 0)) as draft:
        pass
    source = generated_by(project, draft.run)
    judged = judge(project, pulled(project, source), method="majority")
    built(project, judged)
    failed(project, source)
    return project


def generated_by(project: Project, model: Run) -> Run:
    other = make_generated(project, 3, texts=["\x1b[31mred\x1b[0m"])
    rows = other.read("outputs").to_pylist()
    named = [{**r, "model": model.id if r["model"] == MODELS[0] else r["model"]} for r in rows]
    with project.draft(RunPlan("generate", 1, (model,), seed=1)) as draft:
        draft.write("prompts", other.read("prompts"))
        draft.write("outputs", table_from_rows("outputs", named))
    return draft.run


def pulled(project: Project, source: Run) -> Run:
    """Three people answer each item, one of them twice; written as push and pull write it."""
    rules = load_guideline(project.root, "preference@v1")
    arranged = arrange(source.read("prompts"), source.read("outputs"), rules, batch="b", seed=0)
    settings = {"guideline": rules.name, "guideline_sha256": rules.sha256}
    with project.draft(RunPlan("push", 1, (source,), settings)) as draft:
        draft.write("items", arranged.items)
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 1, 1, tzinfo=UTC)
    entries = []
    for number, item in enumerate(arranged.items.to_pylist()):
        a, b = sorted(item["output_ids"])
        for minute, name in enumerate(NAMES):
            when = start + timedelta(hours=number, minutes=minute)
            given = [("preference", {"a": a, "b": b, "strength": 2 if name != "eva" else -1})]
            values = answer(given, item, rules)
            entries.append(
                Entry("b", item["item_id"], name, rules.name, "submitted", values, when, when)
            )
    earlier = [replace(entries[0], updated_at=start - timedelta(hours=1))]
    Ledger.of(project).append([*earlier, *entries])
    responses, quarantine = tabulate(entries, arranged.items, rules)
    with project.draft(RunPlan("pull", 1, (draft.run,))) as pull_draft:
        pull_draft.write("responses", responses)
        pull_draft.write("items", arranged.items)
        pull_draft.write("quarantine", quarantine)
    return pull_draft.run


def built(project: Project, judged: Run) -> Run:
    decisions, preference, sft = [], [], []
    for number, row in enumerate(judged.read("judgements").to_pylist()):
        pair = {"pair_id": row["pair_id"], "prompt_id": row["prompt_id"]}
        kept = number > 0
        reason = {"rule": "agreement", "threshold": "1.0", "value": "0.67"}
        decisions.append({**pair, "kept": kept, "votes": "2-1-0", **({} if kept else reason)})
        ends = {"chosen_output": row["output_a"], "rejected_output": row["output_b"]}
        preference.append({**pair, **ends, "row_id": f"d-{number}", "margin": 1 / 3})
        sft.append(
            {**pair, "row_id": f"s-{number}", "output_id": row["output_a"], "source": "winner"}
        )
    with project.draft(RunPlan("build", 1, (judged,))) as draft:
        draft.write("decisions", table_from_rows("decisions", decisions))
        draft.write("preference", table_from_rows("preference", preference))
        draft.write("sft", table_from_rows("sft", sft))
    return draft.run


def failed(project: Project, source: Run) -> Run:
    first, second = source.read("outputs").slice(0, 2).to_pylist()
    row = {
        "failure_id": "f-1",
        "prompt_id": first["prompt_id"],
        "output_id": first["output_id"],
        "versus_output": second["output_id"],
        "why": "lost",
        "judged_by": "scorer:length",
    }
    with project.draft(RunPlan("failures", 1, (source,))) as draft:
        draft.write("failures", table_from_rows("failures", [row]))
    return draft.run


def of(project: Project, step: str, table: str, column: str) -> list[str]:
    found: pa.ChunkedArray = project.latest(step).read(table)[column]
    ids: list[str] = found.to_pylist()
    return ids


@pytest.mark.parametrize("prefix", ["d", "s"])
def test_a_training_row_leads_to_everything_behind_it(project: Project, prefix: str) -> None:
    found = trace(project, f"{prefix}-1")
    assert found.kind == {"d": "preference row", "s": "SFT row"}[prefix]
    assert found.decision is not None
    assert found.decision["kept"]
    assert found.judgement is not None
    assert (found.judgement["votes_a"], found.judgement["votes_b"]) == (2, 1)
    assert [r["annotator"] for r in found.responses] == list(NAMES)
    assert {r["guideline"] for r in found.responses} == {"preference@v1"}
    assert [r["value"]["strength"] for r in found.responses] == [2, 2, -1]
    (item,) = found.items
    rules = load_guideline(project.root, "preference@v1")
    assert (item["batch"], item["guideline_sha256"]) == ("b", rules.sha256)
    assert {o["output_id"] for o in found.outputs} == set(item["output_ids"])
    train = project.latest("train").id
    assert {(o["model"], o["model_run"]) for o in found.outputs} == {
        (train, train),
        (MODELS[1], None),
    }
    assert found.prompt is not None
    assert found.prompt["prompt_id"] == item["prompt_id"]
    steps = [run.split("-")[1] for run in found.runs]
    assert steps == ["build", "judge", "pull", "push", "generate", "train"]


def test_the_text_names_people_guideline_model_and_rule(project: Project) -> None:
    text = trace_text(trace(project, "d-0"))
    for said in (
        *NAMES,
        "preference@v1",
        project.latest("train").id,
        "dropped by agreement: 0.67",
        "2-1-0",
    ):
        assert said in text
    assert "\x1b" not in text
    assert "kept with votes 2-1-0" in trace_text(trace(project, "d-1"))


def test_edits_are_counted(project: Project) -> None:
    edits = {
        (row["item_id"], row["annotator"]): row["edits"]
        for item in of(project, "push", "items", "item_id")
        for row in trace(project, item).responses
    }
    assert len(edits) == 9
    assert sum(edits.values()) == 1


@pytest.mark.parametrize(
    ("step", "table", "column", "kind"),
    [
        ("judge", "judgements", "pair_id", "pair"),
        ("push", "items", "item_id", "item"),
        ("generate", "outputs", "output_id", "output"),
        ("generate", "prompts", "prompt_id", "prompt"),
        ("failures", "failures", "failure_id", "failure"),
    ],
)
def test_any_id_can_be_traced(
    project: Project, step: str, table: str, column: str, kind: str
) -> None:
    for wanted in of(project, step, table, column):
        found = trace(project, wanted)
        assert found.kind == kind
        assert found.prompt is not None
        assert found.prompt["run"].startswith("r1-generate")
        assert json.loads(json.dumps(found.to_dict()))["id"] == wanted
        assert wanted in trace_text(found)


def test_a_damaged_table_is_one_error(project: Project) -> None:
    path = project.latest("judge").path / "judgements.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(ProjectError, match="not a readable Parquet table"):
        trace(project, "no-such-id")
    path.write_bytes(whole)


def test_an_unknown_id_is_said(project: Project) -> None:
    with pytest.raises(ProjectError, match="no run knows this id"):
        trace(project, "d-99")
