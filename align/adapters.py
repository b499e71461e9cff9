"""Train little beside a frozen model: low-rank adapters, with weights in 4 bits, or a prefix.

What is trained is kept alone in a run's `adapter/`. Low-rank adapters are merged into a copy of the
model as well, `model/`, unless the weights beside them were rounded to 4 bits: then `load_model`
puts base and adapters together again, in full precision, as `handloom merge` does for good. A
prefix is no change of any weight and stays apart for ever.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.recipe import Tuning
from annotate.errors import TrainingError

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER_FOLDER = "adapter"
"""Beside the model's folder in a train run."""

_ADAPTER_FILE = "adapter_config.json"
# PEFT 0.21's own wrapper of an encoder-decoder asks for a method that transformers 5 lacks; without
# a task it takes the plain one, which does for adapters in the layers.
_PEFT_TASKS = {"causal-lm": "CAUSAL_LM", "seq2seq-lm": None, "reward": "SEQ_CLS"}


def adapter_config(
    recipe: Tuning, new_tokens: Sequence[int], model: Any = None, *, task: str = "causal-lm"
) -> PeftConfig | None:
    """PEFT's configuration of a recipe's adapters; None where every weight is trained.

    With new tokens all embeddings are trained too, and an output layer with a table of its own.
    Training the new rows alone would be enough, but PEFT's wrapper for that lacks the bias which
    TRL 1.16 asks a tied output layer for.

    Args:
        new_tokens: ids of the tokens that the recipe added.
        model: that they were added to.
        task: as for `load_model`.

    Raises:
        TrainingError: the model's embeddings cannot be trained beside adapters.
    """
    from peft import LoraConfig, PrefixTuningConfig

    if recipe.prefix is not None:
        if _PEFT_TASKS[task] is None:
            raise TrainingError(
                "an encoder-decoder cannot be given a prefix", remedy="Take lora instead"
            )
        # Zeros disturb the model least: they take a share of the attention and add nothing.
        return PrefixTuningConfig(
            task_type=_PEFT_TASKS[task],
            num_virtual_tokens=recipe.prefix.tokens,
            init_weights="zero",
        )
    if (lora := recipe.lora) is None:
        return None
    tables, tied = _embeddings(model) if new_tokens else (None, False)
    return LoraConfig(
        task_type=_PEFT_TASKS[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules
        if isinstance(lora.target_modules, str)
        else list(lora.target_modules),
        use_dora=lora.dora,
        modules_to_save=tables,
        ensure_weight_tying=tied,
    )


def _embeddings(model: Any) -> tuple[list[str], bool]:
    """What PEFT calls the tables with a row a token, and whether input and output share one."""
    source, target = model.get_input_embeddings(), model.get_output_embeddings()
    tied = target is not None and target.weight is source.weight
    wanted = [source] if tied or target is None else [source, target]
    names = [
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if any(layer is one for one in wanted)
    ]
    # PEFT knows a shared table only by this name.
    if model.config.is_encoder_decoder or (tied and names != ["embed_tokens"]):
        raise TrainingError(
            f"new_special_tokens: {names[0]!r}, the embeddings of this model, cannot be trained "
            "beside adapters",
            remedy="Leave lora out, which trains every weight",
        )
    return names, tied


def quantized_loading() -> dict[str, Any]:
    """Arguments of `from_pretrained` for weights in 4 bits (Dettmers et al. 2023, section 3).

    Raises:
        TrainingError: there is no NVIDIA GPU, or bitsandbytes is not installed.
    """
    import torch
    from accelerate import PartialState
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise TrainingError(
            "quantization: nf4 needs an NVIDIA GPU, and there is none here",
            remedy="Leave quantization out: plain lora trains the same adapters",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainingError(
            "quantization: nf4 needs bitsandbytes", remedy="pip install 'handloom[gpu]'"
        )
    return {
        "quantization_config": BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        # A rounded model cannot be moved afterwards: each process loads it where it trains.
        "device_map": {"": PartialState().local_process_index},
    }


def holds_adapters(folder: Path) -> bool:
    """Whether a folder has adapters, and not a model."""
    return (folder / _ADAPTER_FILE).is_file()


def require_start(recipe: Tuning, name: str, folder: Path) -> None:
    """Refuse to train onto adapters that stand alone where that would lose them.

    Args:
        name: of the model that training starts from.
        folder: where it lies; a hub id is no folder with adapters.

    Raises:
        TrainingError: it is a prefix, or what is trained would itself stand alone beside them; or
            the recipe trains a prefix and wants layers computed again, which would forget it.
    """
    if recipe.prefix is not None and recipe.trainer.get("gradient_checkpointing"):
        raise TrainingError(
            "a prefix cannot be trained with gradient_checkpointing",
            where=name,
            remedy="Leave trainer.gradient_checkpointing out",
        )
    if not holds_adapters(folder):
        return
    if is_prefix(folder):
        raise TrainingError(
            "a learnt prefix cannot be trained any further",
            where=name,
            remedy="Start from the model that it was learnt beside",
        )
    if recipe.quantization is not None or recipe.prefix is not None:
        raise TrainingError(
            "its adapters are not merged into its weights yet",
            where=name,
            remedy=f"`handloom merge {name}`, and start from what that makes",
        )


def is_prefix(folder: Path) -> bool:
    """Whether the adapters in a folder are a prefix."""
    recorded = json.loads((folder / _ADAPTER_FILE).read_text(encoding="utf-8"))
    return bool(recorded["peft_type"] == "PREFIX_TUNING")


def are_rewards(folder: Path) -> bool:
    """Whether the adapters in a folder were trained, with a head of one score, as a reward model:
    the configuration beside them is the base's, and does not say so."""
    recorded = json.loads((folder / _ADAPTER_FILE).read_text(encoding="utf-8"))
    return bool(recorded.get("task_type") == _PEFT_TASKS["reward"])


def with_adapters(model: Any, tokenizer: Any, folder: Path) -> Any:
    """A base model with the adapters of `folder`: merged into it where they can be.

    Args:
        model: loaded in 16 or 32 bits, whatever it was when the adapters were trained.
        tokenizer: as saved with the adapters; the embeddings grow to it.

    Returns:
        A plain model; with a prefix, one that has read it before anything else.
    """
    from peft import PeftModel

    from align.prefixed import Prefixed

    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    adapted = PeftModel.from_pretrained(model, str(folder))
    if adapted.active_peft_config.is_prompt_learning:
        return Prefixed(adapted)
    merged = adapted.merge_and_unload()
    # Where whoever wants this model again, as TRL does for a reference, finds it.
    merged.config._name_or_path = str(folder)
    return merged


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as safetensors with its tokenizer; adapters beside it and merged into it.

    Where adapters cannot be merged (a prefix; weights in 4 bits) `folder` is not made.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        apart = folder.parent / ADAPTER_FOLDER
        model.save_pretrained(str(apart))
        model.config.save_pretrained(str(apart))
        tokenizer.save_pretrained(apart)
        rounded = getattr(model.get_base_model(), "hf_quantizer", None) is not None
        if rounded or model.active_peft_config.is_prompt_learning:
            return
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
