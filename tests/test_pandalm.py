"""PandaLM's human test set, replayed: 999 real pairs, three people's 2,997 real votes.

The pairs are imported and pushed as anybody's would be; three Argilla users submit the people's
votes through the API; pull, agreement, judge, build and trace then must find what was published:
Cohen's kappa .85, .88, .86 and the labels 105 / 422 / 472 (Wang et al. 2023).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result
from factories import Argilla, make_project

from align.cli import main
from annotate.accounts import add_users
from annotate.display import answer
from annotate.guidelines import load_guideline
from annotate.runs import Project
from annotate.server import connect
from annotate.server_types import Submission

DATA = Path(__file__).parents[2] / "shared" / "data" / "pandalm" / "testset-v1.json"
PEOPLE = ("annotator1", "annotator2", "annotator3")
STRENGTH = {0: 0, 1: 2, 2: -2}  # for response1; the votes say who is better, not by how much

pytestmark = pytest.mark.skipif(not DATA.is_file(), reason="PandaLM's test set is not at hand")


def pairs() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(DATA.read_text())
    return rows


def import_line(row: dict[str, Any]) -> str:
    """One pair in the import format; six of its responses are the boolean true."""
    prompt = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
    outputs = [
        {"model": model, "text": str(row[response])}
        for model, response in zip(
            row["cmp_key"].split("_"), ("response1", "response2"), strict=True
        )
    ]
    return json.dumps({"id": row["idx"], "prompt": prompt, "outputs": outputs})


@pytest.fixture(scope="module")
def replayed(
    argilla_server: Argilla, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, dict[str, Result]]:
    """A project in which the whole replay has run, and what each command printed."""
    folder = tmp_path_factory.mktemp("pandalm")
    project = make_project(folder / "project")
    source = folder / "pandalm.jsonl"
    source.write_text("\n".join(map(import_line, pairs())))
    environment = {
        "HANDLOOM_ARGILLA_URL": argilla_server.url,
        "HANDLOOM_ARGILLA_API_KEY": argilla_server.api_key,
        "HANDLOOM_ARGILLA_WORKSPACE": "pandalm",
    }
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)

        def handloom(*arguments: str) -> None:
            result = CliRunner().invoke(main, ["-C", str(project.root), *arguments])
            assert result.exit_code == 0, result.output
            printed[arguments[0]] = result

        handloom("import", str(source))
        handloom("push", "--overlap", "3", "--guideline", "preference@v1")
        submit(project)
        handloom("pull")
        handloom("agreement", "--json")
        handloom("judge", "--method", "majority")
        handloom("build")
    return project, printed


def submit(project: Project) -> None:
    """Each of the three people answers every item under their own name."""
    votes = {str(row["idx"]): row for row in pairs()}
    push = project.latest("push")
    outputs = project.latest("import").read("outputs").to_pylist()
    first = {row["prompt_id"]: row["output_id"] for row in reversed(outputs)}
    both: dict[str, list[str]] = {}
    for row in outputs:
        both.setdefault(row["prompt_id"], []).append(row["output_id"])
    guideline = load_guideline(project.root, "preference@v1")
    items = push.read("items").to_pylist()
    with connect(project) as server:
        record_ids = server.record_ids(server.batch(items[0]["batch"]))
        for person, user in zip(PEOPLE, add_users(project, server, PEOPLE), strict=True):
            answers = []
            for item in items:
                a, b = sorted(both[item["prompt_id"]])
                strength = STRENGTH[votes[item["prompt_id"]][person]]
                signed = strength if first[item["prompt_id"]] == a else -strength
                said = [("preference", {"a": a, "b": b, "strength": signed})]
                answers.append(
                    Submission(record_ids[item["item_id"]], answer(said, item, guideline))
                )
            with server.as_user(user) as desk:
                for start in range(0, len(answers), 100):
                    desk.submit(answers[start : start + 100])


def test_agreement_is_what_was_published(replayed: tuple[Project, dict[str, Result]]) -> None:
    found = json.loads(replayed[1]["agreement"].stdout)["questions"]["vote"]
    alpha = found["alpha"]
    assert alpha["value"] == pytest.approx(0.864, abs=0.001)
    assert alpha["low"] == pytest.approx(0.843, abs=0.003)
    assert alpha["high"] == pytest.approx(0.887, abs=0.003)
    kappas = [pair["kappa"]["value"] for pair in found["kappas"]]
    assert sorted(kappas) == pytest.approx(sorted([0.852, 0.879, 0.862]), abs=0.001)


def test_both_intervals_hold_and_the_second_is_the_wider(
    replayed: tuple[Project, dict[str, Result]],
) -> None:
    figures = json.loads(replayed[1]["agreement"].stdout)["questions"]["vote"]["figures"]
    assert len(figures) == 7
    for name, figure in figures.items():
        panel, others = figure["over_items"], figure["over_annotators"]
        assert panel["low"] < figure["value"] < panel["high"], name
        assert others["low"] < figure["value"] < others["high"], name
        assert others["high"] - others["low"] > 0.9 * (panel["high"] - panel["low"]), name


def test_the_longer_text_wins_as_often_as_counted(
    replayed: tuple[Project, dict[str, Result]],
) -> None:
    project, printed = replayed
    asked = set(project.latest("judge").read("votes")["prompt_id"].to_pylist())
    agreeing, decided = 0, 0
    for row in pairs():
        lengths = [len(str(row[name])) for name in ("response1", "response2")]
        longer = 1 if lengths[0] > lengths[1] else 2
        for person in PEOPLE:
            if row["idx"] in asked or str(row["idx"]) in asked:
                counts = row[person] != 0 and lengths[0] != lengths[1]
                decided += counts
                agreeing += counts and row[person] == longer
    found = json.loads(printed["agreement"].stdout)["questions"]["vote"]["baseline"]
    baseline = found["longer wins, no ties"]
    assert baseline["value"] == pytest.approx(agreeing / decided, abs=1e-9)
    assert baseline["low"] < baseline["value"] < baseline["high"]


def test_a_table_of_the_same_votes_gives_the_same_figures(
    replayed: tuple[Project, dict[str, Result]], tmp_path: Path
) -> None:
    words = {0: "tie", 1: "a", 2: "b"}
    lines = [f"{row['idx']},{who},{words[row[who]]}" for row in pairs() for who in PEOPLE]
    table = tmp_path / "pandalm.csv"
    table.write_text("\n".join(["item,annotator,label", *lines]))
    options = ["agreement", "--table", str(table), "--kind", "pairwise", "--json"]
    found = json.loads(CliRunner().invoke(main, options).stdout)["questions"]["vote"]
    alpha = found["alpha"]
    assert (alpha["value"], alpha["n_items"], alpha["n_pairable"], alpha["n_annotators"]) == (
        pytest.approx(0.864, abs=0.001), 999, 999, 3,
    )  # fmt: skip
    kappas = sorted(pair["kappa"]["value"] for pair in found["kappas"])
    assert kappas == pytest.approx([0.852, 0.862, 0.879], abs=0.001)


def test_the_labels_are_the_published_ones(replayed: tuple[Project, dict[str, Result]]) -> None:
    project, _ = replayed
    outputs = project.latest("import").read("outputs").to_pylist()
    first = {row["prompt_id"]: row["output_id"] for row in reversed(outputs)}
    counts = {0: 0, 1: 0, 2: 0}
    for row in project.latest("judge").read("judgements").to_pylist():
        label = 0
        if row["votes_a"] != row["votes_b"] and row["ties"] < 2:
            winner = "output_a" if row["votes_a"] > row["votes_b"] else "output_b"
            label = 1 if row[winner] == first[row["prompt_id"]] else 2
        counts[label] += 1
    assert counts == {0: 105, 1: 422, 2: 472}


def test_every_pair_is_accounted_for(replayed: tuple[Project, dict[str, Result]]) -> None:
    project, _ = replayed
    quarantined = sum(
        project.latest(step).read("quarantine").num_rows for step in ("import", "push", "build")
    )
    decisions = project.latest("build").read("decisions")
    assert decisions.num_rows + quarantined == 999
    dropped = decisions.filter(pc.invert(decisions["kept"]))
    assert dropped.num_rows > 100
    for column in ("rule", "threshold", "value", "votes"):
        assert dropped[column].null_count == 0, column


def test_a_kept_pair_is_traced_to_three_people(
    replayed: tuple[Project, dict[str, Result]],
) -> None:
    project, _ = replayed
    row = project.latest("build").read("preference").to_pylist()[0]
    traced = CliRunner().invoke(main, ["-C", str(project.root), "trace", row["row_id"]])
    assert traced.exit_code == 0, traced.output
    for word in (*PEOPLE, "preference@v1"):
        assert word in traced.output
