"""Which kind of transformer a model is, told from its configuration before any weight is loaded."""

from __future__ import annotations

from typing import Any, Literal

from annotate.errors import TrainingError

Kind = Literal["decoder", "encoder", "encoder-decoder"]

_NAMES = {"decoder": "a decoder", "encoder": "an encoder", "encoder-decoder": "an encoder-decoder"}
_USABLE: dict[str, tuple[Kind, ...]] = {
    "causal-lm": ("decoder",),
    "seq2seq-lm": ("encoder-decoder",),
    "reward": ("decoder", "encoder"),
}


def model_kind(source: str, *, trust_remote_code: bool = False) -> Kind | None:
    """The kind of the model in a folder or on the hub.

    None where the configuration cannot be read: loading the model says why.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError):
        return None
    return kind_of(config)


def kind_of(config: Any) -> Kind:
    """The kind of a model with this configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.is_encoder_decoder:
        return "encoder-decoder"
    # transformers would load an encoder as a decoder too, of which it knows nothing.
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "encoder" if masked and not getattr(config, "is_decoder", False) else "decoder"


def require_kind(name: str, kind: Kind | None, task: str) -> None:
    """Refuse a model of a kind that cannot do what it is wanted for.

    Args:
        name: of the model, for the message.
        task: as for `load_model`.

    Raises:
        TrainingError: naming what it is and what is needed.
    """
    usable = _USABLE[task]
    if kind is not None and kind not in usable:
        raise TrainingError(
            f"it is {_NAMES[kind]}, and this needs {' or '.join(_NAMES[one] for one in usable)}",
            where=name,
            remedy="Of an encoder-decoder `sft` can be trained, of an encoder a reward model",
        )
