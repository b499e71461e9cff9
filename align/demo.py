"""`handloom demo`: rounds of the whole loop, offline, by the commands that a user types.

Round 0 is supervised fine-tuning of the shipped small model on generated demonstrations. In every
later round the newest model completes new prompts, SIMULATED annotators answer under their own
names through Argilla's API, and what they agree on trains the next model; from round 2 on, the
failures of the model before are labelled too. All sizes stand in `DemoSizes`; the annotators,
fixed before the first run, in `annotate/simulated_annotators.yaml`.
"""

from __future__ import annotations

import json
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from align.card import interval_text
from annotate.errors import HandloomError
from annotate.runs import Project, Run

ARGILLA_PORT, DASHBOARD_PORT = 6900, 8501

RECIPE, GUIDELINE = "build-agreement", "preference@v1"
"""Named, so that the figures in README stay those of one recipe and one guideline."""


@dataclass(frozen=True)
class DemoSizes:
    """How much of everything."""

    rounds: int = 2
    prompts: int = 600
    """New prompts a round, two completions each."""
    held_out: int = 200
    """Prompts that measure win rates, the same for every model."""
    pool: int = 150
    """Fresh prompts a round on which failures are looked for."""
    failures: int = 80
    """The worst so many are labelled in the next round."""


@dataclass
class Demo:
    """One demonstration in a folder of its own; running it again finds what is done."""

    folder: Path
    seed: int
    sizes: DemoSizes = field(default_factory=DemoSizes)
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    @property
    def project(self) -> Project:
        """The demonstration's project."""
        return Project(self.folder.resolve())

    def command(self, *arguments: str | int) -> None:
        """Run one command as a user would, in this process: loading the trainers takes long."""
        from align.cli import main

        typed = [str(argument) for argument in arguments]
        elapsed = time.monotonic() - self.started
        self.console.print(f"[dim]{elapsed:5.0f} s[/]  [bold]$ handloom {shlex.join(typed)}[/]")
        status = main.main(["-C", str(self.folder), *typed], "handloom", standalone_mode=False)
        if isinstance(status, int) and status != 0:
            raise DemoStoppedError(f"`handloom {shlex.join(typed)}` failed, see above")

    def explain(self, text: str) -> None:
        """Say what the next commands are for."""
        self.console.print(f"\n[bold cyan]{text}[/]")

    def run(self) -> None:
        """All rounds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.explain("A project, and the real Argilla in it: no Docker, Elasticsearch or Redis")
        self.command("init")
        port, dashboard = _free(ARGILLA_PORT), _free(DASHBOARD_PORT)
        self.command("up", "--port", port, "--dashboard-port", dashboard)
        self.explain("Round 0: the shipped small model learns from generated demonstrations")
        self.command("train", "sft-support-desk", "--seed", self.seed)
        for number in range(1, self.sizes.rounds + 1):
            self.round(number)
        self.command("verify")

    def round(self, number: int) -> None:
        """From the newest model's completions to the next model's failures."""
        sizes = self.sizes
        self.explain(f"Round {number}: completions, judged by SIMULATED annotators")
        model = self.project.latest("train", round=number - 1)
        # Every round and every seed has prompts and draws of its own.
        seed = 1000 * self.seed + number
        self.command("generate", model.id, "--count", sizes.prompts, "--seed", seed)
        batches = [self.project.latest("generate", round=number)]
        if number > 1:
            batches.append(self.project.latest("failures", round=number))
        for batch in batches:
            self.command("push", batch.id, "--guideline", GUIDELINE, "--seed", seed)
            self.command("simulate", "--seed", seed)
            self.command("pull")
        self.explain(f"Round {number}: what they agree on becomes a training set")
        self.command("agreement")
        self.command("judge")
        self.command("build", "--recipe", RECIPE)
        self.explain(f"Round {number}: train on it, and measure against the models before")
        self.command("train", "dpo-support-desk", "--seed", self.seed)
        held_out = ("--prompts", "support-desk", "--count", str(sizes.held_out))
        pool = ("--pool-count", str(sizes.pool), "--scorer", "support-rubric")
        self.command("evaluate", *held_out, *pool, "--seed", self.seed)
        self.command("failures", "--limit", sizes.failures)

    def summary(self) -> dict[str, Any]:
        """The figures of the last line: the last round's model against round 0's."""
        last = self.project.latest("evaluate", round=self.sizes.rounds)
        rate = _against(last, "round 0")["win_rate"]
        kept, dropped = 0, dict[str, int]()
        for number in range(1, self.sizes.rounds + 1):
            counts = self.project.latest("build", round=number).metrics
            kept += counts["kept"]
            for rule, count in counts["dropped"].items():
                dropped[rule] = dropped.get(rule, 0) + count
        return {
            "win_rate": rate["value"],
            "win_rate_ci95": [rate["low"], rate["high"]],
            "pairs_kept": kept,
            "pairs_dropped": dropped,
            "seconds": round(time.monotonic() - self.started, 1),
            "seed": self.seed,
            "judged_by": "the rubric behind the simulated annotators",
        }

    def table(self) -> Table:
        """What was measured, a column a round."""
        numbers = range(1, self.sizes.rounds + 1)
        table = Table(title="Measured, with 95 % intervals", title_justify="left")
        table.add_column("")
        for number in numbers:
            table.add_column(f"round {number}")
        columns = [dict(self._figures(number)) for number in numbers]
        for name in dict.fromkeys(name for column in columns for name in column):
            table.add_row(name, *(column.get(name, "") for column in columns))
        return table

    def _figures(self, number: int) -> Iterator[tuple[str, str]]:
        judged = self.project.latest("judge", round=number).metrics
        built = self.project.latest("build", round=number).metrics
        evaluated = self.project.latest("evaluate", round=number)
        yield "pairs judged, votes", f"{judged['pairs']:,}, {judged['votes']:,}"
        yield "agreement, nominal alpha", interval_text(judged["agreement"]["vote"]["alpha"])
        yield "pairs kept", f"{built['kept']:,}"
        for rule, count in built["dropped"].items():
            yield f"  dropped: {rule}", f"{count:,}"
        for comparison in evaluated.metrics["comparisons"]:
            roles = " and ".join(comparison["roles"])
            yield f"win rate over {roles}", interval_text(comparison["win_rate"])
        yield "reward accuracy", interval_text(evaluated.metrics["reward_accuracy"])


class DemoStoppedError(HandloomError):
    """A command of the demonstration failed; it has said why."""


def run_demo(folder: Path, *, seed: int, serve: bool, sizes: DemoSizes) -> None:
    """Run the demonstration, print what was measured, and leave it running or stop it."""
    demo = Demo(folder, seed, sizes)
    with _stopped(demo, unless=serve):
        demo.run()
        demo.console.print()
        demo.console.print(demo.table())
        demo.console.print(
            "Win rates: judged by the rubric behind the simulated annotators, a tie being half, "
            "bootstrap over held-out prompts. No person took part."
        )
        if serve:
            _say_where(demo)
    click.echo(json.dumps(demo.summary()))


@contextmanager
def _stopped(demo: Demo, *, unless: bool) -> Iterator[None]:
    """Stop the servers at the end; when all went well, only if they are not to be left."""
    try:
        yield
    except BaseException:
        demo.command("down")
        raise
    if not unless:
        demo.command("down")


def _say_where(demo: Demo) -> None:
    """Addresses and credentials: this is the owner's own terminal."""
    state = demo.project.state_dir
    owner = json.loads((state / "argilla" / "credentials.json").read_text())
    people = json.loads((state / "users.json").read_text())
    name, password = next(iter(people.items()))
    demo.console.print(f"\n  as owner      {owner['username']}  {owner['password']}")
    demo.console.print(f"  as annotator  {name}  {password}")
    demo.command("up")
    demo.console.print(f"  stop both     handloom -C {shlex.quote(str(demo.folder))} down\n")


def _against(evaluate_run: Run, role: str) -> dict[str, Any]:
    for comparison in evaluate_run.metrics["comparisons"]:
        if role in comparison["roles"]:
            found: dict[str, Any] = comparison
            return found
    raise DemoStoppedError(f"the evaluation has no comparison with {role}", where=evaluate_run.id)


def _free(port: int) -> int:
    """The port if nobody listens there, else 0 for any."""
    with socket.socket() as probe:
        return 0 if probe.connect_ex(("127.0.0.1", port)) == 0 else port
