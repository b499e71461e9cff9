"""From a guideline to the settings of the Argilla dataset that asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import argilla as rg

from annotate.answers import FIELDS
from annotate.errors import InputError
from annotate.front_matter import QuestionType
from annotate.guidelines import LETTERS, AskedQuestion, Guideline


def argilla_settings(
    guideline: Guideline, n_outputs: int, *, multi_turn: bool, client: rg.Argilla | None = None
) -> rg.Settings:
    """Settings of a dataset whose records show `n_outputs` responses each.

    The prompt is a chat where any prompt of the dataset has several turns, plain text otherwise.
    No field renders Markdown: it would fetch remote images, and what is judged is the text. Only
    what the guideline requires must be answered before an annotator can submit.

    Args:
        n_outputs: as many as each record shows: 2 for a comparison, 0 for a prompt alone.
        client: the server the dataset is for; by default the SDK's last client.

    Raises:
        InputError: the guideline does not show so many responses.
    """
    if not guideline.min_outputs <= n_outputs <= guideline.max_outputs:
        raise InputError(
            f"{guideline.name} shows {guideline.min_outputs} to {guideline.max_outputs} responses, "
            f"not {n_outputs}",
            where=str(guideline.path),
        )
    return rg.Settings(
        guidelines=guideline.text,
        fields=_fields(n_outputs, multi_turn, client),
        questions=[_question(asked, n_outputs, client) for asked in guideline.asked(n_outputs)],
        metadata=[
            rg.TermsMetadataProperty(name, title=title, visible_for_annotators=True, client=client)
            for name, title in (("guideline", "Guideline"), ("batch", "Batch"))
        ],
        distribution=rg.TaskDistribution(min_submitted=guideline.overlap),
        allow_extra_metadata=False,
    )


def _fields(n_outputs: int, multi_turn: bool, client: rg.Argilla | None) -> list[Any]:
    prompt: Any = (
        rg.ChatField("prompt", title="Conversation", use_markdown=False, _client=client)
        if multi_turn
        else rg.TextField("prompt", title="Prompt", use_markdown=False, client=client)
    )
    return [
        prompt,
        *(
            rg.TextField(
                name,
                title=f"Response {letter.upper()}" if n_outputs > 1 else "Response",
                use_markdown=False,
                client=client,
            )
            for name, letter in zip(FIELDS[:n_outputs], LETTERS, strict=False)
        ),
    ]


def _question(asked: AskedQuestion, n_outputs: int, client: rg.Argilla | None) -> Any:
    return _BUILD[asked.question.type](
        asked,
        n_outputs,
        {
            "name": asked.name,
            "title": asked.title,
            "description": asked.description or None,
            "required": asked.question.required,
            "client": client,
        },
    )


def _label(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    return rg.LabelQuestion(labels=dict(asked.question.labels), **common)


def _flags(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    return rg.MultiLabelQuestion(labels=dict(asked.question.labels), **common)


def _spans(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    labels = dict(asked.question.labels)
    return rg.SpanQuestion(field=FIELDS[asked.slot or 0], labels=labels, **common)


def _rating(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    return rg.RatingQuestion(values=list(asked.question.values), **common)


def _ranking(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    named = zip(FIELDS[:n_outputs], LETTERS, strict=False)
    return rg.RankingQuestion(
        values={field: f"Response {letter.upper()}" for field, letter in named}, **common
    )


def _text(asked: AskedQuestion, n_outputs: int, common: Mapping[str, Any]) -> Any:
    return rg.TextQuestion(use_markdown=False, **common)


_BUILD: Mapping[QuestionType, Callable[[AskedQuestion, int, Mapping[str, Any]], Any]] = {
    "preference": _label,
    "mark": _label,
    "flags": _flags,
    "rating": _rating,
    "ranking": _ranking,
    "text": _text,
    "label": _label,
    "labels": _flags,
    "thumbs": _label,
    "spans": _spans,
}
