"""HTTP to a server with OpenAI's protocol: paced, repeated where that can help, one line of errors.

The key comes from the environment alone. It stands in no run, no message and no `repr`, and goes
over https or to this machine only.
"""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from annotate.errors import InputError, ServerError

KEY = "HANDLOOM_OPENAI_API_KEY"

ATTEMPTS = 8
"""Tries of one request; with the pauses below, a server may be away for about a minute."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries; each pause doubles the last, less up to a half at random."""

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for a longer wait is asked again by the same command, later."""

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OF_THE_PROMPT = frozenset(
    {
        "context_length_exceeded",
        "content_filter",
        "content_policy_violation",
        "string_above_max_length",
    }
)
_TOO_LONG = ("context length", "maximum context", "context window", "max_model_len", "too long")


class PromptRefusedError(Exception):
    """The server cannot complete this prompt, and says why; others it may."""


def checked_address(url: str) -> str:
    """The address as it is used and recorded, without a final slash.

    Raises:
        InputError: none, malformed, with a password in it, or neither https nor this machine.
    """
    remedy = "For example --url http://127.0.0.1:8000/v1"
    if not url:
        raise InputError("the backend openai needs the server's address", remedy=remedy)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("the address is malformed", where="--url", remedy=remedy) from None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError("the address must begin with http:// or https://", where="--url")
    if parts.username or parts.password or parts.query:
        raise InputError(
            "the address must hold no key: it is recorded", where="--url", remedy=f"Set {KEY}"
        )
    if parts.scheme == "http" and not _is_here(host):
        raise InputError(
            "prompts and key would travel in the clear",
            where=url,
            remedy="Name an https:// address",
        )
    return url.rstrip("/")


class Client:
    """Connections to one server, for several threads."""

    def __init__(
        self, url: str, per_minute: float | None, *, first_pause: float, timeout: float
    ) -> None:
        key = os.environ.get(KEY, "")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError("the key has characters that no key has", where=KEY)
        self._http = httpx.Client(
            base_url=f"{url}/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            trust_env=not _is_here(str(urlsplit(url).hostname)),  # no proxy leads to this machine
        )
        self.url, self._key = url, key
        self._first_pause, self._timeout = first_pause, timeout
        self._every = 60.0 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()
        self._stopped = threading.Event()
        self._instead: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def close(self) -> None:
        """Let no request be tried again, and close the connections."""
        self._stopped.set()
        self._http.close()

    def ask(self, body: dict[str, Any]) -> Any:
        """POST to `chat/completions`; the JSON of a good answer.

        Raises:
            PromptRefusedError: of this prompt.
            ServerError: a refusal that holds for all, or no good answer after the last try.
        """
        trouble, status = "", 0
        for attempt in range(1, ATTEMPTS + 1):
            self._await_turn()
            sent = self._put(body)
            try:
                answer = self._http.post("chat/completions", json=sent)
            except httpx.TransportError as error:
                trouble, status = self._reason(error), 0
            else:
                status = answer.status_code
                if answer.is_success:
                    return self._content(answer)
                detail, code = self._detail(answer)
                trouble = f"it answered {status}{detail}"
                if self._learns(status, detail, sent):
                    continue
                if status not in _AGAIN or code == "insufficient_quota":
                    raise self._refusal(answer, str(body.get("model")))
                self._hold(_retry_after(answer))
            if attempt < ATTEMPTS:
                self._stopped.wait(self._pause(attempt))
            if self._stopped.is_set():
                break
        raise ServerError(
            f"no completion after {ATTEMPTS} tries: {trouble}",
            where=self.url,
            remedy=("Name a smaller --requests-per-minute; t" if status == 429 else "T")
            + "he same command goes on where it stopped",
        )

    def _put(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body in this server's dialect."""
        named = {self._instead.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in named.items() if name is not None}

    def _learns(self, status: int, detail: str, sent: Mapping[str, Any]) -> bool:
        """Whether a refusal is of what the next try leaves out or names otherwise.

        Not every server reports log-probabilities, and newer models of OpenAI call the limit anew.

        Args:
            sent: the body refused. Of requests that were under way together each has to learn,
                whichever was the first to.
        """
        if status not in (400, 422):
            return False
        for name, instead in (("logprobs", None), ("max_tokens", "max_completion_tokens")):
            if name in sent and (instead or name) in detail:
                self._instead[name] = instead
                return True
        return False

    def _await_turn(self) -> None:
        """Wait for this request's place among all; none is sent once the client is closed."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._every
        self._stopped.wait(at - now)
        if self._stopped.is_set():
            raise ServerError("stopped", where=self.url)

    def _hold(self, seconds: float) -> None:
        """Send nothing for so long: what the server asks of one request it asks of all."""
        if seconds > LONGEST_WAIT:
            raise ServerError(
                f"it asks to wait {seconds:.0f} seconds",
                where=self.url,
                remedy="The same command goes on then where it stopped",
            )
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def _pause(self, attempt: int) -> float:
        longest = min(LONGEST_PAUSE, self._first_pause * 2.0 ** (attempt - 1))
        return longest * (1 - random.random() / 2)  # spreads clients that fail together

    def _content(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise ServerError(
                "what answers there does not speak OpenAI's protocol",
                where=self.url,
                remedy="The address ends in /v1 with most servers",
            ) from None

    def _refusal(self, answer: httpx.Response, model: str) -> Exception:
        """A final answer that is no completion, as what to raise."""
        status, (detail, code) = answer.status_code, self._detail(answer)
        said = detail.lower()
        if status in (400, 413, 422) and (
            status == 413 or code in _OF_THE_PROMPT or any(word in said for word in _TOO_LONG)
        ):
            return PromptRefusedError(f"the server refuses the prompt{detail}")
        if status in (401, 403):
            what = "it refuses the key" if self._key else "it asks for a key"
            return ServerError(f"{what} ({status})", where=self.url, remedy=f"Set {KEY}")
        if status == 404:
            return ServerError(
                f"it knows no model {model!r}, or no chat/completions (404{detail})",
                where=self.url,
                remedy=self._known_models() or "The address ends in /v1 with most servers",
            )
        return ServerError(f"it refuses the request ({status}{detail})", where=self.url)

    def _known_models(self) -> str:
        """A remedy: what the server says it has."""
        try:
            names = [str(one["id"]) for one in self._http.get("models").json()["data"]][:5]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""
        return f"It has {_one_line(', '.join(names))}" if names else ""

    def _detail(self, answer: httpx.Response) -> tuple[str, str]:
        """What the server says of an error, short and without the key, and its code for it."""
        try:
            error = answer.json()
        except ValueError:
            return "", ""
        if isinstance(error, dict):
            error = error.get("error", error)
        if not isinstance(error, dict):
            error = {"message": error}
        text = str(error.get("message") or error.get("detail") or "")
        if self._key:
            text = text.replace(self._key, "…")
        code = str(error.get("code") or error.get("type") or "")
        return (f": {_one_line(text)}" if text else ""), code

    def _reason(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.ConnectError):
            return "nothing answers there"
        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout:g} seconds"
        return "the connection was dropped"


def _is_here(host: str) -> bool:
    """Whether this is the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _one_line(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:300]


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait, given as such or as a date; 0 where it does not."""
    said = answer.headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
