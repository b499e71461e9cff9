"""Recipes of the methods that learn from which completion people preferred."""

from __future__ import annotations

from typing import Literal

from align.recipe.parts import Tuning

FROM_DATA = "from-data"
"""Instead of a number: the figure that the data themselves state."""

# Losses that make something of a flip probability.
_SMOOTHED = frozenset({"robust"})


class DpoRecipe(Tuning):
    """Direct preference optimisation (Rafailov et al. 2023) on a build run's `preference` table."""

    method: Literal["dpo"]

    def stated_by_data(self, key: str) -> bool:
        """`label_smoothing: from-data` is the build's own estimate of flipped labels."""
        return key == "label_smoothing" and self.trainer[key] == FROM_DATA

    def complaint(self, key: str) -> tuple[str, str] | None:
        """`label_smoothing: from-data` is a flip probability, which most losses do not look at."""
        losses = self.trainer.get("loss_type", [])
        used = _SMOOTHED & set([losses] if isinstance(losses, str) else losses)
        if used or not self.stated_by_data(key):
            return None
        return (
            "label_smoothing is a flip probability, which this loss does not use",
            f"Set loss_type: [{', '.join(sorted(_SMOOTHED))}], or leave it out",
        )
