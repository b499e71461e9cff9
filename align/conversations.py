"""Conversations as tokens, in which no text can pass for a control token.

A tokenizer reads `<|end|>` inside a message as the end of the message: whoever writes it there
could end a turn, or speak as somebody else. Such a text keeps its letters but gets a space after
the first one (`< |end|>`), which makes ordinary tokens of it, in training and when sampling alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.model import TOKENS_IN_TEXTS, Loaded
from annotate.errors import TrainingError
from annotate.records import MESSAGES

Messages = Sequence[Mapping[str, str]]
"""A conversation: role and content of each turn."""


def conversation_tokens(
    loaded: Loaded, conversations: Sequence[Messages], *, asks: bool = False
) -> list[list[int]]:
    """Each conversation as the chat template writes it, control tokens in its texts spelled out.

    Args:
        asks: go on to where the assistant begins to answer.

    Raises:
        TrainingError: the template refuses a conversation.
    """
    if not conversations:
        return []
    try:
        texts = loaded.tokenizer.apply_chat_template(
            spelled_out(conversations, control_tokens(loaded)),
            add_generation_prompt=asks,
            tokenize=False,
        )
    except jinja2.TemplateError as error:
        raise TrainingError(f"its chat template fails ({error})", where=loaded.ref.name) from None
    # The template has written the special tokens already.
    found: list[list[int]] = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def answer_tokens(loaded: Loaded, answers: Sequence[Messages]) -> list[list[int]]:
    """Each answer's words alone, with the token that ends it: what an encoder-decoder writes."""
    if not answers:
        return []
    texts = ["".join(turn["content"] for turn in turns) for turns in answers]
    tokenizer: Any = loaded.tokenizer
    found = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in found]


def control_tokens(loaded: Loaded) -> re.Pattern[str] | None:
    """`control_pattern` of a loaded model."""
    return control_pattern(loaded.tokenizer, loaded.model.config)


def control_pattern(tokenizer: Any, config: Any) -> re.Pattern[str] | None:
    """What a tokenizer reads as a special token wherever it stands; None without any.

    Those that a recipe added for texts to use are not among them: the model's `config` names them.
    """
    special = {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
    special -= set(getattr(config, TOKENS_IN_TEXTS, ()))
    if not special:
        return None
    # The longest first: one may begin another.
    return re.compile("|".join(re.escape(one) for one in sorted(special, key=len, reverse=True)))


def spelled_out(
    conversations: Sequence[Messages], control: re.Pattern[str] | None
) -> list[list[dict[str, str]]]:
    """Conversations with control tokens in their texts spelled out."""
    return [
        [{**turn, "content": _spelled_out(turn["content"], control)} for turn in turns]
        for turns in conversations
    ]


def spell_out(messages: pa.ChunkedArray, control: re.Pattern[str] | None) -> pa.ChunkedArray:
    """The same of a column of conversations (type MESSAGES); only texts that hold one change."""
    column = messages.combine_chunks()
    if control is None or not len(column):
        return messages
    turns = column.flatten()
    content = turns.field("content")
    held = pc.fill_null(pc.match_substring_regex(content, control.pattern), False)
    if not pc.any(held).as_py():
        return messages
    changed = [_spelled_out(text, control) for text in content.filter(held).to_pylist()]
    content = pc.replace_with_mask(content, held, pa.array(changed, pa.string()))
    struct = pa.StructArray.from_arrays(
        [turns.field("role"), content], fields=list(MESSAGES.value_type)
    )
    return pa.chunked_array([pa.ListArray.from_arrays(_starts(column), struct)])


def flat(messages: pa.ChunkedArray) -> pa.Array:
    """Each conversation as one string, equal where role and content of every turn are."""
    column = messages.combine_chunks()
    turns = column.flatten()
    said = pc.binary_join_element_wise(turns.field("role"), turns.field("content"), "\x1f")
    return pc.binary_join(pa.ListArray.from_arrays(_starts(column), said), "\x1e")


def _starts(column: pa.ListArray) -> pa.Array:
    """Where each conversation begins among all turns, and after them where the last ends."""
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return pa.array(np.concatenate([[0], np.cumsum(np.asarray(lengths))]), pa.int32())


def _spelled_out(text: str, control: re.Pattern[str] | None) -> str:
    # A space may join what stood apart into another one, so it is looked at again.
    while control is not None and control.search(text):
        text = control.sub(_apart, text)
    return text


def _apart(found: re.Match[str]) -> str:
    token = found[0]
    return f"{token[0]} {token[1:]}" if len(token) > 1 else ""
