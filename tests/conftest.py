"""The real Argilla server, started once a session as users start it: as a process of its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from annotate.embedded.home import credentials
from annotate.embedded.process import start, stop

# Argilla's SDK and server report their use to the Hub otherwise.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


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
