"""Training as a step: it learns, resumes after SIGKILL to the same loss, refuses bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from killed import killed_at
from loop_runs import new_project
from tiny_model import write_tiny_model

from align.cli import main
from align.train import train
from align.training import CHECKPOINTS, resources_reported
from annotate.errors import InputError, ResourceError, TrainingError
from annotate.records import table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan, verify

SFT = """
method: sft
model: {model}
demonstrations: {{source: support-desk, n: 40}}
max_length: 192
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 8, learning_rate: 5.0e-3}}
"""
DPO = """
method: dpo
model: {model}
max_length: 128
trainer: {{num_train_epochs: 4, per_device_train_batch_size: 4, learning_rate: 2.0e-3}}
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def recipe(project: Project, text: str, tiny: Path | str, name: str = "r", extra: str = "") -> Path:
    path = project.root / f"{name}.yaml"
    path.write_text(text.format(model=tiny) + extra)
    return path


def built(
    project: Project, n: int = 16, *, equal: bool = False, noise_rate: float | None = None
) -> Run:
    """A build run whose chosen completions say yes and whose rejected ones say no."""
    rows = []
    for number in range(n):
        chosen = [text_message("assistant", "yes, gladly")]
        rejected = chosen if equal else [text_message("assistant", "no, never")]
        rows.append(
            {
                "row_id": f"t-{number}",
                "prompt_id": f"p-{number}",
                "pair_id": f"j-{number}",
                "prompt": [text_message("user", f"may I ask number {number}?")],
                "chosen": chosen,
                "rejected": rejected,
                "margin": 0.5,
                "noise_rate": noise_rate,
                "split": "eval" if number % 4 == 3 else "train",
            }
        )
    plan = RunPlan("build", 1, settings={"n": n, "equal": equal, "noise": noise_rate})
    with project.draft(plan) as draft:
        draft.write("preference", table_from_rows("preference", rows))
        draft.write("sft", table_from_rows("sft", []))
    return draft.run


