"""init, up and down, as a user types them: the project's own server and dashboard."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from factories import make_project

from align.cli import main
from annotate import dashboard_process
from annotate.embedded.process import running
from annotate.errors import ServerError
from annotate.runs import Project


def handloom(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_init_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "API_KEY", "WORKSPACE"):
        monkeypatch.delenv(f"HANDLOOM_ARGILLA_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    made = handloom("init")
    assert "a project" in made.output
    assert handloom("down").output == "nothing was running\n"
    project = Project(tmp_path)
    try:
        up = handloom("up", "--port", "0", "--dashboard-port", "0")
        assert up.exit_code == 0, up.output
        argilla, dashboard = (
            running(tmp_path / ".handloom" / "argilla"),
            dashboard_process.running(project),
        )
        assert argilla is not None
        assert dashboard is not None
        assert f"Argilla    {argilla.url}" in up.output
        assert f"dashboard  {dashboard.url}" in up.output
        assert ".handloom/argilla/credentials.json" in up.output
        assert "<html" in httpx.get(dashboard.url).text.lower()
        again = handloom("up", "--port", "0", "--dashboard-port", "0")
        assert argilla.url in again.output
        assert dashboard.url in again.output
        assert "starting the dashboard" in up.stderr
        assert "starting" not in again.stderr
        assert handloom("users", "add", "anna").exit_code == 0
    finally:
        down = handloom("down")
    assert down.output == "stopped the dashboard and Argilla\n"
    assert dashboard_process.running(project) is None
    assert "handloom up" in handloom("users", "list").output


def test_without_the_servers_parts_up_says_what_to_install(tmp_path: Path) -> None:
    """A Python of its own, which has everything but `argilla_server`."""
    installed = tmp_path / "installed"
    installed.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith("argilla_server"):
            (installed / path.name).symlink_to(path)
    venv.create(tmp_path / "python", symlinks=True)
    python = str(tmp_path / "python" / "bin" / "python")
    folder = tmp_path / "project"
    make_project(folder)
    done = subprocess.run(
        [python, "-m", "align", "-C", str(folder), "up", "--port", "0", "--no-dashboard"],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent.parent}:{installed}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    said = done.stderr.splitlines()[-1]
    assert said == "error: the embedded server is not installed. pip install 'handloom[server]'"
    assert not (folder / ".handloom" / "argilla").exists()


def test_a_dashboard_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is taken by another server."""
    import socket

    monkeypatch.chdir(tmp_path)
    assert handloom("init").exit_code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=r"did not start.*port"):
            dashboard_process.start(Project(tmp_path), port)
    assert dashboard_process.running(Project(tmp_path)) is None
