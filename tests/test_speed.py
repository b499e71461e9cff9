"""What makes training faster changes no result: layout, packed batches, references kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_runs import new_project
from tiny_model import write_tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

from align.recipe.parts import Speed
from align.speed.layout import IGNORED, Layout, lay_out
from align.speed.packing import ATTENTION, packed_batches
from align.speed.prediction import predict
from align.train import train
from annotate.records import table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

Rows = list[tuple[list[int], int]]
"""Token ids of each row, and where learning from them begins."""


def padded(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (tokens, begin) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, begin : len(tokens)] = ids[row, begin : len(tokens)]
    return ids, mask, labels


def laid(rows: Rows, share: bool = True) -> Layout:
    layout = lay_out(*padded(rows), share=share)
    assert layout is not None
    return layout


def test_what_rows_begin_with_alike_stands_once() -> None:
    # a b c x y, a b c z and d e: eight distinct tokens of eleven.
    layout = laid([([1, 2, 3, 8, 9], 3), ([1, 2, 3, 7], 3), ([4, 5], 1)])
    assert sorted(layout.tokens.tolist()) == [1, 2, 3, 4, 5, 7, 8, 9]
    long, short = layout.blocks  # 4 is at least three quarters of 5, 2 is not
    first, second = long.tolist()
    assert first[:3] == second[:3]
    assert second[4] == 0  # padding
    assert layout.tokens[short].tolist() == [[4, 5]]
    # x and z are both predicted from c, y from x, e from d.
    assert layout.tokens[layout.before].tolist() == [3, 8, 3, 4]
    assert layout.targets.tolist() == [8, 9, 7, 5]


words = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(rows=st.lists(st.tuples(words, st.integers(1, 6)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_layout_holds_each_beginning_once_and_every_row_whole(rows: Rows) -> None:
    layout = laid(rows)
    beginnings = {tuple(ids[: end + 1]) for ids, _ in rows for end in range(len(ids))}
    assert len(layout.tokens) == len(beginnings)
    held = [places for block in layout.blocks for places in block]
    longest_first = sorted((ids for ids, _ in rows), key=lambda ids: -len(ids))
    for places, ids in zip(held, longest_first, strict=True):
        assert layout.tokens[places[: len(ids)]].tolist() == ids
        assert layout.positions[places[: len(ids)]].tolist() == list(range(len(ids)))
    home = torch.cat([block.flatten() for block in layout.blocks])[layout.homes]
    assert home.tolist() == list(range(len(layout.tokens)))
    learnt = [(ids[at - 1], ids[at]) for ids, begin in rows for at in range(begin, len(ids))]
    pairs = zip(layout.tokens[layout.before].tolist(), layout.targets.tolist(), strict=True)
    assert list(pairs) == learnt
    apart = laid(rows, share=False)
    assert apart.tokens.tolist() == [token for ids, _ in rows for token in ids]


def test_padding_before_the_tokens_is_left_to_trl() -> None:
    ids, mask, labels = padded([([1, 2, 3], 1), ([4, 5], 1)])
    assert lay_out(ids.flip(1), mask.flip(1), labels.flip(1), share=True) is None


PAIRS: Rows = [
    ([9, 10, 11, 12, 20, 21, 22, 23, 24, 1], 4),
    ([13, 14, 15, 40, 41, 1], 3),
    ([9, 10, 11, 12, 30, 1], 4),
    ([13, 14, 15, 42, 43, 44, 45, 1], 3),
]


def tiny_llama(**changed: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(
        **shape, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, **changed
    )
    model = LlamaForCausalLM(config)
    add_head(model)
    return model


def add_head(model: Any) -> None:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))


def asked(model: Any) -> Any:
    ids, mask, labels = padded(PAIRS)
    return model(
        input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False
    )


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_figures_and_gradients_are_those_of_the_padded_batch(
    share: bool, checkpointing: bool
) -> None:
    model = tiny_llama()
    if checkpointing:
        model.gradient_checkpointing_enable()
    weights = torch.randn(asked(model).log_probs.shape)
    plain = asked(model)
    (plain.log_probs * weights).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    with packed_batches(model, Speed(share_prompts=share)) as packing:
        packed = asked(model)
        assert packing.left_out is None
        (packed.log_probs * weights).sum().backward()
    for name in ("log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(packed[name], plain[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(packed.is_top1, plain.is_top1)
    assert torch.equal(packed.label_mask, plain.label_mask)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_predictions_are_those_of_all_logits_at_once() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(300, 8, requires_grad=True)  # three tiles of 128 rows and less
    weight = torch.randn(50, 8, requires_grad=True)
    targets, weights = torch.randint(0, 50, (300,)), torch.randn(300)
    predicted = predict(hidden, weight, targets)
    (predicted.log_probs * weights).sum().backward()
    found = [hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    logits = hidden @ weight.T
    logs = logits.log_softmax(-1)
    chosen = logs.gather(1, targets[:, None])[:, 0]
    (chosen * weights).sum().backward()
    torch.testing.assert_close(predicted.log_probs, chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, [hidden.grad, weight.grad], rtol=1e-5, atol=1e-5)
    likely = logs.exp()
    torch.testing.assert_close(predicted.entropy, -(likely * logs).sum(-1), rtol=1e-4, atol=1e-5)
    squares = (likely**2).sum(-1).log()
    torch.testing.assert_close(predicted.log_sum_sq_probs, squares, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted.mean_logits, logits.mean(-1), rtol=1e-4, atol=1e-5)
    assert torch.equal(predicted.is_top1, logits.argmax(-1) == targets)


def test_logits_that_a_model_scales_are_left_to_trl() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(**shape, num_attention_heads=2, logit_scale=0.25))
    add_head(model)
    plain = asked(model).log_probs
    with packed_batches(model, Speed()) as packing:
        packed = asked(model).log_probs
    assert packing.left_out is None
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-6)


def test_the_model_is_as_before_afterwards_and_completes_meanwhile() -> None:
    model = tiny_llama().eval()
    prompt = torch.tensor([[0, 0, 9, 10], [9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    plain = model(input_ids=prompt, attention_mask=mask).logits
    with packed_batches(model, Speed()):
        assert model.config._attn_implementation == ATTENTION
        torch.testing.assert_close(model(input_ids=prompt, attention_mask=mask).logits, plain)
    assert model.config._attn_implementation == "sdpa"
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_adapters_are_packed_too() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_llama()
    with packed_batches(model, Speed()) as packing:
        adapted = get_peft_model(
            model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        )
        packed = asked(adapted).log_probs
        assert packing._checked
        assert packing.left_out is None
    torch.testing.assert_close(packed, asked(adapted).log_probs, rtol=1e-5, atol=1e-6)


def test_windows_over_a_few_tokens_are_left_as_they_are() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    model = MistralForCausalLM(
        MistralConfig(**shape, num_attention_heads=2, num_key_value_heads=2, sliding_window=3)
    )
    with packed_batches(model, Speed()) as packing:
        assert packing.left_out == "not all of its layers attend to everything before"
        assert model.config._attn_implementation == "sdpa"


def test_a_model_that_answers_otherwise_is_left_as_it_is() -> None:
    model = tiny_llama()
    model.model.register_forward_pre_hook(
        lambda _module, args, given: (args, {**given, "position_ids": None}), with_kwargs=True
    )
    plain = asked(model).log_probs
    with packed_batches(model, Speed()) as packing:
        packed = asked(model).log_probs
    assert packing.left_out is not None
    assert "differ by" in packing.left_out
    torch.testing.assert_close(packed, plain)


SFT = """
method: sft
model: {model}
max_length: 96
speed: {{{speed}}}
trainer: {{num_train_epochs: 1, per_device_train_batch_size: 4, learning_rate: 5.0e-3,
  logging_steps: 1}}
