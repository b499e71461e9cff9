"""Online DPO with TRL: two completions of the model as it is now, the reward model prefers one
(Guo et al. 2024)."""

from __future__ import annotations

import pyarrow as pa

from align.feedback import Feedback, train_with_feedback
from align.model import Loaded
from align.recipe import OnlineDpoRecipe
from annotate.runs import Draft


def train_online_dpo(recipe: OnlineDpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the prompts of the `preference` table `rows` (`align.feedback`)."""
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    what = Feedback(OnlineDPOTrainer, OnlineDPOConfig, "max_new_tokens")
    train_with_feedback(what, recipe, loaded, rows, draft)
