"""How much memory a training takes, by formula, before anything is loaded.

Weights, gradients and optimizer states are counted exactly from the model's shapes (Rajbhandari et
al. 2020, "ZeRO", section 3: what each costs a parameter, and what sharding divides). Activations
are counted as Korthikanti et al. 2022 do ("Reducing Activation Recomputation in Large Transformer
Models", section 4: what each operator keeps for the backward pass), anew for a decoder with RMS
norms, rotary positions, grouped keys and a gated feed-forward, as transformers runs it. With
checkpointing a layer keeps its input alone, and one layer at a time is computed again (Chen et al.
2016). The counts are measured against real trainings on a CPU in `tests/test_memory.py`; those for
16 bits and for GPUs follow the same formulas and are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from align.recipe import Lora, ModelShapes
from align.resources.setup import Setup

GIB = 2**30

# Bits of a weight rounded to nf4, with its constants rounded too (Dettmers et al. 2023, section 3).
_NF4_BITS = 4.127
# Of a GPU: the driver's context, kernels, and what the allocator cannot use.
_GPU_REST = GIB
# TRL computes log-probabilities from so many tokens and words of the vocabulary at a time. On a GPU
# one tile is worked on in place, of all these words however few there are; elsewhere so many copies
# of the words that there are (trl.kernels.chunked_logprob).
_TILE_TOKENS, _TILE_WORDS = 4096, 32768
_TILE_COPIES = 8
# Of the mask between every two tokens of a sequence.
_MASK_BYTES = 4


@dataclass(frozen=True)
class Share:
    """What one thing takes on each device."""

    name: str
    bytes: float
    note: str


def memory(setup: Setup) -> list[Share]:
    """What a training takes on each device, the largest moment of a step, part by part."""
    parts = 1 if not setup.sharded else setup.devices
    trained = trained_weights(setup)
    per_weight = 2 if setup.quantized else 4
    divided = f", 1/{parts} of it" if parts > 1 else ""
    frozen = _frozen_bytes(setup)
    own = trained * per_weight if setup.adapts else 0
    shares = [
        Share("weights", (frozen + own) / parts, _weights_note(setup) + divided),
        Share("gradients", trained * per_weight / parts, f"{trained:,} trained weights{divided}"),
        Share(
            "optimizer",
            trained * _state_bytes(setup.optimizer, per_weight) / parts,
            f"{setup.optimizer}{divided}",
        ),
        Share("activations", _activation_bytes(setup), _activations_note(setup)),
        Share("output layer", _head_bytes(setup), _HEAD_NOTES[setup.passes.head]),
    ]
    if setup.quantized:
        largest = max(inside * outside for inside, outside in _linear_layers(setup.model).values())
        shares.append(Share("unrounded", largest * 2, "the largest layer, while it is computed"))
    if setup.passes.reference:
        copy = frozen / parts if setup.second_model else 0
        shares.append(Share("reference", copy, _reference_note(setup)))
    if setup.passes.writes:
        each = all_weights(setup.model) * (2 if setup.gpu else 4)
        shares.append(Share("rewards", setup.rewards * each, "reward models of the same size"))
        shares.append(Share("cache", _cache_bytes(setup), "keys and values while it writes"))
    if parts > 1:
        shares.append(Share("gathered", 2 * _gathered_bytes(setup), "this layer and the next"))
    if setup.gpu:
        shares.append(Share("the rest", _GPU_REST, "driver, kernels, gaps"))
    return shares


def total(setup: Setup) -> float:
    """Bytes on each device."""
    return sum(share.bytes for share in memory(setup))


def all_weights(model: ModelShapes) -> int:
    """Weights of the model; as counted from its shapes where nobody has counted them."""
    counted = model.layers * (_linear_weights(model) + 2 * model.hidden) + model.hidden
    counted += model.vocab * model.hidden * (1 if model.tied else 2)
    return model.parameters or counted


def trained_weights(setup: Setup) -> int:
    """Weights that get a gradient."""
    model = setup.model
    if not setup.adapts:
        return all_weights(model)
    embeddings = model.vocab * model.hidden if setup.trains_embeddings else 0
    if setup.prefix is not None:
        return setup.prefix.tokens * model.layers * 2 * model.keys_width
    lora = setup.lora or Lora()
    shapes = _adapted(model, lora)
    each = sum(lora.r * (inside + outside) for inside, outside in shapes)
    lengths = sum(outside for _, outside in shapes) if lora.dora else 0
    return model.layers * (each + lengths) + embeddings


def _adapted(model: ModelShapes, lora: Lora) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers that get adapters, of one transformer layer."""
    linear = _linear_layers(model)
    if isinstance(lora.target_modules, str):
        return list(linear.values())
    return [shape for name, shape in linear.items() if name in lora.target_modules]


def _linear_layers(model: ModelShapes) -> dict[str, tuple[int, int]]:
    hidden, inner = model.hidden, model.intermediate
    queries, keys = model.queries_width, model.keys_width
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def _linear_weights(model: ModelShapes) -> int:
    """Of one transformer layer."""
    return sum(inside * outside for inside, outside in _linear_layers(model).values())


