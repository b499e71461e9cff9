"""Bradley–Terry with ties: published figures, choix, and what must hold for any votes."""

from __future__ import annotations

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotate.consensus import pair_posterior
from annotate.consensus.bradley_terry import bradley_terry, davidson
from annotate.consensus.comparisons import Comparisons, comparisons
from annotate.consensus.davidson import expected_vote, log_normaliser, probabilities
from annotate.errors import InputError
from annotate.labels import Labels, encode
from annotate.votes import CLASSES

# Davidson (1970), six brands of chocolate pudding: i, j, preferred i, preferred j, no preference.
PUDDINGS = [
    (1, 2, 19, 22, 16), (1, 3, 16, 19, 12), (2, 3, 19, 19, 10), (1, 4, 18, 23, 13),
    (2, 4, 23, 19, 9), (3, 4, 19, 20, 15), (1, 5, 13, 19, 18), (2, 5, 16, 20, 12),
    (3, 5, 16, 15, 17), (4, 5, 17, 14, 16), (1, 6, 18, 21, 12), (2, 6, 22, 20, 12),
    (3, 6, 13, 18, 10), (4, 6, 14, 19, 18), (5, 6, 11, 21, 12),
]  # fmt: skip


def compared(rows: list[tuple[str, str, str, str, str]]) -> Comparisons:
    """From (prompt, a, b, annotator, vote)."""
    pairs = [f"{prompt}/{a}/{b}" for prompt, a, b, _, _ in rows]
    votes = encode(pairs, [row[3] for row in rows], [row[4] for row in rows], CLASSES)
    parts = [name.split("/") for name in votes.items]
    return comparisons(votes, *([part[at] for part in parts] for at in range(3)))


def test_it_gives_the_puddings_that_davidson_published() -> None:
    rows = [
        ("p", f"o{i}", f"o{j}", f"{vote}{n}", vote)
        for i, j, *counts in PUDDINGS
        for vote, count in zip(("a", "b", "tie"), counts, strict=True)
        for n in range(count)
    ]
    data = compared(rows)
    fit = davidson(data, prior_sd=1e4)
    against_first = dict(zip(data.votes.items, fit.difference, strict=True))
    worth = np.exp([0.0, *(-against_first[f"p/o1/o{j}"] for j in range(2, 7))])
    # To four places, as in the paper's table 2 and in R's PlackettLuce.
    published = [0.1388, 0.1730, 0.1617, 0.1654, 0.1587, 0.2024]
    assert worth / worth.sum() == pytest.approx(published, abs=1e-4)
    assert fit.tie == pytest.approx(0.7468, abs=1e-4)


def test_without_ties_it_is_choixs() -> None:
    rng = np.random.default_rng(1)
    rows, data = [], []
    for vote in range(120):
        a, b = sorted(rng.choice(5, 2, replace=False))
        a_wins = rng.random() < 1 / (1 + np.exp(0.8 * (a - b)))
        rows.append(("p", f"o{a}", f"o{b}", f"w{vote:03}", "a" if a_wins else "b"))
        data.append((a, b) if a_wins else (b, a))
    ours = compared(rows)
    fit = davidson(ours, prior_sd=2.0, tie=0)
    # choix subtracts alpha times the sum of squares: a normal prior of variance 1 / (2 alpha).
    theirs = choix.opt_pairwise(5, data, alpha=1 / 8, method="Newton-CG", tol=1e-14)
    ends = [[int(part[1:]) for part in name.split("/")[1:]] for name in ours.votes.items]
    expected = [theirs[a] - theirs[b] for a, b in ends]
    assert fit.difference == pytest.approx(expected, abs=1e-9)


def test_a_vote_of_davidsons_by_hand() -> None:
    # Worths 4 and 1, ν = 1: 4 : 1 √4 : 1, in sum 7.
    at = np.array([np.log(4.0)])
    assert probabilities(at, 1.0)[0] == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert log_normaliser(np.array([800.0]), 1.0).value[0] == pytest.approx(400)


@given(st.floats(-3, 3), st.floats(0.1, 2), st.floats(-2, 3), st.sampled_from([-1.0, 0.0, 1.0]))
def test_slopes_are_those_of_the_mean(mean: float, sd: float, r: float, sign: float) -> None:
    def at(mean: float = mean, r: float = r, log_tie: float = -0.7) -> float:
        columns = (np.array([number]) for number in (sign, mean, sd, r))
        return float(expected_vote(*columns, tie=float(np.exp(log_tie))).value[0])

    found = expected_vote(
        *(np.array([number]) for number in (sign, mean, sd, r)), tie=float(np.exp(-0.7))
    )
    step = 1e-5
    by_mean = (at(mean=mean + step) - at(mean=mean - step)) / (2 * step)
    by_r = (at(r=r + step) - at(r=r - step)) / (2 * step)
    by_tie = (at(log_tie=-0.7 + step) - at(log_tie=-0.7 - step)) / (2 * step)
    assert found.by_difference[0] == pytest.approx(by_mean, abs=1e-6)
    assert found.by_reliability[0] == pytest.approx(by_r, abs=1e-6)
    assert found.by_log_tie[0] == pytest.approx(by_tie, abs=1e-6)


