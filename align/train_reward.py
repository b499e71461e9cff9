"""A reward model with TRL: one number a conversation, higher for what people prefer.

    {"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}], "margin": 0.67}

The loss is that of Bradley and Terry (Ouyang et al. 2022, equation 1); with `margin: true` the
chosen completion has to lead by the pair's `margin`, which is |strength_mean| / 3 (Touvron et al.
2023, equation 2). `soft_labels` and `row_weights` take each pair's own doubt (`align.doubting`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.model import Loaded
from align.pairs import require_difference, with_doubt
from align.recipe import RewardRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.runs import Draft


def train_reward(recipe: RewardRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the `preference` table `rows`; pairs of split "eval" measure accuracy.

    The share of them whose chosen completion scores higher stands in the metrics as
    `eval_accuracy`; `handloom evaluate` gives it with an interval.

    Args:
        loaded: with a head of one number (`load_model(..., task="reward")`).

    Raises:
        InputError: a pair's chosen and rejected completions are equal, or all are too long.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from trl import RewardConfig, RewardTrainer

    require_difference(rows)
    trainer_class: type[RewardTrainer] = RewardTrainer
    extra: tuple[str, ...] = ("margin",) if recipe.margin else ()
    arguments: dict[str, Any] = {}
    if recipe.margin:
        rows = _with_margin(rows, draft)
    if recipe.doubts:
        from align.doubting import COLUMNS, DoubtingRewardTrainer

        trainer_class, extra = DoubtingRewardTrainer, (*extra, *COLUMNS)
        arguments["remove_unused_columns"] = False
        rows = with_doubt(rows, draft, soft=recipe.soft_labels, weighted=recipe.row_weights)
    # Cut at the end, a completion would be scored for what it does not say.
    prepared = prepare(recipe, loaded, rows, draft, ("chosen", "rejected"), whole=True, extra=extra)
    trainer = make_trainer(
        trainer_class, RewardConfig, recipe, loaded, prepared, draft, task="reward", **arguments
    )
    if recipe.doubts:
        from align.doubting import WithDoubt

        trainer.data_collator = WithDoubt(trainer.data_collator)
    fit(trainer, recipe, draft)


def _with_margin(rows: pa.Table, draft: Draft) -> pa.Table:
    """Rows whose margin is a number: 0, no more than to be ahead, where nobody gave a strength."""
    margin = rows["margin"]
    draft.note(without_margin=margin.null_count)
    at = rows.column_names.index("margin")
    return rows.set_column(at, "margin", pc.fill_null(margin, 0.0))
