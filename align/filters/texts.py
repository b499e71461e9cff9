"""Filters on the two responses as texts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from align.filters.rule import ROUNDING, Rule, masked, numbers, values


class Identical(Rule):
    """Drop a pair of identical responses (but for surrounding white space)."""

    rule: Literal["identical"] = "identical"

    @property
    def threshold(self) -> str:
        """Fixed: the texts must differ."""
        return "two different texts"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """A fixed word: the texts themselves stand in `outputs`."""
        a, b = (pc.utf8_trim_whitespace(evidence[f"completion_{side}"]) for side in "ab")
        same = np.asarray(pc.fill_null(pc.equal(a, b), False))
        return masked(same, pa.array(np.full(evidence.num_rows, "identical"), pa.string()))


class NearIdentical(Rule):
    """Drop a pair of nearly identical responses: what they differ in is hardly what was judged.

    Similarity is 1 - edits / length of the longer text (Levenshtein 1966, in characters), without
    regard to case and white space. Only what could reach the limit is computed to the end: a
    microsecond a pair of short texts, some ten for pages.
    """

    rule: Literal["near_identical"] = "near_identical"
    at_most: float = Field(0.9, ge=0, lt=1)
    """Similarity, from 0 to 1."""

    @property
    def threshold(self) -> str:
        """As in "at most 0.9 alike"."""
        return f"at most {self.at_most:g} alike"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The similarity."""
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cpdist

        a, b = (_plain(evidence[f"completion_{side}"]) for side in "ab")
        lengths = [np.asarray(pc.utf8_length(text), dtype=np.float64) for text in (a, b)]
        # As many edits as the lengths differ by are needed in any case.
        possible = np.minimum(*lengths) >= self.at_most * np.maximum(*lengths)
        alike = np.zeros(evidence.num_rows)
        alike[possible] = cpdist(
            *(text.filter(pa.array(possible)).to_pylist() for text in (a, b)),
            scorer=Levenshtein.normalized_similarity,
            score_cutoff=self.at_most,
            dtype=np.float64,
        )
        return values(alike > self.at_most + 1e-9, alike, "{:.3g}")


class LengthRatio(Rule):
    """Drop a pair of which one response is much longer than the other.

    People lean to the longer one whatever it says, and so will the model.
    """

    rule: Literal["length_ratio"] = "length_ratio"
    at_most: float = Field(3.0, ge=1)
    """Characters of the longer response over those of the shorter."""
    only: Literal["always", "longer wins"] = "always"
    """Whether a shorter winner is beyond suspicion."""

    @property
    def threshold(self) -> str:
        """As in "at most 3 times as long"."""
        who = "one" if self.only == "always" else "the winner"
        return f"{who} at most {self.at_most:g} times as long as the other"

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """The ratio; "inf" where one response is empty."""
        lengths = [
            np.asarray(pc.fill_null(pc.utf8_length(evidence[f"completion_{side}"]), 0), np.float64)
            for side in "ab"
        ]
        longer, shorter = np.maximum(*lengths), np.minimum(*lengths)
        none = np.where(longer > 0, np.inf, 1.0)
        times = np.divide(longer, shorter, out=none, where=shorter > 0)
        broken = times > self.at_most + ROUNDING
        if self.only == "longer wins":
            longer_is = np.sign(lengths[0] - lengths[1])
            broken &= longer_is == numbers(evidence, "winner", 0.0)
        return values(broken, times, "{:.3g}")


def _plain(texts: Any) -> Any:
    """The texts in lower case, white space as one blank; nothing for null."""
    lower = pc.utf8_lower(pc.fill_null(texts, ""))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"\s+", " "))
