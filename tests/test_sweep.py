"""Sweeps: every trial a run, stopped early where it is worse, the same after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from loop_runs import new_project
from preference_runs import built, pair
from tiny_model import write_tiny_model

from align.cli import main
from align.model_ref import newest_model
from align.sweep import step
from align.sweep.space import Dimension, read_space, with_values
from align.sweep.step import BEST, best_of, sweep
from align.sweep.text import best_line, trial_lines
from align.sweep.trials import COMPLETE, FAILED, STOPPED, Median, Outcome, study_of
from annotate.errors import InputError, TrainingError
from annotate.records import table_from_rows
from annotate.runs import Project, Run, RunPlan, verify

SFT = """
method: sft
model: {model}
demonstrations: {{source: support-desk, n: 40}}
max_length: 192
trainer: {{num_train_epochs: 2, per_device_train_batch_size: 8, learning_rate: 5.0e-3}}
"""
LEARNING_RATE = Dimension("trainer.learning_rate", (1e-6, 5e-3))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def project_with(folder: Path, tiny: Path) -> tuple[Project, Path]:
    project = new_project(folder)
    path = project.root / "r.yaml"
    path.write_text(SFT.format(model=tiny))
    return project, path


def test_a_space_is_read_as_it_is_written() -> None:
    texts = ("trainer.learning_rate=1e-5..1e-3:log", "max_length=32..64", "lora.r=4,8", "model=a,b")
    rate, length, rank, model = read_space(texts)
    assert rate == Dimension("trainer.learning_rate", low=1e-5, high=1e-3, logarithmic=True)
    assert length == Dimension("max_length", low=32, high=64)
    assert (rank.choices, model.choices) == ((4, 8), ("a", "b"))
    assert read_space(["a=true,null"])[0].choices == (True, None)
    for text, one in zip(texts[:1], (rate,), strict=True):
        assert read_space([one.to_text()]) == (one,), text


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ([], "at least one field"),
        (["trainer.learning_rate"], "says no values"),
        (["a=1..x"], "from a number up to a larger one"),
        (["a=2..1"], "from a number up to a larger one"),
        (["a=0..1:log"], "both above 0"),
        (["a=4"], "two or more"),
        (["a=4,4"], "two or more"),
        (["a=1,2", "a=3..4"], "named twice"),
    ],
)
def test_a_space_that_says_nothing_is_refused(texts: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_space(texts)


KEYS = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=3).map(".".join)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers()), KEYS, st.integers())
def test_only_the_named_field_changes(content: dict[str, int], key: str, value: int) -> None:
    before = dict(content)
    outer = key.split(".")[0]
    if "." in key and isinstance(content.get(outer), int) and content[outer]:
        with pytest.raises(InputError):
            with_values(content, {key: value})
        return
    changed = with_values(content, {key: value})
    assert content == before
    place = changed
    for name in key.split("."):
        place = place[name]
    assert place == value
    assert {k: v for k, v in changed.items() if k != outer} == {
        k: v for k, v in content.items() if k != outer
    }


def test_it_finds_the_better_learning_rate_and_no_trial_is_a_rounds_model(
    tmp_path: Path, tiny: Path
) -> None:
    project, path = project_with(tmp_path, tiny)
    run = sweep(project, path, [LEARNING_RATE], trials=3)
    rows = run.read("trials").to_pylist()
    assert [row["number"] for row in rows] == [0, 1, 2]
    by_rate: dict[float, set[float]] = {}
    for row in rows:
        by_rate.setdefault(json.loads(row["values"])["trainer.learning_rate"], set()).add(
            row["figure"]
        )
    assert min(by_rate[5e-3]) < min(by_rate.get(1e-6, {9.0}))
    assert run.metrics["best"]["trainer.learning_rate"] == 5e-3
    best = yaml.safe_load((run.path / BEST).read_text())
    assert best["trainer"]["learning_rate"] == 5e-3
    assert "sweep" not in best
    assert "fewer than 10" in run.metrics["importance_reason"]
    trained = {run.id for run in project.all_runs() if run.step == "train"}
    assert {row["run"] for row in rows} <= trained
    assert newest_model(project).name == "base"
    assert verify(project) == []
    assert sweep(project, path, [LEARNING_RATE], trials=3).id == run.id
    assert run.parents == []  # demonstrations and a folder's model: no run is behind it
    assert run.manifest["settings"]["model"] == "model"


def test_an_interrupted_sweep_goes_on_with_the_same_trials(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [Dimension("trainer.learning_rate", low=1e-4, high=1e-2, logarithmic=True)]
    project, path = project_with(tmp_path / "a", tiny)
    whole = sweep(project, path, space, trials=2)
    other, path = project_with(tmp_path / "b", tiny)
    begun = step.train
    count = 0

    def killed_at_the_second(*given: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return begun(*given, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(step, "train", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            sweep(other, path, space, trials=2)
    assert [run.step for run in other.all_runs()] == ["train"]
    resumed = sweep(other, path, space, trials=2)
    assert resumed.id == whole.id
    kept = ["number", "values", "figure", "path"]
    assert resumed.read("trials").select(kept) == whole.read("trials").select(kept)


def test_a_trial_worse_than_the_median_at_its_step_is_stopped() -> None:
    space = (Dimension("x", low=0.0, high=1.0),)
    path = ((1, 1.0), (2, 0.5))
    before = [Outcome(n, {"x": n / 10}, COMPLETE, f"r{n}", 0.5, 2, path) for n in range(5)]
    study = study_of(before, space, maximise=False, seed=0)
    worse = Median(study.ask({"x": space[0].distribution()}), "eval_loss")
    worse.see([{"step": 1, "eval_loss": 1.0}, {"step": 1, "loss": 9.0}])
    assert not worse.stopped  # as good as the median of 1.0
    worse.see([{"step": 1, "eval_loss": 1.0}, {"step": 2, "eval_loss": 0.6}])
    assert worse.stopped
    assert worse.path == {1: 1.0, 2: 0.6}
    study = study_of(before, space, maximise=False, seed=0)
    better = Median(study.ask({"x": space[0].distribution()}), "eval_loss")
    better.see([{"step": 1, "eval_loss": 0.9}, {"step": 2, "eval_loss": float("nan")}])
    assert not better.stopped


def test_suggestions_follow_from_what_is_known_alone() -> None:
    space = (Dimension("x", low=0.0, high=1.0), Dimension("y", (1, 2, 3)))
    suggested = []
    for _ in range(2):
        outcomes: list[Outcome] = []
        for number in range(12):
            study = study_of(outcomes, space, maximise=True, seed=3)
            values = study.ask({one.key: one.distribution() for one in space}).params
            state = FAILED if number == 4 else STOPPED if number == 5 else COMPLETE
            figure = None if state == FAILED else values["x"]
            outcomes.append(Outcome(number, values, state, "r", figure, 1, ((1, values["x"]),)))
        suggested.append([one.values for one in outcomes])
    assert suggested[0] == suggested[1]
    best = best_of(outcomes, maximise=True)
    assert best is not None
    assert best.values["x"] == max(one.values["x"] for one in outcomes if one.state != FAILED)
    # Only x matters.
    wanted = step.Sweep(None, Path(), space, 12, "f", True, {}, 0)  # type: ignore[arg-type]
    shares, reason = step.importance(outcomes, wanted)
    assert reason is None
    assert shares["x"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        ("trainer.learning_rat=1..2", "has no argument 'learning_rat'. Did you mean learning_rate"),
        ("max_lenght=32,64", "--over max_lenght=32: a sft recipe has no such field"),
        ("max_length=2,64", "--over max_length=2: Input should be greater"),
        ("model=a,b", "a sweep does not vary this"),
        ("max_length.x=2,64", "no mapping of the recipe"),
    ],
)
def test_a_field_that_is_none_is_one_line(
    tmp_path: Path, tiny: Path, over: str, complaint: str
) -> None:
    project, path = project_with(tmp_path, tiny)
    result = CliRunner().invoke(main, ["-C", str(project.root), "sweep", str(path), "--over", over])
    assert result.exit_code == 1
    assert complaint in " ".join(result.output.split())
    assert project.all_runs() == project.unfinished() == []


def test_the_command_prints_the_trials_and_the_next_command(tmp_path: Path, tiny: Path) -> None:
    project, path = project_with(tmp_path, tiny)
    path.write_text(path.read_text().replace("num_train_epochs: 2", "num_train_epochs: 1"))
    arguments = ["-C", str(project.root), "sweep", str(path), "--trials", "2"]
    # A rate at which the loss is no number: that trial fails, and the sweep goes on.
    arguments += ["--over", "trainer.learning_rate=1.0e+30,1e-3", "--seed", "1"]
    path.write_text(path.read_text().replace("trainer: {", "trainer: {max_grad_norm: 1.0e+30, "))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    run = project.latest("sweep")
    assert f"{run.id}: eval_loss" in result.output
    assert f"next handloom train runs/{run.id}/best.yaml" in result.output
    assert sum(run.metrics["states"].values()) == 2


def test_a_sweep_in_which_all_fail_says_why(tmp_path: Path, tiny: Path) -> None:
    project, path = project_with(tmp_path, tiny)
    path.write_text(path.read_text().replace("trainer: {", "trainer: {max_grad_norm: 1.0e+30, "))
    space = [Dimension("trainer.learning_rate", (1e30, 1e31))]
    with pytest.raises(TrainingError, match=r"none of 2 trials came to a figure.*not a number"):
        sweep(project, path, space, trials=2)


def test_data_of_which_nothing_is_held_out_are_refused_first(tmp_path: Path, tiny: Path) -> None:
    project = new_project(tmp_path)
    path = project.root / "r.yaml"
    path.write_text(f"method: dpo\nmodel: {tiny}\nmax_length: 128\ntrainer: {{max_steps: 2}}\n")
    build = built(project, [pair(number, split="train") for number in range(4)])
    with pytest.raises(InputError, match=f"{build.id}: none of its rows is held out"):
        sweep(project, path, [Dimension("trainer.beta", (0.1, 0.2))], trials=2)
    assert project.unfinished() == []
    assert project.all_runs() == [build]


def test_values_that_no_training_can_have_fail_that_trial_alone(tmp_path: Path, tiny: Path) -> None:
    project, path = project_with(tmp_path, tiny)
    # No dialogue has so few tokens; 12 rows cannot be had from batches of 8.
    for space in (Dimension("max_length", (8, 192)), Dimension("batch_size", (8, 12))):
        run = sweep(project, path, [space], trials=2, seed=0)
        rows = run.read("trials").to_pylist()
        assert {row["state"] for row in rows} == {COMPLETE, FAILED}
        (reason,) = {row["reason"] for row in rows if row["state"] == FAILED}
        assert "longer than max_length" in reason or "no multiple of 8" in reason


def test_trials_and_the_best_recipe_keep_the_data_and_model_of_the_start(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = new_project(tmp_path)
    first = built(project)
    path = project.root / "r.yaml"
    path.write_text("method: dpo\nmax_length: 128\ntrainer: {max_steps: 2}\n")
    begun = step.train

    def then_built_anew(*given: Any, **more: Any) -> Run:
        run = begun(*given, **more)
        built(project, n=8 + len(project.all_runs()))
        return run

    monkeypatch.setattr(step, "train", then_built_anew)
    space = [Dimension("trainer.learning_rate", (1e-3, 2e-3))]
    run = sweep(project, path, space, trials=2, model=str(tiny))
    assert run.parents == [first]
    for row in run.read("trials").to_pylist():
        assert project.resolve(row["run"]).parents == [first]
    best = yaml.safe_load((run.path / BEST).read_text())
    assert (best["data"], best["model"]) == (first.id, str(tiny))


def test_no_runs_id_is_cut_and_ties_are_told(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    with project.draft(RunPlan("train", 1)) as draft:
        draft.note(method="dpo", eval_pairs=9)
    trial = draft.run.id
    key = "trainer.per_device_train_batch_size"
    rows = [
        Outcome(number, {key: 4 + number, "trainer.beta": 0.1}, COMPLETE, trial, figure, 8)
        for number, figure in enumerate((0.25, 0.5, 0.5))
    ]
    rows.append(Outcome(3, {key: 9, "trainer.beta": 0.1}, FAILED, reason="too little memory"))
    figure = "eval_rewards/accuracies"
    with project.draft(RunPlan("sweep", 1)) as draft:
        listed = [{**one.to_dict(), "values": json.dumps(one.values), "path": "[]"} for one in rows]
        draft.write("trials", table_from_rows("trials", listed))
        draft.note(figure=figure, maximise=True, states={COMPLETE: 3, FAILED: 1})
        draft.note(best={"trial": 1, "run": trial, "figure": 0.5})
    head, *shown = trial_lines(draft.run)
    assert head.split() == ["trial", key, "trainer.beta", figure, "steps", "state", "run"]
    assert [line.split()[0] for line in shown] == ["1", "2", "0", "3"]
    assert all(line.endswith(f"complete  {trial}") for line in shown[:3])
    assert shown[3].endswith("failed    too little memory")
    said = f"{figure} 0.5 of 9 pairs in trial 1, and in 1 other trial as well"
    assert best_line(draft.run) == f"{said} (3 complete, 1 failed)"
