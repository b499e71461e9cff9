"""Starting the dashboard as a process: `align` does not import it.

Streamlit runs a file, so the file is looked up without importing the package it belongs to.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from annotate.errors import InputError, ResourceError
from annotate.runs import Project

HOST = "127.0.0.1"
PROJECT_VARIABLE = "HANDLOOM_PROJECT"
"""The dashboard reads the project's folder from here."""


def app_file() -> Path:
    """The Streamlit script.

    Raises:
        InputError: the dashboard or Streamlit is not installed.
    """
    app = importlib.util.find_spec("streamlit_app")
    if app is None or app.origin is None or importlib.util.find_spec("streamlit") is None:
        raise InputError(
            "the dashboard is not installed", remedy="`pip install 'handloom[dashboard]'`"
        )
    return Path(app.origin).with_name("app.py")


def free_port(port: int) -> int:
    """`port` if nobody listens on it, any free one for 0.

    Raises:
        ResourceError: it is taken.
    """
    with socket.socket() as probe:
        # As Streamlit does: a port that a dashboard left a moment ago can be had again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ResourceError(
                f"the port cannot be used ({error.strerror})",
                where=f"{HOST}:{port}",
                remedy="Name another with --port; 0 takes any free one",
            ) from None
        return int(probe.getsockname()[1])


def command(port: int) -> list[str]:
    """The process to start: on loopback, without a browser, reporting nothing to anybody."""
    options = {
        "server.address": HOST,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "logger.hideWelcomeMessage": "true",
        "logger.level": "error",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P: no module is taken from the folder one happens to stand in.
    return [sys.executable, "-P", "-m", "streamlit", "run", str(app_file()), *flags]


def environment(project: Project) -> dict[str, str]:
    """The environment to start it in."""
    return os.environ | {PROJECT_VARIABLE: str(project.root)}


def become_dashboard(project: Project, port: int) -> NoReturn:
    """Turn this process into the dashboard, so that a signal to it ends the dashboard.

    Raises:
        InputError: it is not installed.
    """
    argv = command(port)
    os.execve(argv[0], argv, environment(project))  # noqa: S606 - no shell, by intention
