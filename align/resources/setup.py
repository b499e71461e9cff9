"""What decides how much memory a training takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from align.recipe import Lora, ModelShapes, Prefix


@dataclass(frozen=True)
class Passes:
    """What a method computes for each row of its data."""

    sequences: int = 1
    """Sequences with a gradient."""
    head: Literal["tiles", "logits", "score"] = "tiles"
    """The output layer: in TRL's tiles, as all logits at once, or one score."""
    reference: bool = False
    """Whether a reference model is compared with."""
    writes: bool = False
    """Whether the model writes completions, and reward models read them."""


PASSES: Mapping[str, Passes] = {
    "pretrain": Passes(head="logits"),
    "sft": Passes(),
    "reward": Passes(sequences=2, head="score"),
    "dpo": Passes(sequences=2, reference=True),
    "kto": Passes(reference=True),
    "orpo": Passes(sequences=2, head="logits"),
    "cpo": Passes(sequences=2, head="logits"),
    "rloo": Passes(reference=True, writes=True),
    "grpo": Passes(reference=True, writes=True),
    "online-dpo": Passes(sequences=2, head="logits", reference=True, writes=True),
}
"""By a recipe's method."""


@dataclass(frozen=True)
class Setup:
    """Everything that decides how much memory a training takes on each device."""

    model: ModelShapes
    passes: Passes
    rows: int
    """Of data, in one forward pass."""
    length: int
    """Tokens of each sequence, at most."""
    gpu: bool = False
    half: bool = False
    """Whether activations have 16 bits."""
    checkpointing: bool = False
    optimizer: str = "adamw_torch_fused"
    lora: Lora | None = None
    prefix: Prefix | None = None
    quantized: bool = False
    trains_embeddings: bool = False
    """Beside adapters, for new tokens."""
    second_model: bool = False
    """Whether the reference is a model of its own."""
    rewards: int = 0
    """Reward models, each taken to be as large as the model."""
    devices: int = 1
    sharded: bool = False
    """Over the devices (FSDP, ZeRO-3); else each holds a whole copy."""

    @property
    def adapts(self) -> bool:
        """Whether the model's own weights stay as they are."""
        return self.lora is not None or self.prefix is not None
