"""How well a model predicts documents that it never saw: perplexity, and bits a byte.

Perplexity counts tokens, so that it compares models of one tokenizer; bits a byte compare any two.
Both rest on documents as wholes: the tokens of one depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from align.packed_rows import IGNORED, collate, joined, pieces
from annotate.statistics import Estimate, Reals, bootstrap

# Logits computed at once: 256 MB in single precision.
_LOGITS = 64_000_000
_OVER = "held-out documents"


@dataclass(frozen=True)
class HeldOutLoss:
    """What a model made of held-out documents, one entry a document, shape (n,)."""

    nats: Reals
    """Negative log-likelihood of all its predicted tokens together."""
    tokens: NDArray[np.int64]
    """How many tokens were predicted: all but the first of each row."""
    bytes: NDArray[np.int64]
    """Length of its text in UTF-8."""

    def perplexity(self, *, seed: int = 0) -> Estimate:
        """e to the mean negative log-likelihood a token, with an interval over documents."""
        return bootstrap(
            lambda weights: np.exp((weights @ self.nats) / (weights @ self.tokens)),
            np.ones(len(self.nats), dtype=np.int64),
            over=_OVER,
            seed=seed,
        )

    def bits_per_byte(self, *, seed: int = 0) -> Estimate:
        """Bits that writing down a byte of the texts takes with this model."""
        return bootstrap(
            lambda weights: (weights @ self.nats) / (weights @ self.bytes) / np.log(2),
            np.ones(len(self.nats), dtype=np.int64),
            over=_OVER,
            seed=seed,
        )

    def to_dict(self, *, seed: int = 0) -> dict[str, Any]:
        """The figures as a run's metrics hold them, with the number of tokens behind them."""
        return {
            "perplexity": self.perplexity(seed=seed).to_dict(),
            "bits_per_byte": self.bits_per_byte(seed=seed).to_dict(),
            "held_out_tokens": int(self.tokens.sum()),
        }


def held_out_loss(
    model: Any, documents: Sequence[Sequence[int]], sizes: Sequence[int], *, length: int, pad: int
) -> HeldOutLoss:
    """Compute each document's loss.

    A document longer than `length` is read in pieces; a piece knows nothing of the one before.

    Args:
        documents: token ids, their first token being one that begins a document.
        sizes: bytes of each one's text.
        length: tokens that the model reads at once.
        pad: id of the token that fills up.
    """
    owners: list[int] = []
    rows = []
    for number, document in enumerate(documents):
        for piece in pieces([document], length):
            owners.append(number)
            rows.append(joined([piece]))
    # Rows of like length share a batch: padding is computed too.
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    together = max(1, _LOGITS // (length * model.config.vocab_size))
    nats, tokens = np.zeros(len(documents)), np.zeros(len(documents), dtype=np.int64)
    training = model.training
    model.eval()
    for start in range(0, len(rows), together):
        chosen = order[start : start + together]
        lost, counted = _losses(model, collate([rows[at] for at in chosen], pad))
        np.add.at(nats, np.asarray(owners)[chosen], lost)
        np.add.at(tokens, np.asarray(owners)[chosen], counted)
    model.train(training)
    return HeldOutLoss(nats, tokens, np.asarray(sizes, dtype=np.int64))


def _losses(model: Any, batch: dict[str, Any]) -> tuple[Reals, NDArray[np.int64]]:
    """Negative log-likelihood and number of predicted tokens of each row, shape (rows,)."""
    labels = batch.pop("labels")[:, 1:].to(model.device)
    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    with torch.inference_mode():
        logits = model(**inputs).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
    counted = (labels != IGNORED).sum(dim=1)
    return losses.double().sum(dim=1).cpu().numpy(), counted.cpu().numpy()
