"""Jobs that import from and export to the Hub: own connections, and the truth after a kill.

Argilla's queue is in memory here. A hub job that was waiting or at work when the server died is not
run again: an export holds the user's token for the Hub, which is written nowhere. Instead a note on
the disk outlives the server, and `/api/v1/jobs/{id}` then says that the job failed, as the web page
expects. Starting it again is safe: an import updates the records that it had made, by their row;
an export writes over what it had sent.
"""

import logging
import time
import uuid
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from argilla_server.jobs import hub_jobs
from argilla_server.jobs.queues import DEFAULT_QUEUE
from argilla_server.settings import settings
from rq.job import Job, JobStatus
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

KEEP_SECONDS = 7 * 24 * 3600.0
"""How long `/jobs/{id}` goes on saying that a job was cut off."""

JOBS = ("import_dataset_from_hub_job", "export_dataset_to_hub_job")

_ENDED = {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}
_LOG = logging.getLogger(__name__)


def use_own_connections() -> None:
    """Give the hub jobs connections of their own: they run on loops of their own.

    A connection to PostgreSQL belongs to the loop that opened it.
    """
    arguments = settings.database_engine_args if settings.database_is_sqlite else {}
    engine = create_async_engine(settings.database_url, poolclass=NullPool, **arguments)
    hub_jobs.AsyncSessionLocal = async_sessionmaker(engine, expire_on_commit=False)


class HubJobNotes:
    """One file for each hub job that has not ended, named by its id.

    Args:
        folder: where they lie, made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True, mode=0o700)

    def install(self) -> None:
        """Have Argilla note each hub job before it queues it."""
        for name in JOBS:
            function = getattr(hub_jobs, name)
            function.delay = self._noting(function.delay)

    def _noting(self, delay: Callable[..., Job]) -> Callable[..., Job]:
        @wraps(delay)
        def noted(*arguments: Any, **options: Any) -> Job:
            job_id = str(uuid.uuid4())
            (self._folder / job_id).touch()
            return delay(*arguments, job_id=job_id, **options)

        return noted

    def after(self, job: Job) -> None:
        """Forget a job that has ended, one way or the other."""
        if job.get_status(refresh=True) in _ENDED:
            (self._folder / job.id).unlink(missing_ok=True)

    def report_cut_off(self) -> list[str]:
        """Have the jobs that an earlier server did not end stand as failed; their ids."""
        cut_off = []
        for note in sorted(self._folder.iterdir()):
            if time.time() - note.stat().st_mtime > KEEP_SECONDS:
                note.unlink()
                continue
            job = Job.create(
                "cut_off", id=note.name, connection=DEFAULT_QUEUE.connection,
                status=JobStatus.FAILED,
            )  # fmt: skip
            job.save()
            cut_off.append(note.name)
        if cut_off:
            _LOG.warning("hub jobs that a stop of the server cut off: %s", ", ".join(cut_off))
        return cut_off
