"""The sizes of a model: from its files where it is at hand, else as its recipe states them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from align.model_ref import ModelRef, base_folder
from align.recipe import ModelShapes, Tuning

# Names in a transformers configuration; models that use others are not counted.
_NAMES = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
}


def model_shapes(recipe: Tuning, ref: ModelRef) -> tuple[ModelShapes | None, str]:
    """Sizes of the model that a recipe starts from, and where they are from.

    A folder is read, and what an earlier download left; nothing is downloaded. None, and why, where
    nobody states them or the configuration has other names than a decoder's.
    """
    config = config_file(ref)
    if config is not None:
        found = _read(config)
        if found is not None:
            return found, "its files"
    if recipe.shapes is not None and recipe.shapes.model is not None:
        return recipe.shapes.model, "the recipe"
    if config is not None:
        return None, "its configuration has other names than a decoder's"
    return None, "it is not here, and the recipe does not state its shapes"


def config_file(ref: ModelRef) -> Path | None:
    """The model's configuration where it is at hand."""
    source = Path(base_folder(ref))
    if source.is_dir():
        return source / "config.json" if (source / "config.json").is_file() else None
    from huggingface_hub import try_to_load_from_cache

    if source.is_absolute():
        return None
    cached = try_to_load_from_cache(str(source), "config.json")
    return Path(cached) if isinstance(cached, str) else None


def _read(path: Path) -> ModelShapes | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        sizes = {ours: config.get(theirs) for ours, theirs in _NAMES.items()}
        weights = _weights(path.parent)
        tied = "lm_head.weight" not in weights if weights else config.get("tie_word_embeddings")
        return ModelShapes(**sizes, tied=bool(tied), parameters=sum(weights.values()) or None)
    except (OSError, ValueError, ValidationError):
        return None  # loading it will say what is wrong


def _weights(folder: Path) -> Mapping[str, int]:
    """Numbers in each tensor of a folder's safetensors files, from their headers."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        found |= {
            name: prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
        }
    return found
