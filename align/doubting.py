"""Losses that know how sure each pair is: soft labels and weights, in two of TRL's trainers.

A label that is right with probability p costs what both labels cost, by their probability:
p l(d) + (1 - p) l(-d), where d is by how much the chosen completion leads and l the loss of a sure
label (Mitchell 2023, "A note on DPO with noisy preferences", equation 2, where p is one for all;
for IPO this is Azar et al. 2023, equation 8). A weight multiplies a pair's loss.

TRL's losses average over the batch, and know no column for this. So its own loss is taken as it is,
with all that it logs and adds, and only the difference that doubt makes is put on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu
from trl import DPOTrainer, RewardTrainer

COLUMNS = ("target", "weight")
"""What `align.pairs.with_doubt` adds to the rows."""


@dataclass(frozen=True)
class WithDoubt:
    """A trainer's own collator, which lets the columns of doubt through to the loss."""

    collate: Any

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch, with `target` and `weight` of shape (pairs,) in it."""
        batch: dict[str, Tensor] = self.collate(examples)
        return batch | {name: torch.tensor([each[name] for each in examples]) for name in COLUMNS}


def sure_loss(kind: str, lead: Tensor, beta: float) -> Tensor:
    """The loss of a label that is right, shape (pairs,).

    Args:
        kind: "sigmoid" or "sigmoid_norm" (Rafailov et al. 2023, equation 7), "hinge" (Zhao et al.
            2023, equation 10), or "ipo" (Azar et al. 2023, equation 17).
        lead: of the chosen completion's log-ratio to the reference over the rejected one's, shape
            (pairs,); of "sigmoid_norm" and "ipo" by token.
    """
    if kind == "hinge":
        return relu(1 - beta * lead)
    if kind == "ipo":
        return (lead - 1 / (2 * beta)) ** 2
    return -logsigmoid(beta * lead)


def doubt(right: Tensor, wrong: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """What doubt adds to the mean loss, all of shape (pairs,) but the result.

    Args:
        right: each pair's loss if its label is right.
        wrong: if it is flipped.
        target: the probability that it is right.
        weight: how much the pair counts.
    """
    return (weight * (target * right + (1 - target) * wrong) - right).mean()


class DoubtingDpoTrainer(DPOTrainer):  # type: ignore[misc]
    """DPO on columns `target` and `weight`, with reference log-probabilities computed before."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **more: Any
    ) -> Any:
        """TRL's loss and what doubt adds; it logs what TRL logs."""
        target, weight = (inputs.pop(name) for name in COLUMNS)
        seen: list[Tensor] = []

        def recording(**given: Any) -> Any:
            outputs = model(**given)
            seen.append(outputs.log_probs)
            return outputs

        loss = super().compute_loss(recording, inputs, **more)
        mask = inputs["completion_mask"]
        ratios = seen[0][:, 1 - mask.shape[1] :].sum(1) - torch.cat(
            [inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]
        )
        for kind, share in zip(self.loss_types, self.loss_weights, strict=True):
            by_token = kind in ("ipo", "sigmoid_norm")
            scale = mask.sum(1).clamp(min=1) if by_token else 1
            chosen, rejected = (ratios / scale).chunk(2)
            lead = chosen - rejected
            right, wrong = (sure_loss(kind, side, self.beta) for side in (lead, -lead))
            loss = loss + share * doubt(right, wrong, target, weight)
        return (loss, None) if return_outputs else loss


class DoubtingRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """A reward model from columns `target` and `weight`, and `margin` where the rows have it."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **more: Any
    ) -> Any:
        """TRL's loss and what doubt adds; it logs what TRL logs."""
        target, weight = (inputs.pop(name) for name in COLUMNS)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        margin = inputs.get("margin", 0.0)
        lead = chosen - rejected
        right, wrong = (-logsigmoid(side - margin) for side in (lead, -lead))
        loss = loss + doubt(right, wrong, target, weight)
        return (loss, outputs) if return_outputs else loss
