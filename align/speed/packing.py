"""Train a causal language model without computing padding, shared beginnings or unused logits.

TRL's trainers ask a model for log-probabilities of a padded batch (`fused_lm_head=True`). Three
hooks answer the same question at less cost; trainer, loss and figures are TRL's own:

- before the model, a batch becomes one row of its distinct tokens (align.speed.layout);
- after its last layer, only the hidden states go on from which something is predicted;
- after the model, log-probabilities go back to where the padded batch had them; on a CPU they are
  computed in a cheaper way (align.speed.prediction).

Only attention sees the rows again: each attends to its own tokens, causally, so that what is padded
there costs nothing but its own queries. The result is that of the padded batch up to rounding. For
models that this cannot be right for (anything but plain causal attention), and wherever the first
batch comes out otherwise, the model is left as it is, with the reason in `Packing.left_out`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align.recipe.parts import Speed
from align.speed.layout import Layout, lay_out
from align.speed.prediction import Predicted, predict

ATTENTION = "handloom_packed"
"""The name of `packed_attention` among transformers' attention functions."""

_LAYOUT = "packed_layout"
# Mean difference of a token's log-probability that rounding alone explains: in float32 on a CPU,
# and elsewhere, where products may be computed in half precision whatever the weights are.
_ROUNDING, _HALF_ROUNDING = 1e-5, 5e-2
# What a configuration may name that is done to logits.
_LOGITS_CHANGED = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """PyTorch's own attention, over the rows of a layout where there is one.

    Args:
        module: the attention layer.
        query: shape (1, heads, N, size) with a layout; key and value alike, maybe of fewer heads.
        arguments: those of transformers' attention functions; `packed_layout` is the layout.

    Returns:
        Shape (1, N, heads, size), and no weights.
    """
    layout: Layout | None = arguments.pop(_LAYOUT, None)
    if layout is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **arguments
        )
        return plain
    heads, n, size = query.shape[1:]
    attended = []
    flat = [_flat(states) for states in (query, key, value)]
    for block in layout.blocks:
        rows = [_rows(states, block, size) for states in flat]
        # Padding stands behind every token, and causal attention never looks there: no mask.
        out, _ = sdpa_attention_forward(module, rows[0], rows[1], rows[2], None, **arguments)
        attended.append(out.reshape(-1, heads * size))
    return embedding(layout.homes, torch.cat(attended)).view(1, n, heads, size), None


def _flat(states: Tensor) -> Tensor:
    """From (1, heads, N, size) to (N, heads * size)."""
    return states[0].transpose(0, 1).flatten(1)


def _rows(flat: Tensor, block: Tensor, size: int) -> Tensor:
    """A block's tokens, shape (rows, heads, longest, size)."""
    # Indexing would do the same, but its gradient is several times slower than an embedding's.
    return embedding(block, flat).view(*block.shape, -1, size).transpose(1, 2)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@dataclass
