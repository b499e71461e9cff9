"""Who holds which records open: so that no more people are offered one than it needs answers.

Argilla's overlap is a target: it goes on offering a record to everybody until enough have answered
it. Here a person holds what was put on their page, until they answer it or fall silent. All of it
is in memory: after a restart nobody holds anything, and at worst a few answers are one too many
(they are kept like any other).

Within its data set, a person's **lease** is on each record that was served to them and that they
have not answered, and on their drafts. It lives as long as they do something at least every
`silence` seconds. What they passed over **yields**: it goes to whoever would have nothing to do
otherwise. So does, after a fifth of that time, what lies behind the record in front of them, and
everything once they work on another data set. What was served to them is remembered for longer, so
that their page goes on where it was after a break. One request costs time in proportion to the
live leases of its data set.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from uuid import UUID

DEFAULT_MINUTES = 10.0

YIELD_FRACTION = 1 / 5
"""Part of the lease after which only the record in front is kept from those with nothing to do."""

FORGOTTEN_AFTER = 12 * 3600
"""Seconds of silence after which it is forgotten what was served to a person."""

BURST_SECONDS = 0.2
"""Answers closer together than this were given together (bulk view): no telling how long each."""

REMEMBERED = 500
"""Records, and answers, of which a person's times are remembered for `seconds`."""

Submitted = Callable[[Collection[bytes]], Mapping[bytes, Collection[bytes]]]
"""Records' ids → for each, the ids of those who have submitted an answer."""


@dataclass(frozen=True)
class Taken:
    """What a person is not offered: `held` never, `yielding` only when nothing else is left."""

    held: frozenset[bytes]
    yielding: frozenset[bytes]
    stamp: int
    """Grants made after this one are not in here."""


@dataclass
class _Seat:
    """One person at one data set."""

    active: float
    view: Hashable = None
    served: dict[bytes, int] = field(default_factory=dict)
    """Records on the person's page and not answered, in order → the stamp of their grant."""
    skipped: int = 0
    """How many of `served` come before the record that was answered last."""
    most: int = 0
    """How many of `served` are held, the newest first: who leafs through all holds not all."""
    drafts: set[bytes] = field(default_factory=set)
    left: bool = False
    answering: bool = False
    asked_again: bool = False
    shown: dict[bytes, float] = field(default_factory=dict)
    answers: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def leases(self, now: float, silence: float) -> tuple[set[bytes], set[bytes]]:
        """What the person holds, and what they hold but yield."""
        quiet = now - self.active
        if quiet > silence:
            return set(), set()
        in_order = list(self.served)
        held = set(in_order[-self.most :]) if self.most else set()
        ahead = in_order[self.skipped :]
        if self.left:
            ahead = []
        elif quiet > silence * YIELD_FRACTION:
            ahead = ahead[:1]
        firm = self.drafts | (held & set(ahead))
        return firm, held - firm


