"""Whether a person is in a workspace, looked up once for a page of the annotator's queue.

Argilla asks the database for each metadata property of each record of the page, and compares all
that the session holds before each time: a third of the page's time.
"""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from argilla_server.api.handlers.v1.datasets import records as handlers
from argilla_server.models import User

from annotate.embedded.patches.replacement import Patch, Replacement, endpoint_of

Look = Callable[[Any, UUID], Awaitable[bool]]
Endpoint = Callable[..., Awaitable[Any]]

_found: ContextVar[dict[tuple[UUID, UUID], bool] | None] = ContextVar("members", default=None)
"""What was looked up for the request; None where each look is its own."""


def _remembered(look: Look) -> Look:
    @functools.wraps(look)
    async def is_member(user: Any, workspace_id: UUID) -> bool:
        found = _found.get()
        if found is None:
            return await look(user, workspace_id)
        key = user.id, workspace_id
        if key not in found:
            found[key] = await look(user, workspace_id)
        return found[key]

    return is_member


def _looking_once(endpoint: Endpoint) -> Endpoint:
    @functools.wraps(endpoint)
    async def answer(**values: Any) -> Any:
        outer = _found.set({})
        try:
            return await endpoint(**values)
        finally:
            _found.reset(outer)

    return answer


PATCH = Patch(
    Replacement(User, "is_member", _remembered),
    Replacement(endpoint_of(handlers.search_current_user_dataset_records), "call", _looking_once),
)
