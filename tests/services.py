"""What the throw-away PostgreSQL and Redis have in common: programs of Debian's, a port, a user."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 180
STOP_SECONDS = 30
PORT_TRIES = 3


def find_program(name: str, *folders: Path) -> Path:
    """A program in one of the folders, or on the PATH.

    Where it is not installed the test is skipped; in CI it fails, so that it cannot go unrun.
    """
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    if (found := shutil.which(name)) is not None:
        return Path(found)
    reason = f"{name} is not installed: `make services` installs it"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def private_folder(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A new folder, and whom to run as in it, as arguments of Popen.

    PostgreSQL refuses to run as root: there the folder belongs to `postgres`, or to `nobody`.
    """
    with tempfile.TemporaryDirectory(prefix=f"handloom-{name}-") as made:
        folder = Path(made)
        identity: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            user = _unprivileged_user()
            os.chown(folder, user.pw_uid, user.pw_gid)
            identity |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        yield folder, identity


def _unprivileged_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Callable[[int], list[str]],
    identity: dict[str, Any],
    log: Path,
    ready: Callable[[int], bool],
) -> Iterator[int]:
    """Run a server until the block ends, and give its port.

    Args:
        command: the port → the command line.
        identity: whom to run as, arguments of Popen.
        log: where what it says goes.
        ready: whether the server on this port answers.
    """
    for _ in range(PORT_TRIES):  # another process may take the port first
        port = free_port()
        with log.open("ab") as output:
            server = subprocess.Popen(
                command(port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **identity,
            )
        if _wait(server, lambda: ready(port)):  # noqa: B023 - called before the port changes
            break
    else:
        pytest.fail(f"{command(0)[0]} does not start: {log.read_text(errors='replace')[-2000:]}")
    try:
        yield port
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if ready():
            return True
        time.sleep(0.05)
    server.kill()
    server.wait()
    return False
