"""The only client of Argilla: batches, records, responses, users.

Over REST where the SDK loses data (ranks, ties, the responses of users it does not know) or time;
the SDK makes data sets, because it knows how settings are spelled. Everything here may be repeated
after a crash: a repeat finds what is there and adds nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from annotate.errors import ServerError
from annotate.guidelines import Guideline
from annotate.record_json import RecordJson
from annotate.runs import Project, Run
from annotate.server_types import (
    CAP,
    Batch,
    Placed,
    Record,
    Response,
    Submission,
    User,
    check_workspace,
)
from annotate.transport import StatusError, Transport, nothing_collected, one_ahead, pause

URL_VARIABLE, KEY_VARIABLE = "HANDLOOM_ARGILLA_URL", "HANDLOOM_ARGILLA_API_KEY"
WORKSPACE_VARIABLE, WORKSPACE = "HANDLOOM_ARGILLA_WORKSPACE", "handloom"

RECORDS_A_REQUEST = 500  # Argilla's limits
RECORDS_A_PAGE = 1000
RESPONSES_A_REQUEST = 100

_PASSES = 5
_CREATE_ATTEMPTS = 4


def connect(project: Project, workspace: str | None = None) -> Server:
    """The server this project uses: the environment's, else the embedded one if it is running.

    Args:
        workspace: the environment's, else `handloom`, if None.

    Raises:
        InputError: the environment names a workspace as none can be called.
        ServerError: none is running, it cannot be reached, or it refuses the key.
    """
    url, key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    if url and not key:
        raise ServerError(
            f"{URL_VARIABLE} is set and {KEY_VARIABLE} is not",
            remedy=f"Set {KEY_VARIABLE} to an owner's key",
        )
    if url and "@" in urlsplit(url).netloc:
        # The address is printed in errors and recorded in manifests.
        raise ServerError(
            f"{URL_VARIABLE} holds a name or password", remedy=f"Use {KEY_VARIABLE} instead"
        )
    if not url or not key:
        from annotate.embedded.home import credentials

        own = credentials(project.state_dir / "argilla")
        url, key = own.url, own.api_key
    if not workspace:
        named = os.environ.get(WORKSPACE_VARIABLE)
        workspace = check_workspace(named, WORKSPACE_VARIABLE) if named else WORKSPACE
    server = Server(url, key, workspace=workspace)
    server.check()
    return server


def workspace_of(push_run: Run) -> str | None:
    """The workspace that the batches of a push are in; None leaves it to `connect`.

    The push's --workspace, else the one the environment names now, else the one it named then.
    """
    if (asked := push_run.manifest["settings"].get("workspace")) is not None:
        return str(asked)
    return None if os.environ.get(WORKSPACE_VARIABLE) else push_run.metrics.get("workspace")


class Server:
    """One Argilla server, as one user sees it."""

    def __init__(self, url: str, api_key: str, *, workspace: str = WORKSPACE) -> None:
        self._transport = Transport(url, api_key)
        self._key = api_key
        self.url = self._transport.url
        self.workspace = workspace

    def __repr__(self) -> str:
        return f"Server({self.url!r}, workspace={self.workspace!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def check(self) -> User:
        """Ask who we are, with two attempts only: whether the server is there and takes the key."""
        return User.read(self._transport.request("GET", "me", attempts=2))

    def as_user(self, user: User) -> Server:
        """The same server as another user sees it."""
        return Server(self.url, user.api_key, workspace=self.workspace)

    def in_workspace(self, name: str) -> Server:
        """The same server and user in another workspace."""
        return Server(self.url, self._key, workspace=name)

    def request(self, method: str, path: str, *, json: Any = None, **params: Any) -> Any:
        """One REST call under `/api/v1/`, retried; see `annotate.transport`."""
        return self._transport.request(method, path, json=json, **params)

    def create(self, path: str, content: Mapping[str, Any]) -> None:
        """POST something that may be there already: after a dropped connection, or by another."""
        try:
            self.request("POST", path, json=content)
        except StatusError as error:
            if error.status != 409:
                raise

    def flush(self) -> int | None:
        """Have the server write what it still holds for the ledger; how many versions that was.

        None where it keeps no ledger: any Argilla but the embedded one.
        """
        try:
            answer = self.request("POST", f"{self.url}/api/handloom/flush")
        except StatusError as error:
            if error.status not in (404, 405):  # its web page takes every path, but no POST
                raise
            return None
        return int(answer["versions"])

    @cached_property
    def workspace_id(self) -> str:
        """Id of the workspace, which is made if it is not there."""
        found = self._find_workspace()
        if found is None:
            self.create("workspaces", {"name": self.workspace})
            found = self._find_workspace()
        if found is None:
            raise ServerError("the workspace cannot be made", where=self.workspace)
        return found

    def _find_workspace(self) -> str | None:
        items = self.request("GET", "me/workspaces")["items"]
        return next((str(item["id"]) for item in items if item["name"] == self.workspace), None)

    def batches(self) -> list[Batch]:
        """The data sets of the workspace."""
        answer = self.request("GET", "me/datasets", workspace_id=self.workspace_id)
        return [Batch.read(item) for item in answer["items"]]

    def _find_batch(self, name: str) -> Batch | None:
        return next((batch for batch in self.batches() if batch.name == name), None)

    def batch(self, name: str) -> Batch:
        """The data set of this name.

        Raises:
            ServerError: it is not there.
        """
        found = self._find_batch(name)
        if found is None or not found.ready:
            raise ServerError(
                f"the batch {name} is not on this server",
                where=f"{self.url}, workspace {self.workspace}",
                remedy="`handloom push` puts it there, or name the server that has it",
            )
        return found

    def ensure_batch(
        self, name: str, guideline: Guideline, n_outputs: int, *, multi_turn: bool
    ) -> Batch:
        """The data set of this name, made with the guideline's settings if it is not there.

        One that a crash left half made (never published, so without records) is made anew.

        Raises:
            ServerError: it is there under another guideline or overlap, or cannot be made.
        """
        found = self._find_batch(name)
        attempt = 1
        while found is None or not found.ready:
            if found is not None:
                self.request("DELETE", f"datasets/{found.id}")
            reason = self._create_batch(name, guideline, n_outputs, multi_turn)
            found = self._find_batch(name)
            if reason and attempt == _CREATE_ATTEMPTS and not (found and found.ready):
                raise ServerError(f"the batch cannot be made ({reason})", where=name)
            time.sleep(pause(attempt) if reason else 0.0)
            attempt += 1
        same_text = found.guideline_text.strip() == guideline.text.strip()  # Argilla may trim it
        if not same_text or found.overlap != guideline.overlap:
            raise ServerError(
                "this batch is on the server under another guideline or overlap "
                f"(its overlap is {found.overlap})",
                where=name,
                remedy="Push to another --batch, or with that guideline and --overlap",
            )
        return found

    def _create_batch(
        self, name: str, guideline: Guideline, n_outputs: int, multi_turn: bool
    ) -> str:
        """Make a data set through the SDK; why it failed, or nothing."""
        import argilla as rg
        from argilla._exceptions import ArgillaError

        from annotate.settings import argilla_settings

        # By id: by name the SDK reads every workspace, and fails if one has a name it would refuse.
        workspace = UUID(self.workspace_id)
        try:
            client = rg.Argilla(api_url=self.url, api_key=self._key)
            settings = argilla_settings(guideline, n_outputs, multi_turn=multi_turn, client=client)
            rg.Dataset(name, workspace=workspace, settings=settings, client=client).create()
            client.http_client.close()
        except (ArgillaError, httpx.HTTPError) as error:
            return " ".join(str(error).split())[:300] or type(error).__name__
        return ""

    def limit(self, batch: Batch, cap: int) -> None:
        """Let one person answer so many records of the batch at most.

        It stands in the data set's metadata, which the embedded server reads and others keep.
        """
        path = f"datasets/{batch.id}"
        held = self.request("GET", path)["metadata"] or {}
        if held.get(CAP) != cap:
            self.request("PATCH", path, json={"metadata": {**held, CAP: cap}})

    def add_metadata(self, batch: Batch, name: str, title: str) -> None:
        """Let records of the batch have a text under this name, which annotators see."""
        settings = {"type": "terms"}
        content = {"name": name, "title": title, "settings": settings}
        self.create(
            f"datasets/{batch.id}/metadata-properties",
            {**content, "visible_for_annotators": True},
        )

    def shows_chat(self, batch: Batch) -> bool:
        """Whether the batch shows its prompts as conversations."""
        fields = self.request("GET", f"datasets/{batch.id}/fields")["items"]
        return any(f["name"] == "prompt" and f["settings"]["type"] == "chat" for f in fields)

    def publish(
        self, batch: Batch, records: Iterable[Record], done: Callable[[int], None] | None = None
    ) -> int:
        """Put into the batch those records that it does not hold yet; how many these were.

        Each goes with all that belongs to it, and wholly or not at all. The next bulk is written
        while one is on its way.

        Args:
            done: called with the number of records dealt with since the last call.
        """
        there = self.record_ids(batch)
        known = RecordJson(self.request, batch.id)
        sizes: list[tuple[int, int]] = []

        def bulks() -> Iterator[bytes]:
            rest = iter(records)
            while chunk := list(islice(rest, RECORDS_A_REQUEST)):
                missing = [record for record in chunk if record.item_id not in there]
                sizes.append((len(chunk), len(missing)))
                yield known.bulk(missing) if missing else b""

        def put(content: bytes) -> None:
            # An upsert, so that a repeat after a dropped connection finds its own records.
            if content:
                self._transport.put(f"datasets/{batch.id}/records/bulk", content)

        for number, _ in enumerate(one_ahead(put, bulks())):
            if done:
                done(sizes[number][0])
        return sum(missing for _, missing in sizes)

    def record_ids(self, batch: Batch) -> dict[str, str]:
        """Item id → Argilla's record id, of every record of the batch."""
        return {r["external_id"]: r["id"] for r in self._records(batch) if r["external_id"]}

    def placed(self, batch: Batch) -> dict[str, Placed]:
        """Item id → its record, of every record of the batch."""
        records = self._records(batch)
        return {r["external_id"]: Placed.read(r) for r in records if r["external_id"]}

    def count(self, batch: Batch) -> int:
        """Records of the batch."""
        path = f"datasets/{batch.id}/records"
        return int(self.request("GET", path, offset=0, limit=1)["total"])

    def responses(
        self, batch: Batch, done: Callable[[int], None] | None = None
    ) -> Iterator[Response]:
        """Every response of every user to the batch, drafts and discards too.

        A record without an item id was not put there by a push and is passed over. So is a response
        whose user is deleted in this moment: Argilla deletes their responses too.

        Args:
            done: called for each record read.
        """
        names = {item["id"]: item["username"] for item in self.request("GET", "users")["items"]}
        for record in self._records(batch, include="responses"):
            for response in record.get("responses") or () if record["external_id"] else ():
                if response["user_id"] in names:
                    yield Response.read(record["external_id"], names[response["user_id"]], response)
            if done:
                done(1)

    def records(self, batch: Batch, done: Callable[[int], None] | None = None) -> Iterator[Record]:
        """Every record of the batch that has an item id, with all that belongs to it.

        The next page is fetched while one is read.

        Args:
            done: called with the number of records read since the last call.
        """
        known = RecordJson(self.request, batch.id)
        for page in self._new_records(batch, include="responses,suggestions,vectors"):
            with nothing_collected():
                records = [known.record(record) for record in page if record["external_id"]]
            yield from records
            if done:
                done(len(page))

    def _records(self, batch: Batch, **params: str) -> Iterator[dict[str, Any]]:
        """Every record of the batch, once."""
        return chain.from_iterable(self._new_records(batch, **params))

    def _new_records(self, batch: Batch, **params: str) -> Iterator[list[dict[str, Any]]]:
        """Every record of the batch, once, page by page.

        Argilla pages by time of insertion and offset without a tie-break, so a page may repeat a
        record of the last and leave out another: passes are made until none is missing.
        """
        seen: set[str] = set()
        size = RECORDS_A_PAGE
        for _ in range(_PASSES):
            total = 0
            for page in self._pages(batch, size, **params):
                total = page["total"]
                new = [record for record in page["items"] if record["id"] not in seen]
                seen.update(record["id"] for record in new)
                yield new
            if len(seen) >= total:
                return
            size -= 101  # other page boundaries
        raise ServerError(
            f"Argilla lists {len(seen)} of {total} records",
            where=batch.name,
            remedy="Run the same command again",
        )

    def _pages(self, batch: Batch, size: int, **params: str) -> Iterator[Any]:
        def page(offset: int) -> Any:
            path = f"datasets/{batch.id}/records"
            return self.request("GET", path, offset=offset, limit=size, **params)

        first = page(0)
        return one_ahead(page, range(size, first["total"], size), [first])

    def submit(self, answers: Sequence[Submission]) -> list[str]:
        """Answer records as this user; why Argilla refused each, empty where it did not.

        Answering a record again replaces the answer.
        """
        problems = []
        for start in range(0, len(answers), RESPONSES_A_REQUEST):
            items = [
                {"record_id": a.record_id, "values": dict(a.values), "status": a.status}
                for a in answers[start : start + RESPONSES_A_REQUEST]
            ]
            answer = self.request("POST", "me/responses/bulk", json={"items": items})
            problems += [(i["error"] or {}).get("detail", "") for i in answer["items"]]
        return problems
