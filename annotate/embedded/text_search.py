"""Which records a text query matches, and how well.

The score is BM25 (Robertson and Zaragoza, 2009) summed over the words looked for, with the lengths
of texts in letters. How often a record holds a word counts only for words that occur at most
`COUNTED` times in all; one that is more frequent than that tells records apart by their length
alone. So a word that stands in every one of 100,000 records takes 15 ms, not 200.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotate.embedded.index import DatasetIndex
from annotate.embedded.text_query import Both, Node, Not, Words

COUNTED = 20_000
SATURATION, LENGTH_WEIGHT = 1.2, 0.75  # BM25's k1 and b, as in Elasticsearch
FUZZY_EXPANSIONS = 10  # as Argilla asks of Elasticsearch

Mask = NDArray[np.bool_]
Scores = NDArray[np.float32]


class Matches(NamedTuple):
    """By record number: whether it matches, and how well; no scores where all is negated."""

    mask: Mask
    scores: Scores | None


class TextSearch:
    """Searches the texts of one index, in all fields or in one column.

    Args:
        size: one more than the largest record number.
    """

    def __init__(self, index: DatasetIndex, size: int, column: str | None = None) -> None:
        self._index = index
        self._size = size
        self._column = column

    def find(self, node: Node) -> Matches:
        """What matches a query; a negation matches numbers of no record too."""
        if isinstance(node, Words):
            return self._words(node)
        if isinstance(node, Not):
            return Matches(~self.find(node.inner).mask, None)
        left, right = self.find(node.left), self.find(node.right)
        joined = np.logical_and if isinstance(node, Both) else np.logical_or
        if left.scores is None or right.scores is None:
            scores = left.scores if right.scores is None else right.scores
        else:
            scores = left.scores + right.scores
        return Matches(joined(left.mask, right.mask), scores)

    def _words(self, words: Words) -> Matches:
        counts: Any = 1
        if words.edits:
            found = self._matching(" OR ".join(f'"{word}"' for word in self._similar(words)))
        elif words.slop and len(parts := words.split()) > 1:
            group = " ".join(f'"{part}"' for part in parts)
            found = self._matching(f"NEAR({group}, {words.slop + len(parts) - 2})")
        elif (occurrences := self._occurrences(words)) is not None:
            found, counts = np.unique(occurrences, return_counts=True)
        else:
            found = self._matching(f'"{words.text}"' + ("*" if words.prefix else ""))
        mask = np.zeros(self._size, dtype=bool)
        mask[found] = True
        return Matches(mask, self._scores(found, counts))

    def _matching(self, expression: str) -> NDArray[np.int64]:
        """Numbers of the records that match an FTS5 expression."""
        if not expression:
            return np.zeros(0, np.int64)
        if self._column:
            expression = f"{self._column} : ({expression})"
        sql = "SELECT rowid AS n FROM text WHERE text MATCH ?"
        (found,) = self._index.arrays(sql, [expression], n=np.int64)
        return np.asarray(found)

    def _occurrences(self, words: Words) -> NDArray[np.int64] | None:
        """For each occurrence of a plain, not too frequent word its record's number; else None."""
        if words.prefix or not words.text.isascii() or not words.text.replace("_", "a").isalnum():
            return None
        where, parameters = "term = ?", [words.text.lower()]
        if self._column:
            where, parameters = "term = ? AND col = ?", [*parameters, self._column]
        sql = f"SELECT doc AS n FROM word WHERE {where} LIMIT {COUNTED + 1}"
        (found,) = self._index.arrays(sql, parameters, n=np.int64)
        return found if len(found) <= COUNTED else None

    def _scores(self, found: NDArray[np.int64], counts: Any) -> Scores:
        scores = np.zeros(self._size, np.float32)
        if not len(found):
            return scores
        lengths = self._index.columns.record("length", np.int32).get(self._size)
        records = max(int(np.count_nonzero(lengths)), len(found))
        mean = max(float(lengths.sum(dtype=np.int64)) / records, 1.0)
        rarity = np.log1p((records - len(found) + 0.5) / (len(found) + 0.5))
        relative = lengths[found] / mean
        against = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative)
        scores[found] = rarity * (SATURATION + 1) * counts / (counts + against)
        return scores

    def _similar(self, words: Words) -> list[str]:
        """The words of the texts nearest to a word, at most `FUZZY_EXPANSIONS`, as in Lucene."""
        wanted = words.text.lower()
        terms = [
            term for term in self._index.vocabulary() if abs(len(term) - len(wanted)) <= words.edits
        ]
        near = [
            (distance / min(len(term), len(wanted)), term)
            for term, distance in zip(terms, edit_distances(wanted, terms), strict=True)
            if distance <= words.edits
        ]
        return [term for _, term in sorted(near)[:FUZZY_EXPANSIONS]]


def edit_distances(word: str, terms: list[str]) -> list[int]:
    """Levenshtein distances of a word to others, all at once."""
    if not terms:
        return []
    longest = max(map(len, terms))
    signs = np.zeros((longest, len(terms)), np.int32)
    for at, term in enumerate(terms):
        signs[: len(term), at] = [ord(sign) for sign in term]
    row = np.repeat(np.arange(longest + 1, dtype=np.int16)[:, None], len(terms), axis=1)
    for place, sign in enumerate(word, start=1):
        above, row = row, np.empty_like(row)
        row[0] = place
        differs = signs != ord(sign)
        for at in range(longest):
            row[at + 1] = np.minimum(
                np.minimum(above[at + 1], row[at]) + 1, above[at] + differs[at]
            )
    lengths = [len(term) for term in terms]
    return [int(distance) for distance in row[lengths, range(len(terms))]]
