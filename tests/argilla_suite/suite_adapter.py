"""A plug-in for the pytest that runs Argilla's own tests, with what is ours or without.

HANDLOOM_SUITE_HOME    a folder of the run's own; each xdist worker takes one inside
HANDLOOM_SUITE_REPORT  where the outcome of every test is written, as JSON
HANDLOOM_SUITE_EQUIP   "1": Argilla's application with all that `equip` adds
HANDLOOM_SUITE_REDIS   a Redis, without the number of a database: each worker takes its own
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
_HOME = Path(os.environ["HANDLOOM_SUITE_HOME"]) / (_WORKER or "main")
_HOME.mkdir(parents=True, exist_ok=True)
os.environ["ARGILLA_HOME_PATH"] = str(_HOME)
# The name that the tests of the search engine ask for; what answers to it is `engine_conftest`'s.
os.environ["ARGILLA_SEARCH_ENGINE"] = "elasticsearch"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
_NUMBER = int((_WORKER or "gw0").removeprefix("gw"))
os.environ["ARGILLA_REDIS_URL"] = f"{os.environ['HANDLOOM_SUITE_REDIS']}/{_NUMBER}"
tempfile.tempdir = str(_HOME)  # to which Argilla copies its web page

import opensearchpy  # noqa: E402


class _NoCluster:
    """In the place of the client with which the suite tidies up Elasticsearch afterwards."""

    def __init__(self, **_: Any) -> None:
        self.cat = self

    def indices(self, **_: Any) -> list[Any]:
        """None: there is no Elasticsearch."""
        return []


opensearchpy.OpenSearch = _NoCluster

import argilla_server  # noqa: E402


class _Equipped:
    """The equipped application, with the attribute that the suite's client looks at."""

    def __init__(self, app: Any) -> None:
        from annotate.embedded.application import equip

        self.dependency_overrides = app.dependency_overrides
        self._app = equip(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


if os.environ.get("HANDLOOM_SUITE_EQUIP") == "1":
    argilla_server.app = _Equipped(argilla_server.app)

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Remember the worst outcome of a test's set-up, call and end."""
    order = ("passed", "skipped", "failed")
    known = _outcomes.get(report.nodeid, report.outcome)
    _outcomes[report.nodeid] = max(known, report.outcome, key=order.index)


def pytest_sessionfinish() -> None:
    """Write the outcomes down, where all of them are known."""
    if _WORKER is None:
        Path(os.environ["HANDLOOM_SUITE_REPORT"]).write_text(json.dumps(_outcomes))
