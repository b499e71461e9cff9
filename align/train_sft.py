"""Supervised fine-tuning with TRL: on what people wrote or clearly preferred, or on demonstrations.

    {"prompt": [{"role": "user", …}], "completion": [{"role": "assistant", …}]}

The loss is on the completion alone.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.adapters import adapter_config
from align.model import Loaded, add_special_tokens
from align.recipe import Demonstrations, SftRecipe
from align.training import fit, settings_reported, trainer_arguments
from annotate import support_desk
from annotate.records import content_id, table_from_rows
from annotate.runs import Draft


def train_sft(recipe: SftRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Fine-tune on the `sft` table `rows`; those of split "eval" measure the loss.

    Raises:
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    new = add_special_tokens(loaded.model, loaded.tokenizer, recipe.new_special_tokens)
    sets = {split: _dataset(Dataset, rows, split) for split in ("train", "eval")}
    arguments = trainer_arguments(recipe, draft, evaluates=len(sets["eval"]) > 0)
    with settings_reported(draft.plan.run_id):
        trainer = SFTTrainer(
            model=loaded.model,
            args=SFTConfig(max_length=recipe.max_length, dataset_num_proc=None, **arguments),
            train_dataset=sets["train"],
            eval_dataset=sets["eval"] if len(sets["eval"]) else None,
            processing_class=loaded.tokenizer,
            peft_config=adapter_config(recipe, new),
        )
    draft.note(rows=len(sets["train"]), eval_rows=len(sets["eval"]))
    fit(trainer, recipe, draft)


def demonstration_rows(wanted: Demonstrations) -> pa.Table:
    """Dialogues of the made-up support desk as an `sft` table; one in twenty is held out."""
    rows = []
    dialogues = support_desk.dialogues(wanted.n, seed=wanted.seed, quality=wanted.quality)
    for number, messages in enumerate(dialogues):
        prompt, completion = messages[:-1], messages[-1:]
        rows.append(
            {
                "row_id": content_id("s", "support-desk", wanted.seed, number, messages),
                "prompt_id": content_id("p", prompt),
                "prompt": prompt,
                "completion": completion,
                "source": "demonstration",
                "split": "eval" if number % 20 == 19 else "train",
            }
        )
    return table_from_rows("sft", rows)


def _dataset(dataset: Any, rows: pa.Table, split: str) -> Any:
    chosen = rows.filter(pc.equal(rows["split"], split)).select(["prompt", "completion"])
    return dataset.from_dict(chosen.to_pydict())
