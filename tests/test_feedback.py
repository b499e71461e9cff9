"""Reinforcement learning from feedback: it pleases its reward model, and says what it read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from loop_runs import new_project
from preference_runs import built
from tiny_model import write_tiny_model

from align.evaluate.step import evaluate
from align.feedback import prompt_rows, with_reward
from align.model import load_model
from align.model_ref import resolve_model
from align.recipe import RlooRecipe
from align.reward_scores import load_reward_model
from align.train import train
from annotate.errors import InputError, ProjectError, TrainingError
from annotate.runs import Project, Run, RunPlan

REWARD = """
method: reward
model: {model}
max_length: 96
trainer: {{num_train_epochs: 6, per_device_train_batch_size: 4, learning_rate: 1.0e-2}}
"""
FEEDBACK = """
method: {method}
model: {model}
max_length: 96
trainer: {{max_steps: 12, per_device_train_batch_size: 16, {length}: 8, learning_rate: 1.0e-2,
  beta: 0.01, logging_steps: 2, eval_strategy: steps, eval_steps: 4}}
"""
LENGTH = {"rloo": "max_completion_length", "grpo": "max_completion_length"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def scored(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Run]:
    """A project with a build run, and a reward model that likes how "yes, gladly" is written."""
    project = new_project(tmp_path_factory.mktemp("scored"))
    built(project, n=32)
    path = project.root / "reward.yaml"
    path.write_text(REWARD.format(model=tiny))
    return project, train(project, path)


def feedback(project: Project, tiny: Path, method: str, extra: str = "") -> Path:
    path = project.root / f"{method}.yaml"
    length = LENGTH.get(method, "max_new_tokens")
    path.write_text(FEEDBACK.format(method=method, model=tiny, length=length) + extra)
    return path


def log_of(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "method", ["rloo", pytest.param("grpo", marks=slow), pytest.param("online-dpo", marks=slow)]
)
def test_it_pleases_its_reward_model_more(
    scored: tuple[Project, Run], tiny: Path, method: str
) -> None:
    project, judge = scored
    run = train(project, feedback(project, tiny, method))
    held_out = [entry["eval_reward"] for entry in log_of(run) if "eval_reward" in entry]
    assert held_out[-1] > held_out[0]
    assert run.metrics["eval_reward"] == held_out[-1]
    assert run.metrics["eval_reward_error"] > 0
    assert run.metrics["makes"] == "model"
    assert judge in run.parents
    assert run.metrics["reward_model"] == judge.id


def test_a_second_reward_is_measured_and_not_learnt_from(
    scored: tuple[Project, Run], tiny: Path
) -> None:
    project, judge = scored
    extra = f"reward: {judge.id}\nheld_out_reward: {judge.id}\n"
    path = feedback(project, tiny, "rloo", extra)
    path.write_text(path.read_text().replace("max_steps: 12", "max_steps: 2"))
    run = train(project, path)
    entry = next(entry for entry in log_of(run) if "rewards/held_out/mean" in entry)
    # The same model twice: TRL's reward would be twice as high if both had a weight.
    assert entry["reward"] == pytest.approx(entry["rewards/reward/mean"])
    assert entry["rewards/held_out/mean"] == pytest.approx(entry["rewards/reward/mean"])
    assert run.metrics["eval_rewards/held_out/mean"] == run.metrics["eval_reward"]


def test_what_cannot_be_trained_so_is_one_line(scored: tuple[Project, Run], tiny: Path) -> None:
    project, _ = scored
    path = feedback(project, tiny, "rloo", f"reward: {tiny}\n")
    with pytest.raises(TrainingError, match="it is no reward model"):
        train(project, path)
    path = feedback(project, tiny, "rloo", "new_special_tokens: ['<|tool|>']\n")
    with pytest.raises(InputError, match="the reference would not know them"):
        train(project, path)
    path = feedback(project, tiny, "rloo")
    path.write_text(path.read_text().replace("max_length: 96", "max_length: 20"))
    with pytest.raises(InputError, match="longer than max_length"):
        train(project, path)
    path = feedback(project, tiny, "rloo")
    path.write_text(path.read_text().replace("size: 16", "size: 16, num_generations: 5"))
    with pytest.raises(TrainingError, match="must be divisible by num_generations"):
        train(project, path)
    assert project.unfinished() == []


def test_without_a_reward_model_the_way_to_one_is_named(tmp_path: Path, tiny: Path) -> None:
    project = new_project(tmp_path)
    built(project)
    with pytest.raises(ProjectError, match="no reward model yet") as caught:
        train(project, feedback(project, tiny, "rloo"))
    assert "handloom train reward-" in caught.value.remedy


def test_a_prompt_of_several_pairs_is_one_prompt(scored: tuple[Project, Run]) -> None:
    project, _ = scored
    pairs = project.latest("build").read("preference")
    twice = prompt_rows(pairs.take([0, 1, 0, 3, 1]))
    assert twice["prompt"].to_pylist() == pairs["prompt"].take([0, 1, 3]).to_pylist()
    assert twice["split"].to_pylist() == pairs["split"].take([0, 1, 3]).to_pylist()


def test_a_sweeps_trial_is_no_reward_model_and_a_merged_one_is(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    makes = {"makes": "reward-model"}
    for step, settings in (("train", {}), ("train", {"sweep": "r1-sweep-0/0"})):
        with project.draft(RunPlan(step, 1, settings=settings)) as draft:
            draft.note(**makes)
    recipe = RlooRecipe(method="rloo")
    whole = project.all_runs()[0]
    assert with_reward(project, recipe).reward == whole.id != draft.run.id
    with project.draft(RunPlan("merge", 1, (whole,))) as merged:
        merged.note(**makes)
    assert with_reward(project, recipe).reward == merged.run.id


@pytest.mark.parametrize("adapters", ["prefix: {tokens: 4}", "lora: {r: 4, alpha: 8}"])
def test_a_reward_model_of_adapters_alone_scores(
    scored: tuple[Project, Run], tiny: Path, adapters: str
) -> None:
    project, _ = scored
    path = project.root / "reward-adapters.yaml"
    path.write_text(REWARD.format(model=tiny) + adapters + "\n")
    run = train(project, path)
    # As beside weights in 4 bits, where nothing is merged.
    shutil.rmtree(run.path / "model", ignore_errors=True)
    ref = resolve_model(project, run.id)
    assert ref.source.endswith("adapter")
    assert evaluate(project, run).metrics["reward_accuracy"]["value"] == pytest.approx(
        run.metrics["eval_accuracy"]
    )
    with pytest.raises(TrainingError, match="it scores completions and writes none"):
        load_model(ref)
    shutil.rmtree(run.path)


def test_adapters_that_write_are_no_reward_model(tmp_path: Path, tiny: Path) -> None:
    project = new_project(tmp_path)
    built(project)
    path = project.root / "dpo.yaml"
    path.write_text(
        f"method: dpo\nmodel: {tiny}\nmax_length: 96\nprefix: {{tokens: 2}}\n"
        "trainer: {max_steps: 1, per_device_train_batch_size: 2}\n"
    )
    with pytest.raises(TrainingError, match="it is no reward model"):
        load_reward_model(resolve_model(project, train(project, path).id))
