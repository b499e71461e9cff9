"""Where each token of a padded batch stands once nothing is computed twice and nothing is padding.

    a b c x y .
    a b c z . .    →    a b c x y z d e
    d e . . . .

What two rows begin with alike has the same hidden states in both, since a causal model looks only
backwards: it is laid out once, for every row that begins so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100
"""The label of a token that nothing is learnt from, as in PyTorch's own losses."""


# Rows share a block while they are at least this long, as a share of its longest.
_LIKE = 0.75


@dataclass(frozen=True)
class Layout:
    """A batch of R rows as N tokens, of which S are learnt from."""

    tokens: Tensor
    """Ids, shape (N,)."""
    positions: Tensor
    """Of each token in the rows that it stands for, shape (N,)."""
    blocks: tuple[Tensor, ...]
    """Which of the N tokens each row holds at each position, 0 under padding. The longest rows come
    first; those of like length share a block, of shape (its rows, its longest)."""
    homes: Tensor
    """Where each token stands once the blocks are laid end to end, shape (N,)."""
    before: Tensor
    """The token before each one that is learnt from, shape (S,)."""
    targets: Tensor
    """Ids of those learnt from, shape (S,)."""
    learnt: Tensor
    """Which of the batch's tokens but the first column those are, shape (R, width - 1), boolean."""


def lay_out(ids: Tensor, mask: Tensor, labels: Tensor, *, share: bool) -> Layout | None:
    """The batch without its padding; None where padding stands before or between tokens.

    Args:
        ids: of tokens, shape (R, width).
        mask: 1 where a token stands, 0 under padding; shape (R, width).
        labels: what is learnt from, `IGNORED` elsewhere; shape (R, width).
        share: whether what rows begin with alike is laid out once.
    """
    real = mask.cpu().numpy().astype(bool)
    lengths = real.sum(axis=1)
    width = real.shape[1]
    if not lengths.all() or (real != (np.arange(width) < lengths[:, None])).any():
        return None
    real = real[:, : int(lengths.max())]
    written = np.where(real, ids.cpu().numpy()[:, : real.shape[1]], -1)
    places, firsts = _distinct(written) if share else _all(written)
    learnt = labels[:, 1:].cpu().numpy() != IGNORED
    # A column that holds nothing but padding is learnt from nowhere.
    before = places[:, :-1][learnt[:, : real.shape[1] - 1]]

    def placed(values: NDArray[np.int64] | NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(ids.device)

    blocks, starts = _blocks(lengths)
    row, position = np.divmod(firsts, real.shape[1])
    where = placed(learnt)
    return Layout(
        tokens=placed(written[row, position]),
        positions=placed(position),
        blocks=tuple(placed(places[block, : lengths[block[0]]]) for block in blocks),
        homes=placed(starts[row] + position),
        before=placed(before),
        targets=labels[:, 1:][where],
        learnt=where,
    )


def _blocks(
    lengths: NDArray[np.int64],
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Rows of like length together, the longest first; and where each row begins among them."""
    order = np.argsort(-lengths, kind="stable")
    blocks: list[list[int]] = []
    starts = np.zeros_like(lengths)
    end = 0
    for row in order:
        if not blocks or lengths[row] < _LIKE * lengths[blocks[-1][0]]:
            blocks.append([])
        blocks[-1].append(int(row))
        starts[row] = end
        end += lengths[blocks[-1][0]]
    return [np.array(block) for block in blocks], starts


def _all(written: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's tokens, and where each token is first: every one stands for itself alone."""
    real = written >= 0
    places = np.where(real, np.cumsum(real).reshape(real.shape) - 1, 0)
    return places, np.flatnonzero(real)


def _distinct(written: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same where rows share what they begin with alike; -1 is padding."""
    # In lexical order, all rows that begin alike follow one another.
    order = np.lexsort(written.T[::-1])
    rows = written[order]
    own = rows >= 0
    alike = (rows[1:] == rows[:-1]) & own[1:]
    own[1:] &= ~np.logical_and.accumulate(alike, axis=1)
    # A shared token is that of the last row above which has it for its own.
    number = np.cumsum(own).reshape(own.shape) - 1
    owner = np.maximum.accumulate(np.where(own, np.arange(len(own))[:, None], 0), axis=0)
    shared = np.where(rows >= 0, np.take_along_axis(number, owner, axis=0), 0)
    places = np.empty_like(shared)
    places[order] = shared
    row, position = np.nonzero(own)
    return places, order[row] * written.shape[1] + position
