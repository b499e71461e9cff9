"""Argilla's background jobs without Redis and without a worker process.

Argilla queues its jobs (status updates after a change of the overlap, import and export, webhooks)
with rq on Redis. Here Redis is fakeredis, in memory, and the workers are threads of the server.
What was queued when the server was killed is lost: `rebuild` finds at start what that left undone,
`hub` says so of imports and exports, and webhooks are not queued here (`webhooks`).
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import fakeredis
import redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.timeouts import TimerDeathPenalty

_LOG = logging.getLogger(__name__)

BLOCKING_JOBS = {"notify_event_job", "export_dataset_to_hub_job", "import_dataset_from_hub_job"}
"""Coroutines that wait for the network without giving way: they would stop the whole server."""

WORKERS = 2
"""A queue's threads: an import that waits for the Hub must not hold up a change of the overlap."""

RETRY_CHECK_SECONDS = 5.0
RESTART_SECONDS = 1.0


def replace_redis() -> None:
    """Have every later `redis.from_url` answered in memory; before argilla_server is imported."""
    server = fakeredis.FakeServer()

    def from_url(*_: Any, **__: Any) -> fakeredis.FakeRedis:
        return fakeredis.FakeRedis(server=server)

    redis.from_url = from_url


def start_workers(
    loop: asyncio.AbstractEventLoop,
    queues: list[Queue],
    after: Callable[[Job], None] = lambda job: None,
) -> None:
    """Work on the queues until the process ends, a few threads each.

    A job's coroutine runs on the server's loop, to which its database connections belong; the
    blocking ones run on a loop of their own in the worker's thread.

    Args:
        loop: the server's.
        queues: of Argilla's jobs.
        after: called with every job that was tried, in the worker's thread.
    """

    def execute(job: Job) -> Any:
        result = job.func(*job.args, **job.kwargs)
        if not asyncio.iscoroutine(result):
            return result
        if job.func.__name__ in BLOCKING_JOBS:
            return asyncio.run(result)
        return asyncio.run_coroutine_threadsafe(result, loop).result()

    Job._execute = execute  # type: ignore[method-assign, assignment]
    for queue in queues:
        for _ in range(WORKERS):
            threading.Thread(
                target=_work, args=[queue, after], name=f"jobs-{queue.name}", daemon=True
            ).start()
    threading.Thread(target=_requeue_retries, args=[queues], name="jobs-retry", daemon=True).start()


class _ThreadWorker(SimpleWorker):
    """rq's worker without what only a process's main thread can do."""

    death_penalty_class = TimerDeathPenalty  # type: ignore[assignment]
    after: Callable[[Job], None]

    def _install_signal_handlers(self) -> None:
        pass

    def subscribe(self) -> None:
        pass

    def unsubscribe(self) -> None:
        pass

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        # Not its description: that has the arguments, and one is the user's token for the Hub.
        _LOG.error("job %s failed: %s", job.id, job.func_name, exc_info=exc_info)
        super().handle_exception(job, *exc_info)

    def perform_job(self, job: Job, queue: Queue) -> bool:
        succeeded = super().perform_job(job, queue)
        self.after(job)
        return succeeded


def _work(queue: Queue, after: Callable[[Job], None]) -> None:
    stopped = threading.Event()
    while True:
        try:
            worker = _ThreadWorker([queue], connection=queue.connection)
            worker.after = after
            worker.work(logging_level="WARNING")
        except Exception:  # noqa: BLE001 - logged; without its worker every later job would hang
            _LOG.exception("the worker of queue %s broke down: starting it again", queue.name)
        stopped.wait(RESTART_SECONDS)


def _requeue_retries(queues: list[Queue]) -> None:
    """Put failed jobs that wait for another try back into their queue when their time has come."""
    clock = threading.Event()
    while not clock.wait(RETRY_CHECK_SECONDS):
        for queue in queues:
            try:
                _requeue_due(queue)
            except Exception:  # noqa: BLE001 - logged; without this thread nothing is tried again
                _LOG.exception("jobs of queue %s could not be queued again", queue.name)


def _requeue_due(queue: Queue) -> None:
    registry: Any = ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]
    for job in Job.fetch_many(registry.get_jobs_to_schedule(), connection=queue.connection):
        if job is not None:
            queue._enqueue_job(job)
            registry.remove(job)
