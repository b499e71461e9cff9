"""In which order an item shows its responses: random to the annotator, balanced, reproducible.

People favour what stands first. So the order is drawn by permuted blocks stratified by the models
compared (Pocock, Clinical Trials, 1983, chapter 5): within a stratum, every block of n items shows
each model once in each place, and which comes first in a block is random. A coin toss for each item
would leave an imbalance of about sqrt(n); here none is left but that of unfinished blocks.

The draw depends on the items' ids and the seed alone, never on the order of the rows. Items that
were shown before (`earlier`) keep their order, and new ones complete what those left unbalanced.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int64]
Signs = npt.NDArray[np.int8]


def random_keys(ids: list[str], seed: int) -> Keys:
    """A uniform 64-bit number for each id that ends in 16 hex digits, and for the seed."""
    digits = np.frombuffer(bytes.fromhex("".join(i[-16:] for i in ids)), dtype=">u8")
    return mix(digits.astype(np.uint64) ^ mix(np.array([seed % 2**64], dtype=np.uint64)))


def mix(numbers: Keys) -> Keys:
    """SplitMix64's step (Steele, Lea, Flood, OOPSLA 2014): a random-looking bijection."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def balanced_sides(model_pair: Codes, agree: Signs, keys: Keys, earlier: Signs) -> Signs:
    """Decide for each pair of outputs (a, b), a < b by id, which is shown first.

    Two balances are kept at once: a is first as often as b, and of two models each is first as
    often as the other. Blocks of two lie within a cell (model pair and `agree`); what the last,
    unfinished blocks leave is settled so that neither balance is off by more than one item.

    Args:
        model_pair: which two models are compared, as a code.
        agree: 1 where a is by the model whose name sorts first (or both are by one), else -1.
        keys: a random number for each pair; it orders the pairs.
        earlier: 1 or -1 where an earlier push has decided already, 0 where it is to be decided.

    Returns:
        1 where a is shown first, -1 where b is; `earlier` where that was decided.
    """
    sides = earlier.copy()
    cell = model_pair * 2 + (agree > 0)
    owed = np.bincount(cell, weights=earlier, minlength=1)  # by cell: a first minus b first so far
    new = np.flatnonzero(earlier == 0)
    new = new[np.lexsort((keys[new], cell[new]))]
    place, last = _runs(cell[new])
    debt = owed[cell[new]]
    opens = (place + (debt != 0)) % 2 == 0
    drawn = np.where(keys[new] & np.uint64(1), 1, -1)
    closed = np.where(place == 0, -np.sign(debt), -np.roll(drawn, 1))
    sides[new] = np.where(opens, drawn, closed)
    _settle(sides, new[opens & last], model_pair, agree, keys)
    return sides


def balanced_rotations(stratum: Codes, n: int, keys: Keys, seeds: Keys, before: Codes) -> Codes:
    """Draw the order in which each item shows its n outputs.

    In a block of n items each output stands once in each place: a random order and its rotations.

    Args:
        stratum: which models are compared, as a code.
        n: outputs of an item.
        keys: a random number for each item; it orders the items.
        seeds: a random number for each stratum, indexed by code.
        before: items of each stratum that were shown before, indexed by code.

    Returns:
        Shape (items, n): the output shown in each place, as an index into the sorted outputs.
    """
    ordered = np.lexsort((keys, stratum))
    place, _ = _runs(stratum[ordered])
    turn = np.empty(len(stratum), dtype=np.int64)
    turn[ordered] = place + before[stratum[ordered]]
    block = mix(seeds[stratum] ^ mix((turn // n).astype(np.uint64)))
    draws = mix(block[:, None] ^ mix(np.arange(n, dtype=np.uint64))[None, :])
    base = np.argsort(draws, axis=1)
    shifted = (np.arange(n)[None, :] + (turn % n)[:, None]) % n
    return np.take_along_axis(base, shifted, axis=1)


def _runs(codes: Codes) -> tuple[Codes, npt.NDArray[np.bool_]]:
    """For sorted codes: place within the run of equal ones, and whether it is the run's last."""
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else codes
    lengths = np.diff(np.r_[starts, len(codes)])
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    return place, place == np.repeat(lengths, lengths) - 1


def _settle(sides: Signs, odd: Codes, model_pair: Codes, agree: Signs, keys: Keys) -> None:
    """Decide the pairs without a partner in their cell, at most two a pair of models, in place.

    The models' balance comes first, then that of all items; model pairs with two such items come
    first, since those with one can mend what they leave.
    """
    sides[odd] = 0
    total = int(sides.sum())
    lead: Any = np.bincount(model_pair, weights=sides * agree, minlength=1).astype(int).tolist()
    alone = np.bincount(model_pair[odd], minlength=len(lead))[model_pair[odd]] == 1
    for pair in odd[np.lexsort((keys[odd], model_pair[odd], alone))].tolist():
        models, sign = int(model_pair[pair]), int(agree[pair])
        wanted = -lead[models] * sign or -total or (1 if int(keys[pair]) & 1 else -1)
        side = 1 if wanted > 0 else -1
        sides[pair] = side
        total += side
        lead[models] += side * sign
