"""A model's suggestions in front of annotators, except for a random share that shows their pull.

Who sees a suggestion agrees with it more often than who does not: some are helped, some give in.
How much more can only be known from items that could have had one and, by chance, had none. So
`--without 0.2` keeps back a fifth, drawn by the items' ids and the seed; the push's table
`suggested` records every suggestion and whether it was shown, and `anchoring` compares the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.answers import Answer, Item, answer
from annotate.errors import InputError
from annotate.guidelines import Guideline, Question
from annotate.orders import random_keys
from annotate.records import SCHEMAS, table_from_rows
from annotate.runs import Run
from annotate.server_types import Suggestion
from annotate.statistics import RESAMPLES, Estimate, Reals, bootstrap, undefined

_STREAM = 0x5055  # keeps the draw apart from that of the order shown

OVER = "items, this panel of annotators"


def suggest(run: Run, items: pa.Table, rules: Guideline, *, without: float, seed: int) -> pa.Table:
    """Which suggestions of a prelabel run the items get; table `suggested`.

    Of the items that have one, `without` of them (rounded) are chosen to be shown none.

    Raises:
        InputError: not a prelabel run, a label that the guideline does not know, a share outside of
            0 to 1, or nothing fits these items.
    """
    if not run.has("suggestions"):
        raise InputError(
            "this run holds no suggestions", where=run.id, remedy="`handloom prelabel`"
        )
    if not 0 <= without <= 1:
        raise InputError(f"--without is a share from 0 to 1, not {without:g}")
    question = rules.deciding
    if question.type not in ("label", "labels"):
        raise InputError(f"{rules.name} asks for no label", remedy="Choose another --guideline")
    made = {
        (row["prompt_id"], row["output_id"]): _row(row, question)
        for row in run.read("suggestions").to_pylist()
    }
    rows = []
    for item in items.to_pylist():
        for output in item["output_ids"] if question.each_output else [None]:
            if (found := made.get((item["prompt_id"], output))) is not None:
                rows.append({"item_id": item["item_id"], **found})
    if not rows:
        raise InputError(
            f"none of its suggestions fits an item of this push under {rules.name}",
            where=run.id,
            remedy="Push the run that it was made from, under the guideline that it was made for",
        )
    table = table_from_rows("suggested", rows)
    held_back = _held_back(table["item_id"], without, seed)
    shown = pc.invert(pc.is_in(table["item_id"], value_set=held_back))
    at = table.column_names.index("shown")
    return table.set_column(at, SCHEMAS["suggested"].field("shown"), shown)


def _row(made: Mapping[str, Any], question: Question) -> dict[str, Any]:
    """A classifier's labels as an answer to the question, as `responses.value` says it."""
    labels = [_value_of(label, question) for label in json.loads(made["value"])]
    about = {"output": made["output_id"]} if made["output_id"] is not None else {}
    said = {"labels": sorted(set(labels))} if question.type == "labels" else {"label": labels[0]}
    given = Answer(question.name, {**about, **said})
    return {
        "question": given.question,
        "value": given.json,
        "score": made["score"],
        "agent": made["agent"],
    }


def _value_of(label: str, question: Question) -> str:
    """The guideline's label of this name, or of this text, whatever its case and spaces."""
    known = {_plain(text): value for value, text in question.labels}
    known |= {_plain(value): value for value, _ in question.labels}
    if _plain(label) not in known:
        raise InputError(
            f"the classifier says {label!r}, which is no label of the question {question.name!r}",
            remedy=f"`handloom prelabel --label {label!r}=NAME` with one of "
            f"{', '.join(value for value, _ in question.labels)}",
        )
    return known[_plain(label)]


def _plain(name: str) -> str:
    return "_".join(re.split(r"[\s_-]+", name.strip().lower()))


def _held_back(item_ids: pa.ChunkedArray, share: float, seed: int) -> pa.Array:
    """The items to be shown none: a share of them, the same for the same ids and seed."""
    distinct = pc.unique(item_ids)
    keys = random_keys(distinct.to_pylist(), seed ^ _STREAM)
    count = round(share * len(distinct))
    return distinct.take(pa.array(np.argsort(keys, kind="stable")[:count]))


def shown_suggestions(
    suggested: pa.Table, items: pa.Table, rules: Guideline
) -> dict[str, dict[str, Suggestion]]:
    """Item id → question as asked → what its record suggests.

    Args:
        suggested: the table of that name.
        items: those that it is about, at least.
    """
    rows: dict[str, Item] = {row["item_id"]: row for row in items.to_pylist()}
    found: dict[str, dict[str, Suggestion]] = {}
    for row in suggested.filter(suggested["shown"]).to_pylist():
        given = answer([(row["question"], json.loads(row["value"]))], rows[row["item_id"]], rules)
        for name, held in given.items():
            suggestion = Suggestion(held["value"], row["score"], row["agent"])
            found.setdefault(row["item_id"], {})[name] = suggestion
    return found


