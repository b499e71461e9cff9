"""Supervised fine-tuning with TRL: on what people wrote or clearly preferred, or on demonstrations.

    {"prompt": [{"role": "user", …}], "completion": [{"role": "assistant", …}]}

The loss is on the completion alone. With `trainer: {assistant_only_loss: true}` a row is one
conversation, and the loss is on everything that the assistant says in it, its earlier turns too.

An encoder-decoder reads the prompt and learns to write the completion (align.train_seq2seq).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pyarrow as pa

from align.chat_template import check_template
from align.model import Loaded
from align.packed_rows import attends_across
from align.recipe import Demonstrations, SftRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate import support_desk
from annotate.errors import TrainingError
from annotate.records import content_id, table_from_rows
from annotate.runs import Draft


def train_sft(recipe: SftRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Fine-tune on the `sft` table `rows`; those of split "eval" measure the loss.

    Raises:
        InputError: no row is short enough.
        TrainingError: TRL or PEFT refuses the recipe's settings, or the model cannot do what they
            ask for.
    """
    if loaded.model.config.is_encoder_decoder:
        from align.train_seq2seq import train_seq2seq

        return train_seq2seq(recipe, loaded, rows, draft)
    from trl import SFTConfig, SFTTrainer

    whole = bool(recipe.trainer.get("assistant_only_loss"))
    if whole:
        require_marks(loaded)
    if recipe.trainer.get("packing") and attends_across(loaded.model):
        raise TrainingError(
            "packing: this model's attention does not keep the rows of a pack apart",
            where=loaded.ref.name,
            remedy="Leave out trainer.packing",
        )
    prepared = prepare(recipe, loaded, rows, draft, ("completion",), unit="rows")
    if whole:
        prepared = replace(
            prepared,
            train=_conversations(prepared.train),
            eval=_conversations(prepared.eval) if prepared.eval else None,
        )
    trainer = make_trainer(SFTTrainer, SFTConfig, recipe, loaded, prepared, draft)
    fit(trainer, recipe, draft)
    return None


def require_marks(loaded: Loaded) -> None:
    """Refuse a chat template that does not tell what the assistant says from the rest.

    TRL brings marked versions of many known templates, and takes them by itself.

    Raises:
        TrainingError: neither has this template marks, nor does TRL know it.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if check_template(loaded).marks:
        return
    if not has_generation_markers(loaded.tokenizer.chat_template):
        with contextlib.suppress(ValueError):
            get_training_chat_template(loaded.tokenizer)
            return
    raise TrainingError(
        "assistant_only_loss: its chat template does not mark what the assistant says, with the "
        "token that ends it",
        where=loaded.ref.name,
        remedy="Leave assistant_only_loss out, which trains on the completion alone, or put "
        "{% generation %} and {% endgeneration %} around both in chat_template.jinja",
    )


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


def _conversations(dataset: Any) -> Any:
    """Each row's prompt and completion as one conversation, as TRL wants it for this loss."""
    return dataset.map(
        lambda row: {"messages": row["prompt"] + row["completion"]},
        remove_columns=["prompt", "completion"],
    )
