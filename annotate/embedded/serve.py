"""The embedded server itself: the real Argilla, in this process, on loopback."""

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from annotate.embedded import database, leases
from annotate.embedded import home as folder
from annotate.embedded.home import Secrets, ServerAddress
from annotate.embedded.leases import DEFAULT_MINUTES
from annotate.embedded.log_format import log_without_secrets
from annotate.errors import ServerError
from annotate.ledger import Ledger

if TYPE_CHECKING:
    import uvicorn
    from uvicorn._types import ASGI3Application

GRACE_SECONDS = 5


def serve(
    home: Path,
    host: str = "127.0.0.1",
    port: int = 6900,
    *,
    patched: bool = True,
    lease_minutes: float = DEFAULT_MINUTES,
    custom_fields: bool = False,
) -> None:
    """Run Argilla in the foreground until SIGTERM or SIGINT, which end the process.

    The process is Argilla's from here on: its environment, working directory and signals are set.

    Args:
        home: the server's folder, made if need be.
        host: address to listen on.
        port: 0 takes any free one.
        patched: False leaves Argilla as slow as it came, to measure against.
        lease_minutes: silence after which a person's records go to others; 0: no leases.
        custom_fields: let the scripts of custom fields run (see `headers.security_headers`).

    Raises:
        ServerError: another server runs on this folder, the port is taken, or the database of
            HANDLOOM_DATABASE_URL cannot be used.
    """
    home = home.absolute()
    folder.prepare(home)
    with folder.locked(home), _listen(host, port) as listener:
        (home / "server.json").unlink(missing_ok=True)
        secrets = folder.secrets_of(home)
        chosen = database.choose(home, os.environ.get(database.VARIABLE))
        _configure(home, secrets, chosen)
        # uvicorn passes the signal on when it has ended: without a handler that kills us at once.
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGINT, _exit)
        try:
            with database.opened(chosen, home) as ours:
                with _nothing_collected():
                    app = _application(home / "page", patched=patched, custom_fields=custom_fields)
                leases.of_server().silence = 60 * lease_minutes
                database.migrate(chosen)
                own = (secrets.password, secrets.api_key, secrets.session_key)
                log_without_secrets((*own, *chosen.secrets))
                asyncio.run(_serve(app, home, secrets, listener, ours))
        finally:
            (home / "server.json").unlink(missing_ok=True)
            shutil.rmtree(home / "page", ignore_errors=True)


def _exit(*_: object) -> None:
    sys.exit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that name their protocol: without it every
    # answer waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # two sockets may share a port until one of them listens
    except OSError as error:
        listener.close()
        raise ServerError(
            f"cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            remedy="Free the port, or choose another with --port",
        ) from error
    return listener


def _configure(home: Path, secrets: Secrets, chosen: database.Database) -> None:
    """Set what Argilla reads from the environment, and nothing that others have set there."""
    os.chdir(home)
    for name in [name for name in os.environ if name.startswith("ARGILLA_")]:
        del os.environ[name]
    os.environ.pop(database.VARIABLE, None)
    os.environ |= {
        "ARGILLA_HOME_PATH": str(home),
        **chosen.environment,
        "ARGILLA_SEARCH_ENGINE": "handloom",
        "ARGILLA_CORS_ORIGINS": "[]",
        "ARGILLA_AUTH_SECRET_KEY": secrets.session_key,
        "ARGILLA_AUTH_OAUTH_CFG": str(home / "oauth.yaml"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """While modules are imported, which stay: looking for garbage among them is a fifth of a start.

    What is there then is passed over by later collections too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _application(pages: Path, *, patched: bool, custom_fields: bool) -> "ASGI3Application":
    """Argilla's application, with our search engine, jobs, patches and headers.

    Importing argilla_server makes the application at once: it connects to Redis and copies its web
    page to a temporary folder, which is `pages` here.
    """
    from annotate.embedded import jobs

    jobs.replace_redis()
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    tempfile.tempdir = str(pages)
    try:
        import argilla_server
    finally:
        tempfile.tempdir = None
    import annotate.embedded.engine  # noqa: F401 - registers the search engine
    from annotate.embedded.application import equip

    return equip(argilla_server.app, patched=patched, custom_fields=custom_fields)


async def _serve(
    app: "ASGI3Application",
    home: Path,
    secrets: Secrets,
    listener: socket.socket,
    ours: threading.Event,
) -> None:
    import argilla_server
    import uvicorn
    from argilla_server.database import async_engine

    from annotate.embedded import accounts, engine, outbox, patches, rebuild, webhooks, write_turns

    write_turns.install(async_engine)
    await outbox.install(async_engine)
    await patches.prepare(async_engine)
    await accounts.ensure_owner(secrets)
    await rebuild.rebuild_outdated()
    argilla_server.app.state.rebuilds = rebuilds = rebuild.Rebuilds()
    engine.HandloomSearchEngine.mend = staticmethod(rebuilds.mend)
    await rebuild.requeue_status_updates()
    delivery = webhooks.Delivery(async_engine)
    if await delivery.install():
        argilla_server.app.state.delivery = delivery
    _start_jobs(home / "hub-jobs")
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            log_config=None,  # its own handlers would write past the root's
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    tasks = [
        asyncio.create_task(_announce(home, server, listener)),
        asyncio.create_task(delivery.forever()),
    ]
    ledger = Ledger(home.parent / "ledger.jsonl")
    try:
        async with outbox.draining(async_engine, ledger, leases.seconds, ours.is_set) as drain:
            argilla_server.app.state.drain = drain
            await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await async_engine.dispose()


def _start_jobs(notes_folder: Path) -> None:
    from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE

    from annotate.embedded import hub, jobs

    hub.use_own_connections()
    notes = hub.HubJobNotes(notes_folder)
    notes.install()
    notes.report_cut_off()
    jobs.start_workers(asyncio.get_running_loop(), [HIGH_QUEUE, DEFAULT_QUEUE], notes.after)


async def _announce(home: Path, server: "uvicorn.Server", listener: socket.socket) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    folder.announce(home, ServerAddress(f"http://{shown}:{port}", os.getpid(), port))
