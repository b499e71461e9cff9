"""The same order of rows after an interruption, and in several processes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochOrder(TrainerCallback):
    """Lets the recipe's seed and the epoch alone decide the order in which rows come.

    transformers groups rows by length in an order drawn from torch's global state. A process that
    resumes within an epoch has another state there, and so has one of several that drew other
    dropout masks. And accelerate's own sampler is told the epoch only where no more than one
    process skips what it has seen.
    """

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any
    ) -> None:
        """Seed the sampler of this epoch."""
        sampler = _innermost(train_dataloader)
        epoch = int(state.epoch or 0)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.generator = torch.Generator().manual_seed(args.data_seed + epoch)
            # The rows of one step are alike in length, whoever computes them.
            sampler.batch_size = (
                args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            )
        elif hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


def _innermost(dataloader: Any) -> Any:
    """The sampler that batches are made of, beneath what shares them out."""
    batches: Any = getattr(dataloader, "batch_sampler", None)
    while hasattr(batches, "batch_sampler"):
        batches = batches.batch_sampler
    return getattr(batches, "sampler", None)
