"""Load a model: the only code that trainers share with generation.

Remote code is never run unless a recipe asks for it by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from align.adapters import are_rewards, quantized_loading, with_adapters
from align.model_kind import (
    REWARD_CLASS,
    Kind,
    kind_of,
    model_config,
    names_a_reward,
    quiet_loading,
    require_kind,
)
from align.model_ref import ModelRef, base_folder
from align.tokenizer import CHAT_TEMPLATE, TURN_TOKENS
from annotate.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS_IN_TEXTS = "tokens_in_texts"
"""In a model's configuration: the special tokens that texts may use, those a recipe added."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""The chat template of an encoder or encoder-decoder that has none: a line a turn."""

Task = Literal["causal-lm", "seq2seq-lm", "reward"]
"""What a model is loaded as: the last is a transformer with a head of one score."""


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer; pad and end differ and stand in its generation settings, the end
    beside the other tokens that end a turn."""

    ref: ModelRef
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_tokens: tuple[int, ...] = ()
    """Ids that came with a chat template: their embeddings are yet to be learnt."""


def load_model(
    ref: ModelRef,
    *,
    task: Task = "causal-lm",
    quantization: Literal["nf4"] | None = None,
    trust_remote_code: bool = False,
    train: Literal["nothing", "adapters", "all"] = "nothing",
    template: str | None = None,
) -> Loaded:
    """Load a model and its tokenizer.

    A model that is not trained lies on the accelerator, if there is one; of one that is, the
    trainer decides where. A GPU gets bfloat16, but for weights that are trained themselves: steps
    of a millionth vanish in its 8 bits of precision.

    Args:
        template: the chat template that it gets, instead of its own if it has one. With
            `align.tokenizer.CHAT_TEMPLATE` it gets the special tokens of that as well.

    Raises:
        TrainingError: it does not exist, cannot be reached, is damaged, has no chat template,
            cannot be quantised or trained, or scores completions where one is wanted that writes
            them.
    """
    import torch
    from transformers import AutoTokenizer

    on_gpu = torch.cuda.is_available()
    half = on_gpu and torch.cuda.is_bf16_supported() and train != "all"
    options = {"dtype": torch.bfloat16 if half else torch.float32}
    if quantization is not None:
        options |= quantized_loading()
    base = base_folder(ref)
    with _loading(ref.name):
        config = model_config(base, trust_remote_code=trust_remote_code)
        kind = None if config is None else kind_of(config)
        require_kind(ref.name, kind, task)
        _require_task(ref, config, task, adapters=base != ref.source)
        tokenizer = AutoTokenizer.from_pretrained(ref.source, trust_remote_code=trust_remote_code)
        model, found = _auto_class(task).from_pretrained(
            base,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **_head(task),
            **options,
        )
        if task != "reward":
            _warn_of_missing(ref.name, found["missing_keys"])
        _distinct_pad(tokenizer, model)
        if base != ref.source:
            if task == "reward":  # the base's configuration does not say so
                model.config.architectures = [REWARD_CLASS]
            model = with_adapters(model, tokenizer, Path(ref.source))
    new = _give_template(ref.name, model, tokenizer, kind, template)
    if on_gpu and train == "nothing":
        model.to(torch.device("cuda"))
    return Loaded(ref, model, tokenizer, new)


@contextlib.contextmanager
def _loading(where: str) -> Iterator[None]:
    """The libraries say in one line of ours what is wrong, and nothing else."""
    import torch
    from safetensors import SafetensorError

    try:
        with quiet_loading():
            yield
    except torch.cuda.OutOfMemoryError:
        raise TrainingError("it does not fit into the GPU's memory", where=where) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        # The libraries' messages run over many lines; the first says what happened.
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise TrainingError(
            f"the model cannot be loaded: {first}",
            where=where,
            remedy="Name `base`, a train run, a folder with config.json, or an id of the hub",
        ) from None


def _give_template(
    where: str, model: Any, tokenizer: Any, kind: Kind | None, template: str | None
) -> tuple[int, ...]:
    """See that there is a chat template; the ids of tokens that are new with it."""
    if template is None and tokenizer.chat_template is None:
        if kind == "decoder":
            raise TrainingError(
                "its tokenizer has no chat template",
                where=where,
                remedy="Use a chat model, or fine-tune it with `chat_template: turns`",
            )
        template = PLAIN_TEMPLATE
    if template is not None:
        tokenizer.chat_template = template
    if template != CHAT_TEMPLATE:
        return ()
    known = tokenizer.get_vocab()
    missing = [token for token in TURN_TOKENS if token not in known]
    return tuple(add_special_tokens(model, tokenizer, missing, in_texts=False))


def _auto_class(task: Task) -> Any:
    import transformers

    return {
        "causal-lm": transformers.AutoModelForCausalLM,
        "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
        "reward": transformers.AutoModelForSequenceClassification,
    }[task]


def _head(task: Task) -> dict[str, int]:
    return {"num_labels": 1} if task == "reward" else {}


def scores(model: Any) -> bool:
    """Whether a loaded model came with a head that scores; if not, "reward" made a random one."""
    return names_a_reward(model.config.architectures)


def _warn_of_missing(where: str, missing: Iterable[str]) -> None:
    """Say that weights were not in the files: the libraries' own report is silenced."""
    if names := sorted(missing):
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"warning: {where}: its files lack {len(names)} of its weights, {names[0]} the first; "
            "they are random now",
            markup=False,
        )


