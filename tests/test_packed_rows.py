"""Rows of tokens: documents stay whole and apart, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from align.packed_rows import IGNORED, Row, attends_across, collate, joined, packed, pieces

DOCUMENTS = st.lists(st.lists(st.integers(4, 30), min_size=1, max_size=25), max_size=200)


def tiny(**more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        **more,
    )
    return LlamaForCausalLM(config).eval()


def documents_of(row: Row) -> list[tuple[int, ...]]:
    """Where positions begin again, a document begins."""
    starts = [at for at, position in enumerate(row["position_ids"]) if position == 0]
    ends = [*starts[1:], len(row["input_ids"])]
    return [tuple(row["input_ids"][a:b]) for a, b in zip(starts, ends, strict=True)]


@given(DOCUMENTS, st.integers(2, 16))
def test_packing_keeps_every_piece_whole(documents: list[list[int]], length: int) -> None:
    rows = list(packed(documents, length))
    assert all(1 <= len(row["input_ids"]) <= length for row in rows)
    found = sorted(document for row in rows for document in documents_of(row))
    assert found == sorted(map(tuple, pieces(documents, length)))
    for row in rows:
        expected = [
            IGNORED if position == 0 else token
            for token, position in zip(row["input_ids"], row["position_ids"], strict=True)
        ]
        assert row["labels"] == expected


def test_each_goes_into_the_fullest_row_that_has_room() -> None:
    # 6 and 5 open a row each; 4 fits both and leaves nothing in the first, 3 and 2 fill the second.
    documents = [[9] * size for size in (6, 5, 4, 3, 2)]
    sizes = [[len(one) for one in documents_of(row)] for row in packed(documents, 10)]
    assert sizes == [[6, 4], [5, 3, 2]]


def test_packing_leaves_little_room_unused() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(3, 60, (2000,), generator=generator).tolist()
    rows = list(packed([[5] * size for size in sizes], 64))
    assert sum(sizes) / (64 * len(rows)) > 0.96


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_document_in_a_pack_is_read_as_if_alone(attention: str) -> None:
    model = tiny(attn_implementation=attention)
    documents = [[7, 8, 9, 10], [9, 4], [11, 30, 12, 5, 6]]
    other = [[20, 21, 22]]
    batch = collate([joined(documents), joined(other)], pad=0)
    with torch.inference_mode():
        together = model(**batch)
        alone = [model(torch.tensor([document])).logits[0] for document in [*documents, *other]]
    torch.testing.assert_close(together.logits[0, :11], torch.cat(alone[:3]))
    torch.testing.assert_close(together.logits[1, :3], alone[3])
    # 3 + 1 + 4 + 2 tokens are predicted from what stands before them in their document.
    losses = [
        torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(document[1:]), reduction="sum")
        for logits, document in zip(alone, [*documents, *other], strict=True)
    ]
    torch.testing.assert_close(together.loss, torch.stack(losses).sum() / 10)


def test_a_model_whose_attention_keeps_no_documents_apart_is_found() -> None:
    assert not attends_across(tiny())

    class Blind(LlamaForCausalLM):
        def forward(self, input_ids: Any = None, position_ids: Any = None, **more: Any) -> Any:
            return super().forward(input_ids=input_ids, **more)

    blind = Blind(tiny().config)
    blind.load_state_dict(tiny().state_dict())
    assert attends_across(blind)
