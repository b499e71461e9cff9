"""Push: blind, escaped, once each, and complete after any interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from factories import MODELS, Argilla, connected_project, make_generated, make_outputs, make_prompts

from annotate.errors import InputError, ServerError
from annotate.guidelines import load_guideline
from annotate.push import push
from annotate.records import content_id, table_from_rows
from annotate.runs import Project, Run, RunPlan, verify
from annotate.server import connect


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def on_server(project: Project) -> dict[str, list[str]]:
    """Batch → the item ids that the server holds, repetitions and all."""
    with connect(project) as server:
        return {
            batch.name: [
                record["external_id"]
                for record in server.request("GET", f"datasets/{batch.id}/records", limit=1000)[
                    "items"
                ]
            ]
            for batch in server.batches()
        }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": " "}, "--batch must not be empty"),
        ({"overlap": 0}, "--overlap must be 1"),
        ({"guideline": "ranking"}, "nothing to show under ranking@v1"),
        ({"select": ["p-none"]}, "1 selected ids are neither"),
    ],
)
def test_a_push_that_is_refused_leaves_nothing(
    project: Project, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        push(project, make_generated(project, 2), **options)
    assert project.unfinished() == []


def test_a_run_without_outputs_is_refused(project: Project) -> None:
    pushed = push(project, make_generated(project, 2))
    with pytest.raises(InputError, match="no outputs to show"):
        push(project, pushed)


def make_failures(project: Project, parent: Run) -> Run:
    """Four failures on two prompts; on p-000 two outputs lost to the same third."""
    prompts = make_prompts(2)
    outputs = make_outputs(prompts, 3)
    by_prompt = {
        p: [r for r in outputs.to_pylist() if r["prompt_id"] == p] for p in ("p-000", "p-001")
    }
    rows = []
    for prompt_id, lost, won in [
        ("p-000", 0, 2),
        ("p-000", 1, 2),
        ("p-001", 0, 1),
        ("p-001", 1, 2),
    ]:
        ends = by_prompt[prompt_id][lost], by_prompt[prompt_id][won]
        rows.append(
            {
                "failure_id": content_id("f", *(end["output_id"] for end in ends)),
                "prompt_id": prompt_id,
                "output_id": ends[0]["output_id"],
                "versus_output": ends[1]["output_id"],
                "why": "lost",
            }
        )
    with project.draft(RunPlan("failures", 1, (parent,))) as draft:
        draft.write("prompts", prompts)
        draft.write("outputs", outputs)
        draft.write("failures", table_from_rows("failures", rows))
    return draft.run


def test_every_pair_is_shown_once_and_pushing_again_adds_nothing(project: Project) -> None:
    run = make_generated(project, 6, 3)
    first = push(project, run)
    items = first.read("items")
    assert items.num_rows == 6 * 3
    (batch,) = first.metrics["batches"]
    assert sorted(on_server(project)[batch]) == items["item_id"].to_pylist()
    assert push(project, run) == first
    assert sorted(on_server(project)[batch]) == items["item_id"].to_pylist()
    settings = first.manifest["settings"]
    assert settings["guideline"] == load_guideline(project.root, "preference").name
    assert len(settings["guideline_sha256"]) == 64
    assert settings["overlap"] == 2


def test_sides_are_balanced_and_depend_on_the_seed(project: Project) -> None:
    run = make_generated(project, 30)
    orders = [push(project, run, seed=seed).read("items") for seed in (0, 1)]
    model = dict(
        zip(*(run.read("outputs")[c].to_pylist() for c in ("output_id", "model")), strict=True)
    )
    for items in orders:
        first = Counter(model[ids[0]] for ids in items["output_ids"].to_pylist())
        assert first == {MODELS[0]: 15, MODELS[1]: 15}
    assert len({str(sorted(items["output_ids"].to_pylist())) for items in orders}) == 2


def test_a_new_server_gets_what_a_finished_push_showed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_generated(project, 3)
    first = push(project, run)
    monkeypatch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"other-{time.time_ns()}")
    assert push(project, run) == first
    assert [sorted(ids) for ids in on_server(project).values()] == [
        first.read("items")["item_id"].to_pylist()
    ]


def test_rankings_go_to_a_data_set_for_each_size(project: Project) -> None:
    prompts = make_prompts(4)
    rows = make_outputs(prompts, 4).to_pylist()
    fewer = [r for r in rows if r["prompt_id"] != "p-000" or r["model"] != MODELS[3]]
    with project.draft(RunPlan("generate", 1)) as draft:
        draft.write("prompts", prompts)
        draft.write("outputs", table_from_rows("outputs", fewer))
    pushed = push(project, draft.run, guideline="ranking", batch="mine")
    counts = {name: len(ids) for name, ids in on_server(project).items()}
    assert counts == {"mine-of-3": 1, "mine-of-4": 3}
    assert pushed.metrics["batches"] == ["mine-of-3", "mine-of-4"]


def test_what_annotators_get_is_escaped_and_names_no_model(project: Project) -> None:
    script = '<script>alert("x")</script> & <img src=x onerror=alert(1)>'
    pushed = push(project, make_generated(project, 3, texts=[script], turns=3))
    with connect(project) as server:
        (batch,) = server.batches()
        records = server.request("GET", f"datasets/{batch.id}/records")["items"]
        settings = [
            server.request("GET", f"datasets/{batch.id}/{what}") for what in ("questions", "fields")
        ]
        assert server.shows_chat(batch)
    told = json.dumps([records, settings])
    assert not [model for model in MODELS if model in told]
    assert "<script" not in told
    assert "<img" not in told
    assert "&lt;script&gt;alert" in told
    assert {len(record["fields"]["prompt"]) for record in records} == {3}
    assert not [
        o for ids in pushed.read("items")["output_ids"].to_pylist() for o in ids if o in told
    ]


def test_selected_failures_are_pairs_of_their_own(project: Project) -> None:
    failed = make_failures(project, make_generated(project))
    rows = failed.read("failures").to_pylist()
    chosen = rows[0], rows[2]
    pushed = push(project, failed, select=[row["failure_id"] for row in chosen])
    shown = {frozenset(ids) for ids in pushed.read("items")["output_ids"].to_pylist()}
    assert shown == {frozenset((row["output_id"], row["versus_output"])) for row in chosen}
    assert push(project, failed).read("items").num_rows == 4
    by_prompt = push(project, failed, select=["p-001"]).read("items")
    assert set(by_prompt["prompt_id"].to_pylist()) == {"p-001"}
    with pytest.raises(InputError, match="f-nothing"):
        push(project, failed, select=["f-nothing", "p-001"])


def test_pairs_per_prompt_overlap_and_again(project: Project) -> None:
    run = make_generated(project, 4, 4)
    pushed = push(project, run, pairs_per_prompt=2, overlap=3)
    assert Counter(pushed.read("items")["prompt_id"].to_pylist()) == {
        f"p-00{n}": 2 for n in range(4)
    }
    with connect(project) as server:
        assert [batch.overlap for batch in server.batches()] == [3]
    other = push(project, run, pairs_per_prompt=2, overlap=3, again=True)
    assert other.id != pushed.id
    assert len(on_server(project)) == 2


def test_a_named_batch_grows_and_keeps_its_settings(project: Project) -> None:
    runs = [make_generated(project, n) for n in (3, 5)]
    counts = []
    for run in runs:
        push(project, run, batch="all")
        counts.append(len(on_server(project)["all"]))
    assert counts == [3, 5]  # the first three prompts are the same
    with pytest.raises(ServerError, match="another guideline or overlap"):
        push(project, runs[0], batch="all", overlap=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guideline": "nonsense"}, "no guideline 'nonsense'"),
        ({"guideline": "preference@v9"}, "there is no preference@v9"),
        ({"guideline": "ranking"}, "nothing to show under ranking@v1"),
        ({"overlap": 0}, "--overlap must be 1 or more"),
        ({"pairs_per_prompt": 0}, "--pairs-per-prompt must be 1 or more"),
        ({"select": ["nothing"]}, "neither prompts nor failures"),
    ],
    ids=str,
)
def test_a_push_that_cannot_be_is_one_line_and_leaves_nothing(
    project: Project, options: dict[str, object], said: str
) -> None:
    run = make_generated(project, 2)
    with pytest.raises(InputError, match=said):
        push(project, run, **options)  # type: ignore[arg-type]
    assert on_server(project) == {}
    assert project.all_runs() == [run]


PUSHER = """
import itertools, os, signal, sys
from pathlib import Path
import annotate.server, annotate.transport as transport
from annotate.push import push
from annotate.runs import Project
annotate.server.RECORDS_A_REQUEST = 5
project, stop, late = Project(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "after"
asked, count = transport.Transport._send, itertools.count(1)
def dying(self, *args, **kwargs):
    here = next(count) == stop
    if here and not late:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = asked(self, *args, **kwargs)
    if here:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
transport.Transport._send = dying
push(project, project.latest("generate"))
"""


def run_pusher(project: Project, stop: int, when: str) -> int:
    command = [sys.executable, "-c", PUSHER, str(project.root), str(stop), when]
    return subprocess.run(command, check=False).returncode


@pytest.mark.parametrize(("stop", "when"), [(3, "after"), (9, "after"), (11, "before")])
def test_killed_at_a_request_and_repeated_it_is_complete(
    project: Project, stop: int, when: str
) -> None:
    run = make_generated(project, 20)
    assert run_pusher(project, stop, when) == -signal.SIGKILL
    left = project.runs_dir.glob(".*-push-*.partial/items.parquet")
    before = [path.read_bytes() for path in left]
    pushed = push(project, run)
    assert [(pushed.path / "items.parquet").read_bytes()] == before or not before
    (ids,) = on_server(project).values()
    assert sorted(ids) == pushed.read("items")["item_id"].to_pylist()
    assert len(ids) == 20
    assert verify(project) == []
    assert project.unfinished() == []
