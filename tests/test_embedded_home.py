"""The server's folder: secrets, lock, address. No server is started here."""

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from annotate.embedded.home import (
    ServerAddress,
    address,
    announce,
    credentials,
    holder,
    locked,
    prepare,
    secrets_of,
)
from annotate.embedded.process import running, start, stop
from annotate.errors import ServerError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "argilla"
    prepare(folder)
    return folder


def test_secrets_are_made_once_and_kept_from_others(home: Path) -> None:
    made = secrets_of(home)
    assert secrets_of(home) == made
    assert secrets_of(home / "..").password != made.password
    assert stat.S_IMODE((home / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert min(len(made.password), len(made.api_key), len(made.session_key)) >= 24
    assert made.password not in repr(made)
    assert made.api_key not in repr(made)


def test_damaged_credentials_are_named(home: Path) -> None:
    (home / "credentials.json").write_text('{"user')
    with pytest.raises(ServerError, match=r"credentials\.json: this file is damaged"):
        secrets_of(home)


def test_a_folder_serves_one_server(home: Path) -> None:
    assert holder(home) is None
    with locked(home):
        assert holder(home) == os.getpid()
        with pytest.raises(ServerError, match="another server is running"), locked(home):
            pass
    assert holder(home) is None


def test_the_lock_of_a_killed_process_is_free(home: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, pathlib, signal
        from annotate.embedded.home import locked
        with locked(pathlib.Path({str(home)!r})):
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert (home / "lock").read_text()
    assert holder(home) is None


def test_the_address_counts_while_its_process_runs(home: Path) -> None:
    mine = ServerAddress("http://127.0.0.1:1", os.getpid(), 1)
    announce(home, mine)
    assert address(home) is None
    with pytest.raises(ServerError, match="handloom up"):
        credentials(home)
    with locked(home):
        assert address(home) == mine
        own = credentials(home)
        assert running(home) is None  # it holds the lock and does not answer
    stored = json.loads((home / "credentials.json").read_text())
    assert (own.url, own.password, own.api_key) == (mine.url, stored["password"], stored["api_key"])
    assert own.password not in repr(own)
    assert own.api_key not in repr(own)


def test_stopping_what_does_not_run_says_so(home: Path) -> None:
    assert stop(home) is False
    assert running(home) is None


def test_a_taken_port_is_one_clear_line(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{port}: cannot listen there"):
            start(home, port)
    assert "Traceback" not in (home / "server.log").read_text()


def test_starting_twice_is_refused(home: Path) -> None:
    with locked(home), pytest.raises(ServerError, match="is running on this project already"):
        start(home, 0)
