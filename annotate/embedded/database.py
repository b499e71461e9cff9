"""Where Argilla keeps what people did: a SQLite file of its own, or a PostgreSQL database.

A PostgreSQL address goes to the drivers (asyncpg, and psycopg2 for the migrations) through libpq's
environment variables, and Argilla's own address stays empty: so the password is in no address that
an error, a log or a traceback could show, and may hold any character (alembic fails on a `%`).
"""

import contextlib
import io
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from annotate.errors import ServerError

if TYPE_CHECKING:
    from psycopg2.extensions import connection
    from sqlalchemy.engine import URL

VARIABLE = "HANDLOOM_DATABASE_URL"
FORM = "postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE"

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
LOCK_TRIES = 10
LOCK_WAIT_SECONDS = 0.5
LOCK_NUMBER = int.from_bytes(b"handloom")
"""Of the advisory lock that a server holds on its PostgreSQL database."""

LOOK_SECONDS = 3.0
"""Between two looks at the connection that holds it."""

_DEAD_SECONDS = 15
_KEEP_ALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 1000 * _DEAD_SECONDS,
}
"""So that a connection whose other end is gone does not seem to be there for hours."""

_END_HOLDER = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND pid = %s AND classid = %s AND objid = %s
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

_LOG = logging.getLogger(__name__)

_DRIVERS = {"postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg2"}
_PARAMETERS = {
    "host": "PGHOST",  # the folder of a Unix socket
    "ssl": "PGSSLMODE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
}
_LIBPQ = {
    "PGPORT": "port",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGDATABASE": "dbname",
    **{variable: name for name, variable in _PARAMETERS.items() if name != "ssl"},
}
"""Variable → the driver's word for it."""


@dataclass(frozen=True)
class Database:
    """A database for Argilla, and what has to stand in the environment for it to be used."""

    kind: str
    shown: str
    """Its address, without the password."""
    environment: Mapping[str, str] = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        return tuple(value for name, value in self.environment.items() if name == "PGPASSWORD")


def choose(home: Path, url: str | None) -> Database:
    """The database of a server's folder: that of the address, else SQLite in the folder.

    Raises:
        ServerError: the address cannot be used, or the folder's answers are in the other kind.
    """
    chosen = _postgresql(url) if url else _sqlite(home)
    mark = home / "postgresql"
    if chosen.kind == "sqlite" and mark.exists():
        raise ServerError(
            "the answers of this project are in PostgreSQL",
            where=mark.read_text().strip(),
            remedy=f"Set {VARIABLE}; to begin anew on SQLite, remove {mark}",
        )
    if chosen.kind == "postgresql" and (home / "argilla.db").exists():
        raise ServerError(
            "the answers of this project are in SQLite",
            where=str(home / "argilla.db"),
            remedy=f"Unset {VARIABLE}; to begin anew on PostgreSQL, move that file away",
        )
    return chosen


def _sqlite(home: Path) -> Database:
    """The address is relative: a path with a % or a ? in it would not survive as a URL."""
    return Database(
        "sqlite",
        str(home / "argilla.db"),
        {
            "ARGILLA_DATABASE_URL": "sqlite+aiosqlite:///argilla.db?check_same_thread=False",
            "ARGILLA_DATABASE_SQLITE_TIMEOUT": str(BUSY_SECONDS),
        },
    )


def _postgresql(text: str) -> Database:
    url = _parsed(text)
    parts = {
        "PGHOST": url.host,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": str(url.password) if url.password else None,
        "PGDATABASE": url.database,
    }
    for name, value in url.query.items():
        if name not in _PARAMETERS or not isinstance(value, str):
            raise ServerError(
                f"the database's address has a parameter {name!r}, which is not known",
                where=VARIABLE,
                remedy=f"Known are {', '.join(_PARAMETERS)}",
            )
        parts[_PARAMETERS[name]] = value
    given = {name: value for name, value in parts.items() if value}
    shown = url.set(query={}).render_as_string(hide_password=True)
    return Database("postgresql", shown, given | {"ARGILLA_DATABASE_URL": "postgresql+asyncpg://"})


