"""A corpus as a stream: what is a document, which are held out, in which order, and bad input."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from align.corpus import (
    corpus_files,
    documents,
    held_out,
    held_out_documents,
    shuffled,
    training_documents,
)
from align.packed_rows import IGNORED
from align.recipe.text import Corpus
from align.stream import Stream
from align.tokenizer import make_tokenizer
from annotate.errors import InputError

WORDS = [f"document {number} says {'word ' * (number % 7)}" for number in range(400)]


def corpus(source: str, path: str = "data", **more: Any) -> Corpus:
    return Corpus.model_validate({"source": source, "path": path, **more})


def write_parquet(path: Path, texts: list[str], column: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Small row groups: more than one batch is read.
    pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path, row_group_size=70)


def test_a_text_file_is_read_by_line_paragraph_or_whole(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.txt").write_text("three\nfour\n\n\nfive\n")
    (tmp_path / "data" / "a.txt").write_text("one\n\n two\n")
    (tmp_path / "data" / "notes.md").write_text("not a text file of the corpus")

    def read(document: str) -> list[str]:
        return list(documents(corpus("text", document=document), tmp_path))

    assert read("line") == ["one", " two", "three", "four", "five"]
    assert read("paragraph") == ["one\n", " two\n", "three\nfour\n", "five\n"]
    assert read("file") == ["one\n\n two\n", "three\nfour\n\n\nfive\n"]


def test_json_lines_parquet_and_a_data_set_give_the_same_documents(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"said": text}) + "\n" for text in WORDS)
    (tmp_path / "words.jsonl").write_text(lines + "\n")
    write_parquet(tmp_path / "words" / "words.parquet", WORDS, "said")
    for source, path in (
        ("jsonl", "words.jsonl"),
        ("parquet", "words"),
        ("hub", str(tmp_path / "words")),
    ):
        found = documents(corpus(source, path, column="said"), tmp_path)
        assert list(found) == WORDS


@pytest.mark.parametrize("rows_together", [1000, 1_000_000])
def test_a_parquet_file_is_never_in_memory_as_a_whole(tmp_path: Path, rows_together: int) -> None:
    texts = [random.Random(number).randbytes(1000).hex() for number in range(10_000)]
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=rows_together)
    before, most = pa.total_allocated_bytes(), 0
    for number, _ in enumerate(documents(corpus("parquet", "data.parquet"), tmp_path)):
        if number % 100 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert number == 9_999
    assert most < path.stat().st_size / 2


def test_what_is_held_out_hangs_on_the_words_alone(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "1.parquet", WORDS)
    write_parquet(tmp_path / "data" / "2.parquet", WORDS[:50])  # copies
    read = corpus("parquet", held_out=0.1)
    kept = Counter(training_documents(read, tmp_path, seed=0))
    held = Counter(held_out_documents(read, tmp_path))
    assert kept + held == Counter(WORDS) + Counter(WORDS[:50])
    assert not set(kept) & set(held)
    # 400 draws at 0.1: 40 expected, 6 standard deviations are 36.
    assert 4 <= len(held) <= 76
    more = set(held_out_documents(corpus("parquet", held_out=0.3), tmp_path))
    assert set(held) < more


@given(text=st.text(), low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_a_larger_share_holds_out_what_a_smaller_did(text: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    text = text.encode("utf-8", "replace").decode()
    assert held_out(text, high) or not held_out(text, low)


@given(st.lists(st.integers()), st.integers(1, 20), st.integers())
def test_shuffling_loses_nothing_and_can_be_repeated(
    items: list[int], waiting: int, seed: int
) -> None:
    found = list(shuffled(iter(items), waiting, random.Random(seed)))
    assert Counter(found) == Counter(items)
    assert found == list(shuffled(iter(items), waiting, random.Random(seed)))
    if waiting == 1:
        assert found == items


def test_shuffling_reads_no_further_ahead_than_it_may() -> None:
    drawn = 0

    def endless() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    found = list(islice(shuffled(endless(), 10, random.Random(0)), 5))
    assert max(found) <= drawn == 15


def test_a_stream_reads_pass_after_pass_and_the_same_again(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "1.parquet", WORDS)
    read = corpus("parquet", held_out=0.1, shuffle=50)
    tokenizer = make_tokenizer(WORDS, 300)

    def stream(seed: int = 0, *, packing: bool = True) -> list[dict[str, list[int]]]:
        made = Stream(read, tmp_path, tokenizer, length=64, packing=packing, seed=seed)
        return list(islice(made, 300))

    first = stream()
    assert first == stream() != stream(seed=1)
    assert max(len(row["input_ids"]) for row in first) <= 64
    # More rows than one pass has: the second pass has the same documents in another order.
    kept = len(list(training_documents(read, tmp_path, seed=0)))
    alone = stream(packing=False)
    assert len(alone) == 300 < kept
    begun = [row["labels"].count(IGNORED) for row in first]
    assert sum(begun) > kept


def test_workers_share_the_rows_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "1.parquet", WORDS)
    read = corpus("parquet", held_out=0.1, shuffle=50)
    made = Stream(read, tmp_path, make_tokenizer(WORDS, 300), length=64, packing=True, seed=0)
    shared = DataLoader(made, batch_size=None, num_workers=2)
    assert list(islice(shared, 40)) == list(islice(made, 40))


@pytest.mark.parametrize(
    ("source", "content", "where", "what"),
    [
        ("text", b"caf\xe9", "data/x.txt", "not UTF-8"),
        ("jsonl", b'{"text": "fine"}\n{"text": ', "data/x.jsonl:2", "not JSON"),
        ("jsonl", b'{"text": "fine"}\n\n{"words": "x"}', "data/x.jsonl:3", "no text under 'text'"),
        ("jsonl", b'{"text": 7}', "data/x.jsonl:1", "no text under 'text'"),
        ("jsonl", b'["text"]', "data/x.jsonl:1", "no text under 'text'"),
        ("jsonl", b'{"text": "\\ud83d"}', "data/x.jsonl:1", "half a character"),
        ("parquet", b"PAR1 and no more", "data/x.parquet", "not a Parquet file"),
    ],
)
def test_what_is_no_document_is_named_with_its_place(
    tmp_path: Path, source: str, content: bytes, where: str, what: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / where.split(":")[0]).write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        list(documents(corpus(source), tmp_path))
    assert caught.value.where.endswith(where)


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "1.parquet", ["x"], "words")
    with pytest.raises(InputError, match="no text under 'text'"):
        list(documents(corpus("parquet"), tmp_path))


def test_a_row_without_text_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    texts = [*["fine"] * 1500, None]
    pq.write_table(pa.table({"text": texts}), tmp_path / "data" / "1.parquet")
    with pytest.raises(InputError, match="no text under") as caught:
        list(documents(corpus("parquet"), tmp_path))
    assert caught.value.where.endswith("1.parquet, row 1501")


def test_a_corpus_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"neither a file nor a folder with \.jsonl files"):
        corpus_files(corpus("jsonl"), tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the data set cannot be read") as caught:
        list(documents(corpus("hub", str(tmp_path / "none")), tmp_path))
    assert "\n" not in str(caught.value)
