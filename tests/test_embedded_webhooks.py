"""Webhooks arrive, in order and signed, whatever the receiver and the server go through."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import argilla as rg
import httpx
import pytest
from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.models import Webhook
from argilla_server.webhooks.v1 import event as events
from conftest import RunningArgilla, run_argilla
from receiver import Receiver, eventually

from annotate.embedded import database as databases
from annotate.embedded import deliveries, webhooks
from annotate.embedded.database import VARIABLE
from annotate.embedded.home import holder
from annotate.embedded.process import stop

LIMIT_SECONDS = 90
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cw=="


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.open()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    home = Path(os.environ["ARGILLA_HOME_PATH"])
    chosen = databases.choose(home, None)
    with databases.opened(chosen, home):
        databases.migrate(chosen)


@asynccontextmanager
async def delivering(receiver: Receiver) -> AsyncIterator[webhooks.Delivery]:
    """Delivery at work on this process's database, with one webhook; all put back afterwards."""
    original = events.enqueue_notify_events
    async with AsyncSessionLocal() as db:
        for old in await webhooks.webhooks.list_webhooks(db):
            await old.delete(db)
        await Webhook.create(db, url=receiver.url, secret=SECRET, events=["response.created"])
    delivery = webhooks.Delivery(async_engine)
    assert await delivery.install()
    at_work = asyncio.create_task(delivery.forever())
    try:
        yield delivery
    finally:
        at_work.cancel()
        with suppress(asyncio.CancelledError):
            await at_work
        events.enqueue_notify_events = original
        await async_engine.dispose()


async def tell(number: int, kind: str = "response.created") -> None:
    async with AsyncSessionLocal() as db:
        await events.Event(kind, datetime.utcnow(), {"number": number}).notify(db)


async def webhook_id() -> object:
    async with AsyncSessionLocal() as db:
        (webhook,) = await webhooks.webhooks.list_webhooks(db)
    return webhook.id


async def arrived(receiver: Receiver, count: int, seconds: float = 20) -> bool:
    return await asyncio.to_thread(eventually, lambda: len(receiver.arrivals) >= count, seconds)


def numbers(receiver: Receiver) -> list[int]:
    return [arrival.data["number"] for arrival in receiver.arrivals]


def test_events_arrive_in_order_signed_and_counted(receiver: Receiver) -> None:
    async def body() -> None:
        async with delivering(receiver) as delivery:
            for number in range(20):
                await tell(number)
            await tell(99, "response.deleted")  # not asked for
            assert await arrived(receiver, 20)
            await asyncio.sleep(0.2)
            counts = await delivery.deliveries.counts(await webhook_id())
        assert numbers(receiver) == list(range(20))
        assert counts == {"waiting": 0, "dead": 0, "delivered": 20, "given_up": 0}
        for arrival in receiver.arrivals:
            arrival.verify(SECRET)

    asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))


def test_a_receiver_that_fails_gets_the_same_event_again(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with delivering(receiver):
            receiver.status = 503
            await tell(1)
            await tell(2)
            await asyncio.to_thread(eventually, lambda: len(receiver.tries) >= 2)
            receiver.status = 200
            assert await arrived(receiver, 2)
        assert numbers(receiver) == [1, 2]
        assert len(set(receiver.tries)) == 2  # one id an event, however often it was sent

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))
    assert caplog.text.count("it answered with 503; its events wait") == 1
    assert "takes events again" in caplog.text
    assert "in-the-address" not in caplog.text
    assert SECRET not in caplog.text


def test_a_receiver_that_hangs_holds_up_nobody_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_SECONDS", 0.5)
    other = Receiver()
    other.open()

    async def body() -> None:
        async with delivering(receiver):
            async with AsyncSessionLocal() as db:
                await Webhook.create(db, url=other.url, secret=SECRET, events=["response.created"])
            receiver.hang_seconds = 3.0
            for number in range(5):
                await tell(number)
            assert await arrived(other, 5, 2.5)
            receiver.hang_seconds = 0.0
            assert await arrived(receiver, 5)

    try:
        asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))
    finally:
        other.close()


