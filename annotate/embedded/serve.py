"""The embedded server itself: the real Argilla, in this process, on loopback."""

import asyncio
import contextlib
import io
import logging
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from annotate.embedded import home as folder
from annotate.embedded.home import Secrets, ServerAddress
from annotate.errors import ServerError

if TYPE_CHECKING:
    import uvicorn
    from uvicorn._types import ASGI3Application

GRACE_SECONDS = 5
BUSY_SECONDS = 30
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_LOG = logging.getLogger(__name__)


def serve(home: Path, host: str = "127.0.0.1", port: int = 6900, *, patched: bool = True) -> None:
    """Run Argilla in the foreground until SIGTERM or SIGINT, which end the process.

    The process is Argilla's from here on: its environment, working directory and signals are set.

    Args:
        home: the server's folder, made if need be.
        host: address to listen on.
        port: 0 takes any free one.
        patched: False leaves Argilla as slow as it came, to measure against.

    Raises:
        ServerError: another server runs on this folder, or the port is taken.
    """
    home = home.absolute()
    folder.prepare(home)
    with folder.locked(home), _listen(host, port) as listener:
        (home / "server.json").unlink(missing_ok=True)
        secrets = folder.secrets_of(home)
        _configure(home, secrets)
        app = _application(home / "page", patched=patched)
        _prepare_database(home / "argilla.db")
        # uvicorn passes the signal on when it has ended: without a handler that kills us at once.
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGINT, _exit)
        try:
            asyncio.run(_serve(app, home, secrets, listener))
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


def _configure(home: Path, secrets: Secrets) -> None:
    """Set what Argilla reads from the environment, and nothing that others have set there.

    The database's address is relative: a path with a % or a ? in it would not survive as a URL.
    """
    os.chdir(home)
    for name in [name for name in os.environ if name.startswith("ARGILLA_")]:
        del os.environ[name]
    os.environ |= {
        "ARGILLA_HOME_PATH": str(home),
        "ARGILLA_DATABASE_URL": "sqlite+aiosqlite:///argilla.db?check_same_thread=False",
        "ARGILLA_DATABASE_SQLITE_TIMEOUT": str(BUSY_SECONDS),
        "ARGILLA_SEARCH_ENGINE": "handloom",
        "ARGILLA_CORS_ORIGINS": "[]",
        "ARGILLA_AUTH_SECRET_KEY": secrets.session_key,
        "ARGILLA_AUTH_OAUTH_CFG": str(home / "oauth.yaml"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _application(pages: Path, *, patched: bool) -> "ASGI3Application":
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

    return equip(argilla_server.app, patched=patched)


def _prepare_database(path: Path) -> None:
    """Make the database or bring it to Argilla's version.

    It keeps a write-ahead log, so that reading does not wait for writing; SQLite remembers that in
    the file.
    """
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    path.chmod(0o600)
    from argilla_server.cli.database.migrate import migrate_db

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            migrate_db("head")
    except BaseException:
        _enable_logging()
        _LOG.error("migration of the database failed:\n%s", said.getvalue())
        raise
    _enable_logging()


def _enable_logging() -> None:
    """Undo what alembic does on every migration: it disables all loggers and takes the root's."""
    logging.basicConfig(format=LOG_FORMAT, level=logging.WARNING, force=True)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


async def _serve(
    app: "ASGI3Application", home: Path, secrets: Secrets, listener: socket.socket
) -> None:
    import uvicorn
    from argilla_server.database import async_engine
    from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE

    from annotate.embedded import accounts, jobs, rebuild

    await accounts.ensure_owner(secrets)
    await rebuild.rebuild_outdated()
    await rebuild.requeue_status_updates()
    jobs.start_workers(asyncio.get_running_loop(), [HIGH_QUEUE, DEFAULT_QUEUE])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    announcement = asyncio.create_task(_announce(home, server, listener))
    try:
        await server.serve(sockets=[listener])
    finally:
        announcement.cancel()
        await async_engine.dispose()


async def _announce(home: Path, server: "uvicorn.Server", listener: socket.socket) -> None:
    while not server.started:
        await asyncio.sleep(0.05)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    folder.announce(home, ServerAddress(f"http://{shown}:{port}", os.getpid(), port))
