"""What a reward model says of conversations: one number each, higher for better.

The number has no unit and no zero: only the difference between two completions of one prompt means
something, log odds of the first being preferred (Bradley–Terry; Ouyang et al. 2022, equation 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from align.conversations import Messages, conversation_tokens
from align.model import Loaded, load_model, scores
from align.model_ref import ModelRef
from annotate.errors import TrainingError


def load_reward_model(ref: ModelRef, *, trust_remote_code: bool = False) -> Loaded:
    """Load a model that has learnt to score, ready to.

    Raises:
        TrainingError: it cannot be loaded, or has not learnt to score.
    """
    loaded = load_model(ref, task="reward", trust_remote_code=trust_remote_code)
    if not scores(loaded.model):
        raise TrainingError(
            "it is no reward model",
            where=ref.name,
            remedy="Train one: `handloom train reward-support-desk`",
        )
    loaded.model.eval()  # type: ignore[no-untyped-call]
    return loaded


def reward_scores(
    loaded: Loaded, conversations: Sequence[Messages], *, batch_size: int = 32
) -> NDArray[np.float64]:
    """The reward of each conversation's last turn, shape (n,).

    What is longer than the model's context is cut at its end.

    Args:
        loaded: a reward model (`load_reward_model`).
        conversations: prompt and completion together, as messages.
        batch_size: conversations computed together; rows of like length share a batch.

    Raises:
        TrainingError: the chat template refuses a conversation.
    """
    room = getattr(loaded.model.config, "max_position_embeddings", None)
    rows = [tokens[:room] for tokens in conversation_tokens(loaded, conversations)]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = np.zeros(len(rows))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        found[batch] = _batch_scores(loaded, [rows[row] for row in batch])
    return found


def _batch_scores(loaded: Loaded, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    # The model reads its number at the last token that is no padding.
    shape = (len(rows), max(len(row) for row in rows))
    ids = torch.full(shape, loaded.tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    device = loaded.model.device
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
    return np.asarray(logits[:, 0].double().cpu())
