"""Settings tried on votes: train on what a setting keeps, score on votes that it never saw.

Prompts are dealt into folds, anew for every seed. Settings see the votes on all folds but one, and
are scored on that one's pairs by the majority of all votes there: no vote is on both sides. Where
gold is given, that is the truth, and settings may see every vote. Two comparisons:

- "votes": every setting buys the same number of votes, as many as one vote on every pair costs;
- "pairs": every setting sees all pairs, and trains on the same number of those that it keeps.

Cost: settings × seeds × folds × 2 fits of hundredths of a second each; equal sets are fitted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from align.filters import Evidence
from align.tune.grid import BASE, Filters, Method, Overlap, Setting, needed
from align.tune.reward_model import fit
from align.tune.voted import Voted
from annotate.errors import InputError
from annotate.judgements import judge_votes

Reals = NDArray[np.float64]
Codes = NDArray[np.int64]
Flagged = NDArray[np.bool_]

FOLDS = 4
TRUTH_VOTES = 2
"""Votes on a held-out pair that can be its truth, if most agree."""
FEWEST_TRUTHS = 30
FEWEST_POOL = 60
"""Pairs with as many votes as the largest overlap, for that overlap to be tried."""
FEWEST_KEPT = 15
"""Pairs kept, below which a setting is not scored."""
COMPARISONS = ("votes", "pairs")


@dataclass(frozen=True)
class Truth:
    """Pairs whose better output is known by votes that are held out, or by gold."""

    differences: Reals
    """Features, shape (truths, d)."""
    label: Reals
    """1 where the first is the better one, -1 where the second is, shape (truths,)."""
    cluster: Codes
    """Code of each pair's prompt, shape (truths,)."""
    row: Codes | None
    """The voted pair that it is, shape (truths,); None for gold, which nobody voted on."""


@dataclass(frozen=True)
class Trials:
    """The outcome of every setting on every held-out pair."""

    settings: list[Setting]
    seeds: int
    pool: int
    """Pairs with as many votes as the largest overlap: those that all settings may buy."""
    most: int
    """That largest overlap, in votes."""
    truth: Truth
    """The pairs that settings are scored on."""
    right: dict[str, Reals]
    """By comparison: 1 right, 0 wrong, half where no side was preferred; NaN where a setting kept
    too few pairs; shape (settings, seeds, truths)."""
    kept: dict[str, Reals]
    """By comparison: pairs trained on, shape (settings, seeds, folds)."""
    votes: Codes
    """Bought in each fold of the comparison "votes", shape (seeds, folds)."""
    dropped: Reals
    """Share of all judged pairs that a setting drops, shape (settings,)."""


@dataclass(frozen=True)
class _Deal:
    """One seed and fold."""

    order: Codes
    """Training pairs of the pool, in the order in which they are bought."""
    test: Codes
    """Places in `truth` of the held-out pairs."""
    rank: Codes
    """Place of each vote among those on its pair, shape (votes,)."""


def run_trials(data: Voted, settings: Sequence[Setting], *, seeds: int, seed: int = 0) -> Trials:
    """Try every setting.

    Args:
        settings: as `Grid.settings(most_votes(data))` gives them.
        seeds: how often prompts are dealt and votes put in order.
        seed: of all of it.

    Raises:
        InputError: there are too few pairs or truths.
    """
    most = max(needed(setting.overlap) for setting in settings)
    pool = np.flatnonzero(data.given >= most)
    truth = truth_of(data)
    _require_enough(data, pool, truth)
    folds = FOLDS if truth.row is not None else 1
    shape = (len(settings), seeds, len(truth.label))
    right = {name: np.full(shape, np.nan) for name in COMPARISONS}
    kept = {name: np.zeros((len(settings), seeds, folds)) for name in COMPARISONS}
    spent = np.zeros((seeds, folds), dtype=np.int64)
    share = np.zeros((len(settings), seeds, folds))
    with threadpool_limits(1, user_api="blas"):
        for number in range(seeds):
            for fold, deal in enumerate(_deals(data, pool, truth, number, seed)):
                spent[number, fold] = len(deal.order)
                bought = _judged(data, settings, deal, budget=len(deal.order))
                everything = _judged(data, settings, deal, budget=None)
                share[:, number, fold] = [1 - len(s.rows) / max(1, s.judged) for s in everything]
                sets = {"votes": bought, "pairs": _equally_many(everything)}
                for name, trained in sets.items():
                    kept[name][:, number, fold] = [len(one.rows) for one in trained]
                    right[name][:, number, deal.test] = _scores(data, trained, truth, deal.test)
    return Trials(
        list(settings), seeds, len(pool), most, truth, right, kept, spent, share.mean(axis=(1, 2))
    )