@dataclass(frozen=True)
class Anchoring:
    """How often people answer as suggested, where they saw it and where they did not."""

    question: str
    shown: Estimate
    """Share of answers that equal the suggestion, where it was shown."""
    held_back: Estimate
    """The same where it was not."""
    difference: Estimate
    """The first less the second: what seeing it does to the answer."""

    def to_dict(self) -> dict[str, Any]:
        """All figures, JSON-able."""
        return {
            "question": self.question,
            "shown": self.shown.to_dict(),
            "held_back": self.held_back.to_dict(),
            "difference": self.difference.to_dict(),
        }

    def __str__(self) -> str:
        return (
            f'answers to "{self.question}" equal the suggestion: shown {self.shown}; '
            f"held back {self.held_back}; difference {self.difference}"
        )


def anchoring(responses: pa.Table, suggested: pa.Table, *, seed: int = 0) -> list[Anchoring]:
    """Agreement with suggestions, shown and held back, of each question that had any.

    A share is over answers; intervals resample items, each group by itself, because answers to one
    item depend on each other and items were what was drawn.

    Args:
        responses: table `responses`; only what was submitted counts, of each person the latest.
        suggested: the push's table of that name.
    """
    told = suggested.select(["item_id", "question", "value", "shown"]).to_pandas()
    told["about"] = _about(told["value"])
    given = (
        responses.filter(
            pc.and_(
                pc.equal(responses["status"], "submitted"),
                pc.is_in(responses["question"], value_set=pc.unique(suggested["question"])),
            )
        )
        .select(["item_id", "annotator", "question", "value", "time"])
        .to_pandas()
    )
    given["about"] = _about(given["value"])
    key = ["item_id", "question", "about"]
    given = given.sort_values("time", kind="stable").drop_duplicates(
        [*key, "annotator"], keep="last"
    )
    both = given.merge(told, on=key, suffixes=("", "_told"))
    # `Answer.json` writes both, so that equal answers are equal texts.
    both["same"] = both["value"] == both["value_told"]
    return [
        _compared(str(question), rows, seed)
        for question, rows in both.groupby("question", sort=True)
    ]


def _about(values: pd.Series[str]) -> pd.Series[str]:
    """The output that each answer names, or nothing."""
    found: pd.Series[str] = values.str.extract(r'"output": "([^"]*)"', expand=False).fillna("")
    return found


def _compared(question: str, rows: pd.DataFrame, seed: int) -> Anchoring:
    """The two shares of one question and their difference."""
    counts = rows.groupby(["shown", "item_id"])["same"].agg(["sum", "count"]).reset_index()
    groups = [counts[counts["shown"] == side] for side in (True, False)]
    # Items that look alike are one pattern; a resample draws within each group.
    patterns = [group.groupby(["sum", "count"]).size().reset_index(name="n") for group in groups]
    shown, held_back = (_share(pattern, seed) for pattern in patterns)
    return Anchoring(question, shown, held_back, _difference(patterns, seed))


def _share(pattern: pd.DataFrame, seed: int) -> Estimate:
    same, answers = (pattern[name].to_numpy(dtype=np.float64) for name in ("sum", "count"))

    def share(weights: Reals) -> Reals:
        return np.asarray(weights @ same / (weights @ answers), dtype=np.float64)

    if pattern.empty:
        return undefined("no such item was answered", 0, OVER)
    return bootstrap(share, pattern["n"], over=OVER, seed=seed)


def _difference(patterns: list[pd.DataFrame], seed: int) -> Estimate:
    """Shown less held back; the two groups are resampled independently."""
    n = sum(int(pattern["n"].sum()) for pattern in patterns)
    if any(pattern.empty for pattern in patterns):
        missing = "shown" if patterns[0].empty else "held back"
        return undefined(f"no answered item had its suggestion {missing}", n, OVER)
    rng = np.random.default_rng(seed)
    values, draws = [], []
    for pattern in patterns:
        same, answers = (pattern[name].to_numpy(dtype=np.float64) for name in ("sum", "count"))
        many = pattern["n"].to_numpy(dtype=np.int64)
        drawn = rng.multinomial(many.sum(), many / many.sum(), size=RESAMPLES)
        values.append(float(many @ same / (many @ answers)))
        draws.append(drawn @ same / (drawn @ answers))
    value, differences = values[0] - values[1], draws[0] - draws[1]
    if np.ptp(differences) < 1e-12:
        reason = "every resample gives this value"
        return Estimate(value, None, None, n, "percentile bootstrap", OVER, seed, reason=reason)
    low, high = (float(edge) for edge in np.quantile(differences, [0.025, 0.975]))
    return Estimate(value, low, high, n, "percentile bootstrap", OVER, seed)
