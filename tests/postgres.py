"""A throw-away PostgreSQL cluster for the tests, from Debian's package or the PATH."""

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import pytest
from services import find_program, private_folder, running

USER = "handloom"
UNSAFE_AND_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class Postgres:
    """A running cluster on loopback, whose one user may do everything."""

    port: int
    password: str = field(repr=False)

    def create_database(self) -> str:
        """The address of a new, empty database, as HANDLOOM_DATABASE_URL takes it."""
        name = f"argilla_{secrets.token_hex(6)}"
        server = self.connect("postgres")
        try:
            server.autocommit = True
            with server.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            server.close()
        return f"postgresql+asyncpg://{USER}:{self.password}@127.0.0.1:{self.port}/{name}"

    def connect(self, database: str) -> "psycopg2.extensions.connection":
        """A connection of our own, to look at what a server wrote."""
        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for the whole session; skips where PostgreSQL is not installed."""
    releases = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name)
    )
    initdb = find_program("initdb", *releases)
    server = find_program("postgres", initdb.parent)
    password = secrets.token_hex(16)
    with private_folder("postgres") as (folder, identity):
        data = folder / "data"
        _initialise(initdb, data, password, identity)
        settings = ["listen_addresses=127.0.0.1", "max_connections=200", *UNSAFE_AND_FAST]
        options = [word for setting in settings for word in ("-c", setting)]

        def command(port: int) -> list[str]:
            return [str(server), "-D", str(data), "-k", str(folder), "-p", str(port), *options]

        def ready(port: int) -> bool:
            try:
                Postgres(port, password).connect("postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        with running(command, identity, folder / "log", ready) as port:
            yield Postgres(port, password)


def _initialise(initdb: Path, data: Path, password: str, identity: dict[str, object]) -> None:
    words = data.with_name("password")
    words.write_text(password)
    words.chmod(0o644)  # the folder is its owner's alone
    subprocess.run(
        [
            *(str(initdb), "-D", str(data), "-U", USER, f"--pwfile={words}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        capture_output=True,
        check=True,
        **identity,  # type: ignore[call-overload]
    )
    words.unlink()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The address of a new, empty database: `postgresql+asyncpg://…`."""
    return postgres.create_database()