def log_of(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


def test_sft_learns_and_records_what_it_learnt_from(project: Project, tiny: Path) -> None:
    run = train(project, recipe(project, SFT, tiny))
    losses = [entry["eval_loss"] for entry in log_of(run) if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.2
    assert run.round == 0
    # Of 40 dialogues two are held out, and four have a prompt that leaves no room for an answer.
    assert run.metrics["rows"] == 40 - 2 - 4
    assert run.metrics["too_long"] == 4
    assert run.metrics["eval_loss"] == losses[-1]
    rows = run.read("sft")
    assert pc.unique(rows["source"]).to_pylist() == ["demonstration"]
    assert not (run.path / CHECKPOINTS).exists()
    assert (run.path / "model" / "model.safetensors").is_file()
    assert verify(project) == []
    assert train(project, recipe(project, SFT, tiny)).id == run.id


def test_dpo_prefers_what_people_preferred(project: Project, tiny: Path) -> None:
    build = built(project)
    run = train(project, recipe(project, DPO, tiny))
    assert run.parents == [build]
    assert run.metrics["eval_rewards/accuracies"] == 1.0
    assert run.metrics["loss"] < 0.6 < 0.69 < log_of(run)[0]["loss"]


ROBUST = DPO.replace("trainer: {{", "trainer: {{loss_type: [robust], label_smoothing: from-data, ")


def test_the_sets_own_noise_rate_becomes_the_flip_probability(project: Project, tiny: Path) -> None:
    from math import log

    built(project, noise_rate=0.2)
    run = train(project, recipe(project, ROBUST, tiny))
    assert run.metrics["label_smoothing"]["value"] == pytest.approx(0.2)
    assert run.metrics["label_smoothing"]["n"] == 12  # the pairs trained on, not those held out
    # Before the first step both rewards are 0: robust DPO's loss is (.8 - .2) / (1 - .4) ln 2.
    assert log_of(run)[0]["loss"] == pytest.approx(log(2), abs=1e-3)
    typed = ROBUST.replace("from-data", "0.2")
    again = train(project, recipe(project, typed, tiny))
    assert [e.get("loss") for e in log_of(run)] == [e.get("loss") for e in log_of(again)]
    plain = train(project, recipe(project, typed.replace("0.2", "0.0"), tiny))
    assert plain.metrics["loss"] != run.metrics["loss"]


@pytest.mark.parametrize(
    ("noise_rate", "complaint"),
    [(None, "no kept pair has a posterior"), (0.5, "half of the labels may be flipped")],
)
def test_no_noise_rate_to_train_with_is_one_clear_line(
    project: Project, tiny: Path, noise_rate: float | None, complaint: str
) -> None:
    built(project, noise_rate=noise_rate)
    with pytest.raises(InputError, match=complaint):
        train(project, recipe(project, ROBUST, tiny))
    assert project.unfinished() == []


def test_adapters_are_kept_beside_the_merged_model(project: Project, tiny: Path) -> None:
    built(project)
    extra = "lora: {r: 4, alpha: 8}\nnew_special_tokens: ['<|tool|>']\n"
    run = train(project, recipe(project, DPO, tiny, extra=extra))
    assert (run.path / "adapter" / "adapter_model.safetensors").is_file()
    assert run.metrics["eval_rewards/accuracies"] > 0.5
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    model = AutoModelForCausalLM.from_pretrained(run.path / "model")
    assert tokenizer.tokenize("a<|tool|>b") == ["a", "<|tool|>", "b"]
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_killed_in_the_middle_it_ends_as_if_unbroken(project: Project, tiny: Path) -> None:
    often = SFT.replace("trainer: {{", "trainer: {{save_strategy: steps, save_steps: 2, ")
    unbroken = train(project, recipe(project, often, tiny))
    other = new_project(project.root / "other")
    again = recipe(other, often, tiny)
    pattern = f".*.partial/{CHECKPOINTS}/checkpoint-*/trainer_state.json"
    assert killed_at(other.root, pattern, "train", str(again))
    assert other.all_runs() == []
    resumed = train(other, again)
    assert resumed.id == unbroken.id
    assert resumed.metrics["eval_loss"] == pytest.approx(unbroken.metrics["eval_loss"], abs=1e-6)
    assert [e["step"] for e in log_of(resumed)] == [e["step"] for e in log_of(unbroken)]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("no-such-model", "an earlier download left no such model"),
        ("./no-such-folder", "no such folder"),
        ("r1-train-00000000", "no such run"),
    ],
)
def test_an_unknown_model_is_one_clear_line(
    project: Project, model: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a network the hub's client tries again for most of a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = recipe(project, SFT, model)
    result = CliRunner().invoke(main, ["-C", str(project.root), "train", str(path)])
    assert result.exit_code == 1
    assert reason in result.output
    assert result.output.strip().count("\n") == 0
    assert project.all_runs() == []


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("trainer:", "lora: {{target_modules: [nope_proj]}}\ntrainer:", "nope_proj"),
        ("num_train_epochs: 4", "lr_scheduler_type: upward", "upward"),
        # Found out only when training begins.
        ("num_train_epochs: 4", "lr_scheduler_kwargs: {{no_such: 1}}", "no_such"),
    ],
)
def test_settings_that_the_trainer_refuses_are_one_line(
    project: Project, tiny: Path, right: str, wrong: str, reason: str
) -> None:
    built(project)
    path = recipe(project, DPO.replace(right, wrong), tiny)
    with pytest.raises(TrainingError, match="the trainer refuses these settings") as caught:
        train(project, path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert project.unfinished() == []


def test_equal_completions_are_refused_with_the_row(project: Project, tiny: Path) -> None:
    built(project, equal=True)
    with pytest.raises(InputError, match="t-0: chosen equals rejected"):
        train(project, recipe(project, DPO, tiny))


def test_an_empty_set_is_refused(project: Project, tiny: Path) -> None:
    built(project, n=0)
    with pytest.raises(InputError, match="no row to train on"):
        train(project, recipe(project, DPO, tiny))


def test_a_loss_that_is_no_number_ends_in_one_clear_error(project: Project, tiny: Path) -> None:
    path = recipe(project, SFT, tiny)
    path.write_text(path.read_text().replace("5.0e-3", "1.0e+30, max_grad_norm: 1.0e+30"))
    with pytest.raises(TrainingError, match="not a number"):
        train(project, path)
    assert project.all_runs() == []


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("learning_rat: 1", "Did you mean learning_rate?"), ("output_dir: x", "set by Handloom")],
)
def test_a_wrong_argument_of_the_trainer_is_refused(
    project: Project, tiny: Path, key: str, remedy: str
) -> None:
    path = recipe(project, SFT, tiny)
    path.write_text(path.read_text().replace("num_train_epochs: 3", key))
    with pytest.raises(InputError, match=remedy.replace("?", r"\?")):
        train(project, path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "disk"),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534", "disk"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "memory"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes", "memory"),
    ],
)
def test_what_libraries_say_of_a_full_disk_or_memory_is_ours(said: str, expected: str) -> None:
    """The words are those that safetensors and torch used when a disk of 300 KB was full."""
    with (
        pytest.raises(ResourceError, match=f"r1-train-x: .*{expected}") as caught,
        resources_reported("r1-train-x"),
    ):
        raise RuntimeError(said)
    assert caught.value.remedy


def test_another_failure_of_a_library_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"), resources_reported("r1-train-x"):
        raise RuntimeError("shapes do not fit")
