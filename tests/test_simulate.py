"""Simulated annotators: the noise they are said to have, and answers through the real API."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import Argilla, connected_project, make_generated, submit
from hypothesis import given
from hypothesis import strategies as st

from annotate.display import Item, answer, undo
from annotate.errors import InputError, ServerError
from annotate.guidelines import Guideline, load_guideline, published_versions
from annotate.pull import pull
from annotate.push import push
from annotate.runs import Project
from annotate.simulate import simulate
from annotate.simulated_annotators import (
    Person,
    SimulatedAnnotator,
    SimulationSettings,
    assign,
    load_settings,
)

ROOT = Path(__file__).parent.parent
SETTINGS = SimulationSettings.model_validate(
    {
        "people": {
            "sim-anna": {"precision": 1.0, "lapse": 0.02},
            "sim-ben": {"precision": 0.5, "first_bias": 0.4},
            "sim-felix": {"precision": 0.4, "lapse": 1.0},
        },
        "strength_from": (0.5, 1.5, 3.5),
        "rating_range": (-2.0, 5.5),
        "bad_below": 0.0,
        "flags": {"below": -1.5, "rate": 0.5},
        "corrections": {"below": 3.0, "rate": 0.15},
        "reasons": {"below": 99.0, "rate": 0.1},
    }
)
"""Round figures, whatever the shipped file says."""
SHIPPED = load_settings()
PREFERENCE, RANKING = load_guideline(ROOT, "preference@v1"), load_guideline(ROOT, "ranking@v1")
GUIDELINES = [load_guideline(ROOT, name) for name in sorted(published_versions(ROOT))]


def item(number: int, guideline: Guideline, n: int = 2) -> Item:
    outputs = [f"o-{place}" for place in range(n)]
    if number % 2:
        outputs.reverse()
    return Item(
        item_id=f"i-{number}",
        prompt_id="p",
        output_ids=outputs,
        kind=guideline.kind,
        guideline=guideline.name,
        batch="b",
    )


def answered(
    person: Person, scores: list[float], n: int, guideline: Guideline
) -> list[dict[str, Any]]:
    """What someone answers to `n` items: question → values, one dictionary an item."""
    who = SimulatedAnnotator("sim-x", person, SETTINGS, seed=0)
    truth = {f"o-{place}": score for place, score in enumerate(scores)}
    found = []
    for number in range(n):
        values: dict[str, Any] = {}
        for question, value in who.answers(
            item(number, guideline, len(scores)), guideline, truth, "a better text"
        ):
            values.setdefault(question, []).append(value)
        found.append(values)
    return found


def test_a_preference_is_right_as_often_as_bradley_terry_says() -> None:
    """P(better one perceived as better) = 1 / (1 + exp(-precision · difference)) = 0.731 at 1."""
    quiet = SETTINGS.model_copy(update={"strength_from": (0.0, 1.5, 3.5)})
    who = SimulatedAnnotator("sim-x", Person(precision=0.5), quiet, seed=0)
    n = 4000
    right = 0
    for number in range(n):
        ((_, value),) = who.answers(item(number, PREFERENCE), PREFERENCE, {"o-0": 2.0, "o-1": 0.0})[
            :1
        ]
        right += value["strength"] > 0  # o-0 < o-1, so positive means o-0
    expected = 1 / (1 + math.exp(-0.5 * 2.0))
    assert abs(right / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_a_careless_person_answers_every_strength_alike() -> None:
    given_ = answered(Person(precision=1.0, lapse=1.0), [5.0, -4.0], 3500, PREFERENCE)
    counts = Counter(values["preference"][0]["strength"] for values in given_)
    assert set(counts) == set(range(-3, 4))
    assert all(abs(count - 500) < 4 * math.sqrt(500) for count in counts.values())
    assert not [values for values in given_ if "correction" in values or "reason" in values]


def test_strength_grows_with_the_difference_and_equals_tie() -> None:
    sharp = Person(precision=1000.0)
    for scores, strength in [([0, 0], 0), ([0.6, 0], 1), ([2, 0], 2), ([0, 5], -3)]:
        found = answered(sharp, [float(s) for s in scores], 10, PREFERENCE)
        assert {values["preference"][0]["strength"] for values in found} == {strength}


def test_a_bias_for_the_first_place_favours_it() -> None:
    who = SimulatedAnnotator("sim-x", Person(precision=1.0, first_bias=3.0), SETTINGS, seed=0)
    first = 0
    for number in range(200):
        shown = item(number, PREFERENCE)
        ((_, value),) = who.answers(shown, PREFERENCE, {"o-0": 0.0, "o-1": 0.0})[:1]
        first += (value["strength"] > 0) == (shown["output_ids"][0] == "o-0") and value[
            "strength"
        ] != 0
    assert first > 150


def test_a_ranking_follows_the_truth_with_ties_and_ratings() -> None:
    for values in answered(Person(precision=1000.0), [5.5, 1.0, 1.1, -2.0], 4, RANKING):
        assert values["ranking"] == [{"ranks": {"o-0": 1, "o-1": 2, "o-2": 2, "o-3": 3}}]
        ratings = {value["output"]: value["rating"] for value in values["rating"]}
        assert ratings["o-0"] == 5
        assert ratings["o-3"] == 1


def test_flags_both_bad_and_corrections_only_where_they_belong() -> None:
    sharp = Person(precision=1000.0)
    good = answered(sharp, [5.0, 4.0], 200, PREFERENCE)
    bad = answered(sharp, [-3.0, -2.5], 200, PREFERENCE)
    assert not [v for v in good if v["both_bad"][0] or "flags" in v or "correction" in v]
    assert all(v["both_bad"] == [True] for v in bad)
    flagged = sum(len(v.get("flags", ())) for v in bad)
    corrected = sum("correction" in v for v in bad)
    assert 140 < flagged < 260
    assert 10 < corrected < 60


@given(st.data())
def test_whatever_is_answered_the_platform_can_read(data: st.DataObject) -> None:
    guideline = data.draw(st.sampled_from(GUIDELINES))
    n = data.draw(st.integers(guideline.min_outputs, guideline.max_outputs))
    name = data.draw(st.sampled_from(sorted(SETTINGS.people)))
    scores = {f"o-{place}": data.draw(st.floats(-4, 6)) for place in range(n)}
    shown = item(data.draw(st.integers(0, 10_000)), guideline, n)
    who = SimulatedAnnotator(
        name, SETTINGS.people[name], SETTINGS, seed=data.draw(st.integers(0, 9))
    )
    texts = dict.fromkeys(scores, data.draw(st.sampled_from(["", "<b> 😀\r\n& so", "plain words"])))
    given_ = who.answers(shown, guideline, scores, "a better text", texts)
    back = undo(answer(given_, shown, guideline, texts), shown, guideline, texts)
    assert back.problems == []
    assert {a.json for a in back.answers} == {
        json.dumps(value, sort_keys=True, ensure_ascii=False)
        for _, value in given_
        if value is not False
    }
    assert who.answers(shown, guideline, scores, "a better text", texts) == given_
    required = {question.name for question in guideline.questions if question.required}
    assert required <= {question for question, _ in given_}


@given(n=st.integers(0, 60), votes=st.integers(1, 5), seed=st.integers(0, 99))
def test_items_are_shared_out_evenly(n: int, votes: int, seed: int) -> None:
    people = ["a", "b", "c", "d", "e"]
    chosen = assign(n, people, votes, np.random.default_rng(seed))
    assert all(len(set(names)) == votes for names in chosen)
    load = Counter(dict.fromkeys(people, 0) | Counter(itertools.chain(*chosen)))
    assert max(load.values()) - min(load.values()) <= 1


def test_the_shipped_people_differ_and_one_is_careless() -> None:
    people = SHIPPED.people.values()
    assert len(people) == 6
    assert [p.lapse for p in people].count(1.0) == 1
    assert len({p.precision for p in people}) >= 4
    assert all(name.startswith("sim-") for name in SHIPPED.people)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"bad_below": 0.0', '"bad_below": "x"', "bad_below"),
        ('"reasons"', '"reason"', "reason"),
        ('"sim-anna"', '"anna"', "anna"),
        ('"precision": 1.0', '"precision": 0', "precision"),
        ("  3.5", "  0.1", "strength_from must ascend"),
        ('"people": {', '"people": [', "cannot be read"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "people.yaml"
    text = SETTINGS.model_dump_json(indent=1)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=said):
        load_settings(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_settings(tmp_path / "nothing.yaml")


def by_length(messages: list[dict[str, str]], completion: str) -> float:
    return float(len(completion))


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def test_they_answer_under_their_own_names_and_go_on_where_they_stopped(project: Project) -> None:
    pushed = push(project, make_generated(project, 12, texts=["long " * 9, "short"]))
    ids = pushed.read("items")["item_id"].to_pylist()
    real = {"preference": {"value": "no_difference"}}
    submit(project, pushed, "a-person", {ids[0]: real})
    done = simulate(project, pushed, seed=1, per_item=3, scorer=by_length)
    assert sum(done.answered.values()) == 12 * 3 - 1
    assert done.present == 1
    assert max(done.answered.values()) - min(done.answered.values()) <= 1
    again = simulate(project, pushed, seed=1, per_item=3, scorer=by_length)
    assert sum(again.answered.values()) == 0
    more = simulate(project, pushed, seed=1, per_item=4, scorer=by_length)
    assert sum(more.answered.values()) > 0
    responses = pull(project, pushed).read("responses").to_pylist()
    names = {row["annotator"] for row in responses}
    assert names == {*SHIPPED.people, "a-person"}


def test_the_same_seed_gives_the_same_table_on_another_server(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push(project, make_generated(project, 5, 3), guideline="ranking")
    tables = []
    for workspace in ("one", "two"):
        monkeypatch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"{project.root.parent.name}-{workspace}")
        push(project, project.latest("generate"), guideline="ranking")
        simulate(project, pushed, seed=4, scorer=by_length, people=["sim-anna", "sim-ben"])
        table = pull(project, pushed).read("responses")
        tables.append(table.drop_columns(["time"]).to_pylist())
    assert tables[0] == tables[1]


def test_what_cannot_be_asked_is_one_line(project: Project) -> None:
    pushed = push(project, make_generated(project, 1))
    with pytest.raises(InputError, match="7 votes an item cannot come from 6 people"):
        simulate(project, pushed, per_item=7, scorer=by_length)
    with pytest.raises(InputError, match="no simulated annotator sim-zoe"):
        simulate(project, pushed, people=["sim-zoe"], scorer=by_length)
    with pytest.raises(ServerError, match="handloom push"):
        simulate_elsewhere(project, pushed)


def simulate_elsewhere(project: Project, pushed: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDLOOM_ARGILLA_WORKSPACE", f"{project.root.parent.name}-empty")
        simulate(project, pushed, scorer=by_length)
