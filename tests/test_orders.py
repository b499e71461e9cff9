"""Permuted blocks by hand, and the random numbers behind them."""

import numpy as np

from annotate.orders import balanced_rotations, balanced_sides, mix, random_keys


def test_splitmix64_gives_its_published_first_number() -> None:
    # The first output of SplitMix64 from state 0 (Vigna's reference implementation).
    assert int(mix(np.zeros(1, dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_keys_depend_on_the_id_and_the_seed_only() -> None:
    ids = ["i-0000000000000001", "i-00000000000000ff"]
    keys = random_keys(ids, seed=1)
    assert random_keys(ids[::-1], seed=1).tolist() == keys[::-1].tolist()
    assert random_keys(ids, seed=2).tolist() != keys.tolist()
    assert len(random_keys([], seed=1)) == 0


def test_an_unfinished_block_of_an_earlier_push_is_finished_first() -> None:
    # One pair of models, one cell. Earlier: a was first. New, by key: 10, 20, 30.
    # 10 closes the block, so b is first; 20 and 30 are a block whose second mirrors its first.
    sides = balanced_sides(
        model_pair=np.zeros(4, dtype=np.int64),
        agree=np.ones(4, dtype=np.int8),
        keys=np.array([5, 20, 30, 10], dtype=np.uint64),
        earlier=np.array([1, 0, 0, 0], dtype=np.int8),
    ).tolist()
    assert sides[0] == 1
    assert sides[3] == -1
    assert sides[1] == -sides[2]


def test_left_over_pairs_balance_the_models_before_the_sides() -> None:
    # Two cells of one model pair, one item each: in the first a is by the earlier model, in the
    # second by the later. Both models come first once, so the same letter is first twice.
    sides = balanced_sides(
        model_pair=np.zeros(2, dtype=np.int64),
        agree=np.array([1, -1], dtype=np.int8),
        keys=np.array([7, 8], dtype=np.uint64),
        earlier=np.zeros(2, dtype=np.int8),
    )
    assert sides[0] == sides[1]


def test_a_block_of_rotations_is_a_latin_square() -> None:
    orders = balanced_rotations(
        stratum=np.zeros(6, dtype=np.int64),
        n=3,
        keys=np.arange(6, dtype=np.uint64),
        seeds=np.array([42], dtype=np.uint64),
        before=np.zeros(1, dtype=np.int64),
    )
    for block in (orders[:3], orders[3:]):
        assert np.sort(block, axis=0).T.tolist() == [[0, 1, 2]] * 3  # each output in each place
        assert np.sort(block, axis=1).tolist() == [[0, 1, 2]] * 3  # each row an order
