"""A real HTTP server with OpenAI's chat protocol for the tests: the tiny model, and faults as told.

Answers differ by the request's own seed alone, as a server that keeps to seeds gives them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from align.backends.tokens import prompt_tokens, reader
from align.model import Loaded
from align.sampling import Sampling, sample_batch


@dataclass(frozen=True)
class Fault:
    """What the server does with a request instead of completing it."""

    status: int = 0
    """The answer's; 0: the connection is dropped without one."""
    error: dict[str, str] | str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang_seconds: float = 0.0
    content: bytes | None = None
    """The body to send as it is."""


@dataclass
class ChatServer:
    """Listens on loopback while it is open."""

    loaded: Loaded
    key: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    """Of the next requests, one each."""
    refuse: dict[str, Fault] = field(default_factory=dict)
    """Always, for a request whose JSON holds this text."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> ChatServer:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                chat.answer(self, json.loads(body))

            def do_GET(self) -> None:
                send(self, 200, {"data": [{"id": "tiny"}]})

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, to: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Complete, or fail as told."""
        with self.lock:
            self.requests.append(body)
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            text = json.dumps(body)
            fault = next((f for words, f in self.refuse.items() if words in text), None)
            if fault is None and self.faults:
                fault = self.faults.popleft()
        if self.key and to.headers["authorization"] != f"Bearer {self.key}":
            fault = Fault(401, {"message": f"no such key: {to.headers['authorization']}"})
        completion = self._completion(body) if fault is None else {}
        time.sleep(fault.hang_seconds if fault else 0)
        with self.lock:  # before the answer: the next request may come at once
            self.under_way -= 1
        if fault is None:
            send(to, 200, completion)
        elif fault.status:
            send(to, fault.status, {"error": fault.error}, fault.headers, fault.content)
        else:
            to.close_connection = True
            to.connection.close()

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        rules = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            max_new_tokens=body.get("max_tokens") or body["max_completion_tokens"],
        )
        read = reader(self.loaded)
        uniform = np.random.default_rng(body["seed"]).random((1, rules.max_new_tokens))
        with self.lock:
            prompts = prompt_tokens(read, [body["messages"]])
            (made,) = sample_batch(self.loaded.model, prompts, uniform, rules, read.stop)
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": read.text(made.tokens)},
            "finish_reason": "stop" if made.ended else "length",
        }
        if body.get("logprobs"):
            # Two tokens of half the sum each: a server tells them one by one.
            choice["logprobs"] = {"content": [{"logprob": made.logprob / 2}] * 2}
        return {"choices": [choice], "usage": {"completion_tokens": len(made.tokens)}}


def send(
    to: BaseHTTPRequestHandler,
    status: int,
    content: Any,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
) -> None:
    """Answer with JSON."""
    body = json.dumps(content).encode() if raw is None else raw
    to.send_response(status)
    for name, value in (headers or {}).items():
        to.send_header(name, value)
    to.send_header("content-length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)