class Leases:
    """The leases of one server; safe to use from several threads.

    Args:
        silence: seconds without a sign of life after which a person's leases end; 0: no leases.
        now: the clock, in seconds since 1970.
    """

    def __init__(
        self, silence: float = 60 * DEFAULT_MINUTES, now: Callable[[], float] = time.time
    ) -> None:
        self.silence = silence
        self._now = now
        self._lock = Lock()
        self._stamp = 0
        self._desks: dict[UUID, dict[bytes, _Seat]] = defaultdict(dict)

    def open(
        self, dataset: UUID, user: bytes, view: Hashable, offset: int = 0
    ) -> tuple[bytes, ...] | None:
        """A person asks for a page of their queue: what was served before and is not answered.

        None if they look at another view of it than before (a new filter, say): what they held
        for the old one is released.

        Args:
            offset: where the page begins. The web page goes on at the number of records that it
                has and that are not answered; it has lost, or passed over, what is before any
                other offset.
        """
        with self._lock:
            seat = self._sit(dataset, user)
            if seat.view != view:
                seat.view, seat.skipped, seat.served = view, 0, {}
                return None
            if offset not in (0, len(seat.served)):
                seat.skipped = min(offset, len(seat.served))
            return tuple(seat.served)

    def keep(self, dataset: UUID, user: bytes, records: Collection[bytes]) -> tuple[bytes, ...]:
        """A person's page is loaded anew: of what was served, only these are still there."""
        with self._lock:
            seat = self._sit(dataset, user)
            seat.served = {one: stamp for one, stamp in seat.served.items() if one in records}
            seat.skipped = 0
            return tuple(seat.served)

    def taken(self, dataset: UUID, user: bytes, needed: int, submitted: Submitted) -> Taken:
        """What is not to be offered to this person.

        Args:
            needed: answers that a record of this data set needs.
            submitted: asked, where one answer is not enough, about the records that are held.
        """
        firm: dict[bytes, set[bytes]] = defaultdict(set)
        yielding: dict[bytes, set[bytes]] = defaultdict(set)
        with self._lock:
            stamp, now = self._stamp, self._now()
            for other, seat in self._desks[dataset].items():
                if other != user:
                    held, yielded = seat.leases(now, self.silence)
                    for records, by in ((held, firm), (yielded, yielding)):
                        for record in records:
                            by[record].add(other)
        answered = submitted(firm.keys() | yielding.keys()) if needed > 1 else {}
        full = {one for one in firm if len(firm[one].union(answered.get(one, ()))) >= needed}
        half = {
            one
            for one in yielding.keys() - full
            if len((yielding[one] | firm.get(one, set())).union(answered.get(one, ()))) >= needed
        }
        return Taken(frozenset(full), frozenset(half), stamp)

    def room(self, dataset: UUID, user: bytes, free: int) -> int:
        """How many records more to serve a person now, of those that are free for them.

        Half of what is left, shared among all at work (guided self-scheduling, Polychronopoulos
        and Kuck, 1987): pages become shorter towards the end, so that nobody sits on the last
        records while the others have none. At least one for who has none before them, or asks
        again without having answered.
        """
        with self._lock:
            seat = self._sit(dataset, user)
            ahead = len(seat.served) - seat.skipped
            present = sum(self._is_present(one) for one in self._desks[dataset].values())
            share = -(-(free + ahead) // (2 * present))
            room = max(share - ahead, 1 if seat.asked_again or not ahead else 0)
            seat.asked_again = True
            return room

    def grant(
        self, dataset: UUID, user: bytes, records: Iterable[bytes], stamp: int, most: int
    ) -> list[bytes]:
        """Lease records to a person who is about to see them.

        Args:
            stamp: of the `Taken` by which they were found.
            most: how many a person may hold at once.

        Returns:
            Those of them that nobody else was granted in the meantime.
        """
        with self._lock:
            seat = self._sit(dataset, user)
            others = [one for by, one in self._desks[dataset].items() if by != user]
            self._stamp += 1
            seat.most = most
            granted = [
                record
                for record in records
                if all(other.served.get(record, 0) <= stamp for other in others)
            ]
            for record in granted:
                seat.served[record] = self._stamp
                seat.shown.setdefault(record, self._now())
            while len(seat.shown) > max(REMEMBERED, len(seat.served)):
                del seat.shown[next(iter(seat.shown))]
            return granted

    def answered(
        self, dataset: UUID, user: bytes, record: bytes, status: str, at: datetime
    ) -> None:
        """A person answered a record, and the search index knows: their lease on it ends.

        Args:
            status: `draft` keeps the lease; `submitted` and `discarded` end it, and so does
                `deleted`, with which an answer is withdrawn.
            at: the answer's time, naive (UTC) or aware.
        """
        if not self.silence:
            return
        with self._lock:
            seat = self._sit(dataset, user)
            seat.answering, seat.asked_again = True, False
            if record in seat.served:
                seat.skipped = list(seat.served).index(record)
                del seat.served[record]
            seat.drafts.discard(record)
            if status == "draft":
                seat.drafts.add(record)
            if status != "deleted":
                seat.answers.append(_timestamp(at))

    def is_answering(self, dataset: UUID, user: bytes) -> bool:
        """Whether the person has answered something here of late."""
        with self._lock:
            seat = self._desks[dataset].get(user)
            return seat is not None and seat.answering and self._is_present(seat)

    def forget(self, dataset: UUID) -> None:
        """The data set is gone."""
        with self._lock:
            self._desks.pop(dataset, None)

    def seconds(self, user: bytes, record: bytes, at: datetime) -> float | None:
        """How long a person had a record before them when they answered it.

        Since it was served, or since their answer before, whichever is later. None where that is
        not known (given together with others, found by other ways than the queue, served before a
        restart), or they were silent for longer than a lease lasts.
        """
        moment = _timestamp(at)
        with self._lock:
            seats = (desk[user] for desk in self._desks.values() if user in desk)
            seat = next((seat for seat in seats if record in seat.shown), None)
            if seat is None:
                return None
            gaps = [moment - answer for answer in seat.answers if answer != moment]
            gaps.append(moment - seat.shown[record])
        if any(abs(gap) < BURST_SECONDS for gap in gaps[:-1]) or gaps[-1] < 0:
            return None
        shortest = min(gap for gap in gaps if gap >= 0)
        return shortest if shortest <= self.silence else None

    def _is_present(self, seat: _Seat) -> bool:
        return not seat.left and self._now() - seat.active <= self.silence

    def _sit(self, dataset: UUID, user: bytes) -> _Seat:
        """The person's place here, where they are active now, and at no other data set."""
        now = self._now()
        for other, desk in self._desks.items():
            if other != dataset and user in desk:
                desk[user].left = True
        desk = self._desks[dataset]
        for absent in [by for by, one in desk.items() if now - one.active > FORGOTTEN_AFTER]:
            del desk[absent]
        seat = desk.setdefault(user, _Seat(now))
        seat.active, seat.left = now, False
        return seat


def _timestamp(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_SERVER = Leases()


def of_server() -> Leases:
    """The leases of the server that runs in this process."""
    return _SERVER


def seconds(user_id: UUID, record_id: UUID, at: datetime) -> float | None:
    """`Leases.seconds` of the server that runs in this process."""
    return _SERVER.seconds(user_id.bytes, record_id.bytes, at)
