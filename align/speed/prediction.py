"""Log-probabilities of tokens on a CPU, a few rows of logits at a time.

TRL's own way without Triton goes over all logits some twenty times, each time through memory. Here
as many rows are taken as stay in the processor's cache, and worked on in place. The logits are not
kept: the gradient computes them again, as TRL's does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Logits worked on at once: two megabytes of float32, and so many rows at least that reading the
# output layer's weights anew for each tile costs little.
_TILE, _ROWS = 2**19, 128


@dataclass(frozen=True)
class Predicted:
    """What a model says of S tokens, each of shape (S,)."""

    log_probs: Tensor
    """Of the token itself, natural logs; the one figure with a gradient."""
    entropy: Tensor
    log_sum_sq_probs: Tensor
    """Log of the sum of all tokens' squared probabilities."""
    mean_logits: Tensor
    is_top1: Tensor
    """Whether no token is more probable."""


def predict(hidden: Tensor, weight: Tensor, targets: Tensor) -> Predicted:
    """The figures of each target under the logits `hidden @ weight.T`.

    Args:
        hidden: shape (S, size).
        weight: of the output layer, shape (vocabulary, size).
        targets: ids, shape (S,).
    """
    figures: tuple[Tensor, ...] = _Predict.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return Predicted(*figures)


class _Predict(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        count = len(targets)
        logs, entropy, squares, means, normal = (hidden.new_empty(count) for _ in range(5))
        top = torch.empty(count, dtype=torch.bool)
        for at in _tiles(count, weight):
            logits = hidden[at] @ weight.T
            highest, best = logits.max(dim=-1)
            torch.mean(logits, dim=-1, out=means[at])
            top[at] = best == targets[at]
            logits -= highest[:, None]
            chosen = logits.gather(1, targets[at, None])[:, 0]
            likely = logits.exp()
            total = likely.sum(dim=-1)
            logs[at] = chosen - total.log()
            normal[at] = highest + total.log()
            entropy[at] = total.log() - torch.linalg.vecdot(likely, logits) / total
            squares[at] = torch.linalg.vecdot(likely, likely).log() - 2 * total.log()
        ctx.save_for_backward(hidden, weight, targets, normal)
        ctx.mark_non_differentiable(entropy, squares, means, top)
        return logs, entropy, squares, means, top

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None]:
        # d log p(target) / d logits is 1 at the target and 0 elsewhere, less the probabilities.
        hidden, weight, targets, normal = ctx.saved_tensors
        gradient = gradients[0]
        wants_weight = ctx.needs_input_grad[1]
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight) if wants_weight else None
        for at in _tiles(len(targets), weight):
            slope = hidden[at] @ weight.T
            slope -= normal[at, None]
            slope.exp_().mul_(-gradient[at, None])
            slope.scatter_add_(1, targets[at, None], gradient[at, None])
            torch.mm(slope, weight, out=of_hidden[at])
            if of_weight is not None:
                of_weight.addmm_(slope.T, hidden[at])
        return of_hidden, of_weight, None


def _tiles(count: int, weight: Tensor) -> list[slice]:
    rows = max(_TILE // len(weight), _ROWS)
    return [slice(start, start + rows) for start in range(0, count, rows)]
