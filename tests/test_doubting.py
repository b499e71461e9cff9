"""Soft labels and weights: sums by hand, and TRL's own loss where nothing is in doubt."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path

import pytest
import torch
from loop_runs import new_project
from preference_runs import built, pair, recipe
from tiny_model import write_tiny_model

from align.doubting import doubt, sure_loss
from align.train import train
from annotate.errors import InputError
from annotate.runs import Project, Run

STEPS = {"max_steps": 2, "logging_steps": 1, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def losses(run: Run) -> list[float]:
    log_lines = (run.path / "log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, log_lines) if "loss" in entry]


def by(kind: str, lead: list[float], beta: float) -> list[float]:
    return [float(one) for one in sure_loss(kind, torch.tensor(lead, dtype=torch.float64), beta)]


def test_the_loss_of_a_sure_label_by_hand() -> None:
    # beta 0.5, leads of 2 and -2: sigmoid ln(1 + e^-1) and ln(1 + e^1).
    assert by("sigmoid", [2, -2], 0.5) == pytest.approx([log(1 + exp(-1)), log(1 + exp(1))])
    # hinge: 1 - 0.5 * 2 = 0, and 1 + 1 = 2; what leads by more costs nothing.
    assert by("hinge", [2, -2, 9], 0.5) == [0, 2, 0]
    # ipo: (2 - 1 / (2 * 0.5))^2 = 1, and (-2 - 1)^2 = 9.
    assert by("ipo", [2, -2], 0.5) == [1, 9]


def test_what_doubt_adds_by_hand() -> None:
    # Two pairs, whose labels cost 1 and 2 if right, 5 and 4 if flipped: the mean is 1.5.
    right, wrong = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 4.0])
    sure, ones = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])
    assert float(doubt(right, wrong, sure, ones)) == 0
    # Right with 0.75 and 0.5: 0.75 + 1.25 = 2, and 1 + 2 = 3, a mean of 2.5.
    target = torch.tensor([0.75, 0.5])
    assert float(doubt(right, wrong, target, ones)) == pytest.approx(2.5 - 1.5)
    # With weights of 1.5 and 0.5: (1.5 * 2 + 0.5 * 3) / 2 = 2.25.
    assert float(doubt(right, wrong, target, torch.tensor([1.5, 0.5]))) == pytest.approx(0.75)


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_where_no_pair_is_in_doubt_the_loss_is_trls(
    method: str, project: Project, tiny: Path
) -> None:
    built(project, [pair(number, p_chosen=1.0) for number in range(8)])
    extra = "margin: true\n" if method == "reward" else ""
    plain = train(project, recipe(project, tiny, method, extra, **STEPS))
    extra += "soft_labels: true\nrow_weights: true\n"
    doubting = train(project, recipe(project, tiny, method, extra, **STEPS))
    assert losses(doubting) == losses(plain)
    assert doubting.metrics["without_posterior"] == 0


@pytest.mark.parametrize("loss", ["sigmoid", pytest.param("ipo", marks=pytest.mark.slow)])
def test_soft_labels_of_dpo_change_the_first_loss_by_hand(
    loss: str, project: Project, tiny: Path
) -> None:
    built(project, [pair(number, p_chosen=0.75, split="train") for number in range(8)])
    extra = "soft_labels: true\n"
    run = train(project, recipe(project, tiny, "dpo", extra, loss_type=loss, **STEPS))
    first, second = losses(run)
    # Before the first step nobody leads. Sigmoid: ln 2 either way. IPO at beta 0.1: 5^2 either way.
    assert first == pytest.approx({"sigmoid": log(2), "ipo": 25}[loss], abs=1e-5)
    hard = train(project, recipe(project, tiny, "dpo", loss_type=loss, **STEPS))
    # A label that is right three times in four pulls half as strongly.
    assert first > second > losses(hard)[1]


def test_undecided_pairs_weigh_nothing(project: Project, tiny: Path) -> None:
    def rows(undecided: str) -> list[dict[str, object]]:
        # Numbers 0 to 3 are sure; what 4 to 7 chose does not matter.
        doubtful = [pair(n, p_chosen=0.5, split="train") for n in range(4, 8)]
        if undecided == "turned":
            doubtful = [
                row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in doubtful
            ]
        return [pair(n, p_chosen=0.9, split="train") for n in range(4)] + doubtful

    first, second = (
        losses(
            train(
                project,
                recipe(project, tiny, "reward", "row_weights: true\n", max_steps=2, **_WHOLE),
                data=built(project, rows(undecided)).id,
            )
        )
        for undecided in ("straight", "turned")
    )
    assert first == pytest.approx(second, abs=1e-6)


_WHOLE = {"logging_steps": 1, "per_device_train_batch_size": 8}


@pytest.mark.parametrize(
    ("p", "option", "complaint"),
    [
        (None, "soft_labels", "no pair has a posterior"),
        (0.5, "row_weights", "every pair is undecided"),
    ],
)
def test_doubt_that_the_set_does_not_state_is_one_clear_line(
    p: float | None, option: str, complaint: str, project: Project, tiny: Path
) -> None:
    built(project, [pair(number, p_chosen=p) for number in range(4)])
    with pytest.raises(InputError, match=complaint):
        train(project, recipe(project, tiny, "dpo", f"{option}: true\n", **STEPS))
    assert project.unfinished() == []
