"""Repeats mixed in by a push, answered through Argilla, and what figures make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import Argilla, connected_project, make_generated, submit

from align.cli import main
from annotate.push import push


def handloom(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_repeats_are_answered_unseen_and_show_how_consistent_people_are(
    tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sim-first takes what stands first: the same when shown again, another when turned round."""
    project = connected_project(tmp_path / "project", argilla_server, monkeypatch)
    monkeypatch.chdir(project.root)
    run = make_generated(project, 12)
    pushed = push(project, run, guideline="preference@v1", repeats=0.5)
    items = pushed.read("items")["item_id"].to_pylist()
    for name, value in (("sim-first", "a_better"), ("sim-same", "no_difference")):
        submit(project, pushed, name, {at: {"preference": {"value": value}} for at in items})
    handloom("pull")
    assert "sim-first (simulated)" in handloom("annotators")
    told = json.loads(handloom("annotators", "--json"))
    (panel,) = (panel for panel in told["panels"] if panel["question"] == "vote")
    people = {person["annotator"]: person for person in panel["people"]}
    assert {person["labels"] for person in people.values()} == {12}  # a repeat is no vote
    of = people["sim-first"]["figures"]
    assert (of["first"]["value"], of["repeated"]["value"], of["swapped"]["value"]) == (1, 1, 0)
    assert of["repeated"]["n"] + of["swapped"]["n"] == len(items) - 12 == 6
    assert people["sim-same"]["figures"]["swapped"]["value"] == 1
    handloom("judge")
    recorded = json.loads((project.latest("judge").path / "annotators.json").read_text())
    assert recorded["panels"] == told["panels"]
