"""Dawid–Skene: every annotator has a confusion matrix, every item one true class.

Dawid and Skene (1979, Applied Statistics 28): both are found by EM. Two departures, because
annotators here often have few answers:

1. Each confusion matrix has a Dirichlet prior centred on the panel's common matrix, which is fitted
   first. With `prior_votes=0` it is the original.
2. Pairs are symmetric: which output is called `a` is an accident of ids, so the confusion of a and
   b is pooled with that of b and a. Swapping every pair mirrors the result exactly.

EM then raises the penalised log-likelihood at every step. Start and result are deterministic.

Cost: two sparse products an iteration, O(answers × classes); 300,000 answers about a second.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from annotate.consensus.majority import majority, vote_counts
from annotate.consensus.result import Consensus, Reals, above_chance
from annotate.errors import InputError
from annotate.labels import Labels

# How many votes on each true class the panel's common habit weighs against an annotator's own.
PRIOR_VOTES = 10.0
# Where nothing can be learnt (one vote an item) a vote is right four times in five: two people then
# agree on 68 % of pairs, as people do (63 to 73 % in MT-bench, AlpacaFarm and InstructGPT).
PRIOR_ACCURACY = 0.8
TOLERANCE = 1e-8
MAX_ITERATIONS = 2000
# Cells of all confusion matrices: 400 MB.
_MAX_CELLS = 50_000_000
_TINY = 1e-300


def pair_posterior(probability: Reals) -> Reals:
    """P(a beats b) from the classes (b, tie, a), shape (pairs, 3): a tie counts half.

    So it means the same as a win rate, and 1 − it is the posterior of b.
    """
    return np.asarray(probability[:, 2] + probability[:, 1] / 2)


def dawid_skene(
    labels: Labels,
    *,
    symmetric: bool = False,
    prior_votes: float = PRIOR_VOTES,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Consensus:
    """Dawid and Skene's model by EM.

    Args:
        labels: two classes or more.
        symmetric: reversing the order of the classes must mirror the result, as for (b, tie, a).
        prior_votes: weight of the panel's common confusion against an annotator's own; 0 for none.
        tolerance: stop when an iteration gains less than this in log-likelihood an answer.
        max_iterations: stop after these in any case; `converged` is then False.

    Raises:
        InputError: too many annotators and classes for their confusion matrices.
    """
    classes, people = len(labels.classes), len(labels.annotators)
    if classes < 2:
        return majority(labels)
    if people * classes**2 > _MAX_CELLS:
        raise InputError(
            f"{classes:,} classes are too many for the confusion matrices of {people:,} annotators",
            where="label",
            remedy="Use `--method majority`",
        )
    everyone = _Em(np.zeros_like(labels.annotator), 1, labels, symmetric)
    everyone.start_from(_believed(labels))
    everyone.fit(everyone.confusion[0] * PRIOR_VOTES, tolerance, max_iterations)
    own = _Em(labels.annotator, people, labels, symmetric)
    habit = everyone.confusion[0] * prior_votes
    own.start_from(everyone.probability, habit)
    converged = own.fit(habit, tolerance, max_iterations)
    accuracy = np.einsum("k,akk->a", own.prior, own.confusion)
    answered = np.bincount(labels.item, minlength=len(labels.items)) > 0
    return Consensus(
        method="dawid-skene",
        probability=np.where(answered[:, None], own.probability, np.nan),
        accuracy=accuracy,
        reliability=above_chance(accuracy, classes),
        objective=own.objective,
        converged=converged,
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


class _Em:
    """EM over groups of annotators that share a confusion matrix: everyone, or each their own."""

    def __init__(
        self,
        group: NDArray[np.int64],
        groups: int,
        labels: Labels,
        symmetric: bool,
    ) -> None:
        self.groups, self.classes = groups, len(labels.classes)
        self.symmetric = symmetric
        self.answers = len(labels)
        said = group * self.classes + labels.label
        # Row an item, column a (group, label): how often the item got it.
        self.votes = sp.csr_array(
            (np.ones(len(labels)), (labels.item, said)),
            shape=(len(labels.items), groups * self.classes),
        )
        self.votes_transposed = self.votes.T.tocsr()
        self.answered = np.asarray(self.votes.sum(axis=1)) > 0
        self.prior: Reals = np.full(self.classes, 1 / self.classes)
        self.confusion: Reals = np.tile(np.eye(self.classes), (groups, 1, 1))
        self.probability: Reals = np.empty((len(labels.items), self.classes))
        self.objective: list[float] = []

    def start_from(self, probability: Reals, pseudo_votes: Reals | float = 0.0) -> None:
        """Take the parameters that these probabilities of the classes imply."""
        self.probability = probability
        self._maximise(pseudo_votes)

    def fit(self, pseudo_votes: Reals, tolerance: float, max_iterations: int) -> bool:
        """Iterate under a prior worth `pseudo_votes`, (true, said); True when it converged."""
        before = -np.inf
        for _ in range(max_iterations):
            self._expect(pseudo_votes)
            if self.objective[-1] - before <= tolerance * self.answers:
                return True
            before = self.objective[-1]
            self._maximise(pseudo_votes)
        return False

    def _expect(self, pseudo_votes: Reals) -> None:
        """E step: each item's class, and the objective of the parameters it came from."""
        log_confusion = np.log(np.maximum(self.confusion, _TINY))  # (groups, true, said)
        by_said = log_confusion.transpose(0, 2, 1).reshape(-1, self.classes)
        log_joint = self.votes @ by_said + np.log(np.maximum(self.prior, _TINY))
        top = log_joint.max(axis=1, keepdims=True)
        joint = np.exp(log_joint - top)
        total = joint.sum(axis=1, keepdims=True)
        self.probability = joint / total
        likelihood = float((np.log(total) + top)[self.answered].sum())
        penalty = float((pseudo_votes * log_confusion).sum())
        self.objective.append(likelihood + penalty)

    def _maximise(self, pseudo_votes: Reals | float) -> None:
        """M step: class shares and confusion matrices from the expected counts."""
        shares = self.probability[self.answered].sum(axis=0)
        counts = np.asarray(self.votes_transposed @ self.probability)
        expected = counts.reshape(self.groups, self.classes, self.classes).transpose(0, 2, 1)
        # A group may never meet a true class; without a prior it keeps what it had.
        expected = expected + pseudo_votes
        if self.symmetric:
            expected = expected + expected[:, ::-1, ::-1]
            shares = shares + shares[::-1]
        self.prior = shares / shares.sum()
        rows = expected.sum(axis=2, keepdims=True)
        self.confusion = np.where(rows > 0, expected / np.maximum(rows, _TINY), self.confusion)
