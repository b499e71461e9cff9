"""The choice of the next item: pure, worked by hand, and for any counts and scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from annotate import cli_queue
from annotate.next_items import share_out
from annotate.queueing import (
    FIRST_LABELS,
    MOST_LABELS,
    choose,
    disagreement,
    entropy,
    hand_out,
)
from annotate.records import table_from_rows


def test_entropy_is_in_bits() -> None:
    nan = float("nan")
    found = entropy(np.array([[1.0, 0, 0], [0.5, 0, 0.5], [0.25, 0.5, 0.25], [nan, nan, nan]]))
    # 0; 1; 2 · 1/4 · 2 + 1/2 · 1 = 1.5; nothing is known of three classes: log2 3.
    assert found == pytest.approx([0, 1, 1.5, np.log2(3)])


def test_disagreement_is_the_spread_of_scaled_differences() -> None:
    # Root mean squares: sqrt((1 + 9) / 2) = sqrt 5 and sqrt((4 + 36) / 2) = sqrt 20, so the first
    # pair is 1/sqrt 5 and 2/sqrt 20, which are equal; the second 3/sqrt 5 and -6/sqrt 20, opposite.
    found = disagreement(np.array([[1.0, 2.0], [3.0, -6.0]]))
    assert found == pytest.approx([0, 3 / np.sqrt(5)])
    assert np.isnan(disagreement(np.array([[1.0, np.nan]]))).all()


def test_every_item_gets_its_first_labels_then_the_most_open_up_to_five() -> None:
    labels = np.array([0, 1, 2, 2, 5, 3])
    scores = np.array([np.nan, 0.9, 0.1, 0.8, 1.0, 0.9])
    keys = np.arange(6).astype(np.uint64)
    assert choose(6, labels, scores, keys, first=2).tolist() == [0, 1, 5, 3, 2]
    assert choose(2, labels, scores, keys, first=2).tolist() == [0, 1]
    assert choose(9, labels, None, keys, most=3).tolist() == [0, 1, 2, 3]


@given(st.data(), st.integers(0, 30), st.integers(0, 40))
def test_nobody_is_chosen_twice_over_the_cap_or_before_the_first_labels(
    data: st.DataObject, size: int, n: int
) -> None:
    labels = data.draw(hnp.arrays(np.int64, size, elements=st.integers(0, 7)))
    scores = data.draw(hnp.arrays(np.float64, size, elements=st.floats(0, 2) | st.just(np.nan)))
    keys = np.random.default_rng(0).integers(0, 2**63, size).astype(np.uint64)
    chosen = choose(n, labels, scores, keys, first=2)
    assert len(set(chosen.tolist())) == len(chosen) <= n
    assert (labels[chosen] < 5).all()
    open_items = (labels < 2) | ((labels < 5) & ~np.isnan(scores))
    assert len(chosen) == min(n, int(open_items.sum()))
    if (labels[chosen] >= 2).any():
        assert set(np.flatnonzero(labels < 2)) <= set(chosen.tolist())
    late = chosen[labels[chosen] >= 2]
    assert (np.diff(scores[late]) <= 0).all()
    # The choice is of the items, not of their order.
    turn = np.random.default_rng(1).permutation(size)
    assert set(turn[choose(n, labels[turn], scores[turn], keys[turn], first=2)]) == set(
        chosen.tolist()
    )


def chosen_of(*annotators: list[str]) -> object:
    rows = [{"pair_id": f"j-{n}", "annotators": names} for n, names in enumerate(annotators)]
    return table_from_rows("chosen", rows)


def test_a_pair_goes_to_who_has_not_judged_it_and_has_the_fewest() -> None:
    chosen = chosen_of([], ["ada"], ["ada", "ben"], ["ada", "ben", "cem"], [])
    shared, left = share_out(chosen, ["ben", "ada", "cem"])
    assert shared == {"ada": ["j-0", "j-4"], "ben": ["j-1"], "cem": ["j-2"]}
    assert left == 1
    assert share_out(chosen, ["ada"], cap=1) == ({"ada": ["j-0"]}, 4)


def test_the_command_offers_what_the_module_does() -> None:
    assert (cli_queue.FIRST_LABELS, cli_queue.MOST_LABELS) == (FIRST_LABELS, MOST_LABELS)


def test_the_most_open_items_go_to_the_most_reliable_who_have_room() -> None:
    nobody = np.zeros((4, 3), dtype=np.bool_)
    nobody[0, 2] = True  # the best has judged the first item already
    room = np.array([9, 9, 2])
    assert hand_out(nobody, room, np.array([0.2, 0.5, 0.9])).tolist() == [1, 2, 2, 1]
    # Nothing is known of the first: as reliable as the median, 0.7, of the others.
    assert hand_out(nobody, room, np.array([np.nan, 0.5, 0.9])).tolist() == [0, 2, 2, 0]
    assert hand_out(nobody, room).tolist() == [0, 1, 2, 0]  # by turns
    assert hand_out(~nobody, room)[1:].tolist() == [-1, -1, -1]
    assert hand_out(nobody, np.zeros(3, dtype=np.int64)).tolist() == [-1, -1, -1, -1]


@given(st.integers(0, 30), st.integers(1, 6), st.integers(0, 12), st.integers(0, 99))
def test_nobody_is_given_what_they_know_or_more_than_they_have_room_for(
    items: int, people: int, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    known, room = rng.random((items, people)) < 0.4, rng.integers(0, most + 1, people)
    who = hand_out(known, room, rng.random(people) if seed % 2 else None)
    given = who >= 0
    assert not known[given, who[given]].any()
    assert (np.bincount(who[given], minlength=people) <= room).all()
    left = room - np.bincount(who[given], minlength=people)
    assert not (~known[~given] & (left > 0)).any()  # nobody who could take it was left


def test_the_reliable_get_at_most_twice_an_even_share() -> None:
    chosen = chosen_of(*[[]] * 9)
    worth = {"ada": 0.9, "ben": 0.1, "cem": 0.5}
    shared, left = share_out(chosen, ["ben", "ada", "cem"], None, worth)
    # An even share is 3; twice that is 6.
    assert {name: len(pairs) for name, pairs in shared.items()} == {"ada": 6, "cem": 3}
    assert (shared["ada"][0], left) == ("j-0", 0)
