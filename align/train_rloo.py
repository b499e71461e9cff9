"""RLOO with TRL: each completion is measured by the others of its prompt (Ahmadian et al. 2024).

The advantage of a completion is its reward less the mean reward of the other `num_generations` - 1,
the reward being the reward model's score less `beta` times the distance to the model at the start.
"""

from __future__ import annotations

import pyarrow as pa

from align.feedback import Feedback, train_with_feedback
from align.model import Loaded
from align.recipe import RlooRecipe
from annotate.runs import Draft


def train_rloo(recipe: RlooRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the prompts of the `preference` table `rows` (`align.feedback`)."""
    from trl import RLOOConfig, RLOOTrainer

    what = Feedback(RLOOTrainer, RLOOConfig, "max_completion_length", "num_generations_eval")
    train_with_feedback(what, recipe, loaded, rows, draft)
