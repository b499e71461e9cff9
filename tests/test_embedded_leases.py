"""Leases: nobody is offered what enough people hold open, and nobody is kept from work for long."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.embedded.leases import BURST_SECONDS, YIELD_FRACTION, Leases

SILENCE = 600.0
DATASET, OTHER_DATASET = UUID(int=1), UUID(int=2)
ADA, BEN, CLEO = b"ada", b"ben", b"cleo"


class Clock:
    """Seconds, which the test lets pass."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


class Desk:
    """Leases, a clock, and one data set with its submitted answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = Leases(SILENCE, self.clock)
        self.submitted: dict[bytes, set[bytes]] = {}

    def taken(self, user: bytes, needed: int = 1) -> tuple[set[bytes], set[bytes]]:
        taken = self.leases.taken(DATASET, user, needed, self._submitted)
        return set(taken.held), set(taken.yielding)

    def serve(self, user: bytes, *records: bytes, dataset: UUID = DATASET) -> list[bytes]:
        self.leases.open(dataset, user, "view")
        stamp = self.leases.taken(dataset, user, 1, self._submitted).stamp
        return self.leases.grant(dataset, user, records, stamp, most=20)

    def answer(self, user: bytes, record: bytes, status: str = "submitted") -> None:
        if status == "submitted":
            self.submitted.setdefault(record, set()).add(user)
        self.leases.answered(DATASET, user, record, status, self.clock.moment)

    def _submitted(self, records: Collection[bytes]) -> Mapping[bytes, Collection[bytes]]:
        return {one: self.submitted[one] for one in records if one in self.submitted}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_what_one_holds_no_other_is_offered_where_one_answer_is_enough(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2")
    assert desk.taken(BEN) == ({b"1", b"2"}, set())
    assert desk.taken(ADA) == (set(), set())
    assert desk.taken(BEN, needed=2) == (set(), set())
    desk.serve(CLEO, b"2")
    assert desk.taken(BEN, needed=2) == ({b"2"}, set())


def test_leases_and_submitted_answers_count_together_and_each_person_once(desk: Desk) -> None:
    desk.submitted = {b"1": {CLEO}, b"2": {ADA}}
    desk.serve(ADA, b"1", b"2")
    assert desk.taken(BEN, needed=2) == ({b"1"}, set())


@pytest.mark.parametrize("status", ["submitted", "discarded", "deleted"])
def test_an_answer_ends_the_lease(desk: Desk, status: str) -> None:
    desk.serve(ADA, b"1", b"2")
    desk.answer(ADA, b"1", status)
    assert desk.taken(BEN) == ({b"2"}, set())
    assert desk.leases.open(DATASET, ADA, "view") == (b"2",)


def test_a_draft_keeps_the_lease_until_it_is_submitted(desk: Desk) -> None:
    desk.serve(ADA, b"1")
    desk.answer(ADA, b"1", "draft")
    assert desk.taken(BEN) == ({b"1"}, set())
    desk.answer(ADA, b"1")
    assert desk.taken(BEN) == (set(), set())


def test_after_a_while_all_but_the_record_in_front_yields_and_in_the_end_that_too(
    desk: Desk,
) -> None:
    desk.serve(ADA, b"1", b"2", b"3")
    desk.answer(ADA, b"1")
    desk.clock.seconds += SILENCE * YIELD_FRACTION + 1
    assert desk.taken(BEN) == ({b"2"}, {b"3"})
    desk.serve(ADA)
    assert desk.taken(BEN) == ({b"2", b"3"}, set())
    desk.clock.seconds += SILENCE + 1
    assert desk.taken(BEN) == (set(), set())


def test_what_was_passed_over_yields(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2", b"3")
    desk.answer(ADA, b"2")
    assert desk.taken(BEN) == ({b"3"}, {b"1"})


def test_what_a_page_has_lost_yields(desk: Desk) -> None:
    """Its address keeps the number of the record: a reload begins there."""
    desk.serve(ADA, b"1", b"2", b"3")
    assert desk.leases.open(DATASET, ADA, "view", offset=2) == (b"1", b"2", b"3")
    assert desk.taken(BEN) == ({b"3"}, {b"1", b"2"})
    desk.leases.open(DATASET, ADA, "view", offset=12)
    assert desk.taken(BEN) == (set(), {b"1", b"2", b"3"})


def test_after_a_break_the_page_goes_on_where_it_was(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2")
    desk.clock.seconds += SILENCE + 1
    assert desk.taken(BEN) == (set(), set())
    assert desk.leases.open(DATASET, ADA, "view", offset=2) == (b"1", b"2")
    assert desk.taken(BEN) == ({b"1", b"2"}, set())


def test_who_turns_to_another_data_set_yields_all_but_their_drafts(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2")
    desk.answer(ADA, b"1", "draft")
    desk.serve(ADA, b"9", dataset=OTHER_DATASET)
    assert desk.taken(BEN) == ({b"1"}, {b"2"})


def test_another_view_releases_what_was_held_for_the_first(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2")
    assert desk.leases.open(DATASET, ADA, "filtered") is None
    assert desk.taken(BEN) == (set(), set())


def test_who_leafs_through_a_data_set_holds_only_the_last_pages(desk: Desk) -> None:
    records = [bytes([number]) for number in range(50)]
    for start in range(0, 50, 10):
        desk.serve(ADA, *records[start : start + 10])
    assert desk.taken(BEN)[0] == set(records[-20:])


def test_of_two_who_found_the_same_only_the_first_is_granted_it(desk: Desk) -> None:
    stamp = desk.leases.taken(DATASET, BEN, 1, desk._submitted).stamp
    desk.serve(ADA, b"1")
    assert desk.leases.grant(DATASET, BEN, [b"1", b"2"], stamp, most=20) == [b"2"]


def test_pages_become_shorter_towards_the_end(desk: Desk) -> None:
    for user in (ADA, BEN, CLEO):
        desk.serve(user)
    assert desk.leases.room(DATASET, ADA, free=600) == 100
    desk.serve(ADA, *(bytes([number]) for number in range(5)))
    desk.answer(ADA, bytes([0]))
    assert desk.leases.room(DATASET, ADA, free=20) == 0  # a share of four, and four ahead
    assert desk.leases.room(DATASET, ADA, free=20) == 1  # asked again without having answered
    assert desk.leases.room(DATASET, BEN, free=1) == 1


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([ADA, BEN, CLEO]),
            st.sampled_from(["serve", "submitted", "discarded", "draft", "wait", "view"]),
            st.integers(0, 30),
        ),
        max_size=60,
    ),
    needed=st.integers(1, 3),
)
def test_no_record_is_ever_held_by_more_than_it_needs(
    steps: list[tuple[bytes, str, int]], needed: int
) -> None:
    desk = Desk()
    done: dict[bytes, set[bytes]] = {user: set() for user in (ADA, BEN, CLEO)}
    for user, what, number in steps:
        mine = desk.leases.open(DATASET, user, "view") or ()
        if what == "serve":
            taken = desk.leases.taken(DATASET, user, needed, desk._submitted)
            free = [
                record
                for record in (bytes([n]) for n in range(30))
                if record not in taken.held | taken.yielding | set(mine) | done[user]
                and len(desk.submitted.get(record, ())) < needed
            ]
            desk.leases.grant(DATASET, user, free[:number], taken.stamp, most=20)
        elif what == "wait":
            desk.clock.seconds += number
        elif what == "view":
            desk.leases.open(DATASET, user, number)
        elif mine:
            record = mine[number % len(mine)]
            done[user].add(record)
            desk.answer(user, record, what)
    over = [record for record, people in desk.submitted.items() if len(people) > needed]
    assert over == []


def test_seconds_count_from_when_it_was_shown_or_from_the_answer_before(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2", b"3")
    desk.clock.seconds += 12
    desk.answer(ADA, b"1")
    first = desk.clock.moment
    desk.clock.seconds += 30
    desk.answer(ADA, b"2")
    assert desk.leases.seconds(ADA, b"1", first) == pytest.approx(12)
    assert desk.leases.seconds(ADA, b"2", desk.clock.moment) == pytest.approx(30)
    naive = desk.clock.moment.replace(tzinfo=None)
    assert desk.leases.seconds(ADA, b"2", naive) == pytest.approx(30)


def test_seconds_are_unknown_where_they_cannot_be_known(desk: Desk) -> None:
    desk.serve(ADA, b"1", b"2", b"3")
    assert desk.leases.seconds(ADA, b"9", desk.clock.moment) is None
    assert desk.leases.seconds(BEN, b"1", desk.clock.moment) is None
    before_it_was_shown = desk.clock.moment - timedelta(seconds=1)
    assert desk.leases.seconds(ADA, b"1", before_it_was_shown) is None
    desk.clock.seconds += SILENCE + 1
    assert desk.leases.seconds(ADA, b"1", desk.clock.moment) is None
    desk.serve(ADA, b"2", b"3")
    desk.clock.seconds += 20
    together = desk.clock.moment
    desk.answer(ADA, b"2")
    desk.clock.seconds += BURST_SECONDS / 2
    desk.answer(ADA, b"3")
    assert desk.leases.seconds(ADA, b"2", together) is None
    assert desk.leases.seconds(ADA, b"3", desk.clock.moment) is None
