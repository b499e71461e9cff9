"""Background jobs in threads of the server, without Redis."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable

import fakeredis
import pytest
from rq import Queue, Retry

from annotate.embedded import jobs

finished: list[object] = []


released = threading.Event()


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration in the same process (of another test) disables every logger there is."""
    monkeypatch.setattr(logging.getLogger(jobs.__name__), "disabled", False)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    finished.clear()
    monkeypatch.setattr(jobs, "RETRY_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "WORKERS", 1)  # one job after the other
    return Queue("default", connection=fakeredis.FakeRedis(server=fakeredis.FakeServer()))


def run_with_workers(queue: Queue, body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        jobs.start_workers(asyncio.get_running_loop(), [queue])
        await body()

    asyncio.run(main())


async def done(count: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while len(finished) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert len(finished) >= count, finished


async def note_loop(word: str) -> None:
    finished.append((word, id(asyncio.get_running_loop())))


def note_thread() -> None:
    finished.append(threading.current_thread().name)


def fail_twice() -> None:
    finished.append("tried")
    if len(finished) < 3:
        raise RuntimeError("not yet")


async def notify_event_job() -> None:
    """Has the name of Argilla's job that waits for the network without giving way."""
    finished.append((threading.current_thread().name, id(asyncio.get_running_loop())))


def test_coroutines_run_on_the_loop_of_the_server(queue: Queue) -> None:
    async def body() -> None:
        queue.enqueue(note_loop, "word")
        await done(1)
        assert finished == [("word", id(asyncio.get_running_loop()))]

    run_with_workers(queue, body)


def test_functions_and_blocking_coroutines_stay_off_the_loop(queue: Queue) -> None:
    async def body() -> None:
        queue.enqueue(note_thread)
        queue.enqueue(notify_event_job)
        await done(2)
        assert finished[0] == "jobs-default"
        assert isinstance(finished[1], tuple)
        assert finished[1][0] == "jobs-default"
        assert finished[1][1] != id(asyncio.get_running_loop())

    run_with_workers(queue, body)


def wait_for_the_hub() -> None:
    released.wait(20)


def test_a_job_that_waits_does_not_hold_up_the_next(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WORKERS", 2)
    released.clear()

    async def body() -> None:
        queue.enqueue(wait_for_the_hub)
        queue.enqueue(note_loop, "next")
        await done(1, 10)
        released.set()

    run_with_workers(queue, body)


def test_a_failed_job_is_logged_and_the_next_one_runs(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        queue.enqueue(note_loop)  # lacks its argument
        queue.enqueue(note_loop, "next")
        await done(1)

    with caplog.at_level(logging.ERROR, logger=jobs.__name__):
        run_with_workers(queue, body)
    assert "failed: " in caplog.text
    assert "missing 1 required positional argument" in caplog.text


def test_a_job_that_fails_is_tried_again_after_its_interval(queue: Queue) -> None:
    async def body() -> None:
        queue.enqueue(fail_twice, retry=Retry(max=3, interval=[1, 1, 1]))
        await done(3)
        await asyncio.sleep(0.5)
        assert finished == ["tried"] * 3

    run_with_workers(queue, body)


def test_a_worker_that_breaks_down_is_replaced(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "RESTART_SECONDS", 0.1)
    breakdowns = iter([RuntimeError("no more threads")])
    work = jobs._ThreadWorker.work

    def breaking(worker: jobs._ThreadWorker, **options: object) -> bool:
        for error in breakdowns:
            raise error
        return bool(work(worker, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(jobs._ThreadWorker, "work", breaking)

    async def body() -> None:
        queue.enqueue(note_thread)
        await done(1)

    run_with_workers(queue, body)
    assert "the worker of queue default broke down" in caplog.text
