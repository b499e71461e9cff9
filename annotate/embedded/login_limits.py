"""Guessing passwords and keys is slowed down; people who mistype are not kept out for long.

Failures at login are counted three ways, each of which lets some pass and then makes the next wait,
twice as long after each further failure, up to a bound (`LoginLimits`):

- a name from an address: for who mistypes their own password, at most a minute;
- an address, whatever the names: for who tries one password on many names, at most a minute;
- a name, from whatever address: for who tries from many addresses, at most half a minute.

Somebody who has logged in from an address before is not made to wait there for others' failures:
nobody can lock them out. A try counts as a failure from its start until it succeeds, so that many
at once do not slip through. Wrong API keys and session tokens count against their address; keys and
tokens that were accepted once pass always. What must wait is answered with 429 and Retry-After,
which is no failure. Everything is in memory and bounded, and a restart forgets it.

A guess every half minute finds no password that handloom made up. For a weak one of one's own this
is a brake, not a wall.
"""

import hashlib
import ipaddress
import json
from typing import TYPE_CHECKING

from annotate.embedded.throttle import Known, Throttle, whole_seconds

if TYPE_CHECKING:
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        Scope,
    )

MOST_BYTES = 16_384
"""Of a login form."""

_LOGIN = "/api/v1/token"
_KEY_HEADERS = (b"x-argilla-api-key", b"authorization")


class LoginLimits:
    """What is counted, for one server."""

    def __init__(self) -> None:
        self.by_name_there = Throttle(free=5, longest=60)
        self.by_address = Throttle(free=30, longest=60)
        self.by_name = Throttle(free=10, longest=30)
        self.keys_by_address = Throttle(free=100, longest=60)
        self.logged_in = Known()
        """Pairs of a name and an address where its owner has logged in."""
        self.accepted_keys = Known()
        """Hashes of keys and tokens that were accepted."""

    def wait(self, name: str, address: str) -> float:
        """Seconds until this name may try a password from this address; 0: it may now."""
        own = self.by_name_there.wait((name, address))
        if (name, address) in self.logged_in:
            return own
        return max(own, self.by_address.wait(address), self.by_name.wait(name))

    def try_(self, name: str, address: str) -> None:
        """A password is tried: a failure until it proves right."""
        self.by_name_there.failed((name, address))
        self.by_address.failed(address)
        self.by_name.failed(name)

    def succeeded(self, name: str, address: str) -> None:
        """It was right. Only the pair starts anew: one's own account must not cover for others."""
        self.by_name_there.forgive((name, address))
        self.by_address.withdraw(address)
        self.by_name.withdraw(name)
        self.logged_in.add((name, address))


def limited(app: "ASGI3Application", limits: LoginLimits | None = None) -> "ASGI3Application":
    """The application, whose passwords and keys cannot be tried as fast as one likes."""
    limits = limits or LoginLimits()

    async def guarded(
        scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
        elif scope["path"].rstrip("/").endswith(_LOGIN) and scope["method"] == "POST":
            await _guard_login(app, limits, scope, receive, send)
        else:
            await _guard_key(app, limits, scope, receive, send)

    return guarded


async def _guard_login(
    app: "ASGI3Application",
    limits: LoginLimits,
    scope: "HTTPScope",
    receive: "ASGIReceiveCallable",
    send: "ASGISendCallable",
) -> None:
    body = await _body(receive)
    if body is None:
        await _refuse(send, 413, "the login form is too large")
        return
    address = _address(scope)
    name = await _username(scope, body)
    if wait := limits.wait(name or "", address):
        await _refuse(send, 429, "too many failed logins", wait)
        return
    limits.try_(name or "", address)
    if name is None:
        await _refuse(send, 400, "this is no login form")
        return
    if await _status(app, scope, _again(body, receive), send) < 400:
        limits.succeeded(name, address)


async def _guard_key(
    app: "ASGI3Application",
    limits: LoginLimits,
    scope: "HTTPScope",
    receive: "ASGIReceiveCallable",
    send: "ASGISendCallable",
) -> None:
    shown = b"\n".join(value for name, value in scope["headers"] if name.lower() in _KEY_HEADERS)
    if not shown:
        await app(scope, receive, send)
        return
    key = hashlib.sha256(shown).digest()  # a memory dump shows no key
    address = _address(scope)
    if key not in limits.accepted_keys and (wait := limits.keys_by_address.wait(address)):
        await _refuse(send, 429, "too many wrong keys", wait)
        return
    status = await _status(app, scope, receive, send)
    if status == 401:
        limits.keys_by_address.failed(address)
    elif status < 400 and "/api/" in scope["path"]:
        limits.accepted_keys.add(key)


async def _status(
    app: "ASGI3Application",
    scope: "HTTPScope",
    receive: "ASGIReceiveCallable",
    send: "ASGISendCallable",
) -> int:
    """Have the application answer; the status that it answered with, 500 if it failed to."""
    statuses: list[int] = []

    async def watched(event: "ASGISendEvent") -> None:
        if event["type"] == "http.response.start":
            statuses.append(event["status"])
        await send(event)

    await app(scope, receive, watched)
    return statuses[0] if statuses else 500


async def _body(receive: "ASGIReceiveCallable") -> bytes | None:
    """The request's body; None if it is longer than a login form is."""
    body = b""
    while len(body) <= MOST_BYTES:
        event = await receive()
        if event["type"] != "http.request":
            return body
        body += event.get("body", b"")
        if not event.get("more_body", False):
            return body if len(body) <= MOST_BYTES else None
    return None


def _again(body: bytes, receive: "ASGIReceiveCallable") -> "ASGIReceiveCallable":
    """`receive`, whose body has been read already."""
    events: list[ASGIReceiveEvent] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> "ASGIReceiveEvent":
        return events.pop() if events else await receive()

    return replayed


async def _username(scope: "HTTPScope", body: bytes) -> str | None:
    """The name in a login form, as Argilla will read it, empty if there is none.

    None of what cannot be read at all: Argilla would answer 500 to some of it, with a traceback.
    """
    from python_multipart.exceptions import FormParserError
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException
    from starlette.requests import Request

    async def once() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(dict(scope), once).form() as form:
            return str(form.get("username", ""))
    except (FormParserError, HTTPException, MultiPartException):
        return None


def _address(scope: "HTTPScope") -> str:
    """Where a request comes from; of IPv6 the network, of which a customer has all addresses."""
    host, _ = scope["client"] or ("", 0)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


async def _refuse(
    send: "ASGISendCallable", status: int, detail: str, wait: float | None = None
) -> None:
    said = f"{detail}: try again in {whole_seconds(wait)} s" if wait else detail
    body = json.dumps({"detail": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if wait:
        headers.append((b"retry-after", b"%d" % whole_seconds(wait)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
