"""Prompts as a model of this machine reads them: token ids by its chat template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from align.backends import Job, Unfit, Wanted
from align.chat_template import require_ending
from align.conversations import control_pattern, spelled_out
from align.model import Loaded, end_tokens, stop_tokens
from align.model_kind import kind_of, require_kind
from align.model_ref import ModelRef
from annotate.errors import TrainingError


@dataclass(frozen=True)
class Reader:
    """What of a model is needed to write a prompt for it and to read its completion."""

    ref: ModelRef
    tokenizer: Any
    room: int | None
    """Tokens of prompt and completion together; None where the model does not say."""
    stop: tuple[int, ...]
    """Ids of the tokens that end a turn."""
    control: re.Pattern[str] | None
    """What no text may use (`align.conversations`)."""

    def text(self, tokens: Sequence[int]) -> str:
        """A completion as people read it."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def reader(loaded: Loaded) -> Reader:
    """That of a loaded model."""
    own = stop_tokens(loaded)
    return _reader(loaded.ref, loaded.tokenizer, loaded.model.config, own)


def reader_of(ref: ModelRef) -> Reader:
    """That of a model whose weights are not loaded here.

    Raises:
        TrainingError: it has no tokenizer or settings that transformers can read, or no chat
            template.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.source)
        config = AutoConfig.from_pretrained(ref.source)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise TrainingError(f"the model cannot be read: {first}", where=ref.name) from None
    require_kind(ref.name, kind_of(config), "causal-lm")
    try:
        own = GenerationConfig.from_pretrained(ref.source).eos_token_id
    except OSError:  # a model need not have the file
        own = config.eos_token_id
    if tokenizer.chat_template is None:
        raise TrainingError(
            "its tokenizer has no chat template", where=ref.name, remedy="Use a chat model"
        )
    return _reader(ref, tokenizer, config, own)


def _reader(ref: ModelRef, tokenizer: Any, config: Any, own: Any) -> Reader:
    require_ending(tokenizer, ref.name)
    ends = end_tokens(own, tokenizer)
    room = getattr(config, "max_position_embeddings", None)
    control = control_pattern(tokenizer, config)
    return Reader(ref, tokenizer, room, tuple(sorted(ends)), control)


def prompt_tokens(read: Reader, conversations: Sequence[Any]) -> list[list[int]]:
    """Each conversation as the chat template writes it, up to where the assistant begins.

    Control tokens in its texts are spelled out, as in training.

    Raises:
        TrainingError: the template refuses a conversation.
    """
    try:
        texts = read.tokenizer.apply_chat_template(
            spelled_out(conversations, read.control), add_generation_prompt=True, tokenize=False
        )
    except jinja2.TemplateError as error:
        raise TrainingError(f"its chat template fails ({error})", where=read.ref.name) from None
    # The template has written the special tokens already.
    found: list[list[int]] = read.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def fitting(read: Reader, job: Job) -> tuple[list[Wanted], dict[str, list[int]], list[Unfit]]:
    """What of a job fits the model, its prompts' token ids, and the prompts that are too long.

    Those of like length come together: padding is computed too. Samples of one prompt come one
    after the other.
    """
    ids = list(dict.fromkeys(one.prompt_id for one in job.wanted))
    tokens = dict(zip(ids, prompt_tokens(read, [job.messages[one] for one in ids]), strict=True))
    unfit = []
    for prompt_id in ids:
        needed = len(tokens[prompt_id]) + job.rules.max_new_tokens
        if read.room is not None and needed > read.room:
            reason = f"prompt and completion may take {needed} tokens, the model has {read.room}"
            unfit.append(Unfit(prompt_id, reason))
            del tokens[prompt_id]
    wanted = [one for one in job.wanted if one.prompt_id in tokens]
    wanted.sort(key=lambda one: (len(tokens[one.prompt_id]), one.says, one.sample))
    return wanted, tokens, unfit
