"""What every filter is, and the few steps from columns of evidence to a column of reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from annotate.runs import Project

ROUNDING = 5e-4
"""Shares like 2/3 are compared with thresholds that people type: 0.667 must not drop 2 of 3."""


class Rule(BaseModel):
    """A filter: its fields are its settings, and a call decides every pair at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str

    @property
    def threshold(self) -> str:
        """What the rule demands, as a decision states it."""
        raise NotImplementedError

    def bound(self, project: Project) -> Self:
        """The same rule with what it reads beside the evidence looked up in `project`.

        Raises:
            InputError: it is not there.
        """
        return self

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files from outside the project that the rule reads; their content is part of a run."""
        return ()

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The value that broke the rule, null where the pair is kept; one text a row."""
        raise NotImplementedError


def numbers(table: pa.Table, column: str, null: float) -> NDArray[np.float64]:
    """A column as numbers, shape (n,), with `null` where it has none."""
    filled = pc.fill_null(pc.cast(table[column], pa.float64()), null)
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def ratio(over: NDArray[np.float64], under: NDArray[np.float64], none: float) -> Any:
    """over / under, `none` where there is nothing under; shapes (n,)."""
    return np.divide(over, under, out=np.full_like(over, none), where=under > 0)


def masked(broken: NDArray[np.bool_], text: Any) -> pa.Array:
    """`text` of the broken rows, null elsewhere."""
    return one_array(pc.if_else(pa.array(broken), text, pa.scalar(None, pa.string())))


def values(broken: NDArray[np.bool_], figures: NDArray[np.float64], form: str) -> pa.Array:
    """The figures of the broken rows as text; a figure is written out once, however frequent.

    Args:
        broken: which rows, shape (n,).
        figures: NaN is "unknown", shape (n,).
        form: as in "{:.3g}".
    """
    distinct, code = np.unique(figures[broken], return_inverse=True)
    words = ["unknown" if np.isnan(figure) else form.format(figure) for figure in distinct]
    place = np.zeros(len(figures), dtype=np.int64)
    place[broken] = code.reshape(-1)
    chosen = pa.array(place, mask=~broken)
    return pa.array(words, pa.string()).take(chosen)


def one_array(column: Any) -> pa.Array:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
