"""Anybody's table of labels: CSV or Parquet with the columns item, annotator, label.

A CSV's columns stand apart by commas, semicolons or tabs.

Optional columns: time, guideline, prompt and, of marked texts, length. What cannot be used is set
aside with line and reason.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from annotate.annotations import Codes
from annotate.errors import InputError
from annotate.labels import Labels, as_numbers, encode
from annotate.records import require_file, table_from_rows

COLUMNS = ("item", "annotator", "label")
OPTIONAL = ("time", "guideline", "prompt")
LENGTH = "length"
"""A column of marked texts: how many characters the item's text has."""
SEPARATORS = (",", ";", "\t")
"""Of a CSV file's columns; spreadsheets write the second where a comma is the decimal mark."""


@dataclass(frozen=True)
class LabelTable:
    """A label file, read."""

    labels: Labels
    quarantine: pa.Table
    """Rows that could not be used; schema "quarantine"."""
    merged: int
    """Rows that repeated an earlier row's item, annotator and label."""
    lengths: Codes | None = None
    """Characters of each item's text, shape (items,), where the file says it."""


def read_label_table(
    path: Path,
    *,
    check: Callable[[str], str] | None = None,
    numbers: bool = True,
    lengths: bool = False,
) -> LabelTable:
    """Read a CSV (UTF-8, a header line) or Parquet file with the columns item, annotator, label.

    The columns time (ISO 8601, UTC where it names no zone), guideline (the version answered under)
    and prompt (what several items have in common) are read where they are there, and may be blank;
    others are ignored. A row without item, annotator or label is set aside, as is one with another
    time or with an infinite number among numbers as labels, and every row of an annotator who gives
    one item different labels under one guideline, and of an item of two prompts: which was meant
    cannot be known. One pass in columns, a few seconds and about 200 bytes a row for millions of
    rows.

    Args:
        path: the file.
        check: why a label cannot be used, "" where it can; its rows are set aside too. Called once
            for each distinct label.
        numbers: whether "2" and "2.0" are one class where every label is a number.
        lengths: whether to read the column length: the characters of an item's text.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds no usable row.
    """
    require_file(path)
    read = _read_parquet if _is_parquet(path) else _read_csv
    table, malformed = read(path, (*OPTIONAL, LENGTH) if lengths else OPTIONAL)
    reason, texts = _blank(table)
    if check is not None:
        _checked(texts, reason, check)
    _finite(texts, reason)
    if numbers:
        texts = _numbered(texts, reason)
    time = _times(texts, reason)
    characters = _characters(texts, reason)
    merged = _repeated(texts, reason)
    usable = (reason == "") & ~merged
    quarantine = _quarantine(path, table, reason, malformed)
    if not usable.any():
        first = quarantine[0] if quarantine else {"line": 1, "reason": "the file has no rows"}
        raise InputError(
            f"no usable row: {first['reason']}",
            where=f"{path}:{first['line']}",
            remedy="A row needs item, annotator and label, one label a person and item",
        )
    kept = texts.filter(pa.array(usable))
    labels = encode(
        kept["item"], kept["annotator"], kept["label"],
        None if numbers else pc.unique(kept["label"]).to_pylist(),
        prompt=kept["prompt"] if "prompt" in kept.column_names else None,
        time=None if time is None else time[usable],
        guideline=kept["guideline"] if "guideline" in kept.column_names else None,
    )  # fmt: skip
    set_aside = table_from_rows("quarantine", quarantine)
    if characters is None:
        return LabelTable(labels, set_aside, int(merged.sum()))
    of_item = np.zeros(len(labels.items), dtype=np.int64)
    of_item[labels.item] = characters[usable]
    return LabelTable(labels, set_aside, int(merged.sum()), of_item)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _read_parquet(path: Path, optional: Sequence[str]) -> tuple[pa.Table, bool]:
    try:
        there = _columns_of(path, pq.read_schema(path).names, optional)
        table = pq.read_table(path, columns=there)
    except (pa.ArrowInvalid, OSError):  # Arrow raises OSError for damaged bytes
        raise InputError("not a Parquet file, or damaged", where=str(path)) from None
    try:
        return table.cast(pa.schema(dict.fromkeys(there, pa.string()))), False
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"a column is neither text nor number ({error})", where=str(path)
        ) from None


