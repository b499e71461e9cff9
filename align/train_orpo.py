"""ORPO with TRL: fine-tuning and preference in one loss, without a reference (Hong et al. 2024).

{"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}
"""

from __future__ import annotations

import pyarrow as pa

from align.model import Loaded
from align.pairs import require_difference
from align.recipe import OrpoRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.runs import Draft


def train_orpo(recipe: OrpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the `preference` table `rows`; pairs of split "eval" measure accuracy.

    It stands in the metrics as `eval_rewards/accuracies`: how often the chosen completion is the
    more probable one by token.

    Raises:
        InputError: a pair's chosen and rejected completions are equal, or all are too long.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    require_difference(rows)
    prepared = prepare(recipe, loaded, rows, draft, ("chosen", "rejected"))
    trainer = make_trainer(
        ORPOTrainer,
        ORPOConfig,
        recipe,
        loaded,
        prepared,
        draft,
        remove_unused_columns=False,  # TRL sets it itself otherwise, and says so
    )
    fit(trainer, recipe, draft)
