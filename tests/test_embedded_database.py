"""The embedded server on a PostgreSQL of one's own: all that it does on SQLite, and no password."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import RunningArgilla, run_argilla
from factories import connected_project, make_generated, submit
from postgres import Postgres
from sqlalchemy.engine import make_url

from annotate.embedded import database
from annotate.embedded.database import VARIABLE, choose
from annotate.embedded.home import holder
from annotate.embedded.process import stop
from annotate.errors import ServerError
from annotate.judge import judge
from annotate.pull import pull
from annotate.push import push
from annotate.server import connect

ODD_PASSWORD = "50%@home:/?#[x] ✓"


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_an_address_goes_to_the_drivers_in_parts(tmp_path: Path, driver: str) -> None:
    odd = quote(ODD_PASSWORD, safe="")
    url = f"{driver}://ann:{odd}@db.example:5433/labels?ssl=require"
    chosen = choose(tmp_path, url)
    assert chosen.environment == {
        "ARGILLA_DATABASE_URL": "postgresql+asyncpg://",
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGUSER": "ann",
        "PGPASSWORD": ODD_PASSWORD,
        "PGDATABASE": "labels",
        "PGSSLMODE": "require",
    }
    assert chosen.shown == f"{driver}://ann:***@db.example:5433/labels"
    assert "home" not in repr(chosen)
    assert chosen.secrets == (ODD_PASSWORD,)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3cret", "no address of a database"),
        ("postgresql://ann:s3cret@host:port/db", "no address of a database"),
        ("mysql://ann:s3cret@host/db", "cannot work on mysql"),
        ("sqlite:///s3cret.db", "cannot work on sqlite"),
        ("postgresql://ann:s3cret@host/db?pool=s3cret", "a parameter 'pool'"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_the_password(
    tmp_path: Path, url: str, said: str
) -> None:
    with pytest.raises(ServerError, match=said) as caught:
        choose(tmp_path, url)
    assert "s3cret" not in str(caught.value)


def test_answers_are_not_left_behind_by_a_forgotten_variable(tmp_path: Path) -> None:
    assert choose(tmp_path, None).kind == "sqlite"
    (tmp_path / "postgresql").write_text("postgresql://ann:***@host/db\n")
    with pytest.raises(ServerError, match=r"in PostgreSQL\. Set HANDLOOM_DATABASE_URL"):
        choose(tmp_path, None)
    (tmp_path / "postgresql").unlink()
    (tmp_path / "argilla.db").touch()
    with pytest.raises(ServerError, match=r"in SQLite\. Unset HANDLOOM_DATABASE_URL"):
        choose(tmp_path, "postgresql://ann@host/db")


def serve_once(home: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run the server in the foreground: for cases in which it ends at once."""
    return subprocess.run(
        [sys.executable, "-m", "annotate.embedded", "--port", "0", "--home", str(home)],
        env=os.environ | {VARIABLE: url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_database_that_does_not_open_is_one_line(tmp_path: Path, postgres: Postgres) -> None:
    url = make_url(postgres.create_database())
    wrong = {
        "password authentication failed": url.set(password="wr0ng"),
        'database "absent" does not exist': url.set(database="absent"),
        "refused": url.set(port=1),
    }
    for said, address in wrong.items():
        ended = serve_once(tmp_path / "home", address.render_as_string(hide_password=False))
        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.count("\n") == 1
        assert said in ended.stderr
        assert "wr0ng" not in ended.stderr
        assert postgres.password not in ended.stderr


def test_a_database_without_every_letter_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    server = postgres.connect("postgres")
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    server.close()
    url = make_url(postgres.create_database()).set(database="ascii")
    ended = serve_once(tmp_path / "home", url.render_as_string(hide_password=False))
    assert "keeps text as SQL_ASCII" in ended.stderr
    assert ended.returncode == 1


HOLDERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to be")


def test_the_lock_on_a_database_is_taken_again_and_never_shared(
    postgres: Postgres, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that holds it is cut, by an administrator or a restart of PostgreSQL."""
    monkeypatch.setattr(database, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(database, "LOCK_TRIES", 2)
    name = make_url(postgres_url).database
    assert name is not None
    other = postgres.connect(name)
    other.autocommit = True
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    with (
        other,
        other.cursor() as cursor,
        database.opened(choose(tmp_path, postgres_url), tmp_path) as ours,
    ):

        def holders() -> list[int]:
            cursor.execute(HOLDERS)
            return [pid for (pid,) in cursor.fetchall()]

        (first,) = holders()
        cursor.execute("SELECT pg_terminate_backend(%s)", [first])
        until(lambda: holders() not in ([], [first]))
        until(ours.is_set)
        assert told == []
        (second,) = holders()
        cursor.execute(
            "SELECT pg_terminate_backend(%s), pg_advisory_lock(%s)", [second, database.LOCK_NUMBER]
        )
        until(lambda: bool(told))
        assert not ours.is_set()
        assert holders() == [other.info.backend_pid]
    signal.signal(signal.SIGTERM, before)
    other.close()


def test_the_lock_of_a_connection_that_only_postgresql_takes_for_alive_is_taken_over(
    postgres_url: str, tmp_path: Path
) -> None:
    """As after the network was gone for a while."""
    chosen = choose(tmp_path, postgres_url)
    with database.held(chosen) as lost:
        again = database.connect(chosen)
        database._take(again, chosen, lost.info.backend_pid)
        with again.cursor() as cursor:
            cursor.execute(HOLDERS)
            assert cursor.fetchall() == [(again.info.backend_pid,)]
        again.close()


@pytest.fixture
def odd_url(postgres: Postgres, postgres_url: str) -> str:
    """A database whose user has a password with every letter that addresses stumble over."""
    url = make_url(postgres_url)
    assert url.database is not None
    server = postgres.connect(url.database)
    with server, server.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'odd'")
        if cursor.fetchone() is None:
            cursor.execute("CREATE USER odd PASSWORD %s", [ODD_PASSWORD])
        cursor.execute(f'ALTER DATABASE "{url.database}" OWNER TO odd')
    server.close()
    odd = url.set(username="odd", password=ODD_PASSWORD)
    return odd.render_as_string(hide_password=False)


@pytest.fixture
def server(
    tmp_path: Path, odd_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningArgilla]:
    monkeypatch.setenv(VARIABLE, odd_url)
    home = tmp_path / "server" / ".handloom" / "argilla"
    yield run_argilla(home)
    stop(home)


def kill(home: Path) -> None:
    pid = holder(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while holder(home) == pid:
        time.sleep(0.05)


def test_the_loop_on_postgresql_survives_a_kill(
    server: RunningArgilla, odd_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = connected_project(tmp_path / "project", server, monkeypatch)
    pushed = push(project, make_generated(project, 12, texts=["apple", "pear"]), overlap=2)
    ids = pushed.read("items")["item_id"].to_pylist()
    for name in ("ann", "bob"):
        submit(project, pushed, name, {i: {"preference": {"value": "a_better"}} for i in ids[:6]})

    second = serve_once(tmp_path / "second", odd_url)
    assert "another server of Handloom works on this database" in second.stderr
    assert second.returncode == 1
    assert choose(server.home, odd_url).kind == "postgresql"

    kill(server.home)
    again = run_argilla(server.home)
    assert again.api_key == server.api_key
    monkeypatch.setenv("HANDLOOM_ARGILLA_URL", again.url)

    submit(project, pushed, "ann", {i: {"preference": {"value": "b_better"}} for i in ids[6:]})
    with connect(project) as argilla:
        (batch,) = argilla.batches()
        counted = argilla.request("GET", f"datasets/{batch.id}/progress")
        assert (counted["completed"], counted["pending"]) == (6, 6)
        body = {"query": {"text": {"q": "apple pear"}}}
        found = argilla.request("POST", f"datasets/{batch.id}/records/search", json=body)
        assert found["total"] == 12
    pulled = pull(project, pushed)
    assert pulled.metrics["submitted"] == 18
    assert judge(project, pulled).read("judgements").num_rows == 12

    assert not (server.home / "argilla.db").exists()
    for file in server.home.rglob("*"):
        if file.is_file() and file.suffix != ".db":
            assert ODD_PASSWORD not in file.read_text(errors="replace"), file
            assert quote(ODD_PASSWORD, safe="") not in file.read_text(errors="replace"), file
