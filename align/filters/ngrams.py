"""Which texts of an evaluation set stand, in whole or in part, in other texts: by shared n-grams.

A text is its words in lower case, without punctuation (NFKC; a character of a script that writes no
blanks is a word). An evaluation text is found in another by the share of its distinct n-grams of
words that occur there (containment; Broder 1997), so that what stands around it does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

Codes = NDArray[np.int64]

_BETWEEN_WORDS = r"[^\p{L}\p{M}\p{N}]+"
_WITHOUT_BLANKS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
# An odd multiplier for the rolling hash; any will do.
_BASE = np.uint64(0x9E3779B97F4A7C15)
# Candidates whose n-grams are counted at a time.
_BLOCK = 100_000


def plain_words(texts: pa.Array | pa.ChunkedArray) -> Any:
    """The words of each text with one blank between; nothing for null."""
    given = pc.fill_null(texts, "")
    if not pc.all(pc.string_is_ascii(given), min_count=0).as_py():
        given = pc.utf8_normalize(given, form="NFKC")
        given = pc.replace_substring_regex(given, _WITHOUT_BLANKS, r" \1 ")
    words = pc.replace_substring_regex(pc.utf8_lower(given), _BETWEEN_WORDS, " ")
    return pc.utf8_trim_whitespace(words)


@dataclass(frozen=True)
class Found:
    """Of each text looked at: which evaluation text it holds most of, and how much of it."""

    row: Codes
    """Index of the evaluation text, -1 for none, shape (texts,)."""
    share: NDArray[np.float64]
    """Of its n-grams, 0 for none, shape (texts,)."""


class NgramIndex:
    """The n-grams of evaluation texts.

    Args:
        texts: of the evaluation set; one that repeats another counts once, under the first.
        n: words of an n-gram.
        over: only shares over this are looked for, 0 to 1.
    """

    def __init__(self, texts: list[str], n: int, over: float) -> None:
        self.n, self.over = n, over
        words = plain_words(pa.array(texts, pa.string()))
        flat, owner = _flat(words)
        coded = flat.dictionary_encode()
        self.vocabulary = coded.dictionary
        # One random number a word, so that sums of words do not meet by chance.
        rng = np.random.default_rng(0)
        self.number = rng.integers(2**64, size=max(1, len(self.vocabulary)), dtype=np.uint64)
        length = np.bincount(owner, minlength=len(texts))
        first = np.asarray(pc.index_in(words, value_set=pc.unique(words)))
        seen = np.unique(first, return_index=True)[1]
        kept = np.zeros(len(texts), dtype=bool)
        kept[seen] = True
        short = np.flatnonzero(kept & (length < n) & (length > 0))
        self.short, self.short_row = words.take(pa.array(short)), short
        row, gram = self._windows(np.asarray(coded.indices, dtype=np.int64), owner)
        row, gram = row[kept[row]], gram[kept[row]]
        self.grams, code = np.unique(gram, return_inverse=True)
        self.holds = _incidence(row, code.reshape(-1), len(texts), len(self.grams))
        self.size = np.diff(self.holds.indptr)
        self.telling = self._telling()

    def find(self, texts: pa.Array | pa.ChunkedArray) -> Found:
        """What each text holds most of: the largest share over `over`, the first of equal ones.

        In proportion to the words of `texts`; words that the evaluation set does not know end an
        n-gram at once.
        """
        n = len(texts)
        found = Found(np.full(n, -1, dtype=np.int64), np.zeros(n))
        flat, owner = _flat(plain_words(texts))
        known = pc.fill_null(pc.index_in(flat, value_set=self.vocabulary), -1)
        row, gram = self._windows(np.asarray(known, dtype=np.int64), owner)
        if not len(row) or not len(self.grams):
            return found
        at = np.minimum(np.searchsorted(self.grams, gram), len(self.grams) - 1)
        met = self.grams[at] == gram
        texts_grams = _incidence(row[met], at[met], n, len(self.grams))
        pairs = (texts_grams @ self.telling.T).tocoo()
        text, evaluation = (np.asarray(side, dtype=np.int64) for side in (pairs.row, pairs.col))
        share = self._shares(texts_grams, text, evaluation)
        over = share > self.over + 1e-9
        text, evaluation, share = text[over], evaluation[over], share[over]
        order = np.lexsort((evaluation, -share, text))
        text, at_first = np.unique(text[order], return_index=True)
        found.row[text] = evaluation[order][at_first]
        found.share[text] = share[order][at_first]
        return found

    def same(self, texts: pa.Array | pa.ChunkedArray) -> Codes:
        """The evaluation text of fewer than n words that a text repeats in whole; -1 for none."""
        place = pc.index_in(plain_words(texts), value_set=self.short)
        row = pa.array(self.short_row, pa.int64()).take(place)
        return np.asarray(pc.fill_null(row, -1), dtype=np.int64)

    def _windows(self, code: Codes, owner: Codes) -> tuple[Codes, NDArray[np.uint64]]:
        """The text and the hash of every n-gram of known words that lies in one text."""
        ends = len(code) - self.n + 1
        if ends <= 0:
            return np.array([], np.int64), np.array([], np.uint64)
        unknown = np.concatenate([[0], np.cumsum(code < 0)])
        whole = (owner[:ends] == owner[self.n - 1 :]) & (unknown[self.n :] == unknown[:ends])
        start = np.flatnonzero(whole)
        hashed = np.zeros(len(start), dtype=np.uint64)
        for place in range(self.n):
            hashed = hashed * _BASE + self.number[code[start + place]]
        return owner[start], hashed

    def _telling(self) -> sp.csr_array:
        """Of each evaluation text so many of its rarest n-grams that a share over `over` has one.

        A share over s of m n-grams leaves fewer than m - s m without, so it meets one of any that
        many: the rarest are the fewest to follow up (prefix filtering; Bayardo et al. 2007).
        """
        row = np.repeat(np.arange(len(self.size)), self.size)
        gram = self.holds.indices.astype(np.int64)
        frequency = np.bincount(gram, minlength=len(self.grams))
        order = np.lexsort((gram, frequency[gram], row))
        rank = np.arange(len(order)) - self.holds.indptr[row[order]]
        wanted = self.size - np.floor(self.over * self.size + 1e-9)
        chosen = order[rank < wanted[row[order]]]
        return _incidence(row[chosen], gram[chosen], *self.holds.shape)

    def _shares(self, texts: sp.csr_array, text: Codes, evaluation: Codes) -> NDArray[np.float64]:
        """Of each pair: the share of the evaluation text's n-grams that the text holds."""
        shares = []
        for start in range(0, len(text), _BLOCK):
            one, other = text[start : start + _BLOCK], evaluation[start : start + _BLOCK]
            both = texts[one].multiply(self.holds[other]).sum(axis=1)
            shares.append(np.asarray(both).reshape(-1) / self.size[other])
        return np.concatenate(shares) if shares else np.zeros(0)


def _flat(words: Any) -> tuple[Any, Codes]:
    """All words of all texts in one column, and the text of each."""
    lists = pc.split_pattern(words, " ")
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    flat, owner = pc.list_flatten(lists), pc.list_parent_indices(lists)
    real = pc.not_equal(flat, "")  # an empty text is one empty word
    return flat.filter(real), np.asarray(owner.filter(real), dtype=np.int64)


def _incidence(row: Codes, column: Codes, rows: int, columns: int) -> sp.csr_array:
    """1 where a row has a column, however often."""
    key = np.unique(row * max(1, columns) + column)
    place = np.divmod(key, max(1, columns))
    ones = np.ones(len(key), dtype=np.int32)
    return sp.csr_array((ones, place), shape=(rows, max(1, columns)))