def _read_csv(path: Path, optional: Sequence[str]) -> tuple[pa.Table, bool]:
    """The columns as text, and whether rows of another width were skipped."""
    skipped = []

    def skip(row: pa_csv.InvalidRow) -> str:
        skipped.append(row.actual_columns)
        return "skip"

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator, names = _header(file)
        there = _columns_of(path, names, optional)
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=there,
                column_types=dict.fromkeys(there, pa.string()),
            ),
        )
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=str(path), remedy="Save it as UTF-8 CSV") from None
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"not a readable CSV file ({error})", where=str(path)) from None
    return table, bool(skipped)


def _header(file: TextIO) -> tuple[str, list[str]]:
    """What separates the columns, and their names; a comma where no separator finds ours."""
    read = {}
    for separator in SEPARATORS:
        file.seek(0)
        read[separator] = next(csv.reader(file, delimiter=separator), [])
        if set(COLUMNS) <= set(read[separator]):
            return separator, read[separator]
    return SEPARATORS[0], read[SEPARATORS[0]]


def _columns_of(path: Path, names: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Those of ours that the file has."""
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        there = ", ".join(json.dumps(name, ensure_ascii=False) for name in names)  # shows blanks
        raise InputError(
            f'column "{missing[0]}" is missing (there are: {there or "none"})',
            where=f"{path}:1",
            remedy=f"Name the columns {', '.join(COLUMNS)}",
        )
    twice = [name for name in (*COLUMNS, *optional) if names.count(name) > 1]
    if twice:
        raise InputError(f'column "{twice[0]}" stands there twice', where=f"{path}:1")
    return [name for name in (*COLUMNS, *optional) if name in names]


def _blank(table: pa.Table) -> tuple[NDArray[np.object_], pa.Table]:
    """Why each row cannot be used ("" where it can), and the columns as trimmed text.

    A value is missing where it is null, blank or NaN; in an optional column that is "".
    """
    reason = np.full(table.num_rows, "", dtype=object)
    columns = {}
    for name in table.column_names:
        text = pc.utf8_trim_whitespace(table[name])
        missing = pc.is_in(pc.utf8_lower(text), pa.array(["", "nan", None], pa.string()))
        if name in COLUMNS:
            reason[missing.to_numpy() & (reason == "")] = f"no {name}"
        else:
            text = pc.if_else(missing, "", text)
        columns[name] = text
    return reason, pa.table(columns)


def _checked(texts: pa.Table, reason: NDArray[np.object_], check: Callable[[str], str]) -> None:
    """Give the rows whose label `check` refuses its reason."""
    labels = texts["label"].combine_chunks().dictionary_encode()
    refused = np.array([check(text) for text in labels.dictionary.to_pylist()], dtype=object)
    rows = np.flatnonzero((reason == "") & labels.is_valid().to_numpy(zero_copy_only=False))
    why = refused[labels.indices.to_numpy(zero_copy_only=False)[rows].astype(np.int64)]
    reason[rows] = why


def _finite(texts: pa.Table, reason: NDArray[np.object_]) -> None:
    """Give rows whose label is an infinite number a reason, where all labels are numbers."""
    distinct = pc.unique(texts["label"].filter(pa.array(reason == ""))).to_pylist()
    try:
        infinite = [text for text in distinct if math.isinf(float(text))]
    except ValueError:
        return  # words, of which "inf" may be one
    if infinite:
        found = pc.is_in(texts["label"], pa.array(infinite, pa.string())).to_numpy()
        reason[found & (reason == "")] = "its label is not a finite number"


def _numbered(texts: pa.Table, reason: NDArray[np.object_]) -> pa.Table:
    """Labels that are numbers all written alike, where all of them are: "4" and "4.0" are one."""
    distinct = pc.unique(texts["label"].filter(pa.array(reason == "")))
    written = as_numbers(distinct.to_pylist())
    if written is None:
        return texts
    place = pc.index_in(texts["label"], value_set=distinct)
    at = texts.column_names.index("label")
    return texts.set_column(at, "label", pa.array(written, pa.string()).take(place))


def _times(texts: pa.Table, reason: NDArray[np.object_]) -> Codes | None:
    """Each row's time in microseconds; rows whose time cannot be read get a reason."""
    if "time" not in texts.column_names:
        return None
    written = texts["time"].to_pandas()
    read = pd.to_datetime(written, errors="coerce", utc=True, format="ISO8601")
    unreadable = (read.isna() & (written != "")).to_numpy(dtype=bool)
    reason[unreadable & (reason == "")] = "its time is not ISO 8601"
    # A missing time is the smallest number in both.
    return np.asarray(read.to_numpy(dtype="datetime64[us]").astype(np.int64), dtype=np.int64)


def _characters(texts: pa.Table, reason: NDArray[np.object_]) -> Codes | None:
    """Each row's length; rows whose length is no whole number get a reason."""
    if LENGTH not in texts.column_names:
        return None
    whole = pc.match_substring_regex(texts[LENGTH], r"^[0-9]{1,15}$").to_numpy()
    reason[~whole & (reason == "")] = "its length is no whole number"
    numbers = pc.if_else(pa.array(whole), texts[LENGTH], "0").cast(pa.int64())
    return np.asarray(numbers.to_numpy(), dtype=np.int64)


def _repeated(texts: pa.Table, reason: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which rows repeat an earlier one; rows that contradict another get a reason."""
    merged = np.zeros(len(reason), dtype=bool)
    frame = texts.to_pandas()[reason == ""]
    answer = [name for name in ("item", "annotator", "guideline") if name in frame]
    repeats = frame.duplicated([*answer, "label"])
    merged[repeats.index[repeats]] = True
    # Exact repeats are gone, so whatever is left of one answer is a contradiction.
    _contradict(frame, ~repeats, answer, "the annotator gives this item another label too", reason)
    for name in ("prompt", LENGTH):
        if name in frame:
            _contradict(
                frame, ~frame.duplicated(["item", name]), ["item"],
                f"the item has another {name} too", reason,
            )  # fmt: skip
    return np.asarray(merged & (reason == ""), dtype=bool)


def _contradict(
    frame: pd.DataFrame,
    distinct: pd.Series[bool],
    key: list[str],
    why: str,
    reason: NDArray[np.object_],
) -> None:
    """Give all rows of a key that has several distinct rows this reason."""
    one_each = frame[distinct]
    several = one_each[one_each.duplicated(key)]
    if len(several):
        wrong = frame.set_index(key).index.isin(several.set_index(key).index)
        rows = frame.index[wrong]
        reason[rows[reason[rows] == ""]] = why


def _quarantine(
    path: Path, table: pa.Table, reason: NDArray[np.object_], malformed: bool
) -> list[dict[str, Any]]:
    """One entry a row that cannot be used, in the file's order."""
    bad = np.flatnonzero(reason != "")
    if not len(bad) and not malformed:
        return []
    lines = bad + 1  # in Parquet, the row
    skipped: list[tuple[int, str]] = []
    if not _is_parquet(path):
        starts, skipped = _csv_lines(path)
        lines = starts[bad]
    entries = [(line, "the row has another number of fields", text) for line, text in skipped]
    for row, line, content in zip(bad, lines, table.take(bad).to_pylist(), strict=True):
        text = json.dumps(content, ensure_ascii=False, default=str)
        entries.append((int(line), str(reason[row]), text))
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
        separator, _ = _header(file)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator)
        width = len(next(reader))
        start = reader.line_num + 1
        for row in reader:
            if len(row) == width:
                starts.append(start)
            elif row:
                skipped.append((start, separator.join(row)))
            start = reader.line_num + 1
    return np.array(starts, dtype=np.int64), skipped
