"""The dashboard as a background process of the project, started by its command line.

`<state>/dashboard.lock` is held by the process for as long as it lives and holds its number and
port; `<state>/dashboard.log` is what it says.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from annotate.errors import ResourceError, ServerError
from annotate.runs import Project

START_SECONDS, STOP_SECONDS = 90.0, 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Dashboard:
    """Where the dashboard answers, and its process (the leader of its group)."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """On loopback."""
        return f"http://127.0.0.1:{self.port}"


def installed() -> bool:
    """Whether the `dashboard` extra is installed."""
    return find_spec("streamlit") is not None


def running(project: Project) -> Dashboard | None:
    """The project's dashboard, if it lives."""
    path = _lock(project)
    if not path.exists():
        return None
    with path.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read()
            return Dashboard(**json.loads(text)) if text else None
    return None


def start(project: Project, port: int) -> Dashboard:
    """Start the dashboard and wait until it answers; the one that runs, if one does.

    Args:
        port: on loopback; 0 takes any free one.

    Raises:
        ServerError: it did not start.
        ResourceError: its log cannot be written.
    """
    if (found := running(project)) is not None:
        return found
    log = project.state_dir / "dashboard.log"
    port = port or _free_port()
    command = [sys.executable, "-m", "align", "dashboard", "--port", str(port)]
    try:
        with _lock(project).open("w") as lock, log.open("wb") as output:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = subprocess.Popen(
                command,
                cwd=project.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock.fileno()],  # the lock is the child's from now on
            )
            lock.write(json.dumps({"pid": child.pid, "port": port}))
    except BlockingIOError:
        raise ServerError("another dashboard is starting", where=str(project.root)) from None
    except OSError as error:
        raise ResourceError(f"the dashboard cannot be started ({error})") from None
    dashboard = Dashboard(child.pid, port)
    up = _until(lambda: _answers(dashboard) or child.poll() is not None, START_SECONDS)
    if not up:
        stop(project)
    if not up or child.poll() is not None:
        raise ServerError("the dashboard did not start", where=str(log), remedy=_last_line(log))
    return dashboard


def stop(project: Project) -> bool:
    """End the dashboard; False if none was running."""
    found = running(project)
    if found is None:
        return False
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(found.pid, ending)
        except ProcessLookupError:
            return True
        if _until(lambda: running(project) is None, STOP_SECONDS):
            return True
    raise ServerError(f"the dashboard (process {found.pid}) does not end")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lock(project: Project) -> Path:
    return project.state_dir / "dashboard.lock"


def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _answers(dashboard: Dashboard) -> bool:
    try:
        return httpx.get(f"{dashboard.url}/_stcore/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"Its log ends: {lines[-1].strip()}" if lines else "Its log is empty"
