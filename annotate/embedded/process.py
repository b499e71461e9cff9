"""The embedded server as a background process: start, stop, find. Imports nothing of Argilla."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from annotate.embedded.home import ServerAddress, address, holder, prepare
from annotate.embedded.leases import DEFAULT_MINUTES
from annotate.errors import ServerError

START_SECONDS = 180.0
STOP_SECONDS = 20.0
LOG_BYTES = 10 * 2**20
LOG_TAIL_LINES = 5
_POLL_SECONDS = 0.1
_REBUILDING = re.compile(r" annotate\.embedded\.rebuild(?P<progress>\.progress)?: (?P<line>.*)")


def start(
    home: Path,
    port: int = 6900,
    *,
    timeout: float = START_SECONDS,
    lease_minutes: float = DEFAULT_MINUTES,
    custom_fields: bool = False,
    patched: bool = True,
    say: Callable[[str], None] | None = None,
) -> ServerAddress:
    """Start the server in the background and wait until it answers.

    Args:
        home: the server's folder, made if need be.
        port: on loopback; 0 takes any free one.
        timeout: seconds to wait, also between two signs that a search index is being rebuilt; a
            first start migrates the database and takes longest.
        lease_minutes: silence after which a person's records go to others; 0: no leases.
        custom_fields: let the scripts of custom fields run, and any other in a record.
        patched: False leaves Argilla as slow as it came, to measure against.
        say: called with a line for each search index that had to be rebuilt.

    Raises:
        ServerError: it is not installed, one runs on this folder already, the port is taken, or it
            did not start.
    """
    if find_spec("argilla_server") is None:
        raise ServerError(
            "the embedded server is not installed", remedy="pip install 'handloom[server]'"
        )
    if (pid := holder(home)) is not None:
        raise ServerError(
            f"a server is running on this project already (process {pid})",
            where=str(home),
            remedy="Use it, or stop it with `handloom down`",
        )
    prepare(home)
    arguments = ["--home", str(home), "--port", str(port), "--lease", str(lease_minutes)]
    if custom_fields:
        arguments.append("--allow-custom-fields")
    if not patched:
        arguments.append("--no-patches")
    log = home / "server.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        began = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "annotate.embedded", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _wait(home, child, log, began, timeout, say or (lambda line: None))


def _wait(
    home: Path,
    child: "subprocess.Popen[bytes]",
    log: Path,
    began: int,
    timeout: float,
    say: Callable[[str], None],
) -> ServerAddress:
    deadline = time.monotonic() + timeout
    signs = _signs_of_rebuilding(log, began)
    while time.monotonic() < deadline:
        where = address(home)
        up = where is not None and _answers(where.url)
        for done, line in next(signs):
            deadline = time.monotonic() + timeout
            if done:
                say(line)
        if up and where is not None:
            return where
        if child.poll() is not None:
            raise ServerError(_last_words(log, began), where=str(log))
        time.sleep(_POLL_SECONDS)
    child.terminate()
    raise ServerError(
        f"Argilla did not answer within {timeout:.0f} seconds; its log ends: "
        + _last_words(log, began),
        where=str(log),
    )


def stop(home: Path) -> bool:
    """End the server and wait for it; False if none was running."""
    pid = holder(home)
    if pid is None:
        return False
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, ending)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if holder(home) != pid:
                _reap(pid)
                return True
            time.sleep(_POLL_SECONDS)
    raise ServerError(f"the server (process {pid}) does not end", where=str(home))


def running(home: Path) -> ServerAddress | None:
    """The server that runs on this folder and answers; None if there is none."""
    where = address(home)
    return where if where is not None and _answers(where.url) else None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/version", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _signs_of_rebuilding(log: Path, began: int) -> Iterator[list[tuple[bool, str]]]:
    """At each step what `rebuild` has logged since the last: whether it is done, and what."""
    with log.open(errors="replace") as file:
        file.seek(began)
        rest = ""
        while True:
            *lines, rest = (rest + file.read()).split("\n")
            found = [_REBUILDING.search(line) for line in lines]
            yield [(not sign["progress"], sign["line"]) for sign in found if sign]


def _last_words(log: Path, began: int) -> str:
    """The end of what the process wrote, on one line."""
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-LOG_TAIL_LINES:]) or "it said nothing"


def _reap(pid: int) -> None:
    """Take leave of the process if it is our child, so that it does not linger as a zombie."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return
