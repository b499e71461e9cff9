"""Response headers that keep a record's text from running as a script in an annotator's browser.

Argilla 2.8 puts some text into its page unescaped (CVE-2026-116554, CVE-2026-116555: no fixed
release). Handloom escapes what it pushes; this is the second wall, for records from elsewhere.
Custom fields with a template of their own, which are scripts, stay blank unless allowed.

The one list of headers: the embedded server sends them, and the reverse proxy before a stock
server is configured from it (`security_headers`, with the pages of the installed Argilla).
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )

STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000")
"""Sent over https only: over http it says nothing."""

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

_BASE = "@@baseUrl@@"
"""What Argilla replaces in its pages when it starts: the path it is served under, none here."""

_HUB_PREVIEW = "https://datasets-server.huggingface.co"
"""Asked by the owner's own page when they choose a data set of the Hub to import."""

_PERMISSIONS = (
    "accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "magnetometer",
    "microphone", "midi", "payment", "usb",
)  # fmt: skip


def security_headers(pages: Path, *, custom_fields: bool = False) -> dict[str, str]:
    """The headers of every page and every answer, by lower-case name, but for https's own.

    Args:
        pages: the folder of Argilla's web page, whose inline scripts may run.
        custom_fields: let the scripts of custom fields run, and with them any other in a record.
    """
    return {
        "content-security-policy": content_security_policy(pages, custom_fields=custom_fields),
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": ", ".join(f"{feature}=()" for feature in _PERMISSIONS),
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "x-permitted-cross-domain-policies": "none",
    }


def content_security_policy(pages: Path, *, custom_fields: bool = False) -> str:
    """The policy that lets the pages of a folder run their own scripts and no others.

    Styles may be inline: Vue sets them on elements. Nothing is fetched from elsewhere, neither
    images (a Markdown field would, and tell their host who reads when) nor the page's web font.
    """
    scripts = _inline_scripts(pages)
    if custom_fields:  # a hash would switch 'unsafe-inline' off; their templates are compiled
        scripts = ["'unsafe-inline'", "'unsafe-eval'"]
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self'", *scripts]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            f"connect-src 'self' {_HUB_PREVIEW}",
            "worker-src 'none'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


def _inline_scripts(pages: Path) -> list[str]:
    """The sources that stand for the inline scripts of a folder's pages, as they are served."""
    return sorted(
        {
            _hash(script.replace(_BASE, ""))
            for page in pages.rglob("*.html")
            for script in _INLINE_SCRIPT.findall(page.read_text(encoding="utf-8"))
        }
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def with_security_headers(app: "ASGI3Application", headers: dict[str, str]) -> "ASGI3Application":
    """The application, each of whose responses carries the headers instead of any of that name.

    What the API answers is kept in no cache, unless the answer itself says otherwise.
    """
    fixed = [(name.encode(), value.encode()) for name, value in headers.items()]
    names = {name for name, _ in fixed}

    async def secured(
        scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
    ) -> None:
        async def send_with_headers(event: "ASGISendEvent") -> None:
            if event["type"] == "http.response.start":
                own = [one for one in event.get("headers", []) if one[0].lower() not in names]
                event["headers"] = [*own, *fixed, *_conditional(scope, own)]
            await send(event)

        await app(scope, receive, send_with_headers)

    return secured


def _conditional(scope: "Scope", own: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that depend on what was asked and how."""
    headers = []
    if scope["type"] == "http" and scope["scheme"] == "https":
        headers.append((STRICT_TRANSPORT[0].encode(), STRICT_TRANSPORT[1].encode()))
    is_api = scope["type"] == "http" and "/api/" in scope["path"]
    if is_api and all(name.lower() != b"cache-control" for name, _ in own):
        headers.append((b"cache-control", b"no-store"))
    return headers
