"""A person's own queue, with leases: what Argilla's page offers them next.

How the page asks (its bundled code, 2.8.0): for the records whose status is pending and that the
person has not answered, ten at a time (in bulk view 10, 25, 50 or 100). It keeps what it got and
asks again in the background when half a page is left, with the number of records that it has and
that are not answered as the offset; a reload starts from offset 0 (or the number in the address).
So the queue that it must be shown is: first what this person was served and has not answered, in
that order, then what is new. Others' answers and leases change only the second part, and no record
is skipped or shown twice.
"""

import sys
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from argilla_server.models import Dataset, Response, User
from argilla_server.search_engine import (
    AndFilter,
    Filter,
    RecordFilterScope,
    ResponseFilterScope,
    TermsFilter,
)

from annotate.embedded import search
from annotate.embedded.index import DatasetIndex
from annotate.embedded.leases import Leases, Taken
from annotate.server_types import CAP

PAGES_HELD = 2
"""A person holds at most so many pages: the one before them and the one fetched ahead."""


@dataclass(frozen=True)
class Queue:
    """Whose queue, of which data set, filtered and sorted how."""

    leases: Leases
    dataset: UUID
    needed: int
    """Answers that a record needs."""
    user: bytes
    supervisor: bool
    view: Hashable
    cap: int | None = None
    """Records of the data set that one person may answer."""


def queue_of(
    leases: Leases, dataset: Dataset, user_id: UUID | str | None, request: search.Search
) -> Queue | None:
    """The queue that a search asks for; None if it asks for something else, or leases are off."""
    asked_for = _pending_for(request.filter)
    if not leases.silence or user_id is None or asked_for is None:
        return None
    if asked_for.id != UUID(str(user_id)):
        return None
    return Queue(
        leases=leases,
        dataset=dataset.id,
        needed=int(dataset.distribution["min_submitted"]),
        user=asked_for.id.bytes,
        supervisor=not asked_for.is_annotator,
        view=_view(request),
        cap=_cap(dataset),
    )


def _cap(dataset: Dataset) -> int | None:
    cap = (dataset.metadata_ or {}).get(CAP)
    return cap if isinstance(cap, int) and not isinstance(cap, bool) else None


def _pending_for(filter: Filter | None) -> User | None:
    """The person for whom a filter wants the records that still need answers, theirs among them."""
    parts = [
        part
        for part in _parts(filter)
        if isinstance(part, TermsFilter)
        and [_plain(value) for value in part.values] == ["pending"]
        and _plain(getattr(part.scope, "property", None)) == "status"
    ]
    if not any(isinstance(part.scope, RecordFilterScope) for part in parts):
        return None
    people = [part.scope.user for part in parts if isinstance(part.scope, ResponseFilterScope)]
    return people[0] if people else None


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _parts(filter: Filter | None) -> list[Any]:
    if isinstance(filter, AndFilter):
        return [inner for part in filter.filters for inner in _parts(part)]
    return [] if filter is None else [filter]


def _view(request: search.Search) -> str:
    """What a search asks for, without the person, whose object is another one every time."""
    parts = [*_parts(request.filter), *request.sort]
    said = [{**vars(part), "scope": vars(part.scope) | {"user": None}} for part in parts]
    return repr((request.text, said))


def serve(
    queue: Queue, index: DatasetIndex, request: search.Search
) -> tuple[list[search.Hit], int]:
    """A page of a person's queue, leased to them, and how many records they can be offered in all.

    Owners and admins are offered what others are not holding, but hold nothing themselves until
    they answer: they mostly look, and looking must not keep work from annotators.
    """
    if queue.supervisor and not queue.leases.is_answering(queue.dataset, queue.user):
        taken = _taken(queue, index)
        return search.run(index, replace(request, excluded=taken.held | taken.yielding))
    mine = queue.leases.open(queue.dataset, queue.user, queue.view, request.offset)
    while True:
        page = _page(queue, index, request, mine)
        if page is not None:
            return page


def _page(
    queue: Queue, index: DatasetIndex, request: search.Search, mine: tuple[bytes, ...] | None
) -> tuple[list[search.Hit], int] | None:
    """None if all that was found new was granted to others meanwhile: then there is a next try.

    Args:
        mine: what was served to the person before; None in a view that they open.
    """
    taken = _taken(queue, index)
    opened_at = request.offset if mine is None else 0
    mine = mine or ()
    again: list[search.Hit] = []
    if request.offset < len(mine):
        found = _among(index, request, frozenset(mine) - taken.held - taken.yielding)
        if request.offset == 0:  # the page was loaded anew, and has only what it gets now
            mine = queue.leases.keep(queue.dataset, queue.user, found)
        stop = request.offset + request.limit
        again = [found[one] for one in mine[request.offset : stop] if one in found]
    rest = replace(
        request,
        offset=opened_at,
        limit=request.limit - len(again),
        excluded=taken.held | taken.yielding | frozenset(mine),
    )
    hits, free = search.run(index, rest)
    if not free and not mine and taken.yielding:
        hits, free = search.run(index, replace(rest, excluded=taken.held))
    left = _left(queue, index, len(mine))
    free = min(free, left)
    wanted = hits[: min(left, queue.leases.room(queue.dataset, queue.user, free))]
    granted = queue.leases.grant(
        queue.dataset,
        queue.user,
        [hit.record for hit in wanted],
        taken.stamp,
        PAGES_HELD * request.limit,
    )
    if wanted and not granted and not again:
        return None
    return [*again, *(hit for hit in wanted if hit.record in granted)], len(mine) + free


def _left(queue: Queue, index: DatasetIndex, held: int) -> int:
    """How many records more this person may be given under their cap."""
    if queue.cap is None:
        return sys.maxsize
    answers = search.user_progress(index, queue.user)
    begun = answers.get("submitted", 0) + answers.get("draft", 0)
    return max(0, queue.cap - begun - held)


def note_answer(leases: Leases, response: Response, status: str) -> None:
    """An answer is in the index: it ends, or in a draft keeps, its author's lease."""
    record = response.record
    leases.answered(
        record.dataset_id, response.user_id.bytes, record.id.bytes, status, response.updated_at
    )


def _taken(queue: Queue, index: DatasetIndex) -> Taken:
    return queue.leases.taken(
        queue.dataset, queue.user, queue.needed, partial(search.submitters, index)
    )


def _among(
    index: DatasetIndex, request: search.Search, records: frozenset[bytes]
) -> dict[bytes, search.Hit]:
    """Which of some records a search still finds."""
    ids = TermsFilter(RecordFilterScope("id"), [str(UUID(bytes=record)) for record in records])
    narrowed = AndFilter([ids, *_parts(request.filter)])
    request = replace(request, filter=narrowed, sort=(), offset=0, limit=len(records))
    return {hit.record: hit for hit in search.run(index, request)[0]} if records else {}
