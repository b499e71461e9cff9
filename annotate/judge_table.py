"""Majority and Dawid–Skene on anybody's table of labels: `handloom judge --table`.

item,annotator,label          item,label,probability,margin,votes,p(bad),p(good)
q1,ann,good                   q1,good,0.97,0.94,2,0.03,0.97
q1,bob,good            →      q2,bad,0.71,0.42,1,0.71,0.29
q2,ann,bad
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from annotate.agreement_report import (
    TableKind,
    read_judgeable,
    set_aside,
    taken_as_names,
    task_of,
)
from annotate.consensus import Method, aggregate
from annotate.errors import InputError, ResourceError
from annotate.labels import Labels


@dataclass(frozen=True)
class JudgedTable:
    """What the annotators of a label file together hold of each item."""

    source: str
    method: str
    """The one that was used."""
    converged: bool
    items: pa.Table
    """item; label, null where two are equally probable; probability and margin, the first class's
    probability and its lead over the second; votes; p(<class>) for every class."""
    annotators: dict[str, dict[str, Any]]
    quarantine: list[dict[str, Any]]
    merged: int
    note: str = ""
    """What to know of how the labels were read."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "source": self.source,
            "method": self.method,
            "converged": self.converged,
            "items": self.items.to_pylist(),
            "annotators": self.annotators,
            "quarantine": self.quarantine,
            "merged": self.merged,
            "note": self.note or None,
        }

    def deliver(self, out: Path | None, *, as_json: bool) -> None:
        """Write the items to `out` if there is one, and print: one JSON document, else CSV or a
        line that says where it lies. What was set aside is said on stderr.
        """
        if out is not None:
            self.write(out)
        if as_json:
            print(json.dumps(self.to_dict(), indent=1))
            return
        print(f"{out}: {self.items.num_rows:,} items" if out else self.to_csv().rstrip("\n"))
        if self.note:
            print(self.note, file=sys.stderr)
        for line in set_aside(self.quarantine, self.merged):
            print(line, file=sys.stderr)

    def to_csv(self) -> str:
        """The items as CSV."""
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(self.items, sink, pa_csv.WriteOptions(quoting_style="needed"))
        return str(sink.getvalue().to_pybytes().decode())

    def write(self, path: Path) -> None:
        """Write the items to a .csv or .parquet file, whole or not at all.

        Raises:
            InputError: another suffix, the labels' own file, or a place that cannot be written.
            ResourceError: the disk is full.
        """
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise InputError("its name ends in neither .csv nor .parquet", where=str(path))
        if path.exists() and path.samefile(self.source):
            raise InputError("this is the file of the labels", where=str(path))
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            if path.suffix.lower() == ".csv":
                temporary.write_text(self.to_csv(), encoding="utf-8")
            else:
                pq.write_table(self.items, temporary)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            problem = ResourceError if full else InputError
            raise problem(error.strerror or "cannot be written", where=str(path)) from None


def judge_table(
    path: Path, method: Method = "auto", *, kind: TableKind | None = None
) -> JudgedTable:
    """Judge every item of a file with the columns item, annotator, label.

    Args:
        path: the file.
        method: as for `annotate.consensus.aggregate`.
        kind: what a label is; a name if None.

    Raises:
        InputError: the file cannot be used, has answers to several tasks or too many classes for
            the method, or its labels are neither names nor comparisons.
    """
    table = read_judgeable(path, kind)
    _require_one_task(path, table.labels.versions)
    labels = table.labels.pooled()
    consensus = aggregate(labels, method)
    return JudgedTable(
        source=str(path),
        method=consensus.method,
        converged=consensus.converged,
        items=_item_table(labels, consensus.probability, consensus.best, consensus.margin),
        annotators=consensus.of_annotators(labels),
        quarantine=table.quarantine.to_pylist(),
        merged=table.merged,
        note=" ".join(filter(None, (_pooled(table.labels), taken_as_names(table.labels, kind)))),
    )


def _require_one_task(path: Path, versions: Sequence[str]) -> None:
    tasks = sorted({task_of(name) for name in versions})
    if len(tasks) > 1:
        raise InputError(
            f"answers to several tasks: {', '.join(task or 'none named' for task in tasks)}",
            where=str(path),
            remedy="Judge a file of each: what is true of an item depends on what was asked",
        )


def _pooled(labels: Labels) -> str:
    """That versions were taken together, where they were: a judgement is of the item."""
    if len(labels.versions) < 2:
        return ""
    names = ", ".join(labels.versions)
    return f"answers under {names} are judged together, the latest of each person."


def _item_table(
    labels: Labels,
    probability: np.ndarray[Any, np.dtype[np.float64]],
    best: np.ndarray[Any, np.dtype[np.int64]],
    margin: np.ndarray[Any, np.dtype[np.float64]],
) -> pa.Table:
    names = pa.array(labels.classes).take(pa.array(np.maximum(best, 0)))
    columns = {
        "item": pa.array(labels.items, pa.string()),
        "label": pa.array(np.where(best < 0, None, names.to_numpy(zero_copy_only=False))),
        "probability": probability.max(axis=1),
        "margin": margin,
        "votes": np.bincount(labels.item, minlength=len(labels.items)),
    }
    columns |= {f"p({name})": probability[:, code] for code, name in enumerate(labels.classes)}
    return pa.table(columns)
