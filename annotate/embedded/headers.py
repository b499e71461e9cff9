"""Response headers that keep a record's text from running as a script in an annotator's browser.

Argilla 2.8 puts some text into its page unescaped (CVE-2026-116554, CVE-2026-116555: no fixed
release). Handloom escapes what it pushes; this is the second wall, for records from elsewhere.
Custom fields with a template of their own, which are scripts, stay blank.
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

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def content_security_policy(pages: Path) -> str:
    """The policy that lets the pages of a folder run their own scripts and no others."""
    hashes = sorted(
        {
            _hash(script)
            for page in pages.rglob("*.html")
            for script in _INLINE_SCRIPT.findall(page.read_text(encoding="utf-8"))
        }
    )
    return "; ".join(
        [
            f"script-src 'self' {' '.join(hashes)}".rstrip(),
            "img-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def with_security_headers(app: "ASGI3Application", policy: str) -> "ASGI3Application":
    """The application, each of whose responses carries the policy."""
    headers = [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    ]

    async def secured(
        scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
    ) -> None:
        async def send_with_headers(event: "ASGISendEvent") -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", []), *headers]
            await send(event)

        await app(scope, receive, send_with_headers)

    return secured
