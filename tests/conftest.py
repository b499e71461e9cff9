"""The real Argilla server, started once a session as users start it: as a process of its own."""

import os
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from annotate.embedded.home import credentials
from annotate.embedded.process import start, stop

pytest_plugins = ["postgres", "redis_server", "stock"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("handloom", deadline=None)
settings.load_profile("handloom")

# Argilla's SDK and server report their use to the Hub otherwise.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# Where Argilla's server, imported by the tests of the search engine, puts what it makes on import.
_SCRATCH = tempfile.TemporaryDirectory(prefix="handloom-tests-")
os.environ["ARGILLA_HOME_PATH"] = _SCRATCH.name


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Importing argilla_server copies its web page to the temporary folder: keep it in ours."""
    tempfile.tempdir = _SCRATCH.name
    try:
        return (yield)
    finally:
        tempfile.tempdir = None


@dataclass(frozen=True)
class RunningArgilla:
    """A running embedded server and its owner's key."""

    url: str
    api_key: str = field(repr=False)
    password: str = field(repr=False)
    home: Path


def run_argilla(home: Path) -> RunningArgilla:
    """Start a server on a folder, on any free port."""
    start(home, port=0)
    own = credentials(home)
    return RunningArgilla(own.url, own.api_key, own.password, home)


@pytest.fixture(scope="session")
def argilla_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArgilla]:
    """One server for the whole session: tests keep apart by the names of their workspaces."""
    home = tmp_path_factory.mktemp("project") / ".handloom" / "argilla"
    yield run_argilla(home)
    stop(home)
