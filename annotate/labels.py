"""Who labelled which item how: the one form that agreement and consensus are computed from.

`Labels` is long form with integer codes: one entry an answer, so that a missing answer is simply
absent. `annotate.label_table` makes it of anybody's CSV or Parquet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.annotations import Annotations, Codes

EXACT = 2.0**53
"""Below it whole numbers are exact in a float64; beyond, two labels could become one."""

Column: TypeAlias = "Sequence[str] | pa.Array | pa.ChunkedArray"


@dataclass(frozen=True)
class Labels(Annotations):
    """One class an answer. No annotator answers an item twice under one guideline version."""

    label: Codes = field(metadata={"row": True})
    """Index into `classes`, shape (answers,)."""
    items: list[str]
    annotators: list[str]
    classes: list[str]
    """In order: by number where all are numbers, else by text."""

    @property
    def values(self) -> NDArray[np.float64]:
        """The classes as numbers, shape (classes,); NaN where one is not a number."""
        numbers = _numbers(self.classes)
        if numbers is not None:
            return numbers
        return np.full(len(self.classes), np.nan)

    def without(self, annotators: Collection[str]) -> Self:
        """The answers of everybody else, as when these people were removed."""
        return self._without(self.annotators, annotators)

    def of_given_classes(self) -> Self:
        """The same answers, without the classes that none of them names."""
        given, label = np.unique(self.label, return_inverse=True)
        names = [self.classes[code] for code in given]
        return replace(self, label=label.reshape(-1).astype(np.int64), classes=names)


def encode(
    item: Column,
    annotator: Column,
    label: Column,
    classes: Sequence[str] | None = None,
    *,
    prompt: Column | None = None,
    time: Codes | None = None,
    guideline: Column | None = None,
) -> Labels:
    """Code columns of text, one entry an answer.

    Args:
        item: of each answer.
        annotator: of each answer.
        label: of each answer. Where every label is a number, "2" and "2.0" are one class.
        classes: all classes in their order; by default those that occur, numbers by size.
        prompt: which the item belongs to; "" where it belongs with no other item.
        time: microseconds since 1970, UTC, or `NO_TIME`.
        guideline: the version answered under. "v2" is before "v10".

    Raises:
        ValueError: a null, a label outside `classes`, an item of two prompts, or an annotator who
            answers an item twice under one version.
    """
    item_code, items = factorize(item)
    annotator_code, annotators = factorize(annotator)
    label_code, names = factorize(label)
    if classes is None:
        label_code, names = _ordered_classes(label_code, names)
    else:
        label_code, names = _among(classes, label_code, names)
    version: Codes | None = None
    guidelines: list[str] = []
    if guideline is not None:
        version, guidelines = _versions(guideline)
    key = item_code * len(annotators) + annotator_code
    if version is not None:
        key = key * len(guidelines) + version
    if len(np.unique(key)) < len(key):
        raise ValueError("an annotator answers an item twice")
    return Labels(
        item_code, annotator_code, label_code, items, annotators, names,
        prompt=None if prompt is None else prompt_of_items(prompt, item_code, items),
        time=time, guideline=version, guidelines=guidelines,
    )  # fmt: skip


def factorize(column: Column) -> tuple[Codes, list[str]]:
    """Codes of a text column, shape (rows,), and its distinct texts, sorted.

    Raises:
        ValueError: a null.
    """
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


def prompt_of_items(prompt: Column, item: Codes, items: Sequence[str]) -> Codes:
    """The prompt of each item, shape (items,), from that of each row, shape (rows,).

    Raises:
        ValueError: a null, or rows of one item that name two prompts.
    """
    codes, names = factorize(prompt)
    if names and names[0] == "":
        # An item without a prompt is a cluster of its own.
        codes = np.where(codes == 0, len(names) + item, codes)
    of_item = np.arange(len(items)) + len(names)
    of_item[item] = codes
    if np.any(of_item[item] != codes):
        raise ValueError("an item belongs to two prompts")
    return of_item


def _versions(guideline: Column) -> tuple[Codes, list[str]]:
    """Codes and names with numbers in the names counted as numbers."""
    codes, names = factorize(guideline)
    order = sorted(range(len(names)), key=lambda at: natural(names[at]))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return place[codes] if len(names) else codes, [names[at] for at in order]


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that counts numbers within names as numbers: v2 before v10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]


def _among(classes: Sequence[str], codes: Codes, names: list[str]) -> tuple[Codes, list[str]]:
    unknown = set(names) - set(classes)
    if unknown:
        raise ValueError(f"labels outside the classes: {sorted(unknown)}")
    place = {name: code for code, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64)[codes], list(classes)


def _numbers(names: Sequence[str]) -> NDArray[np.float64] | None:
    """The texts as numbers, or None where one is not an exact finite number."""
    try:
        numbers = np.array([float(name) for name in names], dtype=np.float64)
    except ValueError:
        return None
    return numbers if np.all(np.abs(numbers) < EXACT) else None


def as_numbers(texts: Sequence[str]) -> list[str] | None:
    """Numbers as they are written as names of classes; None where one is no exact number."""
    numbers = _numbers(texts)
    return None if numbers is None else [f"{number:.17g}" for number in numbers]


def _ordered_classes(codes: Codes, names: list[str]) -> tuple[Codes, list[str]]:
    """Numbers by size, one class a number; texts as they are."""
    numbers = _numbers(names)
    if numbers is None:
        return codes, names
    distinct, place = np.unique(numbers, return_inverse=True)
    return place[codes], [f"{number:.17g}" for number in distinct]
