"""A trace as text for the terminal. Text of models and people is shown quoted, on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from annotate.records import flat_text
from annotate.trace import Row, Trace

_WIDTH = 160


def trace_text(trace: Trace) -> str:
    """The walk from the row to the model, one step a paragraph."""
    parts = (
        _head(trace),
        _decision(trace.decision),
        _judgement(trace.judgement),
        _responses(trace),
        _items(trace),
        _outputs(trace),
        _prompt(trace.prompt),
        [f"runs       {' <- '.join(trace.runs)}"],
    )
    return "\n".join(line for part in parts for line in part)


def _head(trace: Trace) -> Iterator[str]:
    yield f"{trace.kind} {trace.id} in {trace.row['run']}"
    row = trace.row
    if row.get("chosen_output"):
        margin = "none" if row["margin"] is None else f"{row['margin']:.2f}"
        pair = f"{row['chosen_output']} over {row['rejected_output']}"
        yield f"           chosen {pair}, margin {margin}"
    elif trace.kind == "SFT row":
        by = f", written by {row['annotator']}" if row.get("annotator") else ""
        yield f"           from a {row['source']}{by}"
    elif trace.kind == "KTO row":
        thumb = "up" if row["label"] else "down"
        yield f"           thumbs {thumb}: {row['up']} up, {row['down']} down"
    elif trace.kind == "failure":
        yield f"           {row['why']}: {row['output_id']} against {row['versus_output']}"
        yield f"           judged by {row['judged_by']}"


def _decision(row: Row | None) -> Iterator[str]:
    if row is None:
        return
    if row["kept"]:
        yield f"decision   kept with votes {row['votes']} ({row['run']})"
        return
    rule = f"{row['rule']}: {row['value']}, threshold {row['threshold']}"
    yield f"decision   dropped by {rule}; votes {row['votes']} ({row['run']})"


def _judgement(row: Row | None) -> Iterator[str]:
    if row is None:
        return
    yield f"judgement  a = {row['output_a']}, b = {row['output_b']} ({row['run']})"
    yield (
        f"           votes {row['votes_a']} for a, {row['votes_b']} for b, {row['ties']} ties; "
        f"posterior of a {_number(row['posterior'])}, by {row['method']}; "
        f"mean strength {_number(row['strength_mean'])}"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _responses(trace: Trace) -> Iterator[str]:
    label = "responses"
    for row in trace.responses:
        answer = f"{row['question']} {json.dumps(row['value'], ensure_ascii=False)}"
        if row["question"] is None:
            answer = "no answer"
        edits = f", edited {row['edits']}×" if row["edits"] else ""
        yield (
            f"{label:<11}{_time(row['time'])} {row['annotator']}, {row['status']}{edits}, under "
            f"{row['guideline']}: {_short(answer)}"
        )
        label = ""


def _items(trace: Trace) -> Iterator[str]:
    for row in trace.items:
        yield (
            f"item       {row['item_id']} in batch {row['batch']} under {row['guideline']}"
            f" (sha256 {str(row['guideline_sha256'])[:12]}; {row['run']})"
        )
        order = f"in the order {', '.join(row['output_ids'])}" if row["output_ids"] else "alone"
        yield f"           shown {order}"


def _outputs(trace: Trace) -> Iterator[str]:
    for row in trace.outputs:
        trained = ", trained here" if row["model_run"] else ""
        yield f"output     {row['output_id']} by {row['model']}{trained} ({row['run']})"
        yield f"           sampling {row['sampling']}"
        yield f"           {_quoted(row['completion'])}"


def _prompt(row: Row | None) -> Iterator[str]:
    if row is not None:
        yield f"prompt     {row['prompt_id']} from {row['source']}, {row['split']} ({row['run']})"
        yield f"           {_quoted(flat_text(row['messages']))}"


def _quoted(text: str) -> str:
    """Escaped as JSON, so that no control character of a model's text reaches the terminal."""
    return _short(json.dumps(text, ensure_ascii=True))


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _time(value: Any) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else str(value)
