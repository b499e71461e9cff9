"""Webhooks that arrive: each event is written down before its request is answered, then delivered.

Argilla queues an event in Redis and drops it after three tries; here that queue would be in memory
and go with a kill. Instead the event is put into `deliveries` and sent from there: one after
another for each webhook, until the receiver answers with a 2xx status. In between are pauses that
grow from a second to an hour, and an event is given up when it is `KEEP` old, or at once after some
tries if the receiver refuses the event itself. A kill between the receiver's answer and our note of
it sends an event twice, with the same `webhook-id`.

Payload, headers and signature are Argilla's (Standard Webhooks); but the id stays the same over all
tries of an event, as that standard wants it. A ping goes out at once, as ever.
"""

import asyncio
import json
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from argilla_server._version import __version__ as argilla_version
from argilla_server.contexts import webhooks
from argilla_server.database import AsyncSessionLocal
from argilla_server.models import Webhook
from argilla_server.webhooks.v1 import commons
from argilla_server.webhooks.v1 import event as events
from fastapi.encoders import jsonable_encoder
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from standardwebhooks.webhooks import Webhook as Signature

from annotate.embedded.deliveries import Deliveries
from annotate.embedded.patches import PATCHED_VERSION

if TYPE_CHECKING:
    from sqlalchemy import Row

KEEP = timedelta(days=3)
"""A receiver may be away for a weekend."""

ANSWER_SECONDS = 20.0
LONGEST_PAUSE = 3600.0
DISABLED_PAUSE = 60.0
RECOUNT_SECONDS = 60.0

REFUSALS = frozenset({400, 413, 415, 422})
"""Answers that mean this event, not the moment."""
REFUSAL_TRIES = 5

_LOG = logging.getLogger(__name__)


class Delivery:
    """Delivers the events of one database's webhooks, on the server's loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.deliveries = Deliveries(engine)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._senders: dict[UUID, asyncio.Task[None]] = {}

    async def install(self, version: str = argilla_version) -> bool:
        """Take the place of Argilla's queue; False if this is not the version it was made for."""
        if version != PATCHED_VERSION:
            _LOG.warning("Argilla is %s, not %s: webhooks do not outlast a restart",
                         version, PATCHED_VERSION)  # fmt: skip
            return False
        await self.deliveries.prepare()
        events.enqueue_notify_events = self._enqueue
        return True

    async def _enqueue(
        self, db: AsyncSession, event: str, timestamp: datetime, data: dict[str, Any]
    ) -> list[Any]:
        """In the place of Argilla's function of this name; the jobs that it gives nobody uses."""
        enabled = await webhooks.list_enabled_webhooks(db)
        told = [webhook.id for webhook in enabled if event in webhook.events]
        if told:
            payload = commons._build_payload(event, timestamp, jsonable_encoder(data))
            await self.deliveries.put(db, event, json.dumps(payload), told)
            self.look()
        return []

    def look(self) -> None:
        """Have the events looked at soon; from any thread."""
        self._loop.call_soon_threadsafe(self._news.set)

    async def forever(self) -> None:
        """Deliver until cancelled; webhooks do not wait for each other."""
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            try:
                while True:
                    self._news.clear()
                    for webhook_id in self.deliveries.webhooks_with_waiting():
                        if webhook_id not in self._senders:
                            self._start(webhook_id, client)
                    try:
                        await asyncio.wait_for(self._news.wait(), RECOUNT_SECONDS)
                    except TimeoutError:
                        await self._recount()
            finally:
                for sender in self._senders.values():
                    sender.cancel()
                await asyncio.gather(*self._senders.values(), return_exceptions=True)

    async def _recount(self) -> None:
        if not self._senders:
            try:
                await self.deliveries.recount()
            except SQLAlchemyError as error:
                _LOG.warning("webhooks: the database is away: %s", type(error).__name__)

    def _start(self, webhook_id: UUID, client: httpx.AsyncClient) -> None:
        def ended(sender: "asyncio.Task[None]") -> None:
            del self._senders[webhook_id]
            if not sender.cancelled():
                self.look()  # something may have come while it ended

        sender = asyncio.create_task(self._serve(webhook_id, client))
        self._senders[webhook_id] = sender
        sender.add_done_callback(ended)

    async def _serve(self, webhook_id: UUID, client: httpx.AsyncClient) -> None:
        """Send what waits for one webhook."""
        failures = 0
        while webhook_id in self.deliveries.webhooks_with_waiting():
            try:
                pause = await self._send_some(webhook_id, client, failures)
            except Exception:  # noqa: BLE001 - the database was away: what waits is still there
                _LOG.exception("webhook %s: its events could not be looked at", webhook_id)
                pause = LONGEST_PAUSE / 60
            failures = failures + 1 if pause else 0
            await asyncio.sleep(pause)

    async def _send_some(self, webhook_id: UUID, client: httpx.AsyncClient, failures: int) -> float:
        """Send the next events until one fails; seconds to wait then, 0 if none did."""
        async with AsyncSessionLocal() as db:
            webhook = await Webhook.get(db, webhook_id)
        if webhook is None:
            await self.deliveries.drop(webhook_id)
            return 0.0
        rows = await self.deliveries.next(webhook_id)
        if not rows:
            await self.deliveries.recount()
        for row in rows:
            if not webhook.enabled:
                await self.deliveries.failed(row, "disabled", refused=False, keep=KEEP)
                return DISABLED_PAUSE
            status, problem = await _send(client, webhook, row)
            if not problem:
                await self.deliveries.delivered(row)
                if failures:
                    _LOG.warning("webhook %s: %s takes events again", webhook_id, _host(webhook))
                    return 0.0
                continue
            return await self._failed(webhook, row, status, problem, max(failures, row.tries))
        return 0.0

    async def _failed(
        self, webhook: Webhook, row: "Row[Any]", status: int, problem: str, failures: int
    ) -> float:
        refused = status in REFUSALS and row.tries + 1 >= REFUSAL_TRIES
        given_up = await self.deliveries.failed(row, problem, refused=refused, keep=KEEP)
        pause = min(LONGEST_PAUSE, 2.0 ** min(failures, 30))
        if not failures:
            _LOG.warning("webhook %s: %s: %s; its events wait", webhook.id, _host(webhook), problem)
        if given_up:
            _LOG.error(
                "webhook %s: %s: %s; gave up on %s events", webhook.id, _host(webhook), problem,
                given_up,
            )  # fmt: skip
            if refused:
                return 0.0  # the others have not been refused
        return pause


async def _send(client: httpx.AsyncClient, webhook: Webhook, row: "Row[Any]") -> tuple[int, str]:
    """Send one event; the status answered, 0 for none, and what is wrong, empty if it arrived.

    What is wrong says nothing that was sent or answered: either may hold secrets.
    """
    now = datetime.utcnow()
    try:
        signature = Signature(webhook.secret).sign(row.message_id, now, row.payload)
        headers = commons._build_headers(row.message_id, now, signature)
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            client.stream("POST", webhook.url, headers=headers, content=row.payload) as answer,
        ):
            problem = "" if answer.is_success else f"it answered with {answer.status_code}"
            return answer.status_code, problem
    except (httpx.TimeoutException, TimeoutError):
        return 0, "it does not answer"
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        return 0, f"it cannot be reached ({type(error).__name__})"


def _host(webhook: Webhook) -> str:
    """Where a webhook goes, without what may be a secret in its address."""
    try:
        return httpx.URL(webhook.url).host
    except httpx.InvalidURL:
        return "a wrong address"
