"""From what each item contributes to a figure with its two intervals.

- The figure: the statistic of all shares together (see `annotate.agreement.contributions`).
- Other items: the statistic of shares drawn with replacement, whole prompts at a time where items
  belong to prompts (percentile bootstrap, Efron and Tibshirani 1993, chapter 13, at the quantiles
  that make up for few items, Hesterberg 2015, section 5.3).
- Other annotators: the statistic without all answers of one of them, for each in turn (the
  delete-one jackknife, Efron and Stein 1981).

An interval over annotators has the variance V(items) + V(annotators) − V(answers). The first is the
bootstrap's, the second the jackknife's over annotators, the third that of taking away single
answers (an annotator's answers to one prompt, where there are prompts): chance in single answers is
in both of the others and would count twice (Cameron, Gelbach and Miller 2011, for means). It is as
wide as Student's t of Satterthwaite's degrees of freedom, because few annotators say little about
how much people differ.

Equal shares are drawn together, as one multinomial draw over the distinct ones, so that the cost is
resamples × distinct shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy.sparse as sp
from scipy.stats import t as student

from annotate.agreement.contributions import Contributions
from annotate.agreement.figure import OVER_ANNOTATORS, Figure, Interval
from annotate.agreement.reasons import context, over_items, undefined_figure
from annotate.annotations import Annotations, Codes
from annotate.statistics import FEWEST_UNITS, LEVEL, RESAMPLES, Reals

Statistic = Callable[[Reals], Reals]
"""Sums, shape (rows, sums), to values, shape (rows,); NaN where these sums define none."""

BOOTSTRAP = "percentile bootstrap"
JACKKNIFE = "item bootstrap and delete-one-annotator jackknife"
# Cells of one block of sums or of drawn counts: 32 MB, however many there are.
_BLOCK = 4_000_000
# Of answers that differ in what they take away, so many are sampled at most, or as many as have so
# many sums in all.
_ANSWERS, _ANSWER_CELLS = 20_000, 40_000_000
# Beyond so many cells pairs of codes are counted by sorting.
_COUNTABLE = 20_000_000


@dataclass(frozen=True)
class Resampling:
    """How a figure is resampled."""

    seed: int = 0
    resamples: int = RESAMPLES
    confidence: float = LEVEL


def measured(
    data: Annotations,
    parts: Contributions,
    statistic: Statistic,
    definition: str,
    how: Resampling,
    *,
    pairable: int,
    least: float = -math.inf,
    otherwise: str = "undefined for these data",
) -> Figure:
    """The figure of a measure that is never above 1.

    Args:
        data: what was answered; its prompts are the clusters of the bootstrap.
        parts: shares and losses of the items and answers of `data`.
        statistic: the measure, as a function of the sums.
        definition: what it is, with its source.
        how: seed, number of resamples, level of the intervals.
        pairable: how many items the value rests on.
        least: the smallest value that the measure can have.
        otherwise: why there is no value where the statistic is NaN.
    """
    total = parts.total
    value = float(statistic(total[None, :])[0])
    if math.isnan(value):
        return undefined_figure(data, otherwise, definition, pairable=pairable)
    rows, multiplicity = _clusters(parts, data.prompt)
    draws, units = _draws(rows, multiplicity, statistic, how), int(multiplicity.sum())
    few = min(units, pairable)
    panel = _panel(draws, units, over_items(data), how.confidence)
    if few < FEWEST_UNITS and panel.low is not None:
        panel = Interval(None, None, panel.over, "none", how.confidence, too_few(few))
    people = Interval(None, None, OVER_ANNOTATORS, "none", how.confidence, panel.reason)
    if panel.low is not None:
        removed = _Removed(parts, data.prompt, statistic, total, value)
        variance = float(np.nanvar(draws, ddof=1)) * units / max(units - 1, 1)
        people = _people(removed, variance, least, how)
    return Figure(
        value, panel, people, n_pairable=pairable, definition=definition, method=JACKKNIFE,
        seed=how.seed, **context(data),
    )  # fmt: skip


def too_few(units: int) -> str:
    """Why so few items or prompts give no interval."""
    return f"{units} items or prompts, fewer than {FEWEST_UNITS}"


def _panel(draws: Reals, units: int, over: str, confidence: float) -> Interval:
    """Where most resamples of so many units lie; nowhere if few of them define the statistic."""
    defined = draws[~np.isnan(draws)]
    reason = ""
    if len(defined) * 2 < len(draws) or len(defined) < 2:
        reason = f"only {len(defined)} of {len(draws)} resamples define it"
    elif np.ptp(defined) < 1e-12:
        reason = "every resample gives this value"
    if reason:
        return Interval(None, None, over, "none", confidence, reason)
    # Resamples of n units vary √((n − 1)/n) times too little, and are normal where t is due.
    width = float(student.ppf((1 + confidence) / 2, max(units - 1, 1)))
    tail = NormalDist().cdf(-width * math.sqrt(units / max(units - 1, 1)))
    low, high = (float(edge) for edge in np.quantile(defined, [tail, 1 - tail]))
    return Interval(low, high, over, BOOTSTRAP, confidence)


def _draws(rows: sp.csr_array, multiplicity: Codes, statistic: Statistic, how: Resampling) -> Reals:
    """The statistic of each resample, made in blocks of bounded memory."""
    rng = np.random.default_rng(how.seed)
    wide = max(rows.shape[0], rows.shape[1], 1)
    sizes = _blocks(how.resamples, wide)
    blocks = [statistic(_drawn(rng, multiplicity, size) @ rows) for size in sizes]
    return np.concatenate(blocks) if blocks else np.empty(0)


def _blocks(rows: int, wide: int) -> Iterator[int]:
    """Sizes of blocks of `rows` rows, `wide` cells each."""
    size = max(1, min(rows, _BLOCK // wide))
    return (min(size, rows - start) for start in range(0, rows, size))


def _drawn(rng: np.random.Generator, multiplicity: Codes, size: int) -> Reals:
    """How often each kind of unit is drawn, shape (size, kinds)."""
    n, kinds = int(multiplicity.sum()), len(multiplicity)
    if kinds * 8 < n:
        return rng.multinomial(n, multiplicity / n, size=size).astype(np.float64)
    # Nearly every unit is a kind of its own: drawing units is then cheaper than a multinomial.
    kind = np.repeat(np.arange(kinds), multiplicity)
    drawn = kind[rng.integers(0, n, size=(size, n))] + kinds * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * kinds).reshape(size, kinds).astype(float)


def _clusters(parts: Contributions, prompt: Codes | None) -> tuple[sp.csr_array, Codes]:
    """Distinct contributions of whole clusters, shape (kinds, sums), and how often each occurs."""
    counting = parts.share >= 0
    share = parts.share[counting]
    if prompt is None:
        return parts.shares, np.bincount(share, minlength=parts.shares.shape[0])
    _, cluster = np.unique(prompt[counting], return_inverse=True)
    # Clusters with the same shares have the same sum of random numbers, one a share, modulo 2^64.
    numbers = np.random.default_rng(0).integers(
        0, 2**64, size=parts.shares.shape[0], dtype=np.uint64
    )
    signature = np.zeros(int(cluster.max(initial=-1)) + 1, dtype=np.uint64)
    np.add.at(signature, cluster, numbers[share])
    _, first, multiplicity = np.unique(signature, return_index=True, return_counts=True)
    chosen = np.zeros(len(signature), dtype=bool)
    chosen[first] = True
    place = np.full(len(signature), -1)
    place[first] = np.arange(len(first))
    shown = chosen[cluster]
    counts = sp.coo_array(
        (np.ones(int(shown.sum())), (place[cluster[shown]], share[shown])),
        shape=(len(first), parts.shares.shape[0]),
    )
    return sp.csr_array(counts.tocsr() @ parts.shares), multiplicity


def _people(removed: _Removed, over_items: float, least: float, how: Resampling) -> Interval:
    """The interval over other people and other items; `over_items` is the variance of these."""
    without = removed.without_each_annotator()
    n = len(without)
    reason = "two annotators: without one of them nothing can be compared" if n < 3 else ""
    if not reason and np.isnan(without).any():
        reason = f"undefined without any one of {int(np.isnan(without).sum())} of the annotators"
    if reason:
        return Interval(None, None, OVER_ANNOTATORS, "none", how.confidence, reason)
    between = (n - 1) / n * float(((without - without.mean()) ** 2).sum())
    variance = over_items + max(0.0, between - removed.over_answers(how.seed))
    # Satterthwaite's degrees of freedom, those of the items being many.
    freedom = (n - 1) * max(1.0, variance / between) ** 2 if between > 0 else math.inf
    half = float(student.ppf((1 + how.confidence) / 2, freedom)) * math.sqrt(variance)
    low, high = max(least, removed.value - half), min(1.0, removed.value + half)
    return Interval(low, high, OVER_ANNOTATORS, JACKKNIFE, how.confidence)


@dataclass(frozen=True)
class _Removed:
    """The statistic after answers were taken away."""

    parts: Contributions
    prompt: Codes | None
    statistic: Statistic
    total: Reals
    value: float

    def without_each_annotator(self) -> Reals:
        """The value without each annotator whose answers count, shape (annotators,)."""
        parts = self.parts
        counting = parts.loss >= 0
        person = parts.annotator[counting]
        taken = self._taken(person, parts.loss[counting])
        return self._values(sp.csr_array(taken[np.bincount(person) > 0]))

    def over_answers(self, seed: int) -> float:
        """The variance that chance in single answers gives the value."""
        parts = self.parts
        counting = np.flatnonzero(parts.loss >= 0)
        loss = parts.loss[counting]
        if self.prompt is None:
            times = np.bincount(loss, minlength=parts.losses.shape[0])
            taken = parts.losses
        else:
            key = self.prompt[parts.item[counting]] * (parts.annotator.max() + 1)
            _, cell = np.unique(key + parts.annotator[counting], return_inverse=True)
            taken = self._taken(cell, loss)
            times = np.ones(taken.shape[0], dtype=np.int64)
        kept, scale = _sample(times, taken.shape[1], seed)
        changes = self._values(sp.csr_array(taken[kept])) - self.value
        # An answer without which nothing is defined says nothing about chance in the others.
        return float(np.nansum(times[kept] * changes**2) * scale)

    def _taken(self, group: Codes, loss: Codes) -> sp.csr_array:
        """The sums that each group of answers takes away, shape (groups, sums)."""
        shape = int(group.max(initial=-1)) + 1, self.parts.losses.shape[0]
        if shape[0] * shape[1] <= _COUNTABLE:
            cells = np.bincount(group * shape[1] + loss, minlength=shape[0] * shape[1])
            counts = sp.csr_array(cells.reshape(shape).astype(np.float64))
        else:
            counts = sp.coo_array((np.ones(len(group)), (group, loss)), shape=shape).tocsr()
        return sp.csr_array(counts @ self.parts.losses)

    def _values(self, taken: sp.csr_array) -> Reals:
        """The statistic without what each row takes away, in blocks of bounded memory."""
        found, start = [], 0
        for size in _blocks(taken.shape[0], max(taken.shape[1], 1)):
            found.append(self.statistic(self.total - taken[start : start + size].toarray()))
            start += size
        return np.concatenate(found) if found else np.empty(0)


def _sample(times: Codes, sums: int, seed: int) -> tuple[Codes, float]:
    """Some of the answers if there are many, and how many each of them stands for."""
    most = max(500, min(_ANSWERS, _ANSWER_CELLS // max(sums, 1)))
    if len(times) <= most:
        return np.arange(len(times)), 1.0
    kept = np.random.default_rng(seed).choice(len(times), size=most, replace=False)
    return np.sort(kept), len(times) / most
