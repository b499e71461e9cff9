"""Which kind of transformer a model is, told from its configuration before any weight is loaded."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from annotate.errors import TrainingError

Kind = Literal["decoder", "encoder", "encoder-decoder"]

_NAMES = {"decoder": "a decoder", "encoder": "an encoder", "encoder-decoder": "an encoder-decoder"}
_USABLE: dict[str, tuple[Kind, ...]] = {
    "causal-lm": ("decoder",),
    "seq2seq-lm": ("encoder-decoder",),
    "reward": ("decoder", "encoder"),
}

# How transformers begins to say that it has no connection.
_UNREACHABLE = "couldn't connect to"

REWARD_CLASS = "ForSequenceClassification"
"""How transformers' names for models with a head of scores end."""


def model_kind(source: str, *, trust_remote_code: bool = False) -> Kind | None:
    """The kind of the model in a folder or on the hub.

    None where the configuration cannot be read: loading the model says why.

    Raises:
        TrainingError: the hub cannot be reached, after some attempts.
    """
    config = model_config(source, trust_remote_code=trust_remote_code)
    return None if config is None else kind_of(config)


def model_config(source: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of the model in a folder or on the hub; None where it cannot be read.

    Raises:
        TrainingError: the hub cannot be reached, after some attempts.
    """
    from transformers import AutoConfig

    try:
        with quiet_loading():
            return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        if _UNREACHABLE in str(error):  # other files would be tried for as long again
            raise TrainingError(
                "the hub cannot be reached, and an earlier download left no such model",
                where=source,
                remedy="Name `base`, a train run, a folder with config.json, or try again later",
            ) from None
        return None


class _OneLine(logging.Filter):
    """Of the hub's client's lines about each attempt one of ours, for as long as this process."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to pass a line on."""
        if record.levelno < logging.ERROR and not _OneLine.said:
            _OneLine.said = True
            print("the hub does not answer; trying again …", file=sys.stderr, flush=True)
        return record.levelno >= logging.ERROR


_ONE_LINE = _OneLine()


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence what the libraries say, short of an error, while they fetch and load a model.

    The hub's client stays so: it asks when saving too. That it tries again is one line.
    """
    from huggingface_hub import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    attempts = logging.getLogger("huggingface_hub.utils._http")
    attempts.setLevel(logging.WARNING)
    attempts.addFilter(_ONE_LINE)
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PEFT's own use of a name that transformers is about to rename.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(before)


def names_a_reward(architectures: Sequence[str] | None) -> bool:
    """Whether a configuration's `architectures` name a model with a head of scores."""
    return any(name.endswith(REWARD_CLASS) for name in architectures or ())


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