def test_an_event_that_is_refused_makes_way_and_can_be_revived(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "REFUSAL_TRIES", 2)

    async def body() -> None:
        async with delivering(receiver) as delivery:
            receiver.status = 422
            await tell(1)
            own = await webhook_id()
            while (await delivery.deliveries.counts(own))["dead"] == 0:
                await asyncio.sleep(0.05)
            receiver.status = 200
            await tell(2)
            assert await arrived(receiver, 1)
            assert await delivery.deliveries.revive(own) == 1
            delivery.look()
            assert await arrived(receiver, 2)
            assert numbers(receiver) == [2, 1]
            counts = await delivery.deliveries.counts(own)
            assert (counts["dead"], counts["given_up"]) == (0, 1)

    asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))


def test_what_is_too_old_or_too_much_is_given_up_and_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "KEEP", timedelta(seconds=1.5))
    monkeypatch.setattr(deliveries, "MOST_WAITING", 5)
    monkeypatch.setattr(deliveries, "MOST_DEAD", 3)
    receiver.close()

    async def body() -> None:
        async with delivering(receiver) as delivery:
            for number in range(7):
                await tell(number)
            own = await webhook_id()
            assert (await delivery.deliveries.counts(own))["waiting"] == 5
            while (await delivery.deliveries.counts(own))["waiting"]:
                await asyncio.sleep(0.1)
            counts = await delivery.deliveries.counts(own)
            assert counts == {"waiting": 0, "dead": 3, "delivered": 0, "given_up": 7}

    asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))


def test_what_waits_for_a_deleted_webhook_goes_with_it(receiver: Receiver) -> None:
    receiver.status = 500

    async def body() -> None:
        async with delivering(receiver) as delivery:
            await tell(1)
            own = await webhook_id()
            async with AsyncSessionLocal() as db:
                webhook = await Webhook.get_or_raise(db, own)
                await webhook.delete(db)
            while any((await delivery.deliveries.counts(own)).values()):
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(body(), LIMIT_SECONDS))


def test_another_argilla_keeps_its_own_queue(caplog: pytest.LogCaptureFixture) -> None:
    original = events.enqueue_notify_events

    async def body() -> bool:
        return await webhooks.Delivery(async_engine).install("2.9.0")

    assert asyncio.run(body()) is False
    assert events.enqueue_notify_events is original
    assert "webhooks do not outlast a restart" in caplog.text


@pytest.fixture(params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningArgilla]:
    """A server of the test's own, on either database."""
    if request.param == "postgresql":
        monkeypatch.setenv(VARIABLE, request.getfixturevalue("postgres_url"))
    home = tmp_path / "argilla"
    yield run_argilla(home)
    stop(home)


def test_events_outlive_a_kill_of_the_server(server: RunningArgilla, receiver: Receiver) -> None:
    client = rg.Argilla(api_url=server.url, api_key=server.api_key)
    wanted = ["record.created", "dataset.published"]
    wish = {"url": receiver.url, "events": wanted}
    made = client.http_client.post("/api/v1/webhooks", json=wish).raise_for_status().json()
    secret = made["secret"]
    receiver.close()  # away while things happen and the server dies
    workspace = rg.Workspace("w", client=client).create()
    settings = rg.Settings(
        fields=[rg.TextField("text")], questions=[rg.LabelQuestion("label", labels=["a", "b"])]
    )
    dataset = rg.Dataset("d", workspace=workspace, settings=settings, client=client).create()
    dataset.records.log([{"id": f"r{n}", "text": f"record {n}"} for n in range(10)])
    pid = holder(server.home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: holder(server.home) is None)
    receiver.open()
    again = run_argilla(server.home)
    assert eventually(lambda: len(receiver.arrivals) >= 11), receiver.types
    assert receiver.types == ["dataset.published"] + ["record.created"] * 10
    names = [arrival.data["external_id"] for arrival in receiver.arrivals[1:]]
    assert names == [f"r{n}" for n in range(10)]
    assert len(set(receiver.tries)) == 11
    for arrival in receiver.arrivals:
        arrival.verify(secret)
    own = httpx.Client(base_url=f"{again.url}/api/handloom")
    key = {"X-Argilla-Api-Key": again.api_key}
    assert own.get("/webhooks", headers={"X-Argilla-Api-Key": "wrong"}).status_code == 401
    totals = {"waiting": 0, "dead": 0, "delivered": 11, "given_up": 0}
    assert eventually(
        lambda: own.get("/webhooks", headers=key).json()["items"] == [{"id": made["id"]} | totals]
    )
    retried = own.post(f"/webhooks/{made['id']}/retry", headers=key).raise_for_status()
    assert retried.json() == {"events": 0}
    log = (server.home / "server.log").read_text()
    assert secret not in log
    assert "in-the-address" not in log
