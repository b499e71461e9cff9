"""Kill a command with SIGKILL at the moment when a certain file appears."""

import signal
import subprocess
import sys
from pathlib import Path

_WATCHER = """
import os, signal, sys, threading
from pathlib import Path

runs, pattern, *arguments = sys.argv[1:]

def look():
    if any(Path(runs).glob(pattern)):
        os.kill(os.getpid(), signal.SIGKILL)

def watch():
    while True:
        look()

def before(event, _):
    # On a busy machine the other thread may not get to look before what comes next.
    if event == "os.rename":
        look()

from align.cli import main
sys.setswitchinterval(1e-5)
sys.addaudithook(before)
threading.Thread(target=watch, daemon=True).start()
main(arguments)
"""


def killed_at(project: Path, pattern: str, *arguments: str) -> bool:
    """Run `handloom ARGUMENTS` in a project until a file of its runs folder matches `pattern`.

    True if it was killed, False if it had ended before; a failure of its own is an error.
    """
    done = subprocess.run(
        [sys.executable, "-c", _WATCHER, str(project / "runs"), pattern, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"exit {done.returncode}: {done.stderr}")
    return done.returncode == -signal.SIGKILL
