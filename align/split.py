"""Which prompts may be trained on, and which are held out.

A prompt's side is decided by what it says, never by its id or by chance: the same conversation is
on the same side in every round, under whatever id and whoever imports it. In this order:

1. A prompt that is "eval" anywhere in the lineage is held out.
2. A prompt in an earlier training set, demonstrations included, stays there.
3. Else a hash of the conversation decides; `held_out` is the share held out.

Prompts of split "eval" measure win rates; those that 3. holds out measure whether a trained model
prefers what people prefer. Neither is ever trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from annotate.errors import InputError
from annotate.runs import Run

TRAIN, EVAL = "train", "eval"


def fingerprints(messages: pa.ChunkedArray) -> pa.Array:
    """What each conversation says as 32 hex digits, ignoring case and surrounding white space.

    Args:
        messages: a column of lists of messages, shape (n,).

    Returns:
        Text, shape (n,).
    """
    column = messages.combine_chunks()
    turns = column.flatten()
    content = pc.utf8_lower(pc.utf8_trim_whitespace(pc.struct_field(turns, "content")))
    said = pc.binary_join_element_wise(pc.struct_field(turns, "role"), content, "\x1f")
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    ends = pc.cast(pc.cumulative_sum(lengths), pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    whole = pc.binary_join(pa.ListArray.from_arrays(offsets, said), "\x1e").dictionary_encode()
    digests = [hashlib.sha256(text.encode()) for text in whole.dictionary.to_pylist()]
    names = pa.array([digest.hexdigest()[:32] for digest in digests], pa.string())
    return names.take(whole.indices)


@dataclass(frozen=True)
class Sides:
    """Sides already taken in a lineage, as fingerprints."""

    held_out: frozenset[str]
    """Of the prompts that measure win rates."""
    trained: frozenset[str]
    """Of the prompts in training sets."""

    def __or__(self, other: Sides) -> Sides:
        """Both lineages together."""
        return Sides(self.held_out | other.held_out, self.trained | other.trained)


def sides_taken(run: Run) -> Sides:
    """The sides taken by `run` and every run it was made from."""
    held_out: set[str] = set()
    trained: set[str] = set()
    for one in (run, *run.ancestors()):
        if one.has("prompts"):
            table = one.read("prompts", ["messages", "split"])
            held_out |= _on_side(table["messages"], table["split"], EVAL)
        for name in ("sft", "preference", "kto"):
            if one.has(name):
                table = one.read(name, ["prompt", "split"])
                trained |= _on_side(table["prompt"], table["split"], TRAIN)
    return Sides(frozenset(held_out), frozenset(trained))


def sides(prompts: pa.Table, taken: Sides, held_out: float) -> pa.Array:
    """The side of each row of `prompts`: "train" or "eval".

    Args:
        prompts: the table of that name.
        taken: by the lineage.
        held_out: share of the prompts of split "train" to hold out all the same, 0 to 1.
    """
    found = fingerprints(prompts["messages"])
    own = _on_side(prompts["messages"], prompts["split"], EVAL)
    evaluated = own | taken.held_out
    return pa.array(
        [
            EVAL
            if name in evaluated or (name not in taken.trained and _drawn(name, held_out))
            else TRAIN
            for name in found.to_pylist()
        ],
        pa.string(),
    )


def require_disjoint(trained: pa.ChunkedArray, taken: Sides, where: str) -> None:
    """Stop before anything is trained on that measures.

    Args:
        trained: conversations to train on, a column of lists of messages.
        taken: by the lineage.
        where: what to name in the error.

    Raises:
        InputError: a conversation is on both sides.
    """
    both = set(fingerprints(trained).to_pylist()) & taken.held_out
    if both:
        raise InputError(
            f"{len(both)} prompts to train on are held out for evaluation",
            where=where,
            remedy="Build the sets again, or evaluate on other prompts",
        )


def _drawn(fingerprint: str, held_out: float) -> bool:
    """Whether the hash holds it out: a larger share holds out the same prompts and more."""
    return int(fingerprint[:16], 16) < held_out * 2**64


def _on_side(messages: pa.ChunkedArray, split: pa.ChunkedArray, side: str) -> set[str]:
    return set(fingerprints(messages.filter(pc.equal(split, side))).to_pylist())
