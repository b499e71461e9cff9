"""Argilla's application with everything of ours: the one place where it is put together.

`serve` uses it, and so can whoever runs Argilla another way, its own test suite for instance:

    import argilla_server
    from annotate.embedded.application import equip

    app = equip(argilla_server.app)

The search engine is apart from that: importing `annotate.embedded.engine` registers it as
"handloom", which ARGILLA_SEARCH_ENGINE may name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from starlette.staticfiles import StaticFiles

from annotate.embedded import headers, login_limits, operations, patches

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn._types import ASGI3Application


def equip(
    app: "FastAPI", *, patched: bool = True, custom_fields: bool = False
) -> "ASGI3Application":
    """Argilla's application with our routes, patches, limits and headers.

    Args:
        app: `argilla_server.app`.
        patched: False leaves Argilla as slow as it came, to measure against.
        custom_fields: let the scripts of custom fields run.
    """
    if patched:
        patches.apply()
    operations.attach(app)
    secured = headers.security_headers(_pages(app), custom_fields=custom_fields)
    limited = login_limits.limited(cast("ASGI3Application", app))
    return headers.with_security_headers(limited, secured)


def _pages(app: "FastAPI") -> Path:
    """The folder of the web page that the application serves."""
    for route in app.routes:
        served = getattr(route, "app", None)
        if isinstance(served, StaticFiles) and served.directory is not None:
            return Path(served.directory)
    raise LookupError("this Argilla serves no web page")
