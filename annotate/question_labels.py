"""Responses → what agreement is measured on, question by question.

    question of type        an answer is about    becomes
    preference, ranking     a pair                Labels "vote", "strength", "both_bad"
    ranking                 an item               Rankings
    rating, thumbs          an output             Labels
    label                   an output, what is    Labels
                            shown, or a prompt
    flags, labels           the same              MultiLabels
    mark                    what is shown, or     Labels, "yes" or "no"
                            a prompt
    text                    an item               Texts
    spans                   an output             Spans

What is not asked of each output is about what the item shows: its two outputs are the pair of the
votes, its one output is that output, and where it shows none it is the prompt.

Only what was submitted counts, and of a person who answered the same twice under one version of the
guideline the latest. Every row says when and under which version it was given, and every item which
prompt it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from annotate.annotations import NO_SPAN, NO_TIME, MultiLabels, Rankings, Spans, Texts
from annotate.answer_table import Submitted, damaged, keys_of, latest_of
from annotate.labels import Labels, encode, factorize
from annotate.votes import CLASSES

Answers: TypeAlias = Labels | MultiLabels | Rankings | Texts | Spans


def question_labels(responses: pa.Table, items: pa.Table, votes: pa.Table) -> dict[str, Answers]:
    """What annotators said, by question, for each question that somebody answered.

    Args:
        responses: table `responses`; drafts and discards are passed over.
        items: table `items`, every item that was answered.
        votes: `votes_of_responses` of both.

    Raises:
        ProjectError: an answer of another form than its question's, or to an unknown item.
    """
    found: dict[str, Answers] = dict(_of_votes(votes))
    submitted = responses.filter(pc.equal(responses["status"], "submitted"))
    given = Submitted.of(submitted, items)
    named = pc.unique(given.rows["question"]).drop_null().to_pylist()
    for question in sorted(set(named) - {"both_bad"} if votes.num_rows else named):
        form = given.form(question)
        if set(form) == {"a", "b", "strength"}:
            continue  # a preference, which is a vote
        parts = [part for part in form if part in _READ] if form else ["mark"]
        if len(parts) != 1:
            raise damaged(question, f"it is made of {', '.join(form)}")
        found[question] = _READ[parts[0]](given, question, parts[0])
    return found


def level_of(answers: Labels) -> str:
    """ "ordinal" where every class is a number, as ratings and strengths are, else "nominal"."""
    return "nominal" if np.isnan(answers.values).any() else "ordinal"


def _of_votes(votes: pa.Table) -> dict[str, Labels]:
    """ "vote" (a, b or tie), "strength" (-3 to 3) and "both_bad" of pairs."""
    if not votes.num_rows:
        return {}
    found = {"vote": _encoded_votes(votes, votes["vote"], CLASSES)}
    strong = votes.filter(pc.is_valid(votes["strength"]))
    if strong.num_rows:
        found["strength"] = _encoded_votes(strong, strong["strength"].cast(pa.string()))
        if pc.any(strong["both_bad"]).as_py():
            bad = pc.if_else(strong["both_bad"], "yes", "no")
            found["both_bad"] = _encoded_votes(strong, bad)
    return found


def _encoded_votes(
    votes: pa.Table, label: pa.ChunkedArray, classes: tuple[str, ...] | None = None
) -> Labels:
    return encode(
        votes["pair_id"], votes["annotator"], label, classes,
        prompt=votes["prompt_id"], time=_microseconds(votes["time"]), guideline=votes["guideline"],
    )  # fmt: skip


def _microseconds(time: pa.ChunkedArray) -> Any:
    return pc.fill_null(time.cast(pa.int64()), NO_TIME).to_numpy()


def _coded(frame: pd.DataFrame, label: Any, classes: tuple[str, ...] | None = None) -> Labels:
    """Labels of the units of a frame, one row an answer."""
    columns = {name: pa.array(frame[name], pa.string()) for name in ("unit", "annotator")}
    time = pa.chunked_array([pa.array(frame["time"], pa.timestamp("us", "UTC"))])
    return encode(
        columns["unit"], columns["annotator"], label, classes,
        prompt=pa.array(frame["prompt_id"], pa.string()),
        time=_microseconds(time),
        guideline=pa.array(frame["guideline"], pa.string()),
    )  # fmt: skip


def _columns(coded: Labels, rows: Any = None) -> dict[str, Any]:
    """What every kind of annotations has, from labels; `rows` repeats the answers."""
    at = np.arange(len(coded)) if rows is None else rows
    return {
        "item": coded.item[at],
        "annotator": coded.annotator[at],
        "items": coded.items,
        "annotators": coded.annotators,
        "prompt": coded.prompt,
        "time": coded.time[at] if coded.time is not None else None,
        "guideline": coded.guideline[at] if coded.guideline is not None else None,
        "guidelines": coded.guidelines,
    }


def _same(frame: pd.DataFrame) -> Labels:
    """Labels that say nothing, for their codes."""
    return _coded(frame, pa.repeat("", len(frame)))


def _labels(given: Submitted, question: str, part: str) -> Labels:
    frame, parts = given.answers(question, part)
    return _coded(frame, parts[part].cast(pa.string()))


def _marks(given: Submitted, question: str, part: str) -> Labels:
    asked = given.asked(question)
    rows = given.of_question(question)
    if not pc.all(pc.equal(rows["value"], "true")).as_py():
        raise damaged(question, "it is not true")
    keys = ["item_id", "annotator", "guideline"]
    marked = pd.MultiIndex.from_frame(rows.select(keys).to_pandas())
    asked["yes"] = pd.MultiIndex.from_frame(asked[keys]).isin(marked)
    asked = asked.loc[latest_of(asked)]
    return _coded(asked, pa.array(np.where(asked["yes"], "yes", "no")))


def _sets(given: Submitted, question: str, part: str) -> MultiLabels:
    frame, parts = given.answers(question, part)
    sets = parts[part].combine_chunks()
    asked = given.asked(question)
    if "output" in parts.column_names:
        asked["unit"] = given.outputs.reindex(asked["item_id"]).to_numpy()
        asked = asked.explode("unit")
    keys = ["unit", "annotator", "guideline"]
    said = pd.MultiIndex.from_frame(asked[keys]).isin(pd.MultiIndex.from_frame(frame[keys]))
    silent = asked[~said].drop_duplicates(keys)
    coded = _same(pd.concat([frame, silent], ignore_index=True))
    classes, names = factorize(sets.flatten())
    row = pc.list_parent_indices(sets).to_numpy()
    shape = (len(coded), len(names))
    member = sp.csr_array((np.ones(len(row)), (row, classes)), shape=shape)
    return MultiLabels(member=member, classes=names, **_columns(coded))


def _rankings(given: Submitted, question: str, part: str) -> Rankings:
    rows = given.of_question(question)
    frame = keys_of(rows)
    latest = latest_of(frame)
    try:
        # The keys are ids, which Arrow would read as one column each; json takes 1 µs a row.
        ranks = [json.loads(value)["ranks"] for value in rows["value"].take(latest).to_pylist()]
        placed = [(str(output), int(place)) for rank in ranks for output, place in rank.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(question, repr(error)) from None
    row = np.repeat(np.arange(len(ranks)), [len(rank) for rank in ranks])
    option, options = factorize([output for output, _ in placed])
    rank = np.array([place for _, place in placed], dtype=np.int64)
    coded = _same(frame.loc[latest])
    return Rankings(option=option, rank=rank, options=options, **_columns(coded, row))


def _texts(given: Submitted, question: str, part: str) -> Texts:
    frame, parts = given.answers(question, part)
    text = np.array(parts["text"].to_pylist(), dtype=object)
    return Texts(text=text, **_columns(_same(frame)))


def _spans(given: Submitted, question: str, part: str) -> Spans:
    frame, parts = given.answers(question, part)
    coded = _same(frame)
    spans = parts["spans"].combine_chunks()
    marks, row = spans.flatten(), pc.list_parent_indices(spans).to_numpy()
    label, classes = factorize(pc.struct_field(marks, "label"))
    bounds = [pc.struct_field(marks, name).to_numpy() for name in ("start", "end")]
    none = np.flatnonzero(pc.list_value_length(spans).to_numpy() == 0)
    zero = np.zeros(len(none), dtype=np.int64)
    length = np.zeros(len(coded.items), dtype=np.int64)
    length[coded.item] = parts["length"].to_numpy()
    if np.any(bounds[0] < 0) or np.any(bounds[1] > length[coded.item][row]):
        raise damaged(question, "a span lies outside of its text")
    return Spans(
        start=np.concatenate([bounds[0], zero]),
        end=np.concatenate([bounds[1], zero]),
        label=np.concatenate([label, np.full(len(none), NO_SPAN)]),
        length=length,
        classes=classes,
        **_columns(coded, np.concatenate([row, none])),
    )


_READ: Mapping[str, Callable[[Submitted, str, str], Answers]] = {
    "rating": _labels,
    "label": _labels,
    "thumb": _labels,
    "flags": _sets,
    "labels": _sets,
    "mark": _marks,
    "ranks": _rankings,
    "text": _texts,
    "spans": _spans,
}
