"""Votes on pairs as comparisons of the options of prompts: what Bradley–Terry is fitted on.

A prompt with the options o-1, o-2, o-3 has the pairs (o-1, o-2), (o-1, o-3), (o-2, o-3). Prompts
with equally many options are computed together, as one block of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.annotations import Codes
from annotate.consensus.result import Reals
from annotate.labels import Column, Labels


@dataclass(frozen=True)
class Block:
    """Prompts with equally many options."""

    prompts: Codes
    """Their codes, shape (prompts,)."""
    size: int
    """How many options each has."""
    pairs: Codes
    """The pairs they hold, shape (pairs,)."""
    row: Codes
    """Each pair's place in `prompts`, shape (pairs,)."""
    slot_a: Codes
    """The place of each pair's a among its prompt's options, shape (pairs,)."""
    slot_b: Codes


@dataclass(frozen=True)
class Comparisons:
    """Votes on pairs, and which options of which prompt a pair compares."""

    votes: Labels
    """An item is a pair; the classes are b, tie, a."""
    prompt: Codes
    """Of each pair, shape (pairs,)."""
    option_a: Codes
    """Of each pair; an option belongs to one prompt, shape (pairs,)."""
    option_b: Codes

    @cached_property
    def options_of_prompt(self) -> Codes:
        """How many compared options each prompt has, shape (prompts,)."""
        return np.bincount(self._option_prompt, minlength=int(self.prompt.max(initial=-1)) + 1)

    @cached_property
    def sign(self) -> Reals:
        """1 a vote for a, 0 a tie, -1 for b, shape (votes,)."""
        return self.votes.label.astype(np.float64) - 1

    @cached_property
    def _option_prompt(self) -> Codes:
        """The prompt of each option, shape (options,)."""
        both = np.concatenate([self.option_a, self.option_b])
        of_option = np.zeros(int(both.max(initial=-1)) + 1, dtype=np.int64)
        of_option[both] = np.tile(self.prompt, 2)
        return of_option

    @cached_property
    def blocks(self) -> list[Block]:
        """The prompts by their number of options, fewest first."""
        by_prompt = np.argsort(self._option_prompt, kind="stable")
        start = np.concatenate([[0], np.cumsum(self.options_of_prompt)])
        slot = np.empty(len(by_prompt), dtype=np.int64)
        slot[by_prompt] = np.arange(len(by_prompt)) - start[self._option_prompt[by_prompt]]
        sizes = self.options_of_prompt
        row = np.zeros(len(sizes), dtype=np.int64)
        found = []
        for size in np.unique(sizes[sizes > 0]):
            prompts = np.flatnonzero(sizes == size)
            row[prompts] = np.arange(len(prompts))
            pairs = np.flatnonzero(sizes[self.prompt] == size)
            a, b = slot[self.option_a[pairs]], slot[self.option_b[pairs]]
            found.append(Block(prompts, int(size), pairs, row[self.prompt[pairs]], a, b))
        return found

    def of_pairs(self, wanted: NDArray[np.bool_]) -> Comparisons:
        """Those pairs only, with their votes; codes of options and prompts stay."""
        votes = self.votes.select(wanted[self.votes.item])
        names = [self.votes.items[at] for at in np.flatnonzero(wanted)]
        place = np.cumsum(wanted) - 1
        votes = replace(votes, item=place[votes.item], items=names, prompt=None)
        return Comparisons(votes, self.prompt[wanted], self.option_a[wanted], self.option_b[wanted])

    def of_votes(self, wanted: NDArray[np.bool_]) -> Comparisons:
        """The same pairs with those votes only."""
        return replace(self, votes=self.votes.select(wanted))


def comparisons(votes: Labels, prompt: Column, output_a: Column, output_b: Column) -> Comparisons:
    """Comparisons from votes and what each of their pairs compares, one entry an item of `votes`.

    Raises:
        ValueError: a pair compares an output with itself, or there are not three classes.
    """
    if len(votes.classes) != 3:
        raise ValueError(f"votes on pairs have the classes b, tie, a, not {votes.classes}")
    of_prompt = _codes(prompt)
    n = len(of_prompt)
    outputs = _codes(pa.concat_arrays([_array(output_a), _array(output_b)]))
    # The same output under two prompts is two options.
    keys = np.tile(of_prompt, 2) * (int(outputs.max(initial=0)) + 1) + outputs
    option = np.unique(keys, return_inverse=True)[1].reshape(-1)
    if (option[:n] == option[n:]).any():
        raise ValueError("a pair compares an output with itself")
    return Comparisons(votes, of_prompt, option[:n], option[n:])


def _array(column: Column) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks().cast(pa.string())
    return pa.array(column, pa.string())


def _codes(column: Column) -> Codes:
    encoded = _array(column).dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
