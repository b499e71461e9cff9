"""Recipes of the methods that learn from which completion people preferred."""

from __future__ import annotations

from typing import ClassVar, Literal

from align.recipe.parts import Tuning
from align.recipe.words import Complaint, unknown_word

FROM_DATA = "from-data"
"""Instead of a number: the figure that the data themselves state."""

DPO_LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
"""Those of TRL 1.16, which looks at a loss's name only at its first step."""
_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")

# Losses that make something of a flip probability, and those that correct for it.
_SMOOTHED = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
_CORRECTED = "robust"
# Losses that are a function of how far the chosen completion leads, so that a label can be soft.
_SOFT = ("sigmoid", "sigmoid_norm", "hinge", "ipo")
# What changes a loss in ways that those of soft labels do not follow.
_NOT_SOFT = {
    "use_weighting": False,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "precompute_ref_log_probs": True,
}


class Doubting(Tuning):
    """What methods have that can take a pair's doubt into the loss (`align.doubting`)."""

    soft_labels: bool = False
    """A label counts with the probability that it is right, `p_chosen`, and flipped with the
    rest."""
    row_weights: bool = False
    """A pair counts with 2 p_chosen - 1: nothing where people are undecided."""

    @property
    def doubts(self) -> bool:
        """Whether pairs differ in how sure they are."""
        return self.soft_labels or self.row_weights


class RewardRecipe(Doubting):
    """A reward model (Ouyang et al. 2022, equation 1) on a build run's `preference` table."""

    held_out: ClassVar[str] = "eval_accuracy"
    higher_is_better: ClassVar[bool] = True

    method: Literal["reward"]
    margin: bool = False
    """A pair is learnt until the chosen completion leads by the set's `margin` (Touvron et al.
    2023, equation 2)."""


class DpoRecipe(Doubting):
    """Direct preference optimisation (Rafailov et al. 2023) on a build run's `preference` table."""

    held_out: ClassVar[str] = "eval_rewards/accuracies"
    higher_is_better: ClassVar[bool] = True

    method: Literal["dpo"]

    @property
    def reference_first(self) -> bool:
        """To be kept for later runs as well, and because doubting losses read it."""
        return self.doubts or self.speed.keep_reference or not self.adapts

    @property
    def losses(self) -> list[str]:
        """The losses it is made of."""
        losses = self.trainer.get("loss_type", ["sigmoid"])
        return losses if isinstance(losses, list) else [losses]

    def stated_by_data(self, key: str) -> bool:
        """`label_smoothing: from-data` is the build's own estimate of flipped labels."""
        return key == "label_smoothing" and self.trainer[key] == FROM_DATA

    def complaint(self, key: str) -> Complaint | None:
        """A word that TRL does not know, or what a loss cannot do with the rest of the recipe."""
        value = self.trainer[key]
        if key == "f_divergence_type":
            return unknown_word(key, value, _DIVERGENCES) or self._doubt_complaint(key)
        if key == "loss_weights" and value is not None:
            return self._weights_complaint(value)
        if key == "loss_type" and (unknown := unknown_word(key, self.losses, DPO_LOSSES)):
            return unknown
        if key == "loss_type" and "exo_pair" in self.losses and not self._smoothing:
            return ("exo_pair needs a label_smoothing", "Add label_smoothing: 1.0e-3")
        if key == "label_smoothing":
            return self._smoothing_complaint()
        return self._doubt_complaint(key)

    def _weights_complaint(self, weights: object) -> Complaint | None:
        if not isinstance(weights, list) or len(weights) != len(self.losses):
            return ("there are not as many loss_weights as losses", "List one for each")
        if not all(isinstance(one, int | float) for one in weights):
            return ("loss_weights must be numbers", "List one for each loss")
        return None

    @property
    def _smoothing(self) -> object:
        return self.trainer.get("label_smoothing")

    def _smoothing_complaint(self) -> Complaint | None:
        """It is a flip probability, which most losses do not look at."""
        if self._smoothing and not _SMOOTHED & set(self.losses):
            return (
                "label_smoothing is a flip probability, which this loss does not use",
                f"Set loss_type: [{_CORRECTED}], or leave it out",
            )
        if isinstance(self._smoothing, float) and not 0 <= self._smoothing < 0.5:
            return ("label_smoothing is a flip probability", "Set it from 0 to below 0.5")
        return None

    def _doubt_complaint(self, key: str) -> Complaint | None:
        if not self.doubts:
            return None
        if key == "loss_type" and not set(self.losses) <= set(_SOFT):
            return (
                "soft_labels and row_weights do not go with this loss",
                f"Choose among {', '.join(_SOFT)}",
            )
        if key in _NOT_SOFT and self.trainer[key] != _NOT_SOFT[key]:
            return (f"soft_labels and row_weights do not go with this {key}", "Leave it out")
        return None


class KtoRecipe(Tuning):
    """KTO (Ethayarajh et al. 2024) on a build run's `kto` table, people's thumbs; where it has
    none, on the completions of its `preference` table, chosen and rejected."""

    method: Literal["kto"]

    def stated_by_data(self, key: str) -> bool:
        """`desirable_weight: from-data` makes up for an unequal number of thumbs up and down."""
        return key == "desirable_weight" and self.trainer[key] == FROM_DATA

    def complaint(self, key: str) -> Complaint | None:
        """What TRL's estimate of the divergence within a batch does not allow."""
        if self.trainer.get("loss_type", "kto") != "kto":
            return None
        value = self.trainer[key]
        if key == "per_device_train_batch_size" and isinstance(value, int) and value < 2:
            return ("KTO compares the rows of a batch, and one row is none", "Set 2 or more")
        if key == "train_sampling_strategy" and value != "sequential":
            return ("KTO pairs neighbours, so their order must stay", "Leave it out")
        return None


class OrpoRecipe(Tuning):
    """ORPO (Hong et al. 2024) on a build run's `preference` table; it needs no reference."""

    held_out: ClassVar[str] = "eval_rewards/accuracies"
    higher_is_better: ClassVar[bool] = True

    method: Literal["orpo"]


class CpoRecipe(Tuning):
    """CPO (Xu et al. 2024) on a build run's `preference` table; with `loss_type: simpo` and
    `cpo_alpha: 0` SimPO (Meng et al. 2024). Neither needs a reference."""

    held_out: ClassVar[str] = "eval_rewards/accuracies"
    higher_is_better: ClassVar[bool] = True

    method: Literal["cpo"]

    def stated_by_data(self, key: str) -> bool:
        """`label_smoothing: from-data` is the build's own estimate of flipped labels."""
        return key == "label_smoothing" and self.trainer[key] == FROM_DATA

    def complaint(self, key: str) -> Complaint | None:
        """Hinge and IPO ignore label smoothing."""
        if key == "label_smoothing" and self.trainer.get("loss_type") in ("hinge", "ipo"):
            return ("this loss ignores label_smoothing", "Leave it out")
        return None
