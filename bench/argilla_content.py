"""What the benchmark of Argilla writes and searches: records whose every property is arithmetic.

Record number n of a data set has the same content wherever it is made, and how many records a
search must find follows from n alone, so that answers can be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotate.server_types import Answer, Record, Suggestion

DIMENSIONS = 128
PEOPLE = ("bench-anna", "bench-ben")
OVERLAP = 2
SOURCES = ("web", "book", "chat", "forum")
LABELS = ("a", "b", "c")
RATINGS = (1, 2, 3, 4, 5)
CHUNK = 1000

_PROMPT_WORDS, _RESPONSE_WORDS = 25, 60
_VOCABULARY = 20_000


@dataclass(frozen=True)
class Word:
    """A word that is in every `every`-th record, for a search of known outcome."""

    name: str
    text: str
    every: int

    def is_in(self, number: int) -> bool:
        """Whether the record of this number says it."""
        return number % self.every == 0


def words(n: int) -> list[Word]:
    """From a handful of records to all of them."""
    return [
        Word("text_rare", "quokka", max(1, n // 5)),
        Word("text_middle", "harvest", 100),
        Word("text_frequent", "river", 5),
        Word("text_every", "please", 1),
    ]


def answerers(number: int) -> list[str]:
    """Who has submitted an answer in the seeded data: anna to a tenth, ben to half of that too."""
    return [name for name, every in zip(PEOPLE, (10, 20), strict=True) if number % every == 0]


def is_pending(number: int) -> bool:
    """Whether the record waits for anna: not answered by her, and not complete."""
    return PEOPLE[0] not in answerers(number)


def metadata(number: int) -> dict[str, Any]:
    """A term, an integer below 1,000 and a float below 1."""
    return {
        "source": SOURCES[number % len(SOURCES)],
        "length": number * 7919 % 1000,
        "score": number * 104_729 % 10_007 / 10_007,
    }


def vectors(chunk: int) -> np.ndarray:
    """Unit vectors of a chunk's records, rounded to six digits: (CHUNK, DIMENSIONS) float64."""
    drawn = np.random.default_rng([1, chunk]).normal(size=(CHUNK, DIMENSIONS))
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit.round(6)


def fields(chunk: int, n: int) -> Iterator[dict[str, str]]:
    """Texts of a chunk's records in a data set of `n`; words as frequent as in a language."""
    rng = np.random.default_rng([2, chunk])
    size = (CHUNK, _PROMPT_WORDS + _RESPONSE_WORDS)
    drawn = np.minimum(rng.zipf(1.2, size), _VOCABULARY)
    planted = words(n)
    for row, number in zip(drawn.tolist(), range(chunk * CHUNK, (chunk + 1) * CHUNK), strict=True):
        said = [f"w{word}" for word in row]
        said[_PROMPT_WORDS:_PROMPT_WORDS] = [w.text for w in planted if w.is_in(number)]
        yield {
            "prompt": " ".join(said[:_PROMPT_WORDS]),
            "response": " ".join(said[_PROMPT_WORDS:]),
        }


def suggestions(number: int) -> dict[str, Suggestion]:
    """What a model proposes."""
    return {
        "label": Suggestion(LABELS[number % 3], number % 101 / 100, "model-1"),
        "rating": Suggestion(RATINGS[number % 5], 0.5, "model-1"),
    }


def values(number: int) -> dict[str, Any]:
    """An answer, as Argilla takes it."""
    return {
        "label": {"value": LABELS[number * 7 % 3]},
        "rating": {"value": RATINGS[number * 3 % 5]},
        "comment": {"value": f"about record {number}"},
    }


def item_id(number: int) -> str:
    """The record's id outside of Argilla."""
    return f"i-{number:08}"


def records(n: int) -> list[Record]:
    """Records 0 to n - 1 with everything, each answered by both people."""
    made: list[Record] = []
    for chunk in range(-(-n // CHUNK)):
        numbers = range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK))
        for number, said, vector in zip(numbers, fields(chunk, n), vectors(chunk), strict=False):
            made.append(
                Record(
                    item_id(number),
                    said,
                    metadata(number),
                    suggestions(number),
                    {"embedding": vector.tolist()},
                    [Answer(name, values(number)) for name in PEOPLE],
                )
            )
    return made
