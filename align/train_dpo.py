"""Direct preference optimisation with TRL, on what people preferred (Rafailov et al. 2023, eq. 7).

    {"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}

The reference is the model as it is before the first step: with adapters TRL switches them off,
otherwise its log-probabilities are computed once beforehand, which also spares a second copy.

With `trainer: {loss_type: [robust], label_smoothing: from-data}` the probability that a label is
flipped, which robust DPO corrects for (Chowdhury et al. 2024, equation 12), is the build's own
estimate: the mean `noise_rate` of the pairs trained on. `soft_labels` and `row_weights` take each
pair's own doubt instead (`align.doubting`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from align.model import Loaded
from align.pairs import flip_probability, require_difference, with_doubt
from align.recipe import FROM_DATA, DpoRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.runs import Draft


def train_dpo(recipe: DpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the `preference` table `rows`; pairs of split "eval" measure reward accuracy.

    The accuracy of the implicit reward on them stands in the metrics as
    `eval_rewards/accuracies`: how often β log π(y)/π_ref(y) is higher for the chosen one.

    Raises:
        InputError: a pair's chosen and rejected completions are equal, or all are too long.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from trl import DPOConfig, DPOTrainer

    require_difference(rows)
    arguments: dict[str, Any] = {
        "precompute_ref_log_probs": recipe.trainer.get(
            "precompute_ref_log_probs", recipe.reference_first
        )
    }
    if recipe.trainer.get("label_smoothing") == FROM_DATA:
        arguments["label_smoothing"] = flip_probability(rows, draft)
    trainer_class: type[DPOTrainer] = DPOTrainer
    extra: tuple[str, ...] = ()
    if recipe.doubts:
        from align.doubting import COLUMNS, DoubtingDpoTrainer, WithDoubt

        trainer_class, extra = DoubtingDpoTrainer, COLUMNS
        arguments["remove_unused_columns"] = False
        rows = with_doubt(rows, draft, soft=recipe.soft_labels, weighted=recipe.row_weights)
    if recipe.speed.keep_reference:
        from align.speed.reference import keeping_references

        trainer_class = keeping_references(trainer_class, draft.project)
    prepared = prepare(recipe, loaded, rows, draft, ("chosen", "rejected"), extra=extra)
    trainer = make_trainer(trainer_class, DPOConfig, recipe, loaded, prepared, draft, **arguments)
    if recipe.doubts:
        # Only now: the reference, computed when the trainer is made, would stumble on the columns.
        trainer.data_collator = WithDoubt(trainer.data_collator)
    fit(trainer, recipe, draft)
