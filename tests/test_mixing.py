"""Gold items and repeats: mixed in unseen, kept apart afterwards, and never counted as votes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import Argilla, connected_project, make_generated, make_project, submit
from hypothesis import given
from hypothesis import strategies as st

from annotate.accounts import add_users
from annotate.errors import InputError
from annotate.guidelines import load_guideline
from annotate.judge import judge
from annotate.mixing import gold_file, mix, read_gold
from annotate.publishing import Shown
from annotate.pull import pull
from annotate.push import push
from annotate.records import content_id, table_from_rows
from annotate.runs import Project, Run
from annotate.server import connect


@pytest.fixture
def project(tmp_path: Path, argilla_server: Argilla, monkeypatch: pytest.MonkeyPatch) -> Project:
    return connected_project(tmp_path / "project", argilla_server, monkeypatch)


def write_gold(root: Path, count: int, answer: object = "first", **changes: Any) -> Path:
    """Gold items gold-0, gold-1, …: of two outputs the first is better."""
    lines = [
        {
            "id": f"gold-{number}",
            "prompt": f"question {number}, with a known answer",
            "outputs": [
                {"model": "editor", "text": f"right {number}"},
                {"model": "slip", "text": f"wrong {number}"},
            ],
            "metadata": {"answer": {"preference": answer}},
        }
        | changes
        for number in range(count)
    ]
    path = gold_file(root, "preference")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_items(n: int, *, size: int = 2, batch: str = "b", prefix: str = "") -> Any:
    rows = [
        {
            "item_id": content_id("i", prefix, number),
            "prompt_id": f"p-{number}",
            "output_ids": [f"o-{number}-{place}" for place in range(size)],
            "kind": "compare",
            "guideline": "preference@v1",
            "batch": batch,
        }
        for number in range(n)
    ]
    return table_from_rows("items", rows).sort_by("item_id")


@given(st.integers(1, 60), st.floats(0.01, 1), st.integers(0, 5))
def test_repeats_are_the_items_again_and_half_of_them_turned_round(
    n: int, share: float, seed: int
) -> None:
    items = make_items(n)
    rules = load_guideline(Path(__file__).parents[1], "preference@v1")
    mixed = mix(items, rules, batch="b", seed=seed, repeat_share=share)
    rows = {row["item_id"]: row for row in mixed.items.to_pylist()}
    assert len(rows) == mixed.items.num_rows == n + mixed.mixed.num_rows
    assert mixed.mixed.num_rows == min(n, max(1, round(share * n)))
    swaps = 0
    for test in mixed.mixed.to_pylist():
        again, first = rows[test["item_id"]], rows[test["of_item"]]
        swaps += test["role"] == "swap"
        turned = first["output_ids"][::-1] if test["role"] == "swap" else first["output_ids"]
        assert again["output_ids"] == turned
        assert {**again, "item_id": "", "output_ids": []} == {
            **first, "item_id": "", "output_ids": [],
        }  # fmt: skip
    assert swaps == mixed.mixed.num_rows // 2
    assert mix(items, rules, batch="b", seed=seed, repeat_share=share) == mixed


def test_a_single_response_is_never_turned_round() -> None:
    rules = load_guideline(Path(__file__).parents[1], "preference@v1")
    mixed = mix(make_items(10, size=1), rules, batch="b", seed=0, repeat_share=0.5)
    assert set(mixed.mixed["role"].to_pylist()) == {"repeat"}


@pytest.mark.parametrize(
    ("said", "vote"), [("first", "right"), ("second", "wrong"), ("tie", "tie")]
)
def test_a_known_preference_is_kept_in_terms_of_outputs(
    tmp_path: Path, said: str, vote: str
) -> None:
    root = make_project(tmp_path / "project").root
    gold = read_gold(write_gold(root, 1, said), load_guideline(root, "preference@v1"))
    text = dict(
        zip(*(gold.outputs[c].to_pylist() for c in ("output_id", "completion")), strict=True)
    )
    known = json.loads(gold.answers["gold-0"])["preference"]
    assert known["a"] < known["b"]
    assert (known["vote"] if vote == "tie" else text[known[known["vote"]]].split()[0]) == vote


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {}}, 'gold-0: its metadata has no "answer"'),
        ({"metadata": {"answer": {"preference": "left"}}}, "must be first, second or tie"),
        ({"metadata": {"answer": {"taste": "first"}}}, "does not ask 'taste'"),
        ({"metadata": {"answer": {"flags": "unsafe"}}}, "flags must be a list of 2"),
        ({"outputs": [{"model": "m", "text": "one"}]}, "does not show 1 outputs"),
        ({"prompt": ""}, "gold.jsonl:1"),
    ],
)
def test_a_bad_gold_item_is_one_clear_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    root = make_project(tmp_path / "project").root
    path = write_gold(root, 1, **changes)
    with pytest.raises(InputError) as error:
        read_gold(path, load_guideline(root, "preference@v1"))
    assert said in " ".join(str(error.value).split())


def test_gold_without_a_file_and_shares_over_one_are_refused(project: Project) -> None:
    run = make_generated(project, 2)
    with pytest.raises(InputError, match="there are no gold items for preference"):
        push(project, run, gold=0.5)
    with pytest.raises(InputError, match="--repeats is a share from 0 to 1, not 5"):
        push(project, run, repeats=5.0)
    write_gold(project.root, 1, metadata={})
    with pytest.raises(InputError, match='has no "answer"'):
        push(project, run, gold=0.5)
    assert project.unfinished() == []


def served(project: Project, push_run: Run, name: str) -> list[dict[str, Any]]:
    """Every record as Argilla serves it to an annotator, in the order of their queue."""
    with connect(project) as server:
        (user,) = add_users(project, server, [name])
        with server.as_user(user) as desk:
            (batch,) = push_run.metrics["batches"]
            dataset = server.batch(batch).id
            answer = desk.request(
                "POST",
                f"me/datasets/{dataset}/records/search",
                json={},
                include="responses,suggestions,vectors",
                limit=1000,
            )
            return [item["record"] for item in answer["items"]]


def test_nothing_that_an_annotator_is_served_tells_a_test_from_the_rest(project: Project) -> None:
    write_gold(project.root, 40)
    run = make_generated(project, 120)
    push_run = push(project, run, gold=0.1, repeats=0.1)
    assert (push_run.metrics["gold"], push_run.metrics["repeats"]) == (12, 12)
    mixed = {row["item_id"]: row for row in push_run.read("mixed").to_pylist()}
    records = served(project, push_run, "blind-1")
    assert len(records) == 144
    texts: dict[str, str] = {}
    for record in records:
        assert re.fullmatch(r"i-[0-9a-f]{16}", record["external_id"])
        shown = json.dumps(record["fields"], sort_keys=True)
        texts[record["external_id"]] = shown
    # Whatever is served beside the text and the ids is the same of every record.
    own = ("id", "external_id", "fields", "inserted_at", "updated_at")
    rest = {json.dumps({k: v for k, v in r.items() if k not in own}) for r in records}
    assert len(rest) == 1
    assert {tuple(r) for r in records} == {tuple(records[0])}
    assert {tuple(r["fields"]) for r in records} == {tuple(records[0]["fields"])}
    # They were put there among the others, in the order of ids that look alike; each person is
    # served their own random order.
    times = {record["external_id"]: record["inserted_at"] for record in records}
    assert sorted(times, key=lambda item: times[item]) == sorted(times)
    for order in (sorted(times), list(times)):
        places = [at for at, item in enumerate(order) if item in mixed]
        assert np.bincount(np.array(places) // 48, minlength=3).min() >= 2
    for item, test in mixed.items():
        if test["of_item"]:
            assert (texts[item] != texts[test["of_item"]]) == (test["role"] == "swap")
    # Gold shows its better output on either side.
    shown = {row["item_id"]: row["output_ids"] for row in push_run.read("items").to_pylist()}
    first = {
        shown[item][0] == (known := json.loads(test["answer"])["preference"])[known["vote"]]
        for item, test in mixed.items()
        if test["role"] == "gold"
    }
    assert first == {True, False}


def test_answers_to_tests_are_kept_apart_and_never_vote(project: Project) -> None:
    write_gold(project.root, 3)
    run = make_generated(project, 8)
    push_run = push(project, run, guideline="preference@v1", gold=0.2, repeats=0.25)
    everything = push_run.read("items")["item_id"].to_pylist()
    for name in ("mix-1", "mix-2"):
        answers = {item: {"preference": {"value": "a_better"}} for item in everything}
        submit(project, push_run, name, answers)
    pulled = pull(project, push_run)
    tests = set(pulled.read("mixed")["item_id"].to_pylist())
    assert len(tests) == 4
    assert set(pulled.read("items")["item_id"].to_pylist()) == set(everything) - tests
    assert not tests & set(pulled.read("responses")["item_id"].to_pylist())
    apart = pulled.read("mixed_responses")
    assert set(apart["item_id"].to_pylist()) == tests
    noted = pulled.metrics
    assert (noted["items"], noted["answered"], noted["submitted"]) == (8, 8, 16)
    assert noted["mixed_submitted"] == 8
    judged = judge(project, pulled)
    assert judged.metrics["pairs"] == 8
    assert judged.metrics["votes"] == 16
    # A repeat that is turned round and answered by the side contradicts itself.
    value = {
        (row["item_id"], row["annotator"]): row["value"]
        for table in (apart, pulled.read("responses"))
        for row in table.to_pylist()
    }
    same = {
        test["role"]: value[test["item_id"], "mix-1"] == value[test["of_item"], "mix-1"]
        for test in pulled.read("mixed").to_pylist()
        if test["of_item"]
    }
    assert same == {"repeat": True, "swap": False}


def test_a_batch_that_grows_shows_no_gold_item_twice(project: Project) -> None:
    write_gold(project.root, 3)
    first = push(project, make_generated(project, 4), batch="grows", gold=0.5)
    second = push(project, make_generated(project, 8), batch="grows", gold=0.25)
    gold = [set(run.read("mixed")["item_id"].to_pylist()) for run in (first, second)]
    assert [len(ids) for ids in gold] == [2, 1]
    assert not gold[0] & gold[1]


def test_a_finished_push_can_be_shown_again_with_its_gold(project: Project) -> None:
    write_gold(project.root, 2)
    push_run = push(project, make_generated(project, 4), gold=0.5)
    gold_file(project.root, "preference").unlink()
    shown = Shown.of_push(push_run)
    assert {"gold-0", "gold-1"} <= set(shown.messages)
    assert push(project, push_run.parents[0], gold=0.5) == push_run
