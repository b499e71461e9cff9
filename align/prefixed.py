"""A model with a learnt prefix, called like any other.

PEFT's own wrapper begins every call with the prefix, also one that goes on from a cache, and leaves
positions out. Whoever samples token by token needs neither.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Prefixed(torch.nn.Module):
    """A causal language model that has read a prefix before the first token.

    Args:
        adapted: PEFT's wrapper of a model with prefix tuning.
    """

    def __init__(self, adapted: Any) -> None:
        super().__init__()
        self.adapted = adapted
        self.tokens = int(adapted.active_peft_config.num_virtual_tokens)

    @property
    def config(self) -> Any:
        """Of the model inside."""
        return self.adapted.get_base_model().config

    @property
    def generation_config(self) -> Any:
        """Of the model inside: what ends a turn stands there."""
        return self.adapted.get_base_model().generation_config

    @property
    def device(self) -> torch.device:
        """Where the model inside lies."""
        found: torch.device = self.adapted.get_base_model().device
        return found

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> Any:
        """What the model inside returns.

        Args:
            input_ids: shape (rows, tokens).
            attention_mask: shape (rows, tokens so far); the prefix is not among them.
            position_ids: shape (rows, tokens), from 0 on where the prefix ends.
            past_key_values: what an earlier call returned; None or empty: nothing has been read.
        """
        rows = len(input_ids)
        if past_key_values is None:
            past_key_values = self.adapted.get_prompt(rows)
        elif past_key_values.get_seq_length() == 0:
            for number, layer in enumerate(self.adapted.get_prompt(rows).layers):
                past_key_values.update(layer.keys, layer.values, number)
        if attention_mask is not None:
            read = attention_mask.new_ones((rows, self.tokens))
            attention_mask = torch.cat([read, attention_mask], 1)
        if position_ids is not None:
            position_ids = position_ids + self.tokens
        return self.adapted.get_base_model()(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **options,
        )
