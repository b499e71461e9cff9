"""The baseline that stands beside agreement: how often the longer text wins; and shares of answers.

Agreement without it flatters: in published sets the rule "the longer one wins" predicts 62 % of
people's choices where people predict 66 % of each other's. Both figures are shares of votes, to be
read against raw agreement with and without ties. With ties, texts of one length are predicted to be
tied; without, tied votes and texts of one length are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from annotate.agreement import Figure
from annotate.agreement.contributions import Contributions
from annotate.agreement.reasons import undefined_figure
from annotate.agreement.resampling import Resampling, measured
from annotate.annotations import Annotations
from annotate.labels import Labels, prompt_of_items
from annotate.statistics import RESAMPLES, Reals
from annotate.votes import labels_of_votes

Marks = NDArray[np.bool_]

NOT_A_COMPARISON = "only answers that compare two outputs have a longer one"
NO_TEXTS = "the texts are not known here"

LONGER_WINS = {
    "longer wins": "Longer wins: the share of votes that 'the longer text wins, equal lengths tie' "
    "predicts, lengths in characters",
    "longer wins, no ties": "Longer wins: the share of votes for the longer text, in characters; "
    "tied votes and texts of one length left out",
}
"""The baseline's figures and what they mean."""
COMPARISONS = ("pairwise", "strength", "ranking")
"""Kinds of questions that have it."""


def no_baseline(answers: Annotations, reason: str) -> dict[str, Figure]:
    """The baseline's figures where they cannot be had, with the reason."""
    return {name: undefined_figure(answers, reason, text) for name, text in LONGER_WINS.items()}


def longer_wins(
    votes: pa.Table, outputs: pa.Table, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """How often the longer text wins, with ties and without.

    Args:
        votes: table "votes". Votes on a text that is not among `outputs` are left out.
        outputs: columns output_id and completion.
        seed: of the intervals.
        resamples: of the intervals.
    """
    longer_by = _length(votes["output_a"], outputs) - _length(votes["output_b"], outputs)
    known = ~np.isnan(longer_by)
    labels = _labels(votes.filter(pa.array(known)))
    if not known.any():
        return no_baseline(labels, NO_TEXTS if votes.num_rows else "no answers")
    said = labels.label - 1  # b, tie, a → -1, 0, 1
    predicted = np.sign(longer_by[known]).astype(np.int64)
    counted = {
        "longer wins": np.ones(len(labels), dtype=bool),
        "longer wins, no ties": (said != 0) & (predicted != 0),
    }
    return {
        name: share_of_answers(
            labels, said == predicted, marks, LONGER_WINS[name], seed=seed, resamples=resamples
        )
        for name, marks in counted.items()
    }


def _labels(votes: pa.Table) -> Labels:
    """The votes as labels of pairs that know their prompt: it is what is resampled."""
    labels = labels_of_votes(votes)
    prompt = prompt_of_items(votes["prompt_id"], labels.item, labels.items)
    return replace(labels, prompt=prompt)


def _length(ids: pa.ChunkedArray, outputs: pa.Table) -> Reals:
    """Each id's length in characters, NaN where its text is not known."""
    lengths = pd.Series(
        pc.utf8_length(outputs["completion"]).to_numpy(), index=outputs["output_id"].to_numpy()
    )
    known = lengths[~lengths.index.duplicated()]
    return np.asarray(known.reindex(ids.to_numpy()).to_numpy(dtype=np.float64))


def share_of_answers(
    labels: Labels,
    hit: Marks,
    counted: Marks,
    definition: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Figure:
    """The share of hits among the answers that count, with both intervals.

    Args:
        labels: n answers.
        hit: which of them are hits, shape (n,).
        counted: which of them count, shape (n,).
        definition: what the share is.
        seed: of the intervals.
        resamples: of the intervals.
    """
    each = np.column_stack([hit & counted, counted]).astype(np.float64)
    items = len(labels.items)
    sums = np.column_stack([np.bincount(labels.item, column, items) for column in each.T])
    shares, share = np.unique(sums, axis=0, return_inverse=True)
    losses, loss = np.unique(each, axis=0, return_inverse=True)
    parts = Contributions(
        shares=sp.csr_array(shares),
        share=np.where(sums[:, 1] > 0, share.ravel(), -1),
        losses=sp.csr_array(losses),
        loss=np.where(counted, loss.ravel(), -1),
        item=labels.item,
        annotator=labels.annotator,
    )
    figure = measured(
        labels, parts, _ratio, definition, Resampling(seed, resamples),
        pairable=int((sums[:, 1] > 0).sum()), otherwise="no answer counts",
    )  # fmt: skip
    others = figure.over_annotators
    # An interval over annotators is symmetric; a share is not below 0.
    low = None if others.low is None else max(0.0, others.low)
    return replace(figure, over_annotators=replace(others, low=low))


def _ratio(sums: Reals) -> Reals:
    some = sums[:, 1] > 0
    none = np.full(len(sums), np.nan)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=none, where=some))
