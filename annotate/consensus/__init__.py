"""What the annotators together hold: of labels, of pairs, of prompts with several responses."""

from __future__ import annotations

from typing import Literal, get_args

from annotate.consensus.dawid_skene import dawid_skene, pair_posterior
from annotate.consensus.majority import majority, pair_posterior_of_votes, vote_counts
from annotate.consensus.result import Consensus
from annotate.errors import InputError
from annotate.labels import Labels

Method = Literal["auto", "dawid-skene", "bradley-terry", "majority"]
METHODS: tuple[Method, ...] = get_args(Method)

__all__ = [
    "METHODS",
    "Consensus",
    "Method",
    "aggregate",
    "dawid_skene",
    "majority",
    "pair_posterior",
    "pair_posterior_of_votes",
    "vote_counts",
]


def aggregate(labels: Labels, method: Method, *, symmetric: bool = False) -> Consensus:
    """Majority or Dawid–Skene, by name; "auto" is Dawid–Skene.

    Raises:
        InputError: Bradley–Terry, which labels without prompts and outputs cannot have.
    """
    if method == "bradley-terry":
        raise InputError(
            "bradley-terry compares outputs of a prompt, and these are labels of single things",
            where="--method",
            remedy="Use auto, dawid-skene or majority; judge a run for bradley-terry",
        )
    return majority(labels) if method == "majority" else dawid_skene(labels, symmetric=symmetric)
