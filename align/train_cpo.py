"""CPO and SimPO with TRL: preference without a reference (Xu et al. 2024; Meng et al. 2024).

    {"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}

`trainer: {loss_type: simpo, cpo_alpha: 0}` is SimPO: a target margin (`simpo_gamma`) between
log-probabilities by token. `label_smoothing: from-data` takes the build's own estimate of flipped
labels, as robust DPO does; here the loss mixes both labels by it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from align.model import Loaded
from align.pairs import flip_probability, require_difference
from align.recipe import FROM_DATA, CpoRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.runs import Draft


def train_cpo(recipe: CpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the `preference` table `rows`; pairs of split "eval" measure accuracy.

    It stands in the metrics as `eval_rewards/accuracies`: how often the chosen completion is the
    more probable one, of SimPO by token.

    Raises:
        InputError: a pair's chosen and rejected completions are equal, or all are too long.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    require_difference(rows)
    # TRL sets it itself otherwise, and says so.
    arguments: dict[str, Any] = {"remove_unused_columns": False}
    if recipe.trainer.get("label_smoothing") == FROM_DATA:
        arguments["label_smoothing"] = flip_probability(rows, draft)
    prepared = prepare(recipe, loaded, rows, draft, ("chosen", "rejected"))
    trainer = make_trainer(CPOTrainer, CPOConfig, recipe, loaded, prepared, draft, **arguments)
    fit(trainer, recipe, draft)
