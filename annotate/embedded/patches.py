"""What makes Argilla 2.8.0 slow, mended in place.

Measured on a bulk of 256 records: building a pydantic TypeAdapter at every look at a question's or
a metadata property's settings, and loading the whole data set for each record's webhook event even
where no webhook exists, took nine tenths of the time. Each patch gives what the original gives.
Argilla is frozen at 2.8; with any other version nothing is touched.
"""

import logging
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from argilla_server._version import __version__ as argilla_version
from argilla_server.api.schemas.v1.questions import QuestionSettings
from argilla_server.bulk import records_bulk
from argilla_server.contexts import datasets, distribution, webhooks
from argilla_server.models import MetadataProperty, Question
from argilla_server.models.metadata_properties import MetadataPropertySettings
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

PATCHED_VERSION = "2.8.0"

_LOG = logging.getLogger(__name__)

Notify = Callable[[AsyncSession, Any, Any], Awaitable[list[Any]]]

_EVENT_SENDERS: tuple[tuple[ModuleType, str], ...] = (
    (records_bulk, "notify_record_event_v1"),
    (distribution, "notify_record_event_v1"),
    (datasets, "notify_response_event_v1"),
)
"""Where Argilla sends an event for each record and each response."""


def apply(version: str = argilla_version) -> bool:
    """Patch Argilla, once, before it serves; False if this is not the version that was measured."""
    if version != PATCHED_VERSION:
        _LOG.warning("Argilla is %s, not %s: left as it is, and slower", version, PATCHED_VERSION)
        return False
    Question.parsed_settings = _parsed_by(TypeAdapter(QuestionSettings))
    MetadataProperty.parsed_settings = _parsed_by(TypeAdapter(MetadataPropertySettings))
    for module, name in _EVENT_SENDERS:
        original = getattr(module, name)
        if not hasattr(original, "__wrapped__"):
            setattr(module, name, only_with_webhooks(original))
    return True


def _parsed_by(adapter: "TypeAdapter[Any]") -> property:
    """`parsed_settings` with an adapter that was built once."""

    def parsed_settings(owner: Any) -> Any:
        return adapter.validate_python(owner.settings)

    return property(parsed_settings)


def only_with_webhooks(notify: Notify) -> Notify:
    """The event sender, asked only where there is a webhook to send to.

    Webhooks are looked up once a session, which is once a request.
    """

    async def notify_if_any(db: AsyncSession, event: Any, subject: Any) -> list[Any]:
        if "any_webhook" not in db.info:
            db.info["any_webhook"] = bool(await webhooks.list_enabled_webhooks(db))
        return await notify(db, event, subject) if db.info["any_webhook"] else []

    notify_if_any.__wrapped__ = notify  # type: ignore[attr-defined]
    return notify_if_any