def most_votes(data: Voted) -> int:
    """The largest overlap that can be tried: votes that at least half of the pairs have."""
    given = np.sort(data.given)
    return int(given[len(given) // 2])


def truth_of(data: Voted) -> Truth:
    """Gold where there is any; else the pairs whose votes have a majority."""
    if data.known is not None:
        n = len(data.known.label)
        return Truth(data.known.differences, data.known.label, np.arange(n), None)
    counts = data.counts
    lead = counts[:, 0] - counts[:, 1]
    row = np.flatnonzero((data.given >= TRUTH_VOTES) & (lead != 0))
    return Truth(data.differences[row], np.sign(lead[row]), data.prompt[row], row)


def _require_enough(data: Voted, pool: Codes, truth: Truth) -> None:
    truths = len(truth.label)
    if not truths:
        raise InputError(
            "no pair has extra votes: a held-out pair's truth needs two votes or more that agree",
            where=data.origin,
            remedy=f"Let a second person vote on at least {2 * FEWEST_TRUTHS} pairs (there are "
            f"{data.pairs:,}), or name known pairs with --gold",
        )
    if truths < FEWEST_TRUTHS:
        kind = "pairs have extra votes that agree" if truth.row is not None else "gold pairs"
        raise InputError(
            f"only {truths} {kind}, fewer than the {FEWEST_TRUTHS} that settings can be told "
            "apart by",
            where=data.origin,
            remedy="Let a second person vote on more pairs, or name more known pairs with --gold",
        )
    if len(pool) < FEWEST_POOL:
        raise InputError(
            f"{len(pool)} pairs are too few to try settings on; {FEWEST_POOL} are the least",
            where=data.origin,
            remedy="Collect more votes",
        )


def _deals(data: Voted, pool: Codes, truth: Truth, number: int, seed: int) -> Iterator[_Deal]:
    """The folds of one seed; with gold there is one, and everything else is trained on."""
    rng = np.random.default_rng([seed, number, 29])
    fold = rng.permutation(np.arange(int(data.prompt.max()) + 1) % FOLDS)[data.prompt]
    by_pair = np.lexsort((rng.random(len(data.pair)), data.pair))
    first = np.searchsorted(data.pair[by_pair], np.arange(data.pairs))
    rank = np.empty(len(by_pair), dtype=np.int64)
    rank[by_pair] = np.arange(len(by_pair)) - first[data.pair[by_pair]]
    shuffled = rng.permutation(pool)
    if truth.row is None:
        yield _Deal(shuffled, np.arange(len(truth.label)), rank)
        return
    for one in range(FOLDS):
        test = np.flatnonzero(fold[truth.row] == one)
        deal = _Deal(shuffled[fold[shuffled] != one], test, rank)
        if np.isin(data.prompt[deal.order], truth.cluster[deal.test]).any():
            raise RuntimeError("a prompt is on both sides: its votes would be their own truth")
        yield deal


@dataclass(frozen=True)
class _Set:
    """What one setting would train on."""

    rows: Codes
    """Of the pairs kept, in the order bought."""
    label: NDArray[np.int8]
    judged: int


def _judged(
    data: Voted, settings: Sequence[Setting], deal: _Deal, budget: int | None
) -> list[_Set]:
    """Each setting's pairs of a budget, or of all votes."""
    found: dict[Setting, _Set] = {}
    groups: dict[tuple[Overlap, Method], list[Setting]] = {}
    for setting in settings:
        groups.setdefault((setting.overlap, setting.method), []).append(setting)
    for (overlap, method), group in groups.items():
        votes = data.votes.filter(pa.array(_used(data, deal, overlap, budget)))
        judged = judge_votes(votes, method).judgements
        table = Evidence(judged, data.outputs, votes=votes).rows()
        row = pc.index_in(judged["pair_id"], value_set=data.pair_ids).to_numpy()
        place = np.empty(data.pairs, dtype=np.int64)
        place[deal.order] = np.arange(len(deal.order))
        winner = np.asarray(table["winner"], dtype=np.int8)
        base = _passes(table, BASE)
        for setting in group:
            keep = np.flatnonzero(base & _passes(table, setting.filters))
            keep = keep[np.argsort(place[row[keep]])]
            found[setting] = _Set(row[keep].astype(np.int64), winner[keep], len(row))
    return [found[setting] for setting in settings]


def _used(data: Voted, deal: _Deal, overlap: Overlap, budget: int | None) -> Flagged:
    """The votes that an overlap buys within a budget, shape (votes,)."""
    first = 2 if overlap == "2+1" else int(overlap)
    used = deal.rank < first
    if overlap == "2+1":
        signs = np.zeros((data.pairs, 2), dtype=np.int8)
        signs[data.pair[used], deal.rank[used]] = data.sign[used]
        used |= (deal.rank == 2) & (signs[:, 0] != signs[:, 1])[data.pair]
    cost = np.bincount(data.pair[used], minlength=data.pairs)[deal.order]
    reached = deal.order if budget is None else deal.order[np.cumsum(cost) <= budget]
    wanted = np.zeros(data.pairs, dtype=bool)
    wanted[reached] = True
    return np.asarray(used & wanted[data.pair], dtype=bool)


def _passes(table: pa.Table, filters: Filters) -> Flagged:
    keep = np.ones(table.num_rows, dtype=bool)
    for rule in filters:
        keep &= np.asarray(pc.is_null(rule(table)))
    return keep


def _equally_many(sets: Sequence[_Set]) -> list[_Set]:
    """As many pairs of each as the strictest setting keeps, those that keep too few aside."""
    enough = [len(one.rows) for one in sets if len(one.rows) >= max(FEWEST_KEPT, one.judged // 5)]
    n = min(enough, default=0)
    return [
        _Set(one.rows[:n], one.label[:n], one.judged)
        if len(one.rows) >= n
        else _Set(one.rows[:0], one.label[:0], one.judged)
        for one in sets
    ]


def _scores(data: Voted, sets: Sequence[_Set], truth: Truth, test: Codes) -> Reals:
    """Right or wrong on each held-out pair, shape (settings, test)."""
    known: dict[tuple[bytes, bytes], Reals] = {}
    found = np.full((len(sets), len(test)), np.nan)
    for at, one in enumerate(sets):
        if len(one.rows) < FEWEST_KEPT:
            continue
        key = one.rows.tobytes(), one.label.tobytes()
        if key not in known:
            model = fit(data.differences[one.rows], (one.label > 0).astype(np.float64))
            margin = model.margins(truth.differences[test])
            known[key] = (np.sign(margin) * truth.label[test] + 1) / 2
        found[at] = known[key]
    return found
