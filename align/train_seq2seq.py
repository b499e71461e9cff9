"""Supervised fine-tuning of an encoder-decoder: it reads the prompt and writes the completion.

TRL has no trainer for these; transformers has.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from align.adapters import adapter_config
from align.conversations import answer_tokens, conversation_tokens
from align.model import Loaded
from align.recipe import SftRecipe
from align.training import fit, settings_reported, trainer_arguments
from align.tuning import prepare
from annotate.errors import InputError
from annotate.runs import Draft

ENCODER_DECODER = "encoder-decoder"
"""The metric `makes` of such a run: `generate` and the rounds of the loop want a decoder."""


def train_seq2seq(recipe: SftRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Fine-tune an encoder-decoder on the `sft` table `rows`, the loss being the completion's.

    `max_length` bounds prompt and completion each, since they are read apart.

    Raises:
        InputError: an argument that only a decoder's trainer has, or no row is short enough.
        TrainingError: transformers or PEFT refuses the recipe's settings.
    """
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    _require_known(recipe, Seq2SeqTrainingArguments)
    prepared = prepare(recipe, loaded, rows, draft, ("completion",), apart=True, unit="rows")
    # Positions are counted from the left, and what is filled up must not move them.
    loaded.tokenizer.padding_side = "right"
    sides = {
        side: _encoded(recipe, loaded, found)
        for side, found in (("train", prepared.train), ("eval", prepared.eval))
        if found is not None
    }
    arguments = trainer_arguments(recipe, draft, evaluates="eval" in sides)
    with settings_reported(draft.plan.run_id):
        adapters = adapter_config(recipe, prepared.new_tokens, loaded.model, task="seq2seq-lm")
        model: Any = loaded.model
        if adapters is not None:
            model = get_peft_model(model, adapters)
        trainer = Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(**arguments),
            train_dataset=sides["train"],
            eval_dataset=sides.get("eval"),
            data_collator=DataCollatorForSeq2Seq(loaded.tokenizer, model=model),
            processing_class=loaded.tokenizer,
        )
    draft.note(makes=ENCODER_DECODER)
    fit(trainer, recipe, draft)


def _require_known(recipe: SftRecipe, config: type) -> None:
    known = {field.name for field in dataclasses.fields(config)}
    for key in recipe.trainer:
        if key not in known:
            raise InputError(
                f"trainer.{key} is for decoders", where="an encoder-decoder", remedy="Leave it out"
            )


def _encoded(recipe: SftRecipe, loaded: Loaded, dataset: Any) -> Any:
    """The prompt as the chat template writes it, and the completion's words, each with its end."""
    from datasets import Dataset

    end = loaded.tokenizer.eos_token_id
    asked = conversation_tokens(loaded, dataset["prompt"], asks=True)
    said = answer_tokens(loaded, dataset["completion"])
    room = recipe.max_length - 1
    return Dataset.from_dict(
        {
            "input_ids": [[*ids[:room], end] for ids in asked],
            "labels": [[*ids[:-1][:room], end] for ids in said],
        }
    )
