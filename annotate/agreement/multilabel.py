"""Agreement on sets of labels: each label by itself, and sets by how far they overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from annotate.agreement.alpha import alpha_by_distance, krippendorff_alpha
from annotate.agreement.figure import Figure
from annotate.agreement.reasons import undefined_figure
from annotate.annotations import MultiLabels
from annotate.labels import Labels
from annotate.statistics import RESAMPLES, Reals

# Distances of so many distinct sets take 200 MB; people use far fewer.
_MAX_SETS = 5000


def label_alphas(
    data: MultiLabels, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Nominal alpha of each label: given or not given."""
    columns = sp.csc_array(data.member)
    return {
        name: _named(
            name, krippendorff_alpha(_given(data, columns, at), seed=seed, resamples=resamples)
        )
        for at, name in enumerate(data.classes)
    }


def jaccard_alpha(data: MultiLabels, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Alpha on sets, two of them 1 − |both| / |either| apart; two empty sets are equal."""
    definition = "Alpha of sets of labels; distance 1 - |both| / |either| (Jaccard)"
    return _of_sets(data, definition, masi=False, seed=seed, resamples=resamples)


def masi_alpha(data: MultiLabels, *, seed: int = 0, resamples: int = RESAMPLES) -> Figure:
    """Alpha on sets with Passonneau's distance, gentler where one set holds the other."""
    definition = (
        "Alpha of sets of labels; distance 1 - |both| / |either| × m, m = 1 for equal sets, 2/3 "
        "where one holds the other, 1/3 where they overlap (MASI, Passonneau 2006)"
    )
    return _of_sets(data, definition, masi=True, seed=seed, resamples=resamples)


def _of_sets(
    data: MultiLabels, definition: str, *, masi: bool, seed: int, resamples: int
) -> Figure:
    labels, sets = as_labels(data)
    if sets.shape[0] > _MAX_SETS:
        reason = f"{sets.shape[0]:,} different sets: too many to compare each with each"
        return undefined_figure(data, reason, definition)
    distance = set_distances(sets, masi=masi)
    return alpha_by_distance(labels, distance, definition, seed=seed, resamples=resamples)


def as_labels(data: MultiLabels) -> tuple[Labels, sp.csr_array]:
    """Each distinct set as a class, and what it holds, shape (sets, classes)."""
    member = data.member.astype(np.int64)
    member.eliminate_zeros()
    # Equal sets have the same sum of random numbers, one a class, modulo 2^64.
    numbers = np.random.default_rng(0).integers(0, 2**63, size=len(data.classes), dtype=np.int64)
    signature = np.asarray(member @ numbers).reshape(-1) if len(data) else np.zeros(0, np.int64)
    _, first, code = np.unique(signature, return_index=True, return_inverse=True)
    sets = sp.csr_array(member[first])
    names = [
        ", ".join(data.classes[at] for at in sorted(sets.indices[start:end]))
        for start, end in zip(sets.indptr[:-1], sets.indptr[1:], strict=True)
    ]
    labels = Labels(
        data.item, data.annotator, code, data.items, data.annotators, names,
        prompt=data.prompt, time=data.time, guideline=data.guideline, guidelines=data.guidelines,
    )  # fmt: skip
    return labels, sets


def set_distances(sets: sp.csr_array, *, masi: bool) -> Reals:
    """Jaccard's or Passonneau's distance of every two sets, shape (sets, sets)."""
    both = np.asarray((sets @ sets.T).toarray(), dtype=np.float64)
    size = np.asarray(sets.sum(axis=1), dtype=np.float64)
    either = size[:, None] + size[None, :] - both
    alike = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    if masi:
        inside = both == np.minimum(size[:, None], size[None, :])
        equal = inside & (size[:, None] == size[None, :])
        alike *= np.select([equal, inside, both > 0], [1.0, 2 / 3, 1 / 3], 0.0)
    return np.asarray(1 - alike, dtype=np.float64)


def _given(data: MultiLabels, columns: sp.csc_array, at: int) -> Labels:
    given = np.zeros(len(data), dtype=np.int64)
    rows = slice(columns.indptr[at], columns.indptr[at + 1])
    given[columns.indices[rows][columns.data[rows] != 0]] = 1
    return Labels(
        data.item, data.annotator, given, data.items, data.annotators, ["no", "yes"],
        prompt=data.prompt, time=data.time, guideline=data.guideline, guidelines=data.guidelines,
    )  # fmt: skip


def _named(label: str, figure: Figure) -> Figure:
    return replace(figure, definition=f'Label "{label}", given or not. {figure.definition}')
