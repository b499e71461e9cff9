"""Direct preference optimisation with TRL, on what people preferred (Rafailov et al. 2023, eq. 7).

    {"prompt": [{"role": "user", …}], "chosen": [{…}], "rejected": [{…}]}

The reference is the model as it is before the first step: with adapters TRL switches them off,
otherwise its log-probabilities are computed once beforehand, which also spares a second copy.

With `trainer: {loss_type: [robust], label_smoothing: from-data}` the probability that a label is
flipped, which robust DPO corrects for (Chowdhury et al. 2024, equation 12), is the build's own
estimate: the mean `noise_rate` of the pairs trained on.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.adapters import adapter_config
from align.model import Loaded, add_special_tokens
from align.preference_set import mean_noise_rate
from align.recipe import FROM_DATA, DpoRecipe
from align.training import fit, settings_reported, trainer_arguments
from annotate.errors import InputError
from annotate.records import conform
from annotate.runs import Draft


def train_dpo(recipe: DpoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the `preference` table `rows`; pairs of split "eval" measure reward accuracy.

    The accuracy of the implicit reward on them stands in the metrics as
    `eval_rewards/accuracies`: how often β log π(y)/π_ref(y) is higher for the chosen one.

    Raises:
        InputError: a pair's chosen and rejected completions are equal.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    require_difference(rows)
    new = add_special_tokens(loaded.model, loaded.tokenizer, recipe.new_special_tokens)
    sets = {split: _dataset(Dataset, rows, split) for split in ("train", "eval")}
    arguments = trainer_arguments(recipe, draft, evaluates=len(sets["eval"]) > 0)
    if arguments.get("label_smoothing") == FROM_DATA:
        arguments["label_smoothing"] = flip_probability(rows, draft)
    arguments.setdefault("precompute_ref_log_probs", not recipe.adapts)
    with settings_reported(draft.plan.run_id):
        trainer = DPOTrainer(
            model=loaded.model,
            args=DPOConfig(max_length=recipe.max_length, dataset_num_proc=None, **arguments),
            train_dataset=sets["train"],
            eval_dataset=sets["eval"] if len(sets["eval"]) else None,
            processing_class=loaded.tokenizer,
            peft_config=adapter_config(recipe, new),
        )
    draft.note(pairs=len(sets["train"]), eval_pairs=len(sets["eval"]))
    fit(trainer, loaded.tokenizer, draft)


def flip_probability(rows: pa.Table, draft: Draft) -> float:
    """The mean noise rate of the pairs trained on, in [0, 0.5); noted in the draft, with its n.

    Raises:
        InputError: the build states none, or one that leaves nothing to learn.
    """
    trained = rows.filter(pc.equal(rows["split"], "train"))
    noise = mean_noise_rate(conform("preference", trained))
    where = draft.plan.run_id
    if noise.value is None:
        raise InputError(
            f"label_smoothing: {FROM_DATA}, but {noise.reason}",
            where=where,
            remedy="Judge and build again, or type a number",
        )
    if not noise.value < 0.5:
        raise InputError(
            f"half of the labels may be flipped (noise rate {noise})",
            where=where,
            remedy="Collect more votes, or build with a higher posterior",
        )
    draft.note(label_smoothing=noise.to_dict())
    return noise.value


def require_difference(rows: pa.Table) -> None:
    """Refuse a pair whose completions are equal: its gradient is zero whatever people said."""
    for row in rows.select(["row_id", "chosen", "rejected"]).to_pylist():
        if row["chosen"] == row["rejected"]:
            raise InputError(
                "chosen equals rejected",
                where=row["row_id"],
                remedy="Build the set with the filter `identical`",
            )


def _dataset(dataset: Any, rows: pa.Table, split: str) -> Any:
    chosen = rows.filter(pc.equal(rows["split"], split)).select(["prompt", "chosen", "rejected"])
    return dataset.from_dict(chosen.to_pydict())
