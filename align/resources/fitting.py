"""Whether a training fits into its devices' memory, and what would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from align.recipe import FeedbackRecipe, Lora, ModelShapes, PretrainRecipe, Tuning
from align.resources.device import device_of
from align.resources.launch import launch_file, shards
from align.resources.memory import GIB, total
from align.resources.setup import PASSES, Passes, Setup
from annotate.errors import ResourceError

_MANY = 8
"""Devices that advice goes up to: one machine's."""


def setup_of(recipe: Tuning, model: ModelShapes, arguments: Mapping[str, Any]) -> Setup:
    """What decides a recipe's memory.

    Args:
        model: what it starts from.
        arguments: of the trainer, all that count.
    """
    gpu = device_of(recipe.hardware) == "cuda"
    passes = PASSES.get(recipe.method, Passes())
    launch = recipe.launch
    return Setup(
        model=model,
        passes=passes,
        rows=int(arguments["per_device_train_batch_size"]),
        length=recipe.max_length,
        gpu=gpu,
        half=gpu and bool(arguments["bf16"] or arguments["fp16"]),
        checkpointing=bool(arguments["gradient_checkpointing"]),
        optimizer=str(getattr(arguments["optim"], "value", arguments["optim"])),
        lora=recipe.lora,
        prefix=recipe.prefix,
        quantized=recipe.quantization is not None,
        trains_embeddings=recipe.adds_tokens,
        second_model=_second_model(recipe, arguments),
        rewards=_rewards(recipe),
        devices=devices_of(recipe),
        sharded=isinstance(launch, str) and shards(launch_file(launch)),
    )


def _second_model(recipe: Tuning, arguments: Mapping[str, Any]) -> bool:
    """Whether the reference is loaded beside the model, as far as there is one."""
    if recipe.adapts or arguments.get("precompute_ref_log_probs"):
        return False
    return bool(arguments.get("beta"))


def _rewards(recipe: Tuning) -> int:
    if not isinstance(recipe, FeedbackRecipe):
        return 0
    return 1 if recipe.held_out_reward is None else 2


def devices_of(recipe: Tuning) -> int:
    """How many devices a recipe is for."""
    if recipe.hardware is not None:
        return recipe.hardware.count
    return recipe.launch if isinstance(recipe.launch, int) else 1


def pretraining_setup(recipe: PretrainRecipe, arguments: Mapping[str, Any]) -> Setup:
    """The same for a model made from nothing."""
    made = recipe.architecture
    return Setup(
        model=ModelShapes(
            hidden=made.hidden_size,
            layers=made.num_hidden_layers,
            heads=made.num_attention_heads,
            intermediate=made.intermediate_size,
            vocab=recipe.vocab_size,
            tied=True,
        ),
        passes=PASSES["pretrain"],
        rows=int(arguments["per_device_train_batch_size"]),
        length=recipe.max_length,
        gpu=(gpu := device_of(None) == "cuda"),
        half=gpu and bool(arguments["bf16"] or arguments["fp16"]),
        checkpointing=bool(arguments["gradient_checkpointing"]),
        optimizer=str(getattr(arguments["optim"], "value", arguments["optim"])),
    )


def require_room(setup: Setup, room: float, recipe: str) -> None:
    """Refuse a training that does not fit, with what would.

    Args:
        room: bytes free on each device.
        recipe: its name.

    Raises:
        ResourceError: it takes more than `room`.
    """
    needed = total(setup)
    if needed <= room:
        return
    where = "the GPU" if setup.gpu else "memory"
    raise ResourceError(
        f"it takes about {needed / GIB:.1f} GiB, and {where} has {max(room, 0) / GIB:.1f} free",
        where=recipe,
        remedy=f"{advice(setup, room)}; --dry-run shows what takes how much, --unchecked tries it",
    )


def advice(setup: Setup, room: float) -> str:
    """What would fit, by the same estimate: the changes that alter the outcome least come first."""
    fitting = []
    for words, other in _others(setup):
        if (needed := total(other)) <= room:
            fitting.append(f"{words} ({needed / GIB:.1f} GiB)")
        if len(fitting) == 2:
            break
    if fitting:
        return f"Would fit: {'; or '.join(fitting)}"
    return "Nothing in a recipe makes it fit: take a smaller model or a shorter max_length"


def _others(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Ever less memory, each with what to change in the recipe, everything before it included."""
    words: list[str] = []
    if not setup.checkpointing and setup.prefix is None:
        words.append("gradient_checkpointing: true")
        setup = replace(setup, checkpointing=True)
        yield ", ".join(words), setup
    smaller = setup
    while smaller.rows > 1:
        smaller = replace(smaller, rows=smaller.rows // 2)
        yield ", ".join([*words, f"per_device_train_batch_size: {smaller.rows}"]), smaller
    if smaller.rows != setup.rows:
        words.append(f"per_device_train_batch_size: {smaller.rows}")
        setup = smaller
    from_nothing = setup.passes == PASSES["pretrain"]  # no weights that could stand frozen
    if not (setup.adapts or from_nothing):
        whole = setup
        setup = replace(setup, lora=Lora(), second_model=False)
        yield ", ".join([*words, "lora: {}"]), setup
        if setup.gpu:
            quantized = replace(setup, quantized=True)
            yield ", ".join([*words, "lora: {}, quantization: nf4"]), quantized
        setup = whole
    elif setup.gpu and setup.adapts and not setup.quantized:
        yield ", ".join([*words, "quantization: nf4"]), replace(setup, quantized=True)
    devices = setup.devices if setup.sharded else 1
    while setup.gpu and devices < _MANY:
        devices *= 2
        sharded = replace(setup, devices=devices, sharded=True)
        yield ", ".join([*words, f"--launch zero3 on {devices} GPUs"]), sharded