"""
DPO = SFT.replace("method: sft", "method: dpo").replace("5.0e-3", "1.0e-4")
OFF = "padding_free: false, share_prompts: false, keep_reference: false"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


def built(project: Project, n: int = 12) -> Run:
    """Prompts and completions of very different lengths; the longest are cut."""
    preference, sft = [], []
    for number in range(n):
        named = {"row_id": f"t-{number}", "prompt_id": f"p-{number}", "pair_id": f"j-{number}",
                 "split": "eval" if number % 4 == 3 else "train",
                 "prompt": [text_message("user", "why? " * (1 + number % 5))]}  # fmt: skip
        chosen = [text_message("assistant", "yes, gladly " * (1 + number % 7))]
        rejected = [text_message("assistant", "yes, " + "no " * (1 + 11 * number % 17))]
        preference.append({**named, "chosen": chosen, "rejected": rejected})
        sft.append({**named, "completion": chosen, "source": "winner"})
    with project.draft(RunPlan("build", 1, settings={"n": n})) as draft:
        draft.write("preference", table_from_rows("preference", preference))
        draft.write("sft", table_from_rows("sft", sft))
    return draft.run


def trained(project: Project, text: str, tiny: Path, speed: str = "", **changed: Any) -> Run:
    path = project.root / "r.yaml"
    text = text.format(model=tiny, speed=speed)
    for old, new in changed.items():
        text = text.replace(old, new)
    path.write_text(text)
    return train(project, path)


def losses(run: Run) -> list[float]:
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [entry[name] for entry in log for name in ("loss", "eval_loss") if name in entry]


@pytest.mark.parametrize("recipe", [SFT, DPO], ids=["sft", "dpo"])
def test_the_options_change_no_loss(project: Project, tiny: Path, recipe: str) -> None:
    built(project)
    fast, plain = trained(project, recipe, tiny), trained(project, recipe, tiny, OFF)
    assert fast.id != plain.id
    assert "speed" not in fast.metrics  # nothing had to be left out
    assert len(losses(fast)) == 4  # 3 steps and an evaluation
    np.testing.assert_allclose(losses(fast), losses(plain), rtol=1e-6, atol=1e-6)


def kept(project: Project) -> list[Path]:
    return sorted((project.state_dir / "cache" / "reference").glob("*.parquet"))


def test_references_are_computed_once_for_all_later_runs(
    project: Project, tiny: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    built(project, 8)
    first = trained(project, DPO, tiny)
    files = kept(project)
    assert len(files) == 2  # of the pairs trained on and of those held out
    # Another run reads them: it believes them when they are tampered with.
    honest = {path: pq.read_table(path) for path in files}
    for path, table in honest.items():
        chosen = pc.add(table["ref_chosen_logps"], pa.scalar(5, pa.float32()))
        pq.write_table(table.set_column(0, "ref_chosen_logps", chosen), path)
    misled = trained(project, DPO, tiny, **{"1.0e-4": "2.0e-4"})
    assert losses(misled)[0] == pytest.approx(np.log1p(np.exp(0.5)), rel=1e-3)  # beta 0.1 times 5
    # A file that cannot be read, or is too short, is made anew.
    files[0].write_bytes(files[0].read_bytes()[:40])
    pq.write_table(honest[files[1]].slice(1), files[1])
    mended = trained(project, DPO, tiny, **{"1.0e-4": "1.0e-4, beta: 0.1"})
    assert losses(mended) == losses(first)
    assert [pq.read_table(path) for path in kept(project)] == [honest[path] for path in files]
    # Another reference, or other tokens, are another file; with the option off there is none.
    trained(project, DPO, write_tiny_model(tmp_path / "other", seed=1))
    assert len(kept(project)) == 4
    trained(project, DPO, tiny, **{"max_length: 96": "max_length: 64"})
    assert len(kept(project)) == 6
    trained(project, DPO, tiny, OFF, **{"max_length: 96": "max_length: 80"})
    assert len(kept(project)) == 6


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    import pyarrow as pa

    from align.speed.reference import COLUMNS, keep
    from annotate.errors import ResourceError

    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ResourceError, match="cannot be kept") as refused:
        keep(tmp_path / "cache" / "a.parquet", pa.table({name: [0.0] for name in COLUMNS}))
    assert "keep_reference: false" in str(refused.value)
