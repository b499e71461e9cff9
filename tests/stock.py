"""An unpatched Argilla, server and worker each a process, on real PostgreSQL and Redis."""

import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from postgres import Postgres
from services import running

LAUNCHER = Path(__file__).with_name("stock_launcher.py")


@dataclass(frozen=True)
class StockArgilla:
    """A running server of somebody else's, as far as Handloom knows: an address and a key."""

    url: str
    api_key: str = field(repr=False)
    password: str = field(repr=False)


@pytest.fixture(scope="session")
def stock_argilla(
    postgres: Postgres, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockArgilla]:
    """One for the whole session; skips where PostgreSQL or Redis is not installed."""
    home = tmp_path_factory.mktemp("stock")
    api_key, password = secrets.token_urlsafe(24), secrets.token_urlsafe(12)
    environment = {name: value for name, value in os.environ.items() if "ARGILLA" not in name}
    environment |= {
        "ARGILLA_HOME_PATH": str(home),
        "ARGILLA_DATABASE_URL": postgres.create_database(),
        "ARGILLA_REDIS_URL": redis_url,
        "ARGILLA_SEARCH_ENGINE": "shared",
        "ARGILLA_AUTH_SECRET_KEY": secrets.token_hex(16),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "STOCK_API_KEY": api_key,
        "STOCK_PASSWORD": password,
        "TMPDIR": str(home),  # where Argilla copies its web page to, for good
    }
    ours = {"cwd": home, "env": environment}
    command = [sys.executable, str(LAUNCHER)]
    subprocess.run([*command, "setup"], check=True, capture_output=True, **ours)

    def ready(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/version", timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    log = home / "server.log"
    with (
        (home / "worker.log").open("wb") as worker_log,
        subprocess.Popen(
            [*command, "worker"], stdout=worker_log, stderr=worker_log, **ours
        ) as worker,
        running(lambda port: [*command, "server", str(port)], ours, log, ready) as port,
    ):
        yield StockArgilla(f"http://127.0.0.1:{port}", api_key, password)
        worker.terminate()
