"""Who labelled which item how: the one form that agreement and consensus are computed from.

`Labels` is long form with integer codes: one entry an answer, so that a missing answer is simply
absent. `read_label_table` makes it of anybody's CSV or Parquet with the columns item, annotator,
label; what cannot be used is set aside with its line and reason.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from annotate.errors import InputError
from annotate.records import require_file, table_from_rows

Codes = NDArray[np.int64]

COLUMNS = ("item", "annotator", "label")
# An exact whole number in a float64; beyond it two labels could become one.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Labels:
    """Answers in long form. No annotator answers an item twice."""

    item: Codes
    """Index into `items`, shape (answers,)."""
    annotator: Codes
    """Index into `annotators`, shape (answers,)."""
    label: Codes
    """Index into `classes`, shape (answers,)."""
    items: list[str]
    annotators: list[str]
    classes: list[str]
    """In order: by number where all are numbers, else by text."""

    def __len__(self) -> int:
        return len(self.item)

    @property
    def values(self) -> NDArray[np.float64]:
        """The classes as numbers, shape (classes,); NaN where one is not a number."""
        numbers = _numbers(self.classes)
        if numbers is not None:
            return numbers
        return np.full(len(self.classes), np.nan)

    def select(self, keep: NDArray[np.bool_]) -> Labels:
        """The answers where `keep`, shape (answers,), holds; items and classes stay as they are."""
        return Labels(
            self.item[keep], self.annotator[keep], self.label[keep],
            self.items, self.annotators, self.classes,
        )  # fmt: skip


def encode(
    item: Sequence[str] | pa.Array | pa.ChunkedArray,
    annotator: Sequence[str] | pa.Array | pa.ChunkedArray,
    label: Sequence[str] | pa.Array | pa.ChunkedArray,
    classes: Sequence[str] | None = None,
) -> Labels:
    """Code three columns of text, one entry an answer.

    Args:
        item: of each answer.
        annotator: of each answer.
        label: of each answer. Where every label is a number, "2" and "2.0" are one class.
        classes: all classes in their order; by default those that occur, numbers by size.

    Raises:
        ValueError: a null, a label outside `classes`, or an annotator who answers an item twice.
    """
    item_code, items = _factorize(item)
    annotator_code, annotators = _factorize(annotator)
    label_code, names = _factorize(label)
    if classes is None:
        label_code, names = _ordered_classes(label_code, names)
    else:
        unknown = set(names) - set(classes)
        if unknown:
            raise ValueError(f"labels outside the classes: {sorted(unknown)}")
        place = {name: code for code, name in enumerate(classes)}
        label_code = np.array([place[name] for name in names], dtype=np.int64)[label_code]
        names = list(classes)
    key = item_code * len(annotators) + annotator_code
    if len(np.unique(key)) < len(key):
        raise ValueError("an annotator answers an item twice")
    return Labels(item_code, annotator_code, label_code, items, annotators, names)


def _factorize(column: Sequence[str] | pa.Array | pa.ChunkedArray) -> tuple[Codes, list[str]]:
    """Codes of a text column and its distinct texts, sorted."""
    array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    array = array.cast(pa.string())
    if array.null_count:
        raise ValueError("a null among items, annotators or labels")
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    encoded = array.dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    codes = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    return rank[codes] if len(names) else codes, [names[at] for at in order]


def _numbers(names: Sequence[str]) -> NDArray[np.float64] | None:
    """The texts as numbers, or None where one is not an exact finite number."""
    try:
        numbers = np.array([float(name) for name in names], dtype=np.float64)
    except ValueError:
        return None
    return numbers if np.all(np.abs(numbers) < _EXACT) else None


def _ordered_classes(codes: Codes, names: list[str]) -> tuple[Codes, list[str]]:
    """Numbers by size, one class a number; texts as they are."""
    numbers = _numbers(names)
    if numbers is None:
        return codes, names
    distinct, place = np.unique(numbers, return_inverse=True)
    return place[codes], [f"{number:.17g}" for number in distinct]


@dataclass(frozen=True)
class LabelTable:
    """A label file, read."""

    labels: Labels
    quarantine: pa.Table
    """Rows that could not be used; schema "quarantine"."""
    merged: int
    """Rows that repeated an earlier row's item, annotator and label."""


