"""The memory estimate: exact where it counts weights, close where a training is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peak_memory import PeakMemory
from tiny_model import write_tiny_model

from align.adapters import adapter_config
from align.model import device_arguments, load_model
from align.model_ref import BASE, ModelRef
from align.recipe import Lora, ModelShapes, Prefix, SftRecipe
from align.resources.fitting import advice
from align.resources.memory import (
    GIB,
    all_weights,
    memory,
    total,
    trained_weights,
)
from align.resources.setup import PASSES, Setup
from align.resources.shapes import model_shapes

QWEN = ModelShapes(
    hidden=3584, layers=28, heads=28, kv_heads=4, intermediate=18944, vocab=152064, tied=False
)
SFT = SftRecipe(method="sft")


def shapes(folder: Path) -> ModelShapes:
    found, said = model_shapes(SFT, ModelRef("here", str(folder)))
    assert found is not None, said
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_weights_are_counted_as_the_files_have_them(tiny: Path) -> None:
    for folder in (BASE, tiny):
        found = shapes(folder)
        stored = found.parameters
        assert stored == all_weights(found.model_copy(update={"parameters": None}))
        assert stored == sum(
            p.numel() for p in load_model(ModelRef("m", str(folder))).model.parameters()
        )
    # Two tables of 152,064 words, 28 layers, the last norm; the card's 7,615,616,512 but for the
    # biases of queries, keys and values.
    assert all_weights(QWEN) == 7_615_616_512 - 28 * (3584 + 2 * 512)


@pytest.mark.parametrize(
    "chosen",
    [
        {"lora": Lora(r=3)},
        {"lora": Lora(r=3, dora=True)},
        {"lora": Lora(r=3, target_modules=("q_proj", "down_proj"))},
        {"prefix": Prefix(tokens=5)},
        {},
    ],
    ids=["all-linear", "dora", "two layers", "prefix", "all weights"],
)
def test_trained_weights_are_those_with_a_gradient(tiny: Path, chosen: dict[str, object]) -> None:
    from peft import get_peft_model

    model = load_model(ModelRef("tiny", str(tiny)), train="adapters").model
    config = adapter_config(SftRecipe.model_validate({"method": "sft", **chosen}), [])
    if config is not None:
        model = get_peft_model(model, config)
    expected = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    setup = Setup(shapes(tiny), PASSES["sft"], rows=1, length=8, **chosen)
    assert trained_weights(setup) == expected


def parts(setup: Setup) -> dict[str, float]:
    return {share.name: share.bytes for share in memory(setup)}


def test_a_weight_that_is_trained_costs_16_bytes_and_sharding_divides_them() -> None:
    setup = Setup(QWEN, PASSES["sft"], rows=1, length=1024, gpu=True, half=True)
    weights = all_weights(QWEN)
    found = parts(setup)
    # In 32 bits: the weight 4, its gradient 4, two moments 8 (ZeRO, section 3.1, in 16 + 32: too).
    assert found["weights"] + found["gradients"] + found["optimizer"] == 16 * weights
    eighth = parts(replace(setup, devices=8, sharded=True))
    for name in ("weights", "gradients", "optimizer"):
        assert eighth[name] == found[name] / 8
    assert eighth["activations"] == found["activations"]
    copies = parts(replace(setup, devices=8))
    assert copies["weights"] == found["weights"]


def test_4_bits_round_the_linear_layers_alone() -> None:
    setup = Setup(
        QWEN, PASSES["dpo"], rows=1, length=1024, gpu=True, half=True, lora=Lora(), quantized=True
    )
    tables = 2 * 152_064 * 3584
    norms = 28 * 2 * 3584 + 3584
    linear = all_weights(QWEN) - tables - norms
    adapters = trained_weights(setup)
    expected = linear * 4.127 / 8 + (tables + norms) * 2 + adapters * 2
    assert parts(setup)["weights"] == pytest.approx(expected)
    assert parts(setup)["reference"] == 0
    whole = replace(setup, lora=None, quantized=False, second_model=True)
    assert parts(whole)["reference"] == 4 * all_weights(QWEN)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_the_others() -> None:
    # A score is no output layer that would hide the one layer.
    setup = Setup(QWEN, PASSES["reward"], rows=1, length=512)
    around = 2 * 512 * (3 * 3584 * 4 + 512 * 4)
    layer = (parts(setup)["activations"] - around) / 28
    # In 32 bits: 3 of each norm's, queries, keys, values and output of 3584, 4 of the gated part.
    assert layer == 2 * 512 * 4 * (2 * 3 * 3584 + 4 * 3584 + 4 * 18944)
    less = parts(replace(setup, checkpointing=True))["activations"]
    assert less == pytest.approx(layer + around + 2 * 512 * 28 * 3584 * 4)


setups = st.builds(
    Setup,
    model=st.builds(
        ModelShapes,
        hidden=st.sampled_from([64, 256, 2048]),
        layers=st.integers(1, 32),
        heads=st.sampled_from([4, 8]),
        kv_heads=st.sampled_from([2, 4]),
        intermediate=st.sampled_from([128, 5632]),
        vocab=st.sampled_from([1000, 50_000]),
        tied=st.booleans(),
    ),
    passes=st.sampled_from(list(PASSES.values())),
    rows=st.integers(1, 64),
    length=st.sampled_from([16, 512, 4096]),
    gpu=st.booleans(),
    half=st.booleans(),
    checkpointing=st.booleans(),
    lora=st.none() | st.builds(Lora, r=st.integers(1, 64), dora=st.booleans()),
)


@given(setups)
def test_less_never_takes_more(setup: Setup) -> None:
    needed = total(setup)
    assert needed > 0
    assert total(replace(setup, rows=setup.rows + 1)) >= needed
    assert total(replace(setup, length=setup.length + 1)) >= needed
    assert (
        total(replace(setup, checkpointing=True)) <= needed * (1 + 1e-9) or setup.model.layers < 4
    )


@given(setups, st.floats(0.01, 0.99))
def test_what_is_advised_would_fit(setup: Setup, share: float) -> None:
    room = total(setup) * share
    said = advice(setup, room)
    if said.startswith("Would fit: "):
        for option in said.removeprefix("Would fit: ").split("; or "):
            gib = float(option.rsplit("(", 1)[1].removesuffix(" GiB)"))
            assert gib <= room / GIB + 0.05
    else:
        assert said.startswith("Nothing in a recipe")


@pytest.mark.parametrize(
    ("method", "chosen", "arguments"),
    [
        ("sft", {}, {}),
        pytest.param("sft", {}, {"gradient_checkpointing": True}, marks=pytest.mark.slow),
        ("sft", {"lora": {"r": 8, "dropout": 0.1}}, {}),
        pytest.param("dpo", {"lora": {"r": 8}}, {}, marks=pytest.mark.slow),
    ],
    ids=["all weights", "checkpointing", "lora", "dpo and lora"],
)
def test_the_estimate_is_near_what_tensors_take(
    tmp_path: Path, method: str, chosen: dict[str, object], arguments: dict[str, object]
) -> None:
    """The shipped model trained by TRL on rows of the same length; docs/train.md has the errors."""
    rows, length = 4, 256
    recipe = SftRecipe.model_validate({"method": "sft", **chosen})
    given = {"gradient_checkpointing": False} | arguments
    setup = Setup(
        shapes(BASE),
        PASSES[method],
        rows=rows,
        length=length,
        checkpointing=bool(given["gradient_checkpointing"]),
        lora=recipe.lora,
    )
    with PeakMemory() as measured:
        _trained(tmp_path, method, recipe, rows, length, given)
    assert total(setup) == pytest.approx(measured.peak, rel=0.1)


def _trained(
    folder: Path, method: str, recipe: SftRecipe, rows: int, length: int, given: dict[str, object]
) -> None:
    """Two steps of TRL's trainer on random words, each row `length` tokens and more."""
    import trl
    from datasets import Dataset

    loaded = load_model(ModelRef("base", str(BASE)), train="adapters" if recipe.adapts else "all")
    words = [["refund ", "parcel ", "sorry ", "order "][n % 4] for n in range(2 * length)]
    said = {"prompt": words[0] * 9, "chosen": "".join(words), "rejected": "".join(words[::-1])}
    row = {"text": said["chosen"]} if method == "sft" else said
    classes = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer_class, config_class = classes[method]
    arguments = {**device_arguments("cpu"), **given}
    trainer_class(
        model=loaded.model,
        args=config_class(
            output_dir=str(folder),
            max_length=length,
            max_steps=2,
            per_device_train_batch_size=rows,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=Dataset.from_list([row] * rows * 2),
        processing_class=loaded.tokenizer,
        peft_config=adapter_config(recipe, []),
    ).train()