def _frozen_bytes(setup: Setup) -> float:
    """The model as it is loaded: in 32 bits on a CPU and where it is trained itself."""
    weights = all_weights(setup.model)
    if not setup.gpu or not setup.adapts:
        return weights * 4
    if not setup.quantized:
        return weights * 2
    rounded = setup.model.layers * _linear_weights(setup.model)
    return rounded * _NF4_BITS / 8 + (weights - rounded) * 2


def _state_bytes(optimizer: str, per_weight: int) -> float:
    """Of the optimizer, for each trained weight: two moments, of the weight's own precision."""
    name = optimizer.lower()
    if "sgd" in name or "adafactor" in name:
        return 0.0  # Adafactor keeps rows and columns of a matrix, next to nothing
    states = 1 if any(one in name for one in ("lion", "adagrad", "rmsprop")) else 2
    size = 1.0 if "8bit" in name else 0.5 if "4bit" in name else float(per_weight)
    return states * size


def _activation_bytes(setup: Setup) -> float:
    model, tokens = setup.model, setup.rows * setup.passes.sequences * setup.length
    layer = _layer_bytes(setup)
    stream = model.hidden * (2 if setup.half and setup.adapts else 4)
    around = 3 * stream + setup.length * _MASK_BYTES  # embeddings, the last norm, the mask
    if setup.checkpointing:
        # The output layer is done with before the first layer is computed again.
        again = max(tokens * layer - _head_bytes(setup), 0)
        return tokens * (model.layers * stream + around) + again
    return tokens * (model.layers * layer + around)


def _layer_bytes(setup: Setup) -> float:
    """What a transformer layer keeps of each token for its backward pass.

    Norm: its input, the input over its length (only for its own weight's gradient), its output.
    Attention: queries, keys and values repeated to as many heads, output. Feed-forward: gate,
    its activation, up, their product. In 16 bits norms still work in 32, and a model that is
    trained itself keeps a rounded copy for each linear layer that reads a norm's output.
    """
    model = setup.model
    size = 2 if setup.half else 4
    # A frozen layer without an adapter keeps nothing of what it reads.
    gated = 4 if setup.prefix is None else 3
    inner = (4 * model.queries_width + gated * model.intermediate) * size
    if not setup.half:
        norms = 2 * model.hidden * (2 if setup.adapts else 3) * 4
    elif setup.adapts:
        norms = 2 * model.hidden * (4 + 2)
    else:
        norms = 2 * model.hidden * (4 + 4) + 5 * model.hidden * 2
    return norms + inner + _adapter_bytes(setup, size)


def _adapter_bytes(setup: Setup, size: int) -> float:
    """What adapters keep of each token: the low-rank middle; with dropout what it left of the
    input, and which; with DoRA what the layer and what its adapter say, before they are scaled.
    """
    if (lora := setup.lora) is None:
        return 0.0
    shapes = _adapted(setup.model, lora)
    kept = len(shapes) * lora.r * size
    if lora.dropout > 0:
        kept += sum(inside for inside, _ in shapes) * (size + 1)
    if lora.dora:
        kept += 2 * sum(outside for _, outside in shapes) * size
    return kept


def _head_bytes(setup: Setup) -> float:
    model, tokens = setup.model, setup.rows * setup.passes.sequences * setup.length
    size = 2 if setup.half else 4
    if setup.passes.head == "score":
        return 0.0
    gradient = 0 if setup.adapts and not setup.trains_embeddings else model.vocab * model.hidden * 4
    if setup.passes.head == "logits":
        # The logits, in 32 bits their log-softmax, and the gradient of that.
        return tokens * model.vocab * (size + 8) + gradient
    tile = min(tokens, _TILE_TOKENS) * _TILE_WORDS * size
    if not setup.gpu:
        words = min(model.vocab, _TILE_WORDS)
        tile = _TILE_COPIES * min(tokens, _TILE_TOKENS) * words * 4
    return tile + tokens * model.hidden * 4 + gradient


def _cache_bytes(setup: Setup) -> float:
    """Of what it has written, as far as no gradient needs more at another moment."""
    model, tokens = setup.model, setup.rows * setup.passes.sequences * setup.length
    cache = tokens * model.layers * 2 * model.keys_width * (2 if setup.half else 4)
    return max(cache - _activation_bytes(setup) - _head_bytes(setup), 0)


def _gathered_bytes(setup: Setup) -> float:
    """A whole layer, put together from all devices while it is computed."""
    return _linear_weights(setup.model) * (2 if setup.half else 4)


def _weights_note(setup: Setup) -> str:
    said = f"{all_weights(setup.model):,}"
    if not setup.gpu or not setup.adapts:
        return f"{said} in 32 bits"
    return f"{said}, the linear layers' in 4 bits" if setup.quantized else f"{said} in 16 bits"


def _activations_note(setup: Setup) -> str:
    sequences = setup.rows * setup.passes.sequences
    said = f"{sequences} × {setup.length:,} tokens"
    return f"{said}, recomputed layer by layer" if setup.checkpointing else said


_HEAD_NOTES = {"tiles": "in tiles", "logits": "all logits at once", "score": "one score"}


def _reference_note(setup: Setup) -> str:
    if setup.second_model:
        return "a second model"
    return "the adapters switched off" if setup.adapts else "computed beforehand"
