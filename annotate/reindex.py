"""Have the embedded server make search indexes anew from its database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from annotate.errors import ServerError
from annotate.progress import progress
from annotate.server import Server
from annotate.transport import StatusError

POLL_SECONDS = 0.2


class Reindexed(NamedTuple):
    """A data set whose index was made anew."""

    name: str
    records: int
    seconds: float


def reindex(server: Server, names: Sequence[str] = ()) -> Iterator[Reindexed]:
    """Rebuild the indexes of the published data sets of these names, or of all, one by one.

    People can go on working meanwhile: the old index answers until the new one is whole.

    Raises:
        ServerError: there is no such data set, the server has another search engine, or it failed.
    """
    found = server.request("GET", "me/datasets")["items"]
    ready = [item for item in found if item["status"] == "ready"]
    if missing := set(names) - {item["name"] for item in ready}:
        raise ServerError(
            f"no published data set is called {', '.join(sorted(missing))}", where=server.url
        )
    for item in ready:
        if not names or item["name"] in names:
            yield _reindex(server, item)


def _reindex(server: Server, dataset: dict[str, Any]) -> Reindexed:
    url = f"{server.url}/api/handloom/datasets/{dataset['id']}/reindex"
    began = time.monotonic()
    state = _asked(server, url)
    total = server.request("GET", f"datasets/{dataset['id']}/progress")["total"]
    with progress(dataset["name"], total) as advance:
        shown = 0
        while state["state"] == "running":
            time.sleep(POLL_SECONDS)
            state = server.request("GET", url)
            advance(state["records"] - shown)
            shown = state["records"]
    if state["state"] == "failed":
        raise ServerError(
            f"the search index was not rebuilt ({state['error']})",
            where=dataset["name"],
            remedy="The old one is still in place; the server's log says more",
        )
    return Reindexed(dataset["name"], state["total"], time.monotonic() - began)


def _asked(server: Server, url: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = server.request("POST", url)
    except StatusError as error:
        if error.status not in (404, 405):
            raise
        raise ServerError(
            "this server has a search engine of its own",
            where=server.url,
            remedy="There, use `python -m argilla_server search-engine reindex`",
        ) from None
    return state
