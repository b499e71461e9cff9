"""A webhook receiver for the tests: a real HTTP server that fails, hangs or is away as told."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Arrival:
    """One request that the receiver answered with 200."""

    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        """The event."""
        kind: str = json.loads(self.body)["type"]
        return kind

    @property
    def data(self) -> dict[str, Any]:
        """What it is about."""
        content: dict[str, Any] = json.loads(self.body)["data"]
        return content

    def verify(self, secret: str) -> None:
        """Raise if the signature is not that of this secret."""
        Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """Listens on loopback, on the same port whenever it is there."""

    status: int = 200
    hang_seconds: float = 0.0
    arrivals: list[Arrival] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)
    """The webhook-id of every request, answered well or not."""
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook?token=in-the-address"

    def open(self) -> None:
        """Begin to listen."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.tries.append(self.headers["webhook-id"])
                time.sleep(receiver.hang_seconds)
                if receiver.status == 200:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.arrivals.append(Arrival(headers, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Be away: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def types(self) -> list[str]:
        """The events that arrived, in order."""
        return [arrival.type for arrival in self.arrivals]


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether a condition comes to hold within this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
