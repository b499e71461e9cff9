"""Argilla as it comes, for `stock`: `setup`, `server PORT` or `worker`, each a process of its own.

Nothing of ours is in it but the search engine, which stands in for Elasticsearch. That is made for
one process: here the worker's processes write to the same index files, so the server's looks before
each use whether another has written.
"""

import asyncio
import os
import sys
from uuid import UUID

from argilla_server.search_engine import SearchEngine

from annotate.embedded.engine import HandloomSearchEngine
from annotate.embedded.index import DatasetIndex


@SearchEngine.register("shared")
class SharedSearchEngine(HandloomSearchEngine):
    """Our engine on files that other processes write to as well."""

    _seen: dict[UUID, int] = {}  # noqa: RUF012 - shared by the engines of all requests

    def index(self, dataset_id: UUID) -> DatasetIndex:
        index = super().index(dataset_id)
        version = self._version(index)
        if self._seen.get(dataset_id, version) != version:
            self._open.pop(index.path).close()
            index = super().index(dataset_id)
            version = self._version(index)
        self._seen[dataset_id] = version
        return index

    @staticmethod
    def _version(index: DatasetIndex) -> int:
        version: int = index.read("PRAGMA data_version")[0][0]
        return version


def setup() -> None:
    """Make the tables, and an owner with the key of the environment."""
    from argilla_server.cli.database.migrate import migrate_db
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.enums import UserRole
    from argilla_server.models import User

    migrate_db("head")

    async def make_owner() -> None:
        async with AsyncSessionLocal() as db:
            await User.create(
                db,
                first_name="Owner",
                username="owner",
                role=UserRole.owner,
                api_key=os.environ["STOCK_API_KEY"],
                password_hash=accounts.hash_password(os.environ["STOCK_PASSWORD"]),
            )

    asyncio.run(make_owner())


def serve(port: int) -> None:
    """Argilla's server, as its own image starts it."""
    import argilla_server
    import uvicorn

    uvicorn.run(argilla_server.app, host="127.0.0.1", port=port, log_level="warning")


def work() -> None:
    """Argilla's worker, as its own image starts it."""
    from argilla_server.cli.worker import worker

    worker(queues=["high", "default"], num_workers=1)


if __name__ == "__main__":
    if sys.argv[1] == "setup":
        setup()
    elif sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        work()
