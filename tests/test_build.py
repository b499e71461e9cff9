"""`build`: nothing is lost or doubled, the sets are what people agreed on, and kills do no harm."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from killed import killed_at
from loop_runs import generated, judged, new_project, prompt_row

from align.build import build, lines, make_sets
from align.build_recipe import DEFAULT_RECIPE, read_recipe
from align.build_sources import ambiguous_ids, gather
from align.cli import main
from annotate.errors import InputError, ProjectError
from annotate.judge import judge
from annotate.records import conform, table_from_rows
from annotate.runs import Project, Run, verify

PROMPTS = {f"prompt {n}": [f"good {n}", f"bad {n}"] for n in range(30)}
VOTES = {text: [3, 2] for text in PROMPTS} | {
    "prompt 0": [2, -1],
    "prompt 1": [0, 0],
    "prompt 2": [3],
    "prompt 3": [-2, -3],
}
ANSWERS = [
    ("prompt 4", "ada", "both_bad", True),
    ("prompt 5", "ben", "flags", (0, "untrue")),
    ("prompt 6", "ben", "flags", (1, "untrue")),
    ("prompt 7", "ada", "correction", {"text": "the best answer"}),
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


@pytest.fixture
def judge_run(project: Project) -> Run:
    same = {"the same": ["twice", "twice "]}
    return judged(
        project, generated(project, PROMPTS | same), VOTES | {"the same": [1, 1]}, ANSWERS
    )


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_every_pair_is_kept_or_dropped_for_its_reason(project: Project, judge_run: Run) -> None:
    run = build(project, [judge_run])
    metrics = run.metrics
    dropped = {"posterior": 2, "min_votes": 1, "both_bad": 1, "flags": 1, "identical": 1}
    assert metrics["dropped"] == dropped
    assert metrics["pairs"] == 31 == metrics["kept"] + sum(dropped.values())
    assert run.read("decisions").num_rows == 31
    assert run.read("preference").num_rows == metrics["kept"] == 25
    assert lines(run)[0].split() == ["judged", "pairs", "31"]
    assert "| posterior | at least 0.7 | 2 |" in (run.path / "README.md").read_text(
        encoding="utf-8"
    )


def test_the_sets_hold_what_people_said(project: Project, judge_run: Run) -> None:
    run = build(project, [judge_run])
    rows = {row["prompt"][0]["content"]: row for row in run.read("preference").to_pylist()}
    assert rows["prompt 8"]["chosen"] == messages("good 8")
    assert rows["prompt 3"]["chosen"] == messages("bad 3")
    assert rows["prompt 3"]["margin"] == pytest.approx(2.5 / 3)
    assert "prompt 5" not in rows  # the winner is flagged
    assert rows["prompt 6"]["rejected"] == messages("bad 6")  # the loser is: worth teaching
    sft = run.read("sft").to_pylist()
    (correction,) = [row for row in sft if row["source"] == "correction"]
    assert correction["completion"] == messages("the best answer")
    assert correction["annotator"] == "ada"


def test_trl_reads_the_preference_file(project: Project, judge_run: Run) -> None:
    from datasets import load_dataset
    from trl import is_conversational

    run = build(project, [judge_run])
    files = str(run.path / "preference.parquet")
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(project.root))
    assert is_conversational(rows[0])
    assert {"prompt", "chosen", "rejected", "margin"} <= set(rows.column_names)


def test_split_keeps_evaluation_prompts_out_of_training(project: Project) -> None:
    source = generated(project, PROMPTS, split="eval")
    run = build(project, [judged(project, source, {text: [3, 3] for text in PROMPTS})])
    assert run.metrics["preference"] == {"eval": 30}
    assert run.metrics["sft_split"] == {"eval": 30}


def test_a_prompt_keeps_its_side_in_the_next_round(project: Project, judge_run: Run) -> None:
    first = build(project, [judge_run])
    again = generated(project, PROMPTS, round=2, parents=(first,))
    votes = {text: [3, 3] for text in PROMPTS}
    recipe = project.root / "half.yaml"
    recipe.write_text("filters: []\nheld_out: 0.5\n")
    second = build(project, [judged(project, again, votes)], recipe=str(recipe))

    def trained(run: Run) -> set[str]:
        rows = run.read("preference")
        return set(rows.filter(pc.equal(rows["split"], "train"))["prompt_id"].to_pylist())

    assert trained(first) <= trained(second)
    assert second.metrics["preference"]["eval"] > 0


def test_several_judge_runs_become_one_set(project: Project) -> None:
    parts = [
        judged(project, generated(project, {text: PROMPTS[text]}), {text: [3, 3]})
        for text in list(PROMPTS)[:2]
    ]
    run = build(project, parts)
    assert run.metrics["kept"] == 2
    assert {parent.id for parent in run.parents} == {part.id for part in parts}


def test_every_batch_that_was_judged_together_is_built_from(project: Project) -> None:
    parts = [
        judged(project, generated(project, {text: PROMPTS[text]}), {text: [3, 3]})
        for text in list(PROMPTS)[:2]
    ]
    together = judge(project, *(part.ancestor("pull") for part in parts), method="majority")
    run = build(project, [together])
    assert (run.metrics["pairs"], run.metrics["kept"]) == (2, 2)
    assert run.metrics["quarantined"] == 0


def test_an_id_of_two_prompts_is_quarantined_not_mixed_up(project: Project) -> None:
    text = next(iter(PROMPTS))
    one = judged(project, generated(project, {text: PROMPTS[text]}), {text: [3, 3]})
    other = judged(project, generated(project, {"else": ["x", "y"]}), {"else": [3, 3]})
    sources = gather([one, other])
    assert sources.ambiguous.to_pylist() == []
    ids = pa.array(["1", "1"])
    assert ambiguous_ids(sources.prompts.set_column(0, "prompt_id", ids)).to_pylist() == ["1"]
    id_ = other.read("judgements")["prompt_id"].combine_chunks()
    sets = make_sets(dataclasses.replace(sources, ambiguous=id_), read_recipe(project))
    (row,) = sets.quarantine.to_pylist()
    assert row["reason"] == "its prompt's id stands for different prompts"
    assert sets.preference.num_rows == 1
    assert id_[0].as_py() not in sets.preference["prompt_id"].to_pylist()


def test_building_twice_finds_the_first_and_again_makes_another(
    project: Project, judge_run: Run
) -> None:
    once = build(project, [judge_run])
    assert build(project, [judge_run]).id == once.id
    other = build(project, [judge_run], again=True)
    assert other.id != once.id
    assert other.read("preference").equals(once.read("preference"))


def test_nothing_to_train_on_says_why(project: Project) -> None:
    source = generated(project, {"a": ["x", "y"]})
    with pytest.raises(InputError, match=r"no pair is left to train on; dropped by min_votes 1"):
        build(project, [judged(project, source, {"a": [3]})])
    assert project.unfinished() == []


def test_only_a_judge_run_can_be_built_from(project: Project) -> None:
    with pytest.raises(ProjectError, match="not a judge run"):
        build(project, [generated(project, {"a": ["x", "y"]})])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("filters: [{rule: agrement}]", ":1: unknown rule 'agrement'. Did you mean agreement?"),
        ("filters:\n- at_least: 2", ':2: filters.0 needs a "rule". Rules: min_votes, agreement'),
        (
            "filters:\n- rule: min_votes\n  at_last: 2",
            ":3: unknown key 'filters.0.at_last'. Did you mean at_least?",
        ),
        (
            "filters:\n- rule: min_votes\n  at_least: two",
            ":3: filters.0.at_least: Input should be a valid integer",
        ),
        ("filters: []\nheldout: 0.1", ":2: unknown key 'heldout'. Did you mean held_out?"),
        ("filters: []\nheld_out: 1.5", ":2: held_out: Input should be less than 1"),
        ("held_out: 0.5", "filters: Field required"),
        ("filters: [", "not YAML"),
        ("", "a recipe is a mapping"),
    ],
)
def test_a_broken_recipe_names_the_key(project: Project, text: str, complaint: str) -> None:
    path = project.root / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.yaml") as raised:
        read_recipe(project, str(path))
    assert complaint in str(raised.value)


def test_the_default_recipe_asks_how_probable_the_winner_is(project: Project) -> None:
    recipe = read_recipe(project)
    assert [rule.rule for rule in recipe.filters[:2]] == ["min_votes", "posterior"]
    assert recipe == read_recipe(project, DEFAULT_RECIPE)


def test_two_votes_that_agree_pass_the_default_as_they_pass_agreement(
    project: Project, judge_run: Run
) -> None:
    kept = [
        set(build(project, [judge_run], recipe=name).read("preference")["pair_id"].to_pylist())
        for name in (DEFAULT_RECIPE, "build-agreement")
    ]
    assert kept[0] == kept[1]


def test_every_shipped_recipe_builds(project: Project) -> None:
    votes = {text: [3, 2, 3] for text in PROMPTS} | {"prompt 0": [1, -3, -1], "prompt 1": [1, 0, 1]}
    run = judged(project, generated(project, PROMPTS), votes, method="dawid-skene")
    kept = {
        name: build(project, [run], recipe=f"build-{name}").metrics["kept"]
        for name in ("preference", "agreement", "strict", "soft", "spread")
    }
    assert kept["strict"] <= kept["agreement"] <= kept["preference"] <= kept["soft"]
    # -3 -1 1 are 4 apart; 0 1 1 are within 2, and mean more than 0.
    assert kept["agreement"] == 28
    assert kept["spread"] == 29


damage = st.sampled_from(
    [
        {"pair_id": None},
        {"pair_id": "j-1"},
        {"output_a": "o-unknown"},
        {"output_b": "o-1"},
        {"prompt_id": "p-unknown"},
        {"votes": 7},
        {"votes_a": None},
        {"posterior": float("nan")},
        {"posterior": 1.5},
        {"noise_rate": 0.6},
        {"strength_mean": -4.0},
        {},
    ]
)


@given(st.lists(damage, max_size=8))
def test_kept_dropped_and_quarantined_are_what_came_in(harm: list[dict[str, Any]]) -> None:
    sources = _sources_with(harm)
    sets = make_sets(sources, read_recipe(Project(Path("nowhere"))))
    counts = sets.counts
    dropped = sum(counts["dropped"].values())
    assert counts["kept"] + dropped + counts["quarantined"] == len(harm) == counts["pairs"]
    assert sets.decisions.num_rows == counts["kept"] + dropped
    assert sets.quarantine.num_rows == counts["quarantined"]
    assert all(sets.quarantine["reason"].to_pylist())
    # Each sound row is kept, each damaged one set aside; a repeated id counts once.
    good = [row for row in harm if row == {}]
    assert counts["kept"] == len(good) + ({"pair_id": "j-1"} in harm)


def _sources_with(harm: list[dict[str, Any]]) -> Any:
    from align.build_sources import Sources
    from align.sft_set import corrections
    from align.split import Sides

    row = {"prompt_id": "p", "output_a": "o-1", "output_b": "o-2", "votes_a": 2, "votes_b": 0}
    row |= {"ties": 0, "votes": 2, "posterior": 0.9, "strength_mean": 2.0, "both_bad": 0}
    rows = [row | {"pair_id": f"j-row-{at}"} | one for at, one in enumerate(harm)]
    prompt = prompt_row("p", "Hello")
    outputs = [
        {"output_id": f"o-{n}", "prompt_id": "p", "model": "m", "completion": f"text {n}"}
        for n in (1, 2)
    ]
    return Sources(
        origin="test",
        judgements=table_from_rows("judgements", rows),
        outputs=table_from_rows("outputs", outputs),
        prompts=table_from_rows("prompts", [prompt]),
        corrections=corrections(table_from_rows("responses", []), table_from_rows("items", [])),
        taken=Sides(frozenset(), frozenset()),
    )


def test_gather_reads_only_what_the_judgements_need(project: Project, judge_run: Run) -> None:
    sources = gather([judge_run])
    judged_prompts = set(sources.judgements["prompt_id"].to_pylist())
    assert set(sources.prompts["prompt_id"].to_pylist()) == judged_prompts
    assert sources.outputs.num_rows == 62


@pytest.mark.parametrize("moment", ["decisions.parquet", "README.md", "manifest.json"])
def test_killed_and_repeated_is_as_if_never_killed(
    project: Project, judge_run: Run, moment: str
) -> None:
    was_killed = killed_at(project.root, f".*.partial/{moment}", "build")
    assert was_killed
    run = build(project, [judge_run])
    assert project.unfinished() == []
    assert verify(project) == []
    expected = make_sets(gather([judge_run]), read_recipe(project))
    assert run.read("preference").equals(expected.preference)
    assert [one.id for one in project.all_runs() if one.step == "build"] == [run.id]


def test_the_command_prints_the_table_and_what_is_next(
    project: Project, judge_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(main, ["build"])
    assert done.exit_code == 0, done.output
    assert "dropped by posterior" in done.output
    assert "25 preference pairs" in done.output
    assert "next handloom train dpo-lora --model MODEL --data r1-build-" in done.output
    bad = CliRunner().invoke(main, ["build", "--recipe", "nonesuch"])
    assert bad.exit_code == 1
    assert "no such recipe" in bad.output


def test_reasons_are_json(project: Project, judge_run: Run) -> None:
    for text in build(project, [judge_run]).read("decisions")["reasons"].to_pylist():
        assert isinstance(json.loads(text), list)


def test_filters_see_prompts_and_single_votes(project: Project, judge_run: Run) -> None:
    sources = gather([judge_run])
    assert sources.votes.num_rows == judge_run.read("votes").num_rows
    recipe = project.root / "spread.yaml"
    recipe.write_text("filters: [{rule: spread, most_similar: 2}]\nheld_out: 0\n")
    dropped = build(project, [judge_run], recipe=str(recipe)).metrics["dropped"]
    # 2 and -1 are 3 apart, 0 and 0 cancel out, and one vote is too few.
    assert dropped == {"spread": 3, "identical": 1}


def test_votes_of_a_pair_judged_twice_are_those_of_the_first_run(
    project: Project, judge_run: Run
) -> None:
    again = judge(project, judge_run.ancestor("pull"), method="dawid-skene")
    sources = gather([judge_run, again])
    assert sources.votes.equals(gather([judge_run]).votes)


def test_the_noise_rate_is_that_of_the_kept(project: Project, judge_run: Run) -> None:
    run = build(project, [judge_run])
    rows = run.read("preference")
    # Two votes of two: P(θ > 1/2) for Beta(3, 1) is 7/8.
    assert rows["noise_rate"].to_pylist() == [0.125] * 25
    assert run.metrics["noise_rate"]["value"] == 0.125
    assert run.metrics["noise_rate"]["n"] == 25
    assert lines(run)[-1].strip() == (
        "estimated noise rate of the kept: 0.125 (no interval: every pair has this rate), n=25"
    )
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "chosen is 0.125 (no interval: every pair has this rate)" in card


def test_a_judge_run_of_an_earlier_release_is_built_from(project: Project, judge_run: Run) -> None:
    rows = judge_run.read("judgements").drop_columns(["noise_rate"])
    assert "noise_rate" not in rows.column_names
    sources = dataclasses.replace(gather([judge_run]), judgements=conform("judgements", rows))
    kept = make_sets(sources, read_recipe(project)).preference
    assert kept["p_chosen"].to_pylist() == [0.875] * 25


def test_order_of_rows_does_not_depend_on_order_of_judgements(
    project: Project, judge_run: Run
) -> None:
    sources = gather([judge_run])
    shuffled = sources.judgements.take(pa.array(range(sources.judgements.num_rows)[::-1]))
    rules = read_recipe(project)
    from dataclasses import replace

    turned = make_sets(replace(sources, judgements=shuffled), rules)
    assert turned.preference.equals(make_sets(sources, rules).preference)
