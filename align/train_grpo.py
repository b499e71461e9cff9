"""GRPO with TRL: rewards in units of their spread over a prompt's completions (Shao et al. 2024).

TRL's default has no distance to the model at the start in its loss; the recipes shipped set `beta`.
"""

from __future__ import annotations

import pyarrow as pa

from align.feedback import Feedback, train_with_feedback
from align.model import Loaded
from align.recipe import GrpoRecipe
from annotate.runs import Draft


def train_grpo(recipe: GrpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the prompts of the `preference` table `rows` (`align.feedback`)."""
    from trl import GRPOConfig, GRPOTrainer

    what = Feedback(GRPOTrainer, GRPOConfig, "max_completion_length", "num_generations_eval")
    train_with_feedback(what, recipe, loaded, rows, draft)
