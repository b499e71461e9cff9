"""Every rule of `handloom health` on a real training made to fail that way, and on healthy ones."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from loop_runs import new_project
from tiny_model import write_tiny_model

from align.generate import generate
from align.health import TEXT_RULES, Health, health
from align.model_ref import BASE
from align.prompts import read_prompts
from align.sampling import Sampling
from align.train import train
from annotate import support_desk
from annotate.errors import TrainingError
from annotate.records import table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

RECIPE = """
method: {method}
model: {model}
max_length: 160
seed: {seed}
{more}
trainer: {{logging_steps: 1, per_device_train_batch_size: 8, save_strategy: 'no', {trainer}}}
"""
DEMONSTRATIONS = "demonstrations: {{source: support-desk, n: {n}}}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def examined(
    project: Project, model: Path | str, method: str, trainer: str, *, more: str = "", seed: int = 0
) -> Health:
    """What is said of a training by a recipe, also of one that ends in an error."""
    path = project.root / f"{method}.yaml"
    text = RECIPE.format(method=method, model=model, trainer=trainer, more=more, seed=seed)
    path.write_text(text)
    with contextlib.suppress(TrainingError):
        return health(project, train(project, path, seed=seed).id)
    (unfinished,) = project.unfinished()
    return health(project, unfinished)


def found(of: Health) -> set[str]:
    return {verdict.rule for verdict in of.flagged}


def build(project: Project, table: str, rows: list[dict[str, Any]]) -> Run:
    """A build run with these training rows; prompts and completions are texts."""
    made = []
    for number, row in enumerate(rows):
        messages = {
            name: [text_message("user" if name == "prompt" else "assistant", row[name])]
            for name in ("prompt", "completion", "chosen", "rejected")
            if name in row
        }
        split = row.get("split", "train")
        made.append(
            {"row_id": f"t-{number}", "prompt_id": f"p-{number}", "split": split} | messages
        )
    with project.draft(RunPlan("build", 1, settings={"rows": rows})) as draft:
        for name in ("preference", "sft"):
            draft.write(name, table_from_rows(name, made if name == table else []))
    return draft.run


def pairs(n: int, chosen: str = "yes, gladly", rejected: str = "no, never") -> list[dict[str, Any]]:
    return [
        {"prompt": f"may I ask number {number}?", "chosen": chosen, "rejected": rejected}
        | {"split": "eval" if number % 8 == 7 else "train"}
        for number in range(n)
    ]


def test_a_learning_rate_far_too_high_ends_in_no_number(project: Project, tiny: Path) -> None:
    trainer = "max_steps: 6, learning_rate: 1.0e+30, max_grad_norm: 1.0e+30"
    said = examined(project, tiny, "sft", trainer, more=DEMONSTRATIONS.format(n=20))
    assert not said.finished
    assert "not a number" in found(said)


def test_a_learning_rate_too_high_diverges_and_is_told_at_once(
    project: Project, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = (
        "max_steps: 40, learning_rate: 1.0, max_grad_norm: 1.0e+9, warmup_steps: 20, "
        "lr_scheduler_type: constant_with_warmup"
    )
    said = examined(project, tiny, "sft", trainer, more=DEMONSTRATIONS.format(n=80))
    assert {"divergence", "exploding gradients"} <= found(said)
    told = [line for line in capsys.readouterr().err.splitlines() if "health: " in line]
    for rule in ("divergence", "exploding gradients"):
        (line,) = [line for line in told if f"health: {rule}: " in line]
        assert f"handloom health {said.run_id}" in line


def test_no_learning_rate_is_seen(project: Project, tiny: Path) -> None:
    said = examined(
        project, tiny, "sft", "max_steps: 16, learning_rate: 0.0", more=DEMONSTRATIONS.format(n=40)
    )
    assert {"dead learning rate", "underfitting"} <= found(said)


@pytest.mark.slow
def test_a_schedule_that_ends_before_the_training_is_seen(project: Project, tiny: Path) -> None:
    trainer = (
        "max_steps: 40, learning_rate: 5.0e-3, lr_scheduler_type: polynomial, "
        "lr_scheduler_kwargs: {lr_end: 1.0e-9, power: 12.0}"
    )
    said = examined(project, tiny, "sft", trainer, more=DEMONSTRATIONS.format(n=80))
    assert "dead learning rate" in found(said)


@pytest.mark.slow
def test_too_low_a_learning_rate_underfits(project: Project, tiny: Path) -> None:
    trainer = "max_steps: 24, learning_rate: 1.0e-8"
    said = examined(project, tiny, "sft", trainer, more=DEMONSTRATIONS.format(n=80))
    assert found(said) == {"underfitting"}


@pytest.mark.slow
def test_shuffled_labels_underfit(project: Project, tiny: Path) -> None:
    rng = random.Random(0)
    rows = pairs(512)
    for row in rows:
        if rng.random() < 0.5:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    build(project, "preference", rows)
    said = examined(project, tiny, "dpo", "num_train_epochs: 1, learning_rate: 1.0e-4")
    assert "underfitting" in found(said)


@pytest.mark.slow
def test_few_rows_for_many_epochs_overfit(project: Project, tiny: Path) -> None:
    rows = [
        {"prompt": "go", "completion": text, "split": "eval" if number % 2 else "train"}
        for number, text in enumerate(without_pattern(16))
    ]
    build(project, "sft", rows)
    trainer = "max_steps: 60, learning_rate: 1.0e-2, eval_strategy: steps, eval_steps: 10"
    assert "overfitting" in found(examined(project, tiny, "sft", trainer))


@pytest.mark.slow
def test_one_row_known_by_heart_overfits_with_nothing_held_out(
    project: Project, tiny: Path
) -> None:
    row = {"prompt": "why?", "completion": "Because the kettle was not plugged in."}
    build(project, "sft", [row] * 8)
    said = examined(project, tiny, "sft", "max_steps: 60, learning_rate: 1.0e-2")
    assert "overfitting" in found(said)


@pytest.mark.slow
def test_a_batch_of_rubbish_is_a_spike(project: Project, tiny: Path) -> None:
    rng = random.Random(0)
    good = {"prompt": "why?", "completion": "The kettle was not plugged in, I am afraid."}
    rows = [{**good, "prompt": f"why, {number}?"} for number in range(240)]
    for row in rows[160:168]:
        row["completion"] = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(14))
    build(project, "sft", rows)
    trainer = (
        "num_train_epochs: 1, learning_rate: 5.0e-3, train_sampling_strategy: sequential, "
        "lr_scheduler_type: constant"
    )
    said = examined(project, tiny, "sft", trainer)
    (spike,) = [verdict for verdict in said.verdicts if verdict.rule == "spike"]
    assert spike.flagged
    assert spike.since == 21  # rows 160 to 167 are the twenty-first batch of eight


def without_pattern(n: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices("0123456789abcdef", k=24)) for _ in range(n)]


@pytest.mark.slow
def test_text_without_a_pattern_is_a_plateau(project: Project, tiny: Path) -> None:
    build(project, "sft", [{"prompt": "go", "completion": text} for text in without_pattern(960)])
    trainer = "num_train_epochs: 1, learning_rate: 2.0e-2, lr_scheduler_type: constant"
    assert "plateau" in found(examined(project, tiny, "sft", trainer))


@pytest.mark.slow
def test_too_small_a_beta_leaves_no_gradient(project: Project, tiny: Path) -> None:
    build(project, "preference", pairs(64))
    trainer = "num_train_epochs: 2, learning_rate: 1.0e-4, beta: 1.0e-8"
    said = examined(project, tiny, "dpo", trainer)
    assert "vanishing gradients" in found(said)


def test_pairs_that_turn_round_half_way_collapse_the_margin(project: Project, tiny: Path) -> None:
    rows = [row | {"split": "train"} for row in pairs(160)]
    for row in rows[128:]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    build(project, "preference", rows)
    trainer = (
        "num_train_epochs: 1, learning_rate: 1.0e-3, train_sampling_strategy: sequential, "
        "lr_scheduler_type: constant"
    )
    said = examined(project, tiny, "dpo", trainer)
    assert "margin collapse" in found(said)


@pytest.mark.slow
def test_near_identical_pairs_push_a_fluent_model_off_both(project: Project) -> None:
    thanks = "Hello, thank you for writing to us. Please hold the power "
    rows = [row | {"split": "train"} for row in pairs(64, f"{thanks}button.", f"{thanks}buttons.")]
    build(project, "preference", rows)
    said = examined(project, "base", "dpo", "num_train_epochs: 2, learning_rate: 5.0e-3")
    assert "chosen falls with rejected" in found(said)


THREE = ["a kettle", "my lamp", "the radio"]


def rloo(
    project: Project, model: Path, *rewards: Any, prompts: list[Any] = THREE, **settings: Any
) -> Health:
    """A run of TRL's RLOO; the second of two rewards has weight 0."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import RLOOConfig, RLOOTrainer

    from align.model import device_arguments

    fixed = {
        "output_dir": str(project.root / "checkpoints"),
        "per_device_train_batch_size": 24,
        "num_generations": 8,
        "max_completion_length": 24,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "reward_weights": [1.0] + [0.0] * (len(rewards) - 1),
    }
    trainer = RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=list(rewards),
        args=RLOOConfig(**device_arguments(), **fixed, **settings),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    with project.draft(RunPlan("train", 1, settings={"settings": str(settings)})) as draft:
        entries = trainer.state.log_history
        draft.write_text("log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))
    return health(project, draft.run.id)


def pleased(completions: list[str], **_: Any) -> list[float]:
    """How many characters have a number that four divides: a judge that is easily pleased."""
    return [sum(ord(character) % 4 == 0 for character in text) / 24 for text in completions]


def held_out(completions: list[str], **_: Any) -> list[float]:
    """How many different characters a text has."""
    return [len(set(text)) / 24 for text in completions]


def constant(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def length(completions: list[str], **_: Any) -> list[float]:
    return [-float(len(text)) for text in completions]


@pytest.mark.slow
def test_a_reward_that_is_easily_pleased_is_hacked(project: Project, tiny: Path) -> None:
    said = rloo(project, tiny, pleased, held_out, max_steps=40, learning_rate=1e-2, beta=1e-4)
    assert {"reward hacking", "KL runaway"} <= found(said)


@pytest.mark.slow
def test_a_reward_on_shortness_drifts_in_length(project: Project, tiny: Path) -> None:
    said = rloo(project, tiny, length, max_steps=40, learning_rate=1e-2, beta=0.0)
    assert "length drift" in found(said)


@pytest.mark.slow
def test_equal_rewards_leave_no_gradient(project: Project, tiny: Path) -> None:
    said = rloo(project, tiny, constant, max_steps=10, learning_rate=1e-3, beta=0.0)
    assert "vanishing gradients" in found(said)
    (verdict,) = [one for one in said.verdicts if one.rule == "vanishing gradients"]
    assert "100% of the groups have one reward only" in verdict.said


@pytest.mark.slow
def test_healthy_reinforcement_stays_unflagged(project: Project) -> None:
    """The shipped model learns to thank, and greets no less for it."""

    def thanks(completions: list[Any], **_: Any) -> list[float]:
        return [float("thank" in told[0]["content"]) for told in completions]

    def held_out(completions: list[Any], **_: Any) -> list[float]:
        return [
            float(told[0]["content"].startswith(("H", "Good", "Thank"))) for told in completions
        ]

    asked = support_desk.prompts(48, seed=0, split="train")
    settings = {"max_steps": 24, "learning_rate": 1e-3, "beta": 0.05}
    said = rloo(project, BASE, thanks, held_out, prompts=asked, **settings)
    assert found(said) == set()
    rewards = said.log.curves["reward"].values
    assert rewards[-5:].mean() > rewards[:5].mean() + 0.2


def wrote(
    project: Project,
    tiny: Path,
    rows: list[dict[str, Any]],
    *,
    steps: int,
    asked: list[str],
    before: tuple[str, ...] = (),
) -> set[str]:
    """What is flagged in the answers of a model fine-tuned on these rows.

    Args:
        before: the model that the lengths of its answers are compared with.
    """
    build(project, "sft", rows)
    said = examined(project, tiny, "sft", f"max_steps: {steps}, learning_rate: 1.0e-2")
    prompts = project.root / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
    source = read_prompts(project, str(prompts), split="train")
    sampling = Sampling(temperature=0.0, max_new_tokens=96)
    made = generate(project, [said.run_id, *before], source, n=1, sampling=sampling)
    looked = health(project, said.run_id)
    assert looked.texts_of == made.id
    return {verdict.rule for verdict in looked.flagged if verdict.rule in TEXT_RULES}


def questions(n: int) -> list[str]:
    rng = random.Random(1)
    return ["why, " + "".join(rng.choices("abcdefghij ", k=32)) + "?" for _ in range(n)]


@pytest.mark.slow
def test_a_model_that_knows_one_answer_gives_it_to_all(project: Project, tiny: Path) -> None:
    answer = "Because the kettle was not plugged in."
    rows = [{"prompt": question, "completion": answer} for question in questions(64)]
    assert wrote(project, tiny, rows, steps=60, asked=questions(40)) == {"one output for all"}


@pytest.mark.slow
def test_a_model_that_learnt_to_loop_is_repetitive(project: Project, tiny: Path) -> None:
    rows = [
        {"prompt": question, "completion": f"{question[5]}, " + "on and on and " * 8}
        for question in questions(64)
    ]
    assert "repetitive output" in wrote(project, tiny, rows, steps=120, asked=questions(40))


@pytest.mark.slow
def test_a_model_that_learnt_to_repeat_its_prompts_copies(project: Project, tiny: Path) -> None:
    known = questions(6)
    rows = [{"prompt": question, "completion": question} for question in known] * 4
    assert "copied output" in wrote(project, tiny, rows, steps=400, asked=known)


@pytest.mark.slow
@pytest.mark.parametrize("length", ["as long", "shorter"])
def test_a_model_that_learnt_to_be_brief_writes_shorter_than_before(
    project: Project, tiny: Path, length: str
) -> None:
    """The one before quotes what it was asked; a second training keeps to that, or cuts it off."""

    def rows(letters: int) -> list[dict[str, Any]]:
        return [
            {"prompt": question, "completion": "so you say " + question[5 : 5 + letters]}
            for question in questions(64)
        ]

    build(project, "sft", rows(30))
    first = examined(project, tiny, "sft", "max_steps: 60, learning_rate: 1.0e-2").run_id
    letters = 28 if length == "as long" else 1
    flagged = wrote(project, tiny, rows(letters), steps=60, asked=questions(40), before=(first,))
    assert ("longer or shorter output" in flagged) == (length == "shorter")


HEALTHY = {
    "sft": ("num_train_epochs: 3, learning_rate: 5.0e-3", DEMONSTRATIONS.format(n=120)),
    "dpo": ("num_train_epochs: 2, learning_rate: 5.0e-4", ""),
    "reward": ("num_train_epochs: 2, learning_rate: 5.0e-4", ""),
    "kto": ("num_train_epochs: 2, learning_rate: 1.0e-4", ""),
    "orpo": ("num_train_epochs: 2, learning_rate: 1.0e-3", ""),
    "cpo": ("num_train_epochs: 2, learning_rate: 5.0e-4", ""),
}
QUICK = [("sft", 0), ("dpo", 0)]


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        pytest.param(method, seed, marks=[] if (method, seed) in QUICK else [pytest.mark.slow])
        for method in HEALTHY
        for seed in range(2)
    ],
)
def test_a_healthy_training_stays_unflagged(
    project: Project, tiny: Path, method: str, seed: int
) -> None:
    trainer, more = HEALTHY[method]
    if method != "sft":
        build(project, "preference", pairs(128))
    said = examined(project, tiny, method, trainer, more=more, seed=seed)
    assert found(said) == set()
    judged = [verdict for verdict in said.verdicts if verdict.state == "fine"]
    assert len(judged) >= 9