def _parsed(text: str) -> "URL":
    """Neither the text nor what a parser says of it is shown: it holds a password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ServerError(
            "this is no address of a database", where=VARIABLE, remedy=f"Its form is {FORM}"
        ) from None
    if url.drivername not in _DRIVERS:
        raise ServerError(
            f"cannot work on {url.drivername}",
            where=VARIABLE,
            remedy=f"Its form is {FORM}; without it the database is SQLite",
        )
    return url


@contextmanager
def opened(database: Database, home: Path) -> Iterator[threading.Event]:
    """Make the database ready for Argilla's migrations, and hold it for this server alone.

    A server on SQLite is alone by the lock on its folder; one on PostgreSQL takes an advisory lock
    (see `held`), and looks after it: a lost connection is made anew, and if another server has
    taken the lock meanwhile, this process is ended by SIGTERM.

    Returns:
        What is set while the database is this server's alone.

    Raises:
        ServerError: the database cannot be reached or used, or another server works on it.
    """
    if database.kind == "sqlite":
        _prepare_sqlite(Path(database.shown))
        ours = threading.Event()
        ours.set()
        yield ours
        return
    with held(database) as lock:
        (home / "postgresql").write_text(database.shown + "\n")
        hold, ended = _Hold(database, lock), threading.Event()
        watch = threading.Thread(target=hold.watch, args=[ended], daemon=True)
        watch.start()
        try:
            yield hold.ours
        finally:
            ended.set()
            watch.join()
            hold.connection.close()


@contextmanager
def held(database: Database) -> Iterator["connection"]:
    """Keep every server of Handloom off a PostgreSQL database, by a connection that stays open.

    Raises:
        ServerError: the database cannot be reached or used, or another server works on it.
    """
    lock = connect(database)
    try:
        _check_encoding(lock, database)
        _take(lock, database)
        yield lock
    finally:
        lock.close()


class _Hold:
    """The lock of a running server, which goes with its connection, looked after."""

    def __init__(self, database: Database, connection: "connection") -> None:
        self.connection = connection
        self.ours = threading.Event()
        self.ours.set()
        self._database = database

    def watch(self, ended: threading.Event) -> None:
        """Look every few seconds, until `ended`; ends the process if the lock is another's."""
        while not ended.wait(LOOK_SECONDS):
            try:
                self._look()
            except ServerError as error:
                _LOG.error("%s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _look(self) -> None:
        """See that the connection is there, or make it anew.

        Raises:
            ServerError: another server has taken the lock meanwhile.
        """
        import psycopg2

        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                return
        except psycopg2.Error as error:
            if self.ours.is_set():
                _LOG.warning("the connection that holds the database is lost: %s", _one_line(error))
        self.ours.clear()
        before = self.connection.info.backend_pid
        self.connection.close()
        try:
            again = connect(self._database)
        except ServerError:
            return  # it is away; Argilla says so to whoever asks it
        try:
            _take(again, self._database, before)
        except (ServerError, psycopg2.Error) as error:
            again.close()
            if isinstance(error, ServerError):
                raise
            return
        self.connection = again
        self.ours.set()
        _LOG.warning("the database is held again")


def _prepare_sqlite(path: Path) -> None:
    """Keep a write-ahead log, so that reading does not wait for writing; the file remembers it."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    path.chmod(0o600)


def connect(database: Database) -> "connection":
    """A connection to a PostgreSQL database, whatever stands in the environment.

    Raises:
        ServerError: it cannot be reached.
    """
    import psycopg2

    given = {
        word: database.environment[name]
        for name, word in _LIBPQ.items()
        if name in database.environment
    }
    try:
        return psycopg2.connect(connect_timeout=CONNECT_SECONDS, **_KEEP_ALIVE, **given)
    except psycopg2.Error as error:
        raise ServerError(
            f"cannot open the database: {_one_line(error)}",
            where=database.shown,
            remedy=f"Check {VARIABLE}, and that PostgreSQL runs and has this user and database",
        ) from None


def _check_encoding(db: "connection", database: Database) -> None:
    with db.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone() or ("",)
    db.rollback()
    if encoding != "UTF8":
        raise ServerError(
            f"this database keeps text as {encoding}, which has not every letter",
            where=database.shown,
            remedy="Make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )


def _take(lock: "connection", database: Database, before: int = 0) -> None:
    """The lock of a server that was killed goes when PostgreSQL notices: try for a while.

    Args:
        before: the process in PostgreSQL of our own lost connection, which need not have noticed.
    """
    lock.autocommit = True
    for _ in range(LOCK_TRIES):
        with lock.cursor() as cursor:
            if before:
                cursor.execute(_END_HOLDER, [before, *divmod(LOCK_NUMBER, 1 << 32)])
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_NUMBER])
            if cursor.fetchone() == (True,):
                return
        time.sleep(LOCK_WAIT_SECONDS)
    raise ServerError(
        "another server of Handloom works on this database",
        where=database.shown,
        remedy="Stop that one with `handloom down`, or give this one a database of its own",
    )


def migrate(database: Database) -> None:
    """Bring the database to Argilla's version.

    Raises:
        ServerError: it belongs to a later Argilla, or its user may not make tables.
    """
    from argilla_server.cli.database.migrate import migrate_db
    from sqlalchemy.exc import SQLAlchemyError

    said = io.StringIO()
    try:
        with (
            _logging_kept(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            migrate_db("head")
    except (SystemExit, SQLAlchemyError) as error:
        last = said.getvalue().strip().splitlines()[-1:] if isinstance(error, SystemExit) else []
        raise ServerError(
            f"the database cannot be brought to Argilla's version: {_one_line(last or error)}",
            where=database.shown,
            remedy="Is it of a later Argilla, or may this user make no tables in it?",
        ) from error


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo what alembic does on every migration: it disables all loggers and takes the root's."""
    handlers, level = list(logging.root.handlers), logging.root.level
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        for logger in logging.root.manager.loggerDict.values():
            if isinstance(logger, logging.Logger):
                logger.disabled = False


def _one_line(said: object) -> str:
    text = " ".join(said) if isinstance(said, list) else str(said)
    return (text.strip().splitlines() or ["it did not say why"])[0].strip()
