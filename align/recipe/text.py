"""Recipes of the methods that learn from text: pre-training and supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.recipe.parts import Architecture, Demonstrations, Part, Recipe, Tuning


class Corpus(Part):
    """Documents that are read as a stream, never all in memory."""

    source: Literal["text", "jsonl", "parquet", "hub"]
    path: str
    """A file, or a folder with files that end in .txt, .jsonl or .parquet, as seen from the
    project's folder. Of `hub`: the id of a data set on the Hugging Face hub, or a folder that
    `datasets` can load."""
    column: str = "text"
    """Where a JSON object or a row has its text."""
    document: Literal["line", "paragraph", "file"] = "line"
    """What one document of a text file is; paragraphs are set apart by blank lines."""
    name: str | None = None
    """Of `hub`: the data set's configuration."""
    split: str = "train"
    """Of `hub`: the data set's split."""
    held_out: float = Field(0.01, gt=0, lt=1)
    """Share of the documents that is never trained on, chosen by their content."""
    held_out_documents: int = Field(300, ge=1)
    """The first so many of these measure perplexity."""
    shuffle: int = Field(10_000, ge=1)
    """The next document is drawn from so many that wait in memory; 1 keeps the order."""


class PretrainRecipe(Recipe):
    """A tokenizer and a small Llama from scratch."""

    method: Literal["pretrain"]
    demonstrations: Demonstrations | None = None
    """What to read."""
    corpus: Corpus | None = None
    """What to read instead."""
    tokenizer: Literal["bpe", "unigram"] = "bpe"
    """Both of bytes, so that they can write any text."""
    tokenizer_documents: int = Field(100_000, ge=1)
    """The tokenizer is made from the first so many documents of a corpus."""
    vocab_size: int = Field(1024, ge=300)
    """Special tokens included."""
    packing: bool = False
    """Several documents in a row instead of padding. None looks at another, and only those longer
    than a row are cut."""
    architecture: Architecture = Architecture()

    @model_validator(mode="after")
    def _has_one_source(self) -> PretrainRecipe:
        if (self.demonstrations is None) == (self.corpus is None):
            raise ValueError("give it either demonstrations or a corpus to read")
        steps = self.trainer.get("max_steps")
        if self.corpus is not None and not (isinstance(steps, int) and steps >= 1):
            raise ValueError("a corpus is read without end: set trainer.max_steps, from 1")
        return self


class SftRecipe(Tuning):
    """Supervised fine-tuning on corrected responses and clear winners."""

    method: Literal["sft"]
    demonstrations: Demonstrations | None = None
    """Instead of a build run's `sft` table."""

    def complaint(self, key: str) -> tuple[str, str] | None:
        """`packing_strategy: wrapped` lays dialogues end to end, and cuts where a row is full."""
        if key == "packing_strategy" and self.trainer[key] == "wrapped":
            return (
                "wrapped packing lets a dialogue look at the one before it, and cuts dialogues",
                "Set packing_strategy: bfd, which does neither",
            )
        return None
