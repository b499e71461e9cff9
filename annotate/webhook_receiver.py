"""Argilla's webhooks into the ledger: `handloom ledger listen`, for a server that is not ours.

Argilla tells of each response that is created, updated or deleted, signed as the Standard Webhooks
specification says (standardwebhooks.com). A version is in the ledger, on the disk, before it is
answered 200; until then Argilla tries again, a few times. The same event twice is written once.

Argilla says nothing of responses that come with records in bulk, nor of what goes with a user or
record, and gives up after its tries: a pull still finds what the server holds.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from annotate.errors import HandloomError, ServerError
from annotate.ledger import Entry, Ledger
from annotate.server import Server
from annotate.transport import StatusError

EVENTS = ("response.created", "response.updated", "response.deleted")
DESCRIPTION = "Handloom's ledger"
TOLERANCE_SECONDS = 300
"""A signature may be so old, or so far ahead: an older one may be a recording played back."""
MAX_BYTES = 32 * 2**20
_READ_SECONDS = 20


class RefusedError(Exception):
    """A request that is no event of our webhook; `status` is the answer to it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def verify_signature(
    secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None
) -> None:
    """Check that who knows the secret sent this body a moment ago.

    Args:
        secret: base64, with or without the prefix "whsec_".
        headers: by their names in lower case; webhook-id, webhook-timestamp (Unix seconds) and
            webhook-signature, which holds one or more of "v1,<base64 of HMAC-SHA256>", separated by
            spaces, over "id.timestamp.body".
        now: Unix seconds; the clock's if None.

    Raises:
        RefusedError: it is not so (401).
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    message, stamp, given = (headers.get(name, "") for name in names)
    try:
        age = (time.time() if now is None else now) - int(stamp)
    except ValueError:
        raise RefusedError(401, "no timestamp") from None
    if abs(age) > TOLERANCE_SECONDS:
        raise RefusedError(401, "the timestamp is too old or too new")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message}.{stamp}.".encode() + body
    own = hmac.new(key, signed, hashlib.sha256).digest()
    for part in given.split():
        version, _, signature = part.partition(",")
        with contextlib.suppress(binascii.Error, ValueError):
            if version == "v1" and hmac.compare_digest(base64.b64decode(signature), own):
                return
    raise RefusedError(401, "the signature is wrong")


def entry_of_event(body: bytes) -> Entry | None:
    """The version that an event tells of; None for an event of another kind.

    Raises:
        RefusedError: it is not an event as Argilla 2.8 writes them (400).
    """
    try:
        event = json.loads(body)
        if event["type"] not in EVENTS:
            return None
        said, record = event["data"], event["data"]["record"]
        deleted = event["type"] == "response.deleted"
        updated_at = _utc(said["updated_at"])
        if deleted:
            updated_at = max(updated_at, _utc(event["timestamp"]))
        return Entry(
            batch=record["dataset"]["name"],
            item_id=record["external_id"] or f"record-{record['id'].replace('-', '')}",
            annotator=said["user"]["username"],
            guideline=str((record["metadata"] or {}).get("guideline", "")),
            status="deleted" if deleted else said["status"],
            values=said["values"] or {},
            inserted_at=_utc(said["inserted_at"]),
            updated_at=updated_at,
            source="webhook",
            cause="response" if deleted else None,
            workspace=record["dataset"]["workspace"]["name"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(400, f"not an event of Argilla 2.8: {type(error).__name__}") from None


class Receiver:
    """An HTTP server that writes events into a ledger."""

    def __init__(self, ledger: Ledger, host: str, port: int) -> None:
        """Begin to listen.

        Raises:
            ServerError: the address or port cannot be had.
        """
        self.ledger = ledger
        self.secret = ""
        self.written = self.known = self.refused = 0
        self._turn = threading.Lock()
        try:
            self._http = ThreadingHTTPServer((host, port), self._handler())
        except OSError as error:
            raise ServerError(
                f"cannot listen there: {error.strerror}",
                where=f"{host}:{port}",
                remedy="Free the port, or choose another with --port",
            ) from None
        self.host, self.port = host, int(self._http.server_address[1])

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests in threads while inside."""
        thread = threading.Thread(target=self._http.serve_forever, name="webhooks")
        thread.start()
        try:
            yield
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Write an event down; the HTTP status to answer."""
        try:
            if not self.secret:
                raise RefusedError(503, "not registered yet")
            verify_signature(self.secret, headers, body)
            entry = entry_of_event(body)
            if entry is not None:
                new = self.ledger.append([entry])
                with self._turn:
                    self.written, self.known = self.written + new, self.known + 1 - new
        except RefusedError as error:
            with self._turn:
                self.refused += 1
            return error.status
        except (HandloomError, OSError):
            return 503  # Argilla tries again
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_SECONDS
            server_version, sys_version = "Handloom", ""

            def do_POST(self) -> None:
                length = self.headers.get("content-length", "")
                if not length.isdecimal() or int(length) > MAX_BYTES:
                    status = 413
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    status = receiver.receive(headers, self.rfile.read(int(length)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of single requests."""

        return Handler


@contextlib.contextmanager
def registered(server: Server, receiver: Receiver, url: str) -> Iterator[None]:
    """Have Argilla call the receiver while inside; the webhook is removed in the end.

    One that a killed listener left at the same address is taken over with its secret, so that what
    Argilla still tries to deliver is accepted.

    Raises:
        ServerError: Argilla cannot be reached, or this is no owner's key.
    """
    content = {"url": url, "events": list(EVENTS), "description": DESCRIPTION}
    there = server.request("GET", "webhooks")["items"]
    left = [hook for hook in there if (hook["url"], hook["description"]) == (url, DESCRIPTION)]
    if left:
        hook = server.request("PATCH", f"webhooks/{left[0]['id']}", json=content)
    else:
        hook = server.request("POST", "webhooks", json=content)
    receiver.secret = hook["secret"]
    try:
        yield
    finally:
        try:
            server.request("DELETE", f"webhooks/{hook['id']}")
        except StatusError as error:
            if error.status != 404:
                raise


def _utc(text: str) -> datetime:
    """Argilla's times are UTC, whether they say so or not."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
