"""The filter on what an evaluation set holds already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PrivateAttr

from align.filters.evaluation_texts import EvaluationTexts, evaluation_texts, find_evaluation_set
from align.filters.ngrams import Found, NgramIndex
from align.filters.rule import Rule, masked
from annotate.runs import Project, Run


class Contaminated(Rule):
    """Drop a pair whose prompt or response repeats an evaluation set, which it would spoil.

    A text is repeated where it shares too many of an evaluation text's n-grams of words (8-grams
    as PaLM's report counts them; Chowdhery et al. 2022, section 8). An evaluation text of fewer
    than n words is only looked for as a whole prompt.
    """

    rule: Literal["contaminated"] = "contaminated"
    sets: tuple[str, ...] = Field(min_length=1)
    """Files (.jsonl: every text in a row counts; .parquet) and runs (their held-out prompts)."""
    n: int = Field(8, ge=1)
    """Words of an n-gram."""
    at_most: float = Field(0.5, ge=0, lt=1)
    """Share of an evaluation text's n-grams; 0 drops for one in common."""
    only: Literal["prompt", "responses"] | None = None
    """Where to look; None means in all three texts."""

    _places: tuple[Path | Run, ...] = PrivateAttr(default=())
    _texts: EvaluationTexts | None = PrivateAttr(default=None)
    _index: NgramIndex | None = PrivateAttr(default=None)

    @property
    def threshold(self) -> str:
        """As in "at most 50 % of the 8-grams of any text of bench.jsonl"."""
        where = ", ".join(self.sets)
        return f"at most {100 * self.at_most:g} % of the {self.n}-grams of any text of {where}"

    def bound(self, project: Project) -> Self:
        """The same rule, its sets found and read; a run's id is written out in full."""
        places = tuple(find_evaluation_set(project, name) for name in self.sets)
        named = [
            place.id if isinstance(place, Run) else name
            for place, name in zip(places, self.sets, strict=True)
        ]
        rule = self.model_copy(update={"sets": tuple(named)})
        rule._places = places
        return rule

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files outside the project's runs that it reads."""
        return tuple(place for place in self._places if isinstance(place, Path))

    def against(self, texts: EvaluationTexts) -> Self:
        """The same rule, with these texts for its sets."""
        rule = self.model_copy()
        rule._texts = texts
        return rule

    def __call__(self, evidence: pa.Table) -> pa.Array:
        """As in "bench.jsonl:17 (question): 83 % of its 8-grams in the prompt"."""
        texts, index = self._read()
        none = Found(np.full(evidence.num_rows, -1), np.zeros(evidence.num_rows))
        prompt = none if self.only == "responses" else self._in_prompts(evidence, index)
        response = none if self.only == "prompt" else _in_responses(evidence, index)
        of_prompt = prompt.share >= response.share
        row = np.where(of_prompt, prompt.row, response.row)
        share = np.where(of_prompt, prompt.share, response.share)
        hit = row >= 0
        name = pa.array(texts.names, pa.string()).take(pa.array(np.where(hit, row, 0)))
        percent, code = np.unique(np.floor(100 * share + 1e-9), return_inverse=True)
        words = pa.array([f": {whole:.0f} % of its {self.n}-grams in " for whole in percent])
        where = pc.if_else(pa.array(of_prompt), "the prompt", "a response")
        text = pc.binary_join_element_wise(name, words.take(pa.array(code)), where, "")
        return masked(hit, text)

    def _read(self) -> tuple[EvaluationTexts, NgramIndex]:
        if self._texts is None:
            if not self._places:
                raise ValueError("`bound` to a project it can be called, or `against` texts")
            texts = [evaluation_texts(place) for place in self._places]
            self._texts = sum(texts, EvaluationTexts([], []))
        if self._index is None:
            self._index = NgramIndex(self._texts.texts, self.n, self.at_most)
        return self._texts, self._index

    def _in_prompts(self, evidence: pa.Table, index: NgramIndex) -> Found:
        """Pairs of one prompt look it up once."""
        column: Any = evidence["prompt_text"].combine_chunks().dictionary_encode()
        found, same = index.find(column.dictionary), index.same(column.dictionary)
        whole = same >= 0
        row, share = np.where(whole, same, found.row), np.where(whole, 1.0, found.share)
        at = np.asarray(pc.fill_null(column.indices, -1), dtype=np.int64)
        # A prompt that is not known has no row: index -1 takes the one appended.
        return Found(np.append(row, -1)[at], np.append(share, 0.0)[at])


def _in_responses(evidence: pa.Table, index: NgramIndex) -> Found:
    """The response that repeats more; of equal ones that which repeats the earlier text."""
    a, b = (index.find(evidence[f"completion_{side}"]) for side in "ab")
    earlier = (a.share == b.share) & (b.row < a.row)
    b_counts = (b.share > a.share) | earlier
    return Found(np.where(b_counts, b.row, a.row), np.where(b_counts, b.share, a.share))
