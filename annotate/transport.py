"""HTTP to Argilla: retried where a second try can help, and errors a user can act on.

Argilla's SDK gives up when the server drops a connection. Here every request is repeated with
growing pauses after a dropped connection, a time-out, 429 or 5xx, so each must be safe to repeat:
Handloom only reads, upserts, or creates what a repeat finds already there (409).
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from annotate.errors import ServerError

ATTEMPTS = 7
"""Tries of one request; with the pauses below, a server may be away for about 15 seconds."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds; each pause doubles the last, less up to a half at random so that clients spread."""

TIMEOUT = 120.0
"""Seconds for one request; a bulk of 500 records takes a busy server some of them."""

_NEAR = frozenset({"127.0.0.1", "::1", "localhost"})
"""Where compressing an answer takes longer than sending it."""

Item = TypeVar("Item")
Result = TypeVar("Result")

AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses after which a second try may help."""


class StatusError(ServerError):
    """Argilla refused a request; `status` is the HTTP code, for callers that expect one."""

    def __init__(self, status: int, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status


class Transport:
    """A connection to one Argilla server under one key, which never shows in a text."""

    def __init__(self, url: str, api_key: str, *, attempts: int = ATTEMPTS) -> None:
        try:
            self._http = httpx.Client(
                base_url=f"{url.rstrip('/')}/api/v1/",
                headers={"X-Argilla-Api-Key": api_key, **_encodings(url)},
                timeout=TIMEOUT,
            )
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
            raise ServerError(
                "the address or the key of Argilla is malformed",
                where=url,
                remedy="Check HANDLOOM_ARGILLA_URL and HANDLOOM_ARGILLA_API_KEY",
            ) from None
        self.url = url.rstrip("/")
        self.attempts = attempts

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        attempts: int | None = None,
        **params: Any,
    ) -> Any:
        """Send a request under `/api/v1/` and return the JSON of the answer (None if empty).

        Args:
            params: of the query.

        Raises:
            StatusError: Argilla answered with an error, after the last attempt if it was 5xx.
            ServerError: there was no answer after the last attempt.
        """
        answer = self._send(method, path, attempts, json=json, params=params or None)
        try:
            with nothing_collected():
                return from_json(answer.content) if answer.content else None
        except ValueError:
            raise _unreachable(self.url, "what answers there is not Argilla") from None

    def put(self, path: str, content: bytes) -> None:
        """PUT some JSON and pass over what is answered.

        Raises:
            StatusError, ServerError: as of `request`.
        """
        self._send("PUT", path, None, content=content, headers={"Content-Type": "application/json"})

    def _send(self, method: str, path: str, attempts: int | None, **what: Any) -> httpx.Response:
        """A good answer."""
        tries = attempts or self.attempts
        for attempt in range(1, tries + 1):
            try:
                answer = self._http.request(method, path, **what)
            except httpx.UnsupportedProtocol:
                raise _unreachable(self.url, "the address must begin with http://") from None
            except httpx.TransportError as error:
                if attempt == tries:
                    raise _unreachable(self.url, _reason(error)) from None
            else:
                if answer.status_code not in AGAIN or attempt == tries:
                    return _good(answer, self.url)
            time.sleep(pause(attempt))
        raise AssertionError("unreachable")  # the last attempt returns or raises


@contextmanager
def nothing_collected() -> Iterator[None]:
    """While much is made that stays: looking for garbage in it takes longer than making it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def one_ahead(
    call: Callable[[Item], Result], items: Iterable[Item], already: Iterable[Result] = ()
) -> Iterator[Result]:
    """The results of a call for each item, in order.

    The next call runs, in a thread, while the caller deals with a result or an item is made.

    Args:
        already: results to begin with, dealt with while the first call runs.
    """
    with ThreadPoolExecutor(1) as thread:
        running: Future[Result] | None = None
        for item in items:
            following = thread.submit(call, item)
            if running is None:
                yield from already
                already = ()
            else:
                yield running.result()
            running = following
        yield from already
        if running is not None:
            yield running.result()


def _encodings(url: str) -> dict[str, str]:
    near = urlsplit(url).hostname in _NEAR
    return {"Accept-Encoding": "identity"} if near else {}


def pause(attempt: int) -> float:
    """Seconds to wait after a failed attempt, counted from 1."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return longest * (1 - random.random() / 2)  # spreads clients that fail together


def _good(answer: httpx.Response, url: str) -> httpx.Response:
    """The answer if it is good; any other as a `StatusError`."""
    if answer.is_success:
        return answer
    if answer.status_code == 401:
        raise StatusError(
            401,
            "Argilla refuses the key",
            where=url,
            remedy="Set HANDLOOM_ARGILLA_API_KEY to an owner's key; Argilla shows it under "
            "“My settings”",
        )
    if answer.status_code == 403:
        raise StatusError(
            403,
            "this user may not do that in Argilla",
            where=url,
            remedy="Use an owner's key",
        )
    path = answer.request.url.path.removeprefix("/api/v1/")
    what = f"Argilla answered {answer.status_code} to {answer.request.method} {path}"
    if detail := _detail(answer):
        what += f": {detail}"
    raise StatusError(answer.status_code, what, where=url, remedy=_remedy(answer.status_code))


def _remedy(status: int) -> str:
    if status >= 500:
        return "Its log says why; run the same command again when it is mended"
    return "Is this Argilla 2.8?" if status == 404 else ""


def _detail(answer: httpx.Response) -> str:
    """What Argilla says of an error, on one line and short."""
    try:
        detail = answer.json()
    except ValueError:
        return ""
    if isinstance(detail, dict):
        detail = detail.get("detail", detail)
    return " ".join(str(detail).split())[:300]


def _unreachable(url: str, reason: str) -> ServerError:
    return ServerError(
        f"Argilla cannot be reached ({reason})",
        where=url,
        remedy="Start it with `handloom up`, or set HANDLOOM_ARGILLA_URL to where it runs",
    )


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nothing answers there"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {TIMEOUT:.0f} seconds"
    return "the connection was dropped"