class Packing:
    """A model whose batches are packed, and why they are not where they are not."""

    model: PreTrainedModel
    share: bool
    """Whether what rows begin with alike is computed once."""
    left_out: str | None = None
    """Why the model computes its batches as they come."""
    _checked: bool = False
    _predicted: Predicted | None = None
    """Of the batch that is under way, where not TRL's output layer but ours is asked."""

    def pack(
        self, _model: Any, args: tuple[Any, ...], asked: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What the model is asked for, laid out; None to ask as it was."""
        if self.left_out is not None or not asked.get("fused_lm_head"):
            return None
        laid_out = self._laid_out(asked)
        if laid_out is None:
            return None
        if not self._checked:
            self._checked = True
            self.left_out = self._difference(asked, laid_out)
            if self.left_out is not None:
                return None
        return args, laid_out

    def _laid_out(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        given = {name for name, value in asked.items() if value is not None}
        known = {"input_ids", "attention_mask", "labels", "fused_lm_head", "use_cache"}
        needed = {"input_ids", "attention_mask", "labels"}
        # Empty arguments that adapters pass along, and nothing else that could change the result.
        if not needed <= given <= known | {"return_dict"} or asked["attention_mask"].ndim != 2:
            return None
        layout = lay_out(
            asked["input_ids"], asked["attention_mask"], asked["labels"], share=self.share
        )
        if layout is None:
            return None
        return {
            **asked,
            "input_ids": layout.tokens[None],
            "position_ids": layout.positions[None],
            # A mask of four dimensions is taken as made; `packed_attention` needs none.
            "attention_mask": layout.tokens.new_zeros((1, 1, 1, 1)),
            "labels": None,
            # What ours predicts, TRL's is not asked again.
            "shift_labels": layout.targets[None, : 0 if _plain_head(self.model) else None],
            _LAYOUT: layout,
        }

    def _difference(self, asked: dict[str, Any], laid_out: dict[str, Any]) -> str | None:
        """Whether both ways give the same log-probabilities; a sentence where they do not."""
        training = self.model.training
        self.model.train(False)
        try:
            with torch.no_grad():
                # Without these hooks: a module's hooks run where it is called, not in `forward`.
                plain = self.model.forward(**asked).log_probs
                answer = self.unpack(self.model, (), laid_out, self.model.forward(**laid_out))
        finally:
            self.model.train(training)
        tokens = int(laid_out[_LAYOUT].learnt.sum())
        apart = float((answer.log_probs - plain).abs().sum()) / max(tokens, 1)
        exact = self.model.device.type == "cpu" and self.model.dtype == torch.float32
        if apart <= (_ROUNDING if exact else _HALF_ROUNDING):
            return None
        return f"packed, its log-probabilities differ by {apart:.1e} a token"

    def select(
        self, _backbone: Any, _args: tuple[Any, ...], given: dict[str, Any], output: Any
    ) -> Any:
        """Keep the hidden states from which something is predicted, shape (1, S, hidden)."""
        layout: Layout | None = given.get(_LAYOUT)
        if layout is None:
            return output
        hidden = embedding(layout.before, output.last_hidden_state[0])
        if _plain_head(self.model):
            weight = _head(self.model).weight
            self._predicted = predict(hidden, weight, layout.targets)
            hidden = hidden[:0]
        output.last_hidden_state = hidden[None]
        return output

    def unpack(
        self, _model: Any, _args: tuple[Any, ...], given: dict[str, Any], output: Any
    ) -> Any:
        """Put each token's figures back to where the padded batch has it, shape (R, width - 1)."""
        layout: Layout | None = given.get(_LAYOUT)
        if layout is None:
            return output
        source, self._predicted = self._predicted or output, None
        for name in _PER_TOKEN:
            values: Tensor | None = getattr(source, name)
            if getattr(output, name) is not None and values is not None:
                padded = values.new_zeros(layout.learnt.shape)
                setattr(output, name, padded.masked_scatter(layout.learnt, values))
        output.label_mask = layout.learnt
        return output


def _head(model: Any) -> Any:
    return model.get_output_embeddings()


def _plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are a product of float32 weights on a CPU, and nothing else."""
    head, config = _head(model), model.config.get_text_config()
    return (
        model.device.type == "cpu"
        and head.weight.dtype == torch.float32
        and getattr(head, "bias", None) is None
        and all(getattr(config, name, None) is None for name in _LOGITS_CHANGED)
    )


@contextlib.contextmanager
def packed_batches(model: PreTrainedModel, speed: Speed) -> Iterator[Packing]:
    """Within, whatever TRL computes with `model` is packed. Trainers are made within too.

    Args:
        model: as it is before adapters are put around it. One that predicts no next token, as a
            reward model, is left as it is without a reason, since nothing could be packed.
        speed: what is wanted.
    """
    packing = Packing(model, speed.share_prompts)
    predicts = model.can_generate() and not model.config.is_encoder_decoder
    if not predicts or not (speed.padding_free or speed.share_prompts):
        yield packing
        return
    packing.left_out = _unfit(model)
    if packing.left_out is not None:
        yield packing
        return
    hooks = (
        model.register_forward_pre_hook(packing.pack, with_kwargs=True),
        model.base_model.register_forward_hook(packing.select, with_kwargs=True),
        model.register_forward_hook(packing.unpack, with_kwargs=True),
    )
    model.set_attn_implementation(ATTENTION)
    try:
        yield packing
    finally:
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation("sdpa")


def _unfit(model: PreTrainedModel) -> str | None:
    """Why a model cannot be packed, as far as its configuration tells."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config is not model.config:
        return "it reads more than text"
    if config._attn_implementation != "sdpa" or not model._supports_attention_backend:
        return "its attention is not PyTorch's own"
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return "not all of its layers attend to everything before"
    if getattr(config, "output_router_logits", False):
        return "its experts are balanced over padded batches"
    return None
