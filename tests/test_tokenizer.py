"""Tokenizers from scratch: every text comes back, special tokens come first and stay ours."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.tokenizer import SPECIAL, document_tokens, make_tokenizer

TEXTS = [
    f"The lamp number {number} in the hall flickers; the switch beside it does not."
    for number in range(200)
]
KINDS: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")
MADE = {kind: make_tokenizer(TEXTS, 400, kind) for kind in KINDS}

# Any text that can be written down, with special tokens in the middle of it now and then.
TYPED = st.lists(st.one_of(st.text(), st.sampled_from(SPECIAL))).map("".join)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return MADE[request.param]


@given(text=TYPED, kind=st.sampled_from(KINDS))
def test_any_text_comes_back_as_it_was(text: str, kind: Literal["bpe", "unigram"]) -> None:
    tokenizer = MADE[kind]
    ids = next(document_tokens(tokenizer, [text]))
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    # A special token typed in a document is letters: the document ends where we say.
    assert not set(ids[1:-1]) & set(range(len(SPECIAL)))
    assert tokenizer.decode(ids[1:-1], clean_up_tokenization_spaces=False) == text


def test_special_tokens_come_first(tokenizer: Any) -> None:
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIAL))) == list(SPECIAL)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_vocabulary_has_the_size_asked_for_where_the_texts_give_it() -> None:
    # Seven special tokens, 256 bytes and 137 learnt pieces; Unigram finds fewer in these texts.
    assert len(MADE["bpe"]) == 400
    assert 263 < len(MADE["unigram"]) <= 400


def test_what_is_frequent_takes_fewer_tokens_than_bytes(tokenizer: Any) -> None:
    ids = next(document_tokens(tokenizer, [TEXTS[0]]))
    assert len(ids) < len(TEXTS[0]) / 3


def test_the_same_texts_make_the_same_merges() -> None:
    again = make_tokenizer(TEXTS, 400, "bpe")
    assert again.backend_tokenizer.to_str() == MADE["bpe"].backend_tokenizer.to_str()


def test_many_documents_keep_their_order(tokenizer: Any) -> None:
    found = [tokenizer.decode(ids[1:-1]) for ids in document_tokens(tokenizer, TEXTS * 3)]
    assert found == TEXTS * 3
