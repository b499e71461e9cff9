"""Recipes of the methods that learn from text: pre-training and supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.recipe.parts import Architecture, Demonstrations, Recipe, Tuning


class PretrainRecipe(Recipe):
    """A tokenizer and a small Llama from scratch."""

    method: Literal["pretrain"]
    demonstrations: Demonstrations
    """What to read."""
    vocab_size: int = Field(1024, ge=300)
    """Byte-level BPE, special tokens included."""
    architecture: Architecture = Architecture()


class SftRecipe(Tuning):
    """Supervised fine-tuning on corrected responses and clear winners."""

    method: Literal["sft"]
    demonstrations: Demonstrations | None = None
    """Instead of a build run's `sft` table."""
