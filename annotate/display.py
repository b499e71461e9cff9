"""What annotators see: blind, in a random and recorded order, as text and never as markup.

`arrange` (annotate.arrangement) turns outputs into items, `record_fields` an item into the fields
of an Argilla record; neither lets a model's name through. `undo` (annotate.answers) leads back.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from annotate.answers import FIELDS, Answer, Item, Undone, answer, undo
from annotate.arrangement import Arrangement, arrange
from annotate.records import flat_text

__all__ = [
    "FIELDS",
    "Answer",
    "Arrangement",
    "Item",
    "Undone",
    "answer",
    "arrange",
    "is_conversation",
    "record_fields",
    "record_metadata",
    "texts_by_id",
    "undo",
]

Message = Mapping[str, str]

EMPTY_RESPONSE = "(empty response)"
EMPTY_MESSAGE = "(empty message)"

_MAX_MESSAGE = 20_000  # characters, escaped, of one chat message in Argilla 2.8
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def texts_by_id(
    prompts: pa.Table, outputs: pa.Table
) -> tuple[dict[str, list[Message]], dict[str, str]]:
    """Messages by prompt id, and completions by output id."""
    return (
        dict(zip(prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist(), strict=True)),
        dict(zip(outputs["output_id"].to_pylist(), outputs["completion"].to_pylist(), strict=True)),
    )


def is_conversation(prompts: pa.Table) -> bool:
    """Whether any prompt has several turns: then the whole dataset shows its prompts as chats."""
    return bool(pc.any(pc.greater(pc.list_value_length(prompts["messages"]), 1)).as_py())


def record_fields(
    item: Item,
    messages: Mapping[str, Sequence[Message]],
    completions: Mapping[str, str],
    *,
    multi_turn: bool,
) -> dict[str, str | list[dict[str, str]]]:
    """The fields of an item's Argilla record: `prompt`, then `response_a`, `response_b`, ….

    Everything is escaped, because Argilla 2.8 runs scripts that stand in a text (CVE-2026-116554,
    CVE-2026-116555); on the page it reads as it was written.

    Args:
        messages: by prompt id.
        completions: by output id.
        multi_turn: as given to `argilla_settings`; the prompt is then a list of messages.
    """
    turns = messages[item["prompt_id"]]
    prompt = _chat(turns) if multi_turn else _shown(flat_text(turns), EMPTY_MESSAGE)
    fields: dict[str, str | list[dict[str, str]]] = {"prompt": prompt}
    for field, output in zip(FIELDS, item["output_ids"], strict=False):
        fields[field] = _shown(completions[output], EMPTY_RESPONSE)
    return fields


def record_metadata(item: Item) -> dict[str, str]:
    """The metadata of an item's Argilla record; nothing in it says which model wrote what."""
    return {"guideline": item["guideline"], "batch": item["batch"]}


def _shown(text: str | None, if_empty: str) -> str:
    """A text as Argilla may have it: control characters made visible, markup escaped."""
    if text is None or not text.strip():
        return if_empty
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", lines), quote=False)


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation as Argilla's chat field takes it; a long turn becomes several messages."""
    width = _MAX_MESSAGE // len("&amp;")  # what escaping can make of one character
    shown = []
    for message in messages:
        content = message["content"] or ""
        pieces = [content[at : at + width] for at in range(0, len(content), width)] or [""]
        if len(_shown(content, "")) <= _MAX_MESSAGE:
            pieces = [content]
        role = html.escape(message["role"], quote=False)
        shown += [{"role": role, "content": _shown(piece, EMPTY_MESSAGE)} for piece in pieces]
    return shown
