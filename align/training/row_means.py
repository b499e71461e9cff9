"""Held-out figures as means over rows.

TRL's trainers keep a figure of each batch and log the plain mean of these, in which a row of the
last, smaller batch weighs more than any other: of nine pairs in batches of eight and one, the last
pair is half of the accuracy. The loss, which transformers averages, is a mean over rows already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, MutableMapping
from typing import Any

Figures = MutableMapping[str, list[Any]]
"""By name, what each batch of an evaluation came to."""


def with_row_means(trainer_class: Any) -> Any:
    """The same trainer, whose held-out figures weigh each batch by its rows."""
    return type(trainer_class.__name__, (_RowMeans, trainer_class), {})


class _RowMeans:
    """Stands before one of TRL's trainers."""

    _rows: dict[str, list[int]]
    """By figure, the rows of each batch that it is of."""

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """TRL's own, noting how many rows its figures are of."""
        before = {name: len(values) for name, values in _held_out(self).items()}
        trainer: Any = super()
        found = trainer.prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        rows = self.__dict__.setdefault("_rows", defaultdict(list))
        for name, values in _held_out(self).items():
            if len(values) > before.get(name, 0):
                rows[name].append(_count(inputs))
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's own, which means what is held by then."""
        if any(name.startswith("eval_") for name in logs):
            figures, rows = _held_out(self), self.__dict__.pop("_rows", {})
            for name, values in figures.items():
                if len(rows.get(name, ())) == len(values):
                    figures[name] = [_mean(values, rows[name])]
        trainer: Any = super()
        trainer.log(logs, start_time)


def _held_out(trainer: Any) -> Figures:
    """Where a trainer keeps the figures of an evaluation; TRL has two names for it."""
    kept: Any = getattr(trainer, "_metrics", None)
    if kept is None:
        kept = getattr(trainer, "_stored_metrics", {"eval": {}})
    found: Figures = kept["eval"]
    return found


def _count(inputs: Any) -> int:
    """Rows of a batch: entries of a list, or of the first dimension of its tensors."""
    if isinstance(inputs, Mapping):
        return next((len(value) for value in inputs.values() if hasattr(value, "__len__")), 1)
    return len(inputs)


def _mean(values: list[Any], rows: list[int]) -> float:
    weighted = sum(float(value) * n for value, n in zip(values, rows, strict=True))
    return weighted / max(sum(rows), 1)