OPTIONS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3))
answers = st.dictionaries(
    st.tuples(OPTIONS.filter(lambda pair: pair[1] < pair[2]), st.integers(0, 3)),
    st.sampled_from(CLASSES),
    min_size=1,
    max_size=40,
)
Answers = dict[tuple[tuple[int, int, int], int], str]


def of_answers(given: Answers) -> Comparisons:
    return compared(
        [(f"p{p}", f"o{a}", f"o{b}", f"w{who}", vote) for ((p, a, b), who), vote in given.items()]
    )


def posterior(data: Comparisons) -> NDArray[np.float64]:
    return pair_posterior(bradley_terry(data).probability)


@settings(deadline=None, max_examples=40)
@given(answers)
def test_it_is_always_defined_and_its_bound_never_falls(given: Answers) -> None:
    found = bradley_terry(of_answers(given))
    assert found.converged
    assert (np.diff(found.objective) >= -1e-9).all()
    assert np.isfinite(found.probability).all()
    assert ((found.reliability >= 0) & (found.reliability <= 1)).all()


@settings(deadline=None, max_examples=30)
@given(answers)
def test_turning_every_vote_round_mirrors_every_posterior_exactly(given: Answers) -> None:
    other = {"a": "b", "b": "a", "tie": "tie"}
    turned = {key: other[vote] for key, vote in given.items()}
    assert (posterior(of_answers(given)) == 1 - posterior(of_answers(turned))).all()


@settings(deadline=None, max_examples=20)
@given(answers, st.randoms(use_true_random=False))
def test_neither_names_nor_order_matter(given: Answers, random: object) -> None:
    order = list(given)
    random.shuffle(order)  # type: ignore[attr-defined]
    rename = {0: "z", 1: "y", 2: "x", 3: "w"}
    rows = [(f"p{p}", rename[a], rename[b], f"w{who}", given[(p, a, b), who])
            for (p, a, b), who in order]  # fmt: skip
    first, second = of_answers(given), compared(rows)
    of_first = dict(zip(first.votes.items, posterior(first), strict=True))
    of_second = dict(zip(second.votes.items, posterior(second), strict=True))
    for name, value in of_first.items():
        prompt, a, b = name.split("/")
        assert of_second[f"{prompt}/{rename[int(a[1])]}/{rename[int(b[1])]}"] == pytest.approx(
            value
        )


def test_who_votes_against_everybody_else_counts_the_other_way() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(60):
        score = rng.normal(size=4) * 2
        for a in range(4):
            for b in range(a + 1, 4):
                for who in ("ann", "bob", "con", "dan"):
                    likes_a = rng.random() < 1 / (1 + np.exp(score[b] - score[a]))
                    vote = "a" if likes_a != (who == "con") else "b"
                    rows.append((f"p{prompt:02}", f"o{a}", f"o{b}", who, vote))
    data = compared(rows)
    found = bradley_terry(data)
    accuracy = dict(zip(data.votes.annotators, found.accuracy, strict=True))
    assert accuracy["con"] < 0.35 < 0.7 < min(accuracy[who] for who in ("ann", "bob", "dan"))
    assert found.reliability[data.votes.annotators.index("con")] == 0


def test_a_pair_borrows_from_the_others_of_its_prompt() -> None:
    alone = [("p", "o1", "o3", "ann", "b"), ("p", "o1", "o3", "bob", "a")]
    chain = [("p", *pair, who, "a") for pair in (("o1", "o2"), ("o2", "o3")) for who in ("c", "d")]
    data = compared([*alone, *chain])
    assert posterior(compared(alone))[0] == 0.5
    assert posterior(data)[data.votes.items.index("p/o1/o3")] > 0.7


def test_everybody_ties_and_one_annotator_alone() -> None:
    ties = compared([("p", "o1", "o2", f"w{n}", "tie") for n in range(5)])
    assert posterior(ties).tolist() == [0.5]
    one = compared([("p", "o1", "o2", "ann", "a")])
    assert 0.6 < posterior(one)[0] < 0.85


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="with itself"):
        compared([("p", "o1", "o1", "ann", "a")])
    three = Labels(*(np.array([0]) for _ in range(3)), ["x"], ["ann"], ["a", "b"])
    with pytest.raises(ValueError, match="classes b, tie, a"):
        comparisons(three, ["p"], ["o1"], ["o2"])
    star = [("p", "o0", f"o{n}", "ann", "a") for n in range(1, 7100)]
    with pytest.raises(InputError, match="7,100 compared outputs"):
        bradley_terry(compared(star))


def test_many_people_with_a_vote_each_are_soon_agreed_on() -> None:
    found = bradley_terry(compared([("p", "o1", "o2", f"w{n}", "a") for n in range(400)]))
    assert found.converged
    assert len(found.objective) < 40
    assert found.probability[0, 2] > 0.99
