"""Which items a batch holds, and that the order shown is balanced, random and stable."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.arrangement import Arrangement, arrange
from annotate.guidelines import load_guideline
from annotate.records import content_id, table_from_rows

ROOT = Path(__file__).parents[1]
PREFERENCE = load_guideline(ROOT, "preference@v1")
RANKING = load_guideline(ROOT, "ranking@v1")


def tables(models_of: dict[str, list[str]]) -> tuple[pa.Table, pa.Table]:
    """Prompts, and one output of each named model: {"p-1": ["m0", "m1"]}."""
    prompts = [
        {"prompt_id": prompt, "messages": [{"role": "user", "content": f"Say {prompt}"}]}
        for prompt in models_of
    ]
    outputs = [
        {
            "output_id": content_id("o", prompt, model, n),
            "prompt_id": prompt,
            "model": model,
            "completion": f"{prompt} by number {n}",
        }
        for prompt, models in models_of.items()
        for n, model in enumerate(models)
    ]
    return table_from_rows("prompts", prompts), table_from_rows("outputs", outputs)


def many(n: int, models: list[str]) -> tuple[pa.Table, pa.Table]:
    return tables({f"p-{i}": models for i in range(n)})


def preference_items(prompts: pa.Table, outputs: pa.Table, **options: Any) -> Arrangement:
    return arrange(prompts, outputs, PREFERENCE, **{"batch": "b1", "seed": 0, **options})


def a_first(items: pa.Table) -> int:
    return sum(row[0] < row[1] for row in items["output_ids"].to_pylist())


def first_model(items: pa.Table, outputs: pa.Table) -> Counter[tuple[str, str]]:
    """How often each (model shown first, model shown second) occurs."""
    model = dict(zip(*(outputs[c].to_pylist() for c in ("output_id", "model")), strict=True))
    return Counter(tuple(model[o] for o in row) for row in items["output_ids"].to_pylist())


def test_a_comparison_is_made_of_every_pair_of_a_prompt_s_outputs() -> None:
    result = preference_items(*tables({"p-1": ["x", "y", "z"], "p-2": ["x", "y"]}))

    assert Counter(result.items["prompt_id"].to_pylist()) == {"p-1": 3, "p-2": 1}
    pairs = {frozenset(row) for row in result.items["output_ids"].to_pylist()}
    assert len(pairs) == 4
    assert set(result.items["kind"].to_pylist()) == {"compare"}
    assert set(result.items["guideline"].to_pylist()) == {"preference@v1"}
    assert result.quarantine.num_rows == 0


def test_at_most_so_many_pairs_of_a_prompt() -> None:
    prompts, outputs = tables({"p-1": ["x", "y", "z", "w"], "p-2": ["x", "y"]})
    result = preference_items(prompts, outputs, pairs_per_prompt=2)
    again = preference_items(prompts, outputs.slice(0), pairs_per_prompt=2)

    assert Counter(result.items["prompt_id"].to_pylist()) == {"p-1": 2, "p-2": 1}
    assert result.items.equals(again.items)


def test_chosen_pairs_alone_are_shown_and_balanced() -> None:
    """As of a failures run, where the new model is shown against the one it lost to."""
    prompts, outputs = many(60, ["new", "old", "first"])
    by_prompt: dict[str, dict[str, str]] = {}
    for row in outputs.to_pylist():
        by_prompt.setdefault(row["prompt_id"], {})[row["model"]] = row["output_id"]
    lost = {frozenset((o["new"], o["old"])) for o in by_prompt.values()}
    items = preference_items(prompts, outputs, pairs=lost, pairs_per_prompt=1).items

    assert {frozenset(row) for row in items["output_ids"].to_pylist()} == lost
    first = first_model(items, outputs)
    assert first == {("new", "old"): 30, ("old", "new"): 30}
    assert abs(a_first(items) - 30) <= 1
    assert preference_items(prompts, outputs, pairs=set()).items.num_rows == 0


def with_texts(outputs: pa.Table, *texts: str) -> pa.Table:
    at = outputs.schema.get_field_index("completion")
    return outputs.set_column(at, "completion", pa.array(texts, pa.string()))


def test_nobody_compares_equal_completions() -> None:
    prompts, outputs = many(1, ["x", "y", "z"])
    outputs = with_texts(outputs, "the same", "another", "the same\n")
    first, _, third = outputs["output_id"].to_pylist()
    result = preference_items(prompts, outputs)
    assert result.items.num_rows == 2
    assert not any({first, third} == {*row} for row in result.items["output_ids"].to_pylist())
    (aside,) = result.quarantine.to_pylist()
    assert {aside["id"], aside["content"]} == {first, third}
    assert aside["reason"] == f"it says the same as {aside['content']}: nothing to compare"


def test_a_ranking_shows_equal_completions() -> None:
    prompts, outputs = many(1, ["x", "y", "z"])
    outputs = with_texts(outputs, "the same", "another", "the same")
    result = arrange(prompts, outputs, RANKING, batch="b1", seed=0)
    assert (result.items.num_rows, result.quarantine.num_rows) == (1, 0)


def test_every_prompt_and_output_is_accounted_for() -> None:
    prompts, outputs = tables({"p-none": [], "p-one": ["x"], "p-two": ["x", "y"]})
    _, orphan = tables({"p-unknown": ["x"]})
    result = preference_items(prompts, pa.concat_tables([outputs, orphan]))

    assert result.items["prompt_id"].to_pylist() == ["p-two"]
    reasons = dict(zip(*(result.quarantine[c].to_pylist() for c in ("id", "reason")), strict=True))
    assert reasons == {
        "p-none": "number of outputs is 0, preference@v1 takes 2 or more",
        "p-one": "number of outputs is 1, preference@v1 takes 2 or more",
        orphan["output_id"][0].as_py(): "its prompt is not among the prompts",
    }


def test_a_ranking_takes_three_to_five_each_number_in_a_dataset_of_its_own() -> None:
    letters = ["u", "v", "w", "x", "y", "z"]
    prompts, outputs = tables({f"p-{n}": letters[:n] for n in range(2, 7)})
    result = arrange(prompts, outputs, RANKING, batch="b1", seed=0)

    sizes = {row["prompt_id"]: len(row["output_ids"]) for row in result.items.to_pylist()}
    assert sizes == {"p-3": 3, "p-4": 4, "p-5": 5}
    batches = {row["prompt_id"]: row["batch"] for row in result.items.to_pylist()}
    assert batches == {"p-3": "b1-of-3", "p-4": "b1-of-4", "p-5": "b1-of-5"}
    assert sorted(result.quarantine["reason"].to_pylist()) == [
        "number of outputs is 2, ranking@v1 takes 3 to 5",
        "number of outputs is 6, ranking@v1 takes 3 to 5",
    ]


def test_nothing_to_show_is_no_error() -> None:
    for guideline in (PREFERENCE, RANKING):
        result = arrange(*tables({}), guideline, batch="b1", seed=0)
        assert result.items.num_rows == result.quarantine.num_rows == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 7, 200, 201])
def test_both_sides_and_both_models_come_first_equally_often(n: int, seed: int) -> None:
    prompts, outputs = many(n, ["m0", "m1"])
    items = preference_items(prompts, outputs, seed=seed).items

    # Of 201 items 100 or 101, of 200 from 99 to 101: the balance of models comes first.
    assert abs(a_first(items) - n / 2) <= 1
    first = first_model(items, outputs)
    assert abs(first["m0", "m1"] - first["m1", "m0"]) <= 1


def test_balance_holds_within_each_pair_of_models() -> None:
    prompts, outputs = many(99, ["m0", "m1", "m2", "m2"])
    items = preference_items(prompts, outputs).items
    first = first_model(items, outputs)

    assert items.num_rows == 99 * 6
    assert abs(a_first(items) - 99 * 3) <= 1
    assert abs(first["m0", "m1"] - first["m1", "m0"]) <= 1
    assert abs(first["m1", "m2"] - first["m2", "m1"]) <= 1
    assert abs(first["m0", "m2"] - first["m2", "m0"]) <= 1
    assert first["m2", "m2"] == 99


def test_with_a_stratum_for_every_item_the_whole_is_still_balanced() -> None:
    prompts, outputs = tables({f"p-{i}": [f"m{i}", f"n{i}"] for i in range(300)})
    assert abs(a_first(preference_items(prompts, outputs).items) - 150) <= 1


def test_the_order_is_random_to_an_annotator() -> None:
    prompts, outputs = many(400, ["m0", "m1"])
    sides = [
        row[0] < row[1]
        for row in preference_items(prompts, outputs).items["output_ids"].to_pylist()
    ]
    runs = 1 + sum(x != y for x, y in itertools.pairwise(sides))
    assert 160 < runs < 260  # 201 expected of a fair coin, 400 of strict alternation

    other = preference_items(prompts, outputs, seed=1).items["output_ids"].to_pylist()
    differ = np.mean([x != (row[0] < row[1]) for x, row in zip(sides, other, strict=True)])
    assert 0.4 < differ < 0.6


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 2**40))
def test_the_order_of_rows_changes_nothing(random: Any, seed: int) -> None:
    models = ["m0", "m1", "m2"]
    prompts, outputs = tables({f"p-{i}": models[: 2 + i % 2] for i in range(9)})
    shuffled = [
        table.take(random.sample(range(len(table)), len(table))) for table in (prompts, outputs)
    ]
    straight = preference_items(prompts, outputs, seed=seed).items
    assert preference_items(*shuffled, seed=seed).items.equals(straight)


@pytest.mark.parametrize("guideline", [PREFERENCE, RANKING])
def test_more_prompts_leave_earlier_items_as_they_were(guideline: Any) -> None:
    models = ["m0", "m1", "m2"]
    few = arrange(*many(31, models), guideline, batch="b1", seed=0).items
    all_prompts, all_outputs = many(80, models)
    more = arrange(all_prompts, all_outputs, guideline, batch="b1", seed=0, earlier=few).items

    order = dict(zip(*(more[c].to_pylist() for c in ("item_id", "output_ids")), strict=True))
    for item_id, shown in zip(
        *(few[c].to_pylist() for c in ("item_id", "output_ids")), strict=True
    ):
        assert order[item_id] == shown
    if guideline is PREFERENCE:
        assert abs(a_first(more) - len(more) / 2) <= 1
        first = first_model(more, all_outputs)
        assert abs(first["m0", "m1"] - first["m1", "m0"]) <= 1
    else:
        assert_balanced_places(more, all_outputs, models)


def assert_balanced_places(items: pa.Table, outputs: pa.Table, models: list[str]) -> None:
    """Each model stands in each place equally often, but for the last, unfinished block."""
    model = dict(zip(*(outputs[c].to_pylist() for c in ("output_id", "model")), strict=True))
    places = Counter(
        (model[o], place) for row in items["output_ids"].to_pylist() for place, o in enumerate(row)
    )
    counts = [places[m, place] for m in models for place in range(len(models))]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == len(items) * len(models)


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("items", [1, 60, 61])
def test_a_ranking_shows_each_model_in_each_place_equally_often(n: int, items: int) -> None:
    models = [f"m{i}" for i in range(n)]
    prompts, outputs = many(items, models)
    shown = arrange(prompts, outputs, RANKING, batch="b1", seed=3).items
    assert_balanced_places(shown, outputs, models)
    if items > 1:  # random orders, not one order and its rotations
        model = dict(zip(*(outputs[c].to_pylist() for c in ("output_id", "model")), strict=True))
        orders = {tuple(model[o] for o in row) for row in shown["output_ids"].to_pylist()}
        assert len(orders) > n


def test_ids_depend_on_guideline_and_batch_but_not_on_the_seed() -> None:
    prompts, outputs = many(5, ["m0", "m1", "m2"])
    base = set(preference_items(prompts, outputs).items["item_id"].to_pylist())
    assert set(preference_items(prompts, outputs, seed=9).items["item_id"].to_pylist()) == base
    assert not base & set(
        preference_items(prompts, outputs, batch="b2").items["item_id"].to_pylist()
    )
    ranked = arrange(prompts, outputs, RANKING, batch="b1", seed=0).items["item_id"].to_pylist()
    assert not base & set(ranked)