def read_label_table(path: Path) -> LabelTable:
    """Read a CSV (UTF-8, a header line) or Parquet file with the columns item, annotator, label.

    Other columns are ignored. A row without item, annotator or label is set aside, as is every row
    of an annotator who gives one item different labels: which was meant cannot be known. One pass
    in columns, a few seconds and about 200 bytes a row for millions of rows.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds no usable row.
    """
    require_file(path)
    table, malformed = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
    blank, texts = _blank(table)
    merged, conflicting = _repeated(texts, blank)
    usable = ~blank & ~merged & ~conflicting
    quarantine = _quarantine(path, table, blank, conflicting, malformed)
    if not usable.any():
        first = quarantine[0] if quarantine else {"line": 1, "reason": "the file has no rows"}
        raise InputError(
            f"no usable row: {first['reason']}",
            where=f"{path}:{first['line']}",
            remedy="A row needs item, annotator and label, one label a person and item",
        )
    kept = texts.filter(pa.array(usable))
    labels = encode(kept["item"], kept["annotator"], kept["label"])
    return LabelTable(labels, table_from_rows("quarantine", quarantine), int(merged.sum()))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _read_parquet(path: Path) -> tuple[pa.Table, bool]:
    try:
        _require_columns(path, pq.read_schema(path).names)
        table = pq.read_table(path, columns=list(COLUMNS))
    except (pa.ArrowInvalid, OSError):  # Arrow raises OSError for damaged bytes
        raise InputError("not a Parquet file, or damaged", where=str(path)) from None
    try:
        return table.cast(pa.schema(dict.fromkeys(COLUMNS, pa.string()))), False
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"a column is neither text nor number ({error})", where=str(path)
        ) from None


def _read_csv(path: Path) -> tuple[pa.Table, bool]:
    """The three columns as text, and whether rows of another width were skipped."""
    skipped = []

    def skip(row: pa_csv.InvalidRow) -> str:
        skipped.append(row.actual_columns)
        return "skip"

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _require_columns(path, next(csv.reader(file), []))
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(COLUMNS),
                column_types=dict.fromkeys(COLUMNS, pa.string()),
            ),
        )
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=str(path), remedy="Save it as UTF-8 CSV") from None
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"not a readable CSV file ({error})", where=str(path)) from None
    return table, bool(skipped)


def _require_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        there = ", ".join(json.dumps(name, ensure_ascii=False) for name in names)  # shows blanks
        raise InputError(
            f'column "{missing[0]}" is missing (there are: {there or "none"})',
            where=f"{path}:1",
            remedy=f"Name the columns {', '.join(COLUMNS)}",
        )
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise InputError(f'column "{twice[0]}" stands there twice', where=f"{path}:1")


def _blank(table: pa.Table) -> tuple[NDArray[np.bool_], pa.Table]:
    """Which rows lack a value (null, blank text, NaN), and the columns as trimmed text."""
    blank = np.zeros(table.num_rows, dtype=bool)
    columns = []
    for name in COLUMNS:
        text = pc.utf8_trim_whitespace(table[name])
        missing = pc.is_in(pc.utf8_lower(text), pa.array(["", "nan", None], pa.string()))
        blank |= missing.to_numpy()
        columns.append(text)
    return blank, pa.table(dict(zip(COLUMNS, columns, strict=True)))


def _repeated(
    texts: pa.Table, blank: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows repeat an earlier one, and which contradict another, of one item and annotator."""
    merged, conflicting = np.zeros_like(blank), np.zeros_like(blank)
    frame = texts.to_pandas()[~blank]
    repeats = frame.duplicated(list(COLUMNS))
    merged[repeats.index[repeats]] = True
    distinct = frame[~repeats]
    # Exact repeats are gone, so whatever is left of one item and annotator is a contradiction.
    several = distinct[distinct.duplicated(["item", "annotator"])]
    if len(several):
        answers = frame.set_index(["item", "annotator"]).index
        wrong = answers.isin(several.set_index(["item", "annotator"]).index)
        conflicting[frame.index[wrong]] = True
    return merged & ~conflicting, conflicting


def _quarantine(
    path: Path,
    table: pa.Table,
    blank: NDArray[np.bool_],
    conflicting: NDArray[np.bool_],
    malformed: bool,
) -> list[dict[str, Any]]:
    """One entry a row that cannot be used, in the file's order."""
    bad = np.flatnonzero(blank | conflicting)
    if not len(bad) and not malformed:
        return []
    lines = bad + 1  # in Parquet, the row
    skipped: list[tuple[int, str]] = []
    if not _is_parquet(path):
        starts, skipped = _csv_lines(path)
        lines = starts[bad]
    entries = [(line, "the row has another number of fields", text) for line, text in skipped]
    for row, line, content in zip(bad, lines, table.take(bad).to_pylist(), strict=True):
        empty = [
            name for name in COLUMNS if str(content[name] or "").strip().lower() in ("", "nan")
        ]
        reason = (
            f"no {empty[0]}" if blank[row] else "the annotator gives this item another label too"
        )
        entries.append((int(line), reason, json.dumps(content, ensure_ascii=False, default=str)))
    return [
        {"file": path.name, "line": line, "reason": reason, "content": text}
        for line, reason, text in sorted(entries)
    ]


def _csv_lines(path: Path) -> tuple[Codes, list[tuple[int, str]]]:
    """The line each row starts on, and the rows whose width is not the header's.

    A second pass in Python, made only when something is wrong: Arrow does not say on which line a
    row stood, and a quoted field may span several.
    """
    starts, skipped = [], []
    csv.field_size_limit(2**31 - 1)  # the default refuses fields that Arrow has already read
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        width = len(next(reader))
        start = reader.line_num + 1
        for row in reader:
            if len(row) == width:
                starts.append(start)
            elif row:
                skipped.append((start, ",".join(row)))
            start = reader.line_num + 1
    return np.array(starts, dtype=np.int64), skipped
