"""What annotators see: blind, in a random and recorded order, as text and never as markup.

`arrange` (annotate.arrangement) turns outputs into items, `record_fields` an item into the fields
of an Argilla record; neither lets a model's name through. `undo` (annotate.answers) leads back.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from annotate.answers import FIELDS, Answer, Item, Undone, answer, undo
from annotate.arrangement import Arrangement, arrange
from annotate.front_matter import WRITTEN
from annotate.records import flat_text
from annotate.server_types import Suggestion
from annotate.shown_text import EMPTY_RESPONSE, readable, shown, shown_to_mark

__all__ = [
    "EMPTY_RESPONSE",
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
    "record_suggestions",
    "texts_by_id",
    "undo",
]

Message = Mapping[str, str]

EMPTY_MESSAGE = "(empty message)"

_MAX_MESSAGE = 20_000  # characters, escaped, of one chat message in Argilla 2.8


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
    prompt = _chat(turns) if multi_turn else shown(flat_text(turns), EMPTY_MESSAGE)
    fields: dict[str, str | list[dict[str, str]]] = {"prompt": prompt}
    as_shown = shown_to_mark if item["kind"] == "span" else shown
    for field, output in zip(FIELDS, item["output_ids"], strict=False):
        fields[field] = as_shown(completions[output], EMPTY_RESPONSE)
    return fields


def record_suggestions(item: Item, completions: Mapping[str, str]) -> dict[str, Suggestion]:
    """What stands in an item's record from the start: the text that is to be mended.

    Argilla shows a suggestion as it is, so nothing is escaped: it would be sent back escaped.
    """
    if item["kind"] != "correct":
        return {}
    (output,) = item["output_ids"]
    text = readable(completions[output] or "")
    return {WRITTEN["correct"]: Suggestion(text)} if text.strip() else {}


def record_metadata(item: Item) -> dict[str, str]:
    """The metadata of an item's Argilla record; nothing in it says which model wrote what."""
    return {"guideline": item["guideline"], "batch": item["batch"]}


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation as Argilla's chat field takes it; a long turn becomes several messages."""
    width = _MAX_MESSAGE // len("&amp;")  # what escaping can make of one character
    turns = []
    for message in messages:
        content = message["content"] or ""
        pieces = [content[at : at + width] for at in range(0, len(content), width)] or [""]
        if len(shown(content, "")) <= _MAX_MESSAGE:
            pieces = [content]
        role = html.escape(message["role"], quote=False)
        turns += [{"role": role, "content": shown(piece, EMPTY_MESSAGE)} for piece in pieces]
    return turns
