"""Events made only where there is a webhook to send them to, which is looked up once an operation.

Argilla loads the whole data set for each record's event, makes the event, and only then looks for
webhooks. What is sent, and when, stays the same.
"""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from argilla_server.bulk import records_bulk
from argilla_server.contexts import datasets, distribution, webhooks
from sqlalchemy.ext.asyncio import AsyncSession

from annotate.embedded.patches.replacement import Patch, Replacement

Notify = Callable[[AsyncSession, Any, Any], Awaitable[list[Any]]]
Operation = Callable[..., Awaitable[Any]]

_wanted: ContextVar[set[str] | None] = ContextVar("wanted events", default=None)
"""Kinds of event that a webhook asks for, plus "" once they have been looked up."""


def only_if_wanted(notify: Notify) -> Notify:
    """The event sender, asked only where a webhook wants such an event."""

    @functools.wraps(notify)
    async def notify_if_wanted(db: AsyncSession, event: Any, subject: Any) -> list[Any]:
        wanted = _wanted.get()
        if wanted is None:
            wanted = await enabled_events(db)
        elif not wanted:
            wanted |= await enabled_events(db)
        return await notify(db, event, subject) if event in wanted else []

    return notify_if_wanted


def looking_once(operation: Operation) -> Operation:
    """The operation, with webhooks looked up at most once while it runs."""

    @functools.wraps(operation)
    async def run(*arguments: Any, **named: Any) -> Any:
        with one_look():
            return await operation(*arguments, **named)

    return run


@contextmanager
def one_look() -> Iterator[None]:
    """Within it, webhooks are looked up at most once."""
    outer = _wanted.set(set())
    try:
        yield
    finally:
        _wanted.reset(outer)


async def enabled_events(db: AsyncSession) -> set[str]:
    """Kinds of event that an enabled webhook asks for, and ""."""
    enabled = await webhooks.list_enabled_webhooks(db)
    return {"", *(kind for webhook in enabled for kind in webhook.events)}


PATCH = Patch(
    # Where Argilla sends an event for each record and each response.
    Replacement(records_bulk, "notify_record_event_v1", only_if_wanted),
    Replacement(distribution, "notify_record_event_v1", only_if_wanted),
    Replacement(datasets, "notify_response_event_v1", only_if_wanted),
    # What sends several events for one request.
    Replacement(datasets, "create_response", looking_once),
    Replacement(datasets, "update_response", looking_once),
    Replacement(datasets, "upsert_response", looking_once),
)
