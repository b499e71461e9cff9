"""Dawid–Skene: every annotator has a confusion matrix, every item one true class.

Dawid and Skene (1979, Applied Statistics 28): both are found by EM. Two departures, because
annotators here often have few answers:

1. Each confusion matrix has a Dirichlet prior centred on the panel's common matrix, which is fitted
   first, and the shares of the classes have one worth an item for each class, centred on the mean
   vote as it is believed at the start. With `prior_votes=0` and `prior_items=0` it is the original.
2. Pairs are symmetric: which output is called `a` is an accident of ids, so the confusion of a and
   b is pooled with that of b and a. Swapping every pair mirrors the result exactly.

EM then raises the penalised log-likelihood at every step. Start and result are deterministic.

Cost: two sparse products an iteration, O(answers × classes), both of which read the answers item
by item and meet only the tables of confusions out of turn; 400,000 answers take about a second.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from annotate.annotations import Codes
from annotate.consensus.majority import majority, vote_counts
from annotate.consensus.result import Consensus, Reals, above_chance, symmetric_share
from annotate.errors import InputError
from annotate.labels import Labels

# How many votes on each true class the panel's common habit weighs against an annotator's own.
PRIOR_VOTES = 10.0
# What the prior on the classes' shares weighs, in items for each class: five items that all look
# like one class do not make the others impossible.
PRIOR_ITEMS = 1.0
# Where nothing can be learnt (one vote an item) a vote is right four times in five: two people then
# agree on 68 % of pairs, as people do (63 to 73 % in MT-bench, AlpacaFarm and InstructGPT).
PRIOR_ACCURACY = 0.8
TOLERANCE = 1e-8
MAX_ITERATIONS = 2000
# Cells of all confusion matrices: 400 MB.
_MAX_CELLS = 50_000_000
# Items whose classes are computed at once: what is in between stays in the processor's cache.
_BLOCK = 16_384
_TINY = 1e-300


def pair_posterior(probability: Reals) -> Reals:
    """P(a beats b) from the classes (b, tie, a), shape (pairs, 3): a tie counts half.

    So it means the same as a win rate, and 1 − it is the posterior of b, exactly.
    """
    lead = probability[:, 2] - probability[:, 0]
    return np.where(np.isnan(lead), np.nan, symmetric_share(np.abs(lead), np.sign(lead)))


def dawid_skene(
    labels: Labels,
    *,
    symmetric: bool = False,
    prior_votes: float = PRIOR_VOTES,
    prior_items: float = PRIOR_ITEMS,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Consensus:
    """Dawid and Skene's model by EM.

    Args:
        labels: two classes or more.
        symmetric: reversing the order of the classes must mirror the result, as for (b, tie, a).
        prior_votes: weight of the panel's common confusion against an annotator's own; 0 for none.
        prior_items: weight of the mean vote against the classes' shares, in items for each class; 0
            for none.
        tolerance: stop when an iteration gains less than this in log-likelihood an answer.
        max_iterations: stop after these in any case; `converged` is then False.

    Raises:
        InputError: too many annotators and classes for their confusion matrices.
    """
    classes = len(labels.classes)
    if classes < 2:
        return majority(labels)
    _require_room(classes, len(labels.annotators))
    votes = _Votes(labels, symmetric, prior_items)
    everyone = _Em(votes, pooled=True)
    everyone.start_from(votes.believed)
    everyone.fit(everyone.confusion * PRIOR_VOTES, tolerance, max_iterations)
    own = _Em(votes, pooled=False)
    habit = everyone.confusion * prior_votes
    own.start_from(everyone.probability, habit)
    converged = own.fit(habit, tolerance, max_iterations)
    accuracy = _mirrored_sum(np.diagonal(own.confusion, axis1=1, axis2=2) * own.prior)
    return Consensus(
        method="dawid-skene",
        probability=np.where(votes.answered[:, None], own.probability, np.nan),
        accuracy=accuracy,
        reliability=above_chance(accuracy, classes),
        objective=own.objective,
        converged=converged,
        foresee=own.foresee,
    )


def _require_room(classes: int, people: int) -> None:
    if people * classes**2 > _MAX_CELLS:
        raise InputError(
            f"{classes:,} classes are too many for the confusion matrices of {people:,} annotators",
            where="label",
            remedy="Use `--method majority`",
        )


def _believed(labels: Labels) -> Reals:
    """Where EM starts: each item's mean vote, a vote being right with `PRIOR_ACCURACY`.

    With one vote an item nothing can be learnt, every step keeps this, and a rare class is believed
    as much as a common one. Shape (items, classes).
    """
    counts = vote_counts(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = (1 - PRIOR_ACCURACY) / (shares.shape[1] - 1)
    return np.asarray(wrong + shares * (PRIOR_ACCURACY - wrong), dtype=np.float64)


def _mirrored_sum(terms: Reals) -> Reals:
    """The sum over the last axis, to the last bit the same when that axis is reversed."""
    return np.asarray((terms + terms[..., ::-1]).sum(axis=-1) / 2, dtype=np.float64)


class _Votes:
    """The answers as sparse matrices, and what does not change while EM runs."""

    def __init__(self, labels: Labels, symmetric: bool, prior_items: float) -> None:
        self.people, self.classes = len(labels.annotators), len(labels.classes)
        self.symmetric = symmetric
        self.answers = len(labels)
        # Row an item, column an (annotator, label). Mirrored labels stand in the same order within
        # a row, so that every sum of products is mirrored to the last bit.
        self.by_item = sp.csr_array(
            (np.ones(len(labels)), (labels.item, labels.annotator * self.classes + labels.label)),
            shape=(len(labels.items), self.people * self.classes),
        )
        self.blocks = [
            (slice(start, start + _BLOCK), self.by_item[start : start + _BLOCK])
            for start in range(0, len(labels.items), _BLOCK)
        ]
        self.answered = np.bincount(labels.item, minlength=len(labels.items)) > 0
        self.believed = _believed(labels)
        pseudo_items = self.believed[self.answered].sum(axis=0)
        weight = prior_items * self.classes / max(1, int(self.answered.sum()))
        self.pseudo_items = self._pooled(pseudo_items * weight)

    def _pooled(self, shares: Reals) -> Reals:
        return (shares + shares[::-1]) / 2 if self.symmetric else shares


class _Em:
    """EM with one confusion matrix for everyone (`pooled`) or one for each annotator."""

    def __init__(self, votes: _Votes, *, pooled: bool) -> None:
        self.votes, self.pooled = votes, pooled
        self.prior: Reals = np.full(votes.classes, 1 / votes.classes)
        self.confusion: Reals = np.eye(votes.classes)[None]
        self.probability: Reals = np.empty(0)
        self.objective: list[float] = []

    def start_from(self, probability: Reals, pseudo_votes: Reals | float = 0.0) -> None:
        """Take the parameters that these probabilities of the classes imply."""
        self.probability = probability
        self._maximise(pseudo_votes)

    def fit(self, pseudo_votes: Reals, tolerance: float, max_iterations: int) -> bool:
        """Iterate under a prior worth `pseudo_votes`, (1, true, said); True when it converged."""
        before = -np.inf
        for _ in range(max_iterations):
            self._expect(pseudo_votes)
            if self.objective[-1] - before <= tolerance * self.votes.answers:
                return True
            before = self.objective[-1]
            self._maximise(pseudo_votes)
        return False

    def _expect(self, pseudo_votes: Reals) -> None:
        """E step: each item's class, and the objective of the parameters it came from."""
        votes = self.votes
        log_confusion = np.log(np.maximum(self.confusion, _TINY))  # (people or 1, true, said)
        by_said = log_confusion.transpose(0, 2, 1)
        if self.pooled:
            by_said = np.broadcast_to(by_said, (votes.people, votes.classes, votes.classes))
        log_prior = np.log(np.maximum(self.prior, _TINY))
        by_said = np.ascontiguousarray(by_said.reshape(-1, votes.classes))
        likelihood, probability = 0.0, np.empty((votes.by_item.shape[0], votes.classes))
        for rows, answers in votes.blocks:
            # Classes first: numpy adds long rows many times faster than many short ones.
            log_joint = np.ascontiguousarray((answers @ by_said).T)
            log_joint += log_prior[:, None]
            top = log_joint.max(axis=0)
            joint = np.exp(log_joint - top)
            total = (joint + joint[::-1]).sum(axis=0) / 2
            probability[rows] = (joint / total).T
            likelihood += float((np.log(total) + top)[votes.answered[rows]].sum())
        self.probability = probability
        cells = (pseudo_votes * log_confusion).reshape(len(log_confusion), -1)
        penalty = float(_mirrored_sum(cells).sum() + _mirrored_sum(votes.pseudo_items * log_prior))
        self.objective.append(likelihood + penalty)

    def _maximise(self, pseudo_votes: Reals | float) -> None:
        """M step: class shares and confusion matrices from the expected counts."""
        votes, classes = self.votes, self.votes.classes
        shares = votes.pseudo_items + sum(
            np.ascontiguousarray(self.probability[rows][votes.answered[rows]].T).sum(axis=1)
            for rows, _ in votes.blocks
        )
        counts = np.asarray(votes.by_item.T @ self.probability)
        expected = counts.reshape(votes.people, classes, classes).transpose(0, 2, 1)
        if self.pooled:
            expected = expected.sum(axis=0, keepdims=True)
        expected = expected + pseudo_votes
        if votes.symmetric:
            expected = expected + expected[:, ::-1, ::-1]
            shares = shares + shares[::-1]
        self.prior = shares / _mirrored_sum(shares)
        rows = _mirrored_sum(expected)[..., None]
        # An annotator may never meet a true class; without a prior every answer to it is likely.
        self.confusion = np.where(rows > 0, expected / np.maximum(rows, _TINY), 1 / classes)

    def foresee(self, item: Codes, annotator: Codes) -> Reals:
        """The chance of each answer of these annotators to these items, shape (n, classes)."""
        chances = np.einsum("nt,nts->ns", self.probability[item], self.confusion[annotator])
        return np.asarray(chances, dtype=np.float64)
