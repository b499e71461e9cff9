"""Keys and values of completions under way, kept in room that is taken ahead.

transformers' own cache copies all of a layer's keys and values to append one token's. At 128 rows
that costs more than the layer's matrix products.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

_AHEAD = 64
"""Positions by which the room grows: few copies, and little memory for tokens that never come."""


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, shape (rows, heads, positions, head size), written in place."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append positions; all that are there, as views that the next call leaves alone."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_room, self.value_room = key_states[:, :, :0], value_states[:, :, :0]
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if after > self.key_room.shape[-2]:
            self.key_room = _longer(self.key_room[:, :, :before], after + _AHEAD)
            self.value_room = _longer(self.value_room[:, :, :before], after + _AHEAD)
        self.key_room[:, :, before:after] = key_states
        self.value_room[:, :, before:after] = value_states
        return self._show(after)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; one may be named several times."""
        length = self.get_seq_length()
        if length > 0:
            self.key_room = _longer(self.key_room[:, :, :length], length + _AHEAD, indices)
            self.value_room = _longer(self.value_room[:, :, :length], length + _AHEAD, indices)
            self._show(length)

    def close_up(self, into: Tensor, out_of: Tensor, rows: int) -> None:
        """Move rows `out_of` to `into`, and keep the first `rows`: only what moves is copied."""
        length = self.get_seq_length()
        for room in (self.key_room, self.value_room):
            room[into, :, :length] = room[out_of, :, :length]
        self.key_room, self.value_room = self.key_room[:rows], self.value_room[:rows]
        self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = self.key_room[:, :, :length], self.value_room[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values


def roomy_cache(model: Any) -> DynamicCache | None:
    """An empty cache for `model`; None where its layers keep something else, which it makes itself.

    Such layers keep a sliding window or a state.
    """
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() for _ in cache.layers]  # type: ignore[no-untyped-call]
    return cache


def _longer(kept: Tensor, length: int, rows: Tensor | None = None) -> Tensor:
    """`kept`, or these rows of it, at the beginning of `length` positions."""
    count = kept.shape[0] if rows is None else len(rows)
    room = kept.new_empty((count, kept.shape[1], length, kept.shape[3]))
    room[:, :, : kept.shape[2]] = kept if rows is None else kept[rows]
    return room