def _require_task(ref: ModelRef, config: Any, task: Task, *, adapters: bool) -> None:
    """Refuse a reward model where one is wanted that writes, before its weights are loaded.

    Args:
        config: None where it cannot be read, which loading says.
        adapters: it is adapters that stand alone, and the configuration that of their base.
    """
    if adapters:
        scoring = are_rewards(Path(ref.source))
    else:
        scoring = config is not None and names_a_reward(config.architectures)
    if scoring and task != "reward":
        raise TrainingError(
            "it scores completions and writes none", where=ref.name, remedy="Name another model"
        )
    if adapters and task == "reward" and not scoring:
        raise TrainingError(
            "it is no reward model: its adapters write completions",
            where=ref.name,
            remedy=f"To start one from it, `handloom merge {ref.name}` first",
        )


def _distinct_pad(tokenizer: Any, model: Any) -> None:
    """Without a pad token of its own a model learns to ignore its end token."""
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token  # how an encoder's text ends
    if tokenizer.eos_token is None:
        raise TrainingError(
            "its tokenizer has no end token",
            where=str(tokenizer.name_or_path),
            remedy="Name one as eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        unused = tokenizer.unk_token
        if unused is not None and unused != tokenizer.eos_token:
            tokenizer.pad_token = unused
        else:
            add_special_tokens(model, tokenizer, ["<|pad|>"], in_texts=False)
            tokenizer.pad_token = "<|pad|>"
    tokenizer.padding_side = "left"
    # Chat models such as Gemma's end a turn with a token that is not the end of a text.
    writes = getattr(model, "generation_config", None)
    listed = getattr(writes, "eos_token_id", None) or getattr(model.config, "eos_token_id", None)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    if writes is not None:  # a model that only scores has none for generation
        ends = end_tokens(listed, tokenizer)
        writes.pad_token_id = tokenizer.pad_token_id
        writes.eos_token_id = ends if len(ends) > 1 else ends[0]


def end_tokens(listed: int | Sequence[int] | None, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end a turn: the tokenizer's own first, then the other ones `listed`
    by the model's settings, which name none, one or several."""
    others = [listed] if isinstance(listed, int) else listed or ()
    return list(dict.fromkeys([int(tokenizer.eos_token_id), *others]))


def stop_tokens(loaded: Loaded) -> list[int]:
    """`end_tokens` of a loaded model."""
    writes = getattr(loaded.model, "generation_config", None)
    return end_tokens(getattr(writes, "eos_token_id", None), loaded.tokenizer)


def add_special_tokens(
    model: Any, tokenizer: Any, tokens: Sequence[str], *, in_texts: bool = True
) -> list[int]:
    """Teach the tokenizer new special tokens and give each an embedding, the mean of the others.

    A random start would put the new rows far from all that the model has seen (Hewitt, 2021,
    "Initializing new word embeddings for pretrained language models").

    Args:
        in_texts: messages may use them, which `align.conversations` allows no other special token.

    Returns:
        The ids of `tokens`, those that it knew already included.
    """
    import torch

    before = model.get_input_embeddings().weight.shape[0]
    known = set(tokenizer.get_vocab())
    added = [token for token in tokens if token not in known]
    tokenizer.add_special_tokens({"additional_special_tokens": added}, False)
    if len(tokenizer) > before:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = [tokenizer.convert_tokens_to_ids(token) for token in added]
    if new:
        with torch.no_grad():
            tables = {
                id(layer.weight): layer.weight
                for layer in (model.get_input_embeddings(), model.get_output_embeddings())
                if layer is not None
            }
            for table in tables.values():
                table[new] = table[: min(new)].mean(dim=0)
    if in_texts and tokens:
        known_to_texts = getattr(model.config, TOKENS_IN_TEXTS, [])
        setattr(model.config, TOKENS_IN_TEXTS, sorted({*known_to_texts, *tokens}))
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]


def device_arguments(device: Literal["cpu", "cuda"] | None = None) -> dict[str, Any]:
    """Trainer arguments that a device decides: bfloat16 is several times slower on a CPU.

    Args:
        device: None: what this machine has.
    """
    import torch

    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return {"bf16": not torch.cuda.is_available() or torch.cuda.is_bf16_supported()}
    return {
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }
