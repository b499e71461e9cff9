"""What the recipes of several methods have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A mapping in a recipe: it never changes, and knows each of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Lora(Part):
    """Low-rank adapters (Hu et al. 2021) instead of training every weight."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters."""


class Demonstrations(Part):
    """Dialogues of the made-up support desk, for use without any data."""

    source: Literal["support-desk"]
    n: int = Field(800, ge=1)
    seed: int = 0
    quality: tuple[float, float] = (2.0, 2.0)
    """Beta distribution that an answer's quality is drawn from."""


class Architecture(Part):
    """A small Llama."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 384
    max_position_embeddings: int = 512
    """Tokens."""


class Recipe(Part):
    """What every training has."""

    method: str
    seed: int = 0
    """Of weights, order and dropout."""
    max_length: int = Field(512, ge=8)
    """Tokens of prompt and completion together; longer rows are cut."""
    trainer: dict[str, Any] = {}
    """Arguments of the trainer's configuration class, by its own names."""

    def complaint(self, key: str) -> tuple[str, str] | None:
        """What is wrong with `trainer[key]`, and the remedy, where only this method can tell."""
        return None

    def stated_by_data(self, key: str) -> bool:
        """Whether the data themselves give `trainer[key]`, so that it need not be a number."""
        return False


class Tuning(Recipe):
    """What every training of a model that exists has."""

    model: str | None = None
    """`base` (the small model shipped with Handloom), a train run's id, a folder, or a model id of
    the Hugging Face hub. Left out: the model of the round before, else `base`."""
    data: str | None = None
    """Id of a build run. Left out: the newest."""
    lora: Lora | None = None
    """Left out: every weight is trained."""
    new_special_tokens: tuple[str, ...] = ()
    """Added to the tokenizer; the embeddings grow, starting from their mean."""
