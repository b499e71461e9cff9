"""Clients and a server that are killed with SIGKILL at random moments, and started again."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from annotate.embedded.home import holder
from annotate.embedded.process import running, start, stop
from annotate.errors import ServerError

_POLL = 0.02


@dataclass(frozen=True)
class Kill:
    """When the work has come to `at` (its share), after `delay` seconds, end `victim`."""

    victim: Literal["client", "server"]
    at: float
    delay: float


def random_kills(seed: str, number: int, longest_delay: float) -> list[Kill]:
    """Half of them of the server, some of these while it is starting after the last.

    Args:
        longest_delay: seconds; for work whose progress goes by leaps.
    """
    chance = random.Random(seed)
    victims: list[Literal["client", "server"]] = ["server", "client"] * number
    victims = victims[:number]
    chance.shuffle(victims)
    moments = sorted(chance.random() * 0.97 for _ in victims)
    kills: list[Kill] = []
    for victim, moment in zip(victims, moments, strict=True):
        delay = chance.uniform(0, longest_delay)
        if kills and (victim, kills[-1].victim) == ("server", "server") and chance.random() < 0.5:
            moment, delay = kills[-1].at, chance.uniform(0, 4)
        kills.append(Kill(victim, moment, delay))
    return kills


class MortalServer:
    """An embedded server on one port, started again whenever it is dead."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = _free_port()
        self.kills = 0
        self.failure: ServerError | None = None
        self.start_seconds: list[float] = []
        self._over = False
        self._killed: int | None = None
        self._keeper = threading.Thread(target=self._keep_up)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        start(self.home, self.port)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it as its user would; it takes over into the ledger what there is."""
        self._over = True
        self._keeper.join()
        stop(self.home)

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        while True:
            self.check()
            pid = holder(self.home)
            # Who takes the folder writes its number there a moment later: until then it is the
            # last one's.
            if pid is not None and pid != self._killed:
                self.kills += 1
                self._killed = pid
                os.kill(pid, signal.SIGKILL)
                while holder(self.home) == pid:
                    time.sleep(_POLL)
                return
            time.sleep(_POLL)

    def wait(self) -> None:
        """Until it answers."""
        while running(self.home) is None:
            self.check()
            time.sleep(_POLL)

    def check(self) -> None:
        """Raise what went wrong while it was started, other than by a kill."""
        if self.failure is not None:
            raise self.failure

    def _keep_up(self) -> None:
        while not self._over:
            if holder(self.home) is None:
                kills, began = self.kills, time.monotonic()
                try:
                    start(self.home, self.port)
                    self.start_seconds.append(time.monotonic() - began)
                except ServerError as error:
                    if self.kills == kills:
                        self.failure = error
                        return
            time.sleep(_POLL)


class MortalClient:
    """A command that is started again until it has ended well."""

    def __init__(
        self, command: Sequence[str], folder: Path, *, may_fail: str | None = None
    ) -> None:
        """`may_fail` is a pattern of the one line it says when it may give up and be repeated."""
        self._command, self._folder, self._may_fail = command, folder, may_fail
        self._said = folder / f"client-{id(self)}.stderr"
        self.gave_up = 0
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._said.open("wb") as said:
            return subprocess.Popen(self._command, cwd=self._folder, stdout=said, stderr=said)

    def is_done(self) -> bool:
        """Whether it has ended well; started again if it was killed or gave up as it may."""
        code = self._process.poll()
        if code not in (None, 0):
            said = self._said.read_text()
            if code != -signal.SIGKILL:
                may = self._may_fail is not None and re.fullmatch(self._may_fail, said.strip())
                assert may, f"exit {code}: {said}"
                self.gave_up += 1
            self._process = self._started()
        return code == 0

    def kill(self, delay: float) -> None:
        """SIGKILL after a delay; one that was done is repeated first."""
        if self._process.poll() is not None:
            self._process = self._started()
        time.sleep(delay)
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def endure(
    server: MortalServer,
    clients: Sequence[MortalClient],
    progress: Callable[[], float],
    kills: Sequence[Kill],
    chance: random.Random,
) -> None:
    """Until all clients are done, all kills are spent and the server answers.

    Args:
        progress: the share of the work that is done now.
    """
    waiting = list(kills)
    try:
        done = False
        while waiting or not done:
            server.check()
            if waiting and (done or progress() >= waiting[0].at):
                kill = waiting.pop(0)
                if kill.victim == "server":
                    time.sleep(kill.delay)
                    server.kill()
                else:
                    chance.choice(clients).kill(kill.delay)
            time.sleep(_POLL)
            done = sum(client.is_done() for client in clients) == len(clients)
        server.wait()
    finally:
        for client in clients:
            client.close()


def _free_port() -> int:
    """One that the system gives to no outgoing connection: while the server is dead, a client that
    tries its port again and again could otherwise be connected with itself, and keep the port."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
