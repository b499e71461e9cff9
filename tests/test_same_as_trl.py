"""With no option of ours on, every step's loss is that of TRL used as its documentation does."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loop_runs import new_project
from preference_runs import built, recipe, thumbs
from tiny_model import write_tiny_model

from align.recipe import DPO_LOSSES
from align.train import train
from annotate.runs import Project, Run

# A constant rate: the second step's loss differs from the first's only if the first step learnt.
STEPS = {"max_steps": 2, "logging_steps": 1, "lr_scheduler_type": "constant"}
# Our options that are on by default; tests/test_speed.py shows that they change no loss either.
PLAIN = "speed: {padding_free: false, share_prompts: false, keep_reference: false}\n"
TRAINERS = {
    "dpo": "trl:DPO",
    "reward": "trl:Reward",
    "kto": "trl:KTO",
    "orpo": "trl.experimental.orpo:ORPO",
    "cpo": "trl.experimental.cpo:CPO",
}
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def bare(method: str, model: Path, rows: list[dict[str, Any]], folder: Path, **given: Any) -> Any:
    """The losses that TRL alone has on these rows."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    module, _, name = TRAINERS[method].partition(":")
    trl = importlib.import_module(module)
    config = getattr(trl, f"{name}Config")(
        output_dir=str(folder),
        max_length=128,
        per_device_train_batch_size=4,
        learning_rate=2e-3,
        seed=0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        # As a machine without a GPU needs it, and with the reference computed before, as ours is.
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        **({"precompute_ref_log_probs": True} if method in ("dpo", "kto") else {}),
        **STEPS,
        **given,
    )
    from_path = method in ("dpo", "reward", "kto")
    trainer = getattr(trl, f"{name}Trainer")(
        model=str(model) if from_path else loaded(model),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def loaded(model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model)


def trained_on(run: Run, table: str, columns: list[str]) -> list[dict[str, Any]]:
    rows = run.read(table).to_pylist()
    return [{name: row[name] for name in columns} for row in rows if row["split"] == "train"]


def ours(run: Run) -> list[float]:
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in log if "loss" in entry]


def check(
    method: str,
    project: Project,
    tiny: Path,
    *,
    extra: str = "",
    margin: bool = False,
    **given: Any,
) -> None:
    build = built(project)
    run = train(project, recipe(project, tiny, method, PLAIN + extra, **STEPS, **given))
    columns = ["prompt", "chosen", "rejected", *(["margin"] if margin else [])]
    expected = bare(method, tiny, trained_on(build, "preference", columns), project.root, **given)
    assert len(expected) == 2
    assert expected[0] != expected[1]
    assert ours(run) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", ["dpo", "reward", "orpo", "cpo"])
def test_the_losses_are_those_of_trl(method: str, project: Project, tiny: Path) -> None:
    check(method, project, tiny)


@pytest.mark.slow
def test_a_reward_model_with_margins_is_that_of_trl(project: Project, tiny: Path) -> None:
    check("reward", project, tiny, extra="margin: true\n", margin=True)


def test_kto_of_thumbs_is_that_of_trl_on_the_rows_in_our_order(
    project: Project, tiny: Path
) -> None:
    build = thumbs(project)
    run = train(project, recipe(project, tiny, "kto", PLAIN, **STEPS))
    order = np.random.default_rng(0).permutation(16)
    table = build.read("kto").take(order)
    rows = [row for row in table.to_pylist() if row["split"] == "train"]
    rows = [{name: row[name] for name in ("prompt", "completion", "label")} for row in rows]
    expected = bare("kto", tiny, rows, project.root)
    assert ours(run) == pytest.approx(expected, abs=1e-6)
    assert expected[0] != expected[1]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [one for one in DPO_LOSSES if one != "sigmoid"])
def test_every_loss_of_dpo_is_that_of_trl(loss: str, project: Project, tiny: Path) -> None:
    smoothing = {"label_smoothing": 0.1} if loss in SMOOTHED else {}
    check("dpo", project, tiny, loss_type=loss, **smoothing)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"use_weighting": True},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"f_divergence_type": "js_divergence"},
        {"ld_alpha": 0.5},
    ],
    ids=["wpo", "weighted list", "f-divergence", "length-desensitised"],
)
def test_variants_of_dpo_are_those_of_trl(
    given: dict[str, Any], project: Project, tiny: Path
) -> None:
    check("dpo", project, tiny, **given)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["simpo", "hinge", "ipo"])
def test_variants_of_cpo_are_those_of_trl(loss: str, project: Project, tiny: Path) -> None:
    alpha = {"cpo_alpha": 0.0} if loss == "simpo" else {}
    check("cpo", project, tiny, loss_type=loss, **alpha)
