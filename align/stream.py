"""A corpus as an endless stream of rows for a trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from align.corpus import training_documents
from align.packed_rows import Row, joined, packed, pieces
from align.recipe.text import Corpus
from align.tokenizer import document_tokens


class Stream(IterableDataset[Row]):
    """The training documents of a corpus, pass after pass, each in another order.

    Read again it gives the same rows, which is what resuming relies on: the trainer reads what was
    trained on before once more, and leaves it aside.

    Args:
        root: where the corpus's relative path starts from.
        length: tokens of a row at most.
        packing: several documents in a row; otherwise one, or a piece of one.
        seed: of the order.
    """

    def __init__(
        self, corpus: Corpus, root: Path, tokenizer: Any, *, length: int, packing: bool, seed: int
    ) -> None:
        self.corpus = corpus
        self.root = root
        self.tokenizer = tokenizer
        self.length = length
        self.packing = packing
        self.seed = seed

    def __iter__(self) -> Iterator[Row]:
        found = rows(self._documents(), self.length, packing=self.packing)
        worker = get_worker_info()
        if worker is not None:
            # Each worker reads the whole stream and gives its share.
            return islice(found, worker.id, None, worker.num_workers)
        return found

    def _documents(self) -> Iterator[list[int]]:
        for number in count():
            # Far apart, so that the passes of neighbouring seeds have nothing in common.
            order = self.seed * 1_000_003 + number
            texts = training_documents(self.corpus, self.root, seed=order)
            empty = True
            for ids in document_tokens(self.tokenizer, texts):
                empty = False
                yield ids
            if empty:
                return


def rows(documents: Iterable[Sequence[int]], length: int, *, packing: bool) -> Iterator[Row]:
    """Rows of at most `length` tokens: of several whole documents each, or of a piece of one."""
    if packing:
        return packed(documents, length)
    return (joined([piece]) for piece in pieces(documents, length))
