"""The commands of the people's side: `handloom init` to `handloom trace`.

A command parses its options, calls one function and reports the run it made and what comes next.
Imports that take time stand inside the command bodies, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from annotate.errors import HandloomError, InputError, ResourceError

if TYPE_CHECKING:
    from annotate.agreement_report import TableKind
    from annotate.runs import Project, Run

FILE = click.Path(path_type=Path)

# When this process began, as near as makes no difference.
_STARTED = datetime.now(UTC)

describers: dict[str, Callable[[Run], str]] = {}
"""By step: what `handloom runs` says of a run that is more than its tables. The model's side adds
its own (align.cli)."""

seed_option = click.option("--seed", default=0, show_default=True, help="Of every random choice.")
again_option = click.option(
    "--again", is_flag=True, help="Make a new run although a finished one exists."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class LoopGroup(click.Group):
    """Lists commands in the order of the loop, and turns a user's error into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of registration, which is the order of the loop."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a `HandloomError` becomes one line on stderr and its exit status.

        So does what the operating system refuses for want of space or of rights, wherever it is
        met; any other error of it is a bug.
        """
        try:
            return super().invoke(ctx)
        except HandloomError as error:
            _end(ctx, error)
        except OSError as error:
            if (refused := _refused(error)) is None:
                raise
            _end(ctx, refused)


def _end(ctx: click.Context, error: HandloomError) -> NoReturn:
    click.echo(f"error: {' '.join(str(error).split())}", err=True)
    ctx.exit(error.status)


def _refused(error: OSError) -> HandloomError | None:
    """A full disk, or a place that may not be read or written, as a user's error."""
    where = "" if error.filename is None else os.fsdecode(error.filename)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"the disk is full ({os.strerror(error.errno)})",
            where=where,
            remedy="Free some space and give the same command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(
            f"this may not be read or written ({os.strerror(error.errno)})",
            where=where,
            remedy="Give yourself the right to it, or use another place",
        )
    return None


@click.group(cls=LoopGroup)
def annotate_commands() -> None:
    """The people's side of the loop."""


def here() -> Project:
    """The project of the working directory."""
    from annotate.runs import Project

    return Project.find()


def chosen_run(
    project: Project, run_id: str | None, *steps: str, holding: str | None = None
) -> Run:
    """The run named on the command line, else the newest of one of these steps (with a table)."""
    return project.resolve(run_id) if run_id else project.latest(*steps, holding=holding)


def report(run: Run, line: str, next_command: str, *, made: bool = True) -> None:
    """Say what a step made, or had made before; where it lies and what comes next.

    Args:
        made: whether it is a run of this command's, now or before.
    """
    first, *more = line.split("\n")
    click.echo("\n".join([f"{run.id}: {first}{before(run) if made else ''}", *more]))
    click.echo(f"  in   {os.path.relpath(run.path)}")
    click.echo(f"  next {next_command}")


def before(run: Run) -> str:
    """That a run was there before this command, and when it was made; nothing if it is new."""
    finished = str(run.manifest["finished"])
    if datetime.fromisoformat(finished) >= _STARTED:
        return ""
    said = f"; made before ({finished[:16].replace('T', ' ')})"
    context = click.get_current_context(silent=True)
    can_again = context is not None and any(one.name == "again" for one in context.command.params)
    return f"{said}; --again makes another" if can_again else said


def counted(count: int, what: str) -> str:
    """A number with its noun, which is given in the singular: "1 line", "2,000 lines"."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


table_option = click.option(
    "--table",
    type=FILE,
    help="A CSV or Parquet file with the columns item, annotator, label, instead of a run.",
)


TABLE_KINDS = ("label", "rating", "pairwise", "multi-label", "ranking", "text", "span")
judged_kind_option = click.option(
    "--kind",
    type=click.Choice(TABLE_KINDS),
    help="What the labels of --table are: label, words or numbers as names (the default), or "
    "pairwise, a, b, tie, or -3 to 3. The others are refused: `handloom agreement` measures them.",
)


def run_or_table(
    run_ids: tuple[str, ...], table: Path | None, kind: TableKind | None = None
) -> None:
    """Refuse a run and a table at once, and the kind of a table's labels without a table."""
    if kind is not None and table is None:
        from annotate.errors import InputError

        raise InputError("--kind goes with --table; a run's questions have their own kinds")
    if run_ids and table is not None:
        from annotate.errors import InputError

        raise InputError("a run and --table exclude each other", where=run_ids[0])


def chosen_pulls(project: Project, run_ids: tuple[str, ...]) -> list[Run]:
    """The pull runs named on the command line, else the newest of each batch of the round."""
    from annotate.judge import newest_pulls

    named = {run.id: run for run in map(project.resolve, run_ids)}
    return list(named.values()) or newest_pulls(project)


@annotate_commands.command("judge")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@table_option
@judged_kind_option
@click.option("--out", type=FILE, help="With --table: the .csv or .parquet file to write.")
@click.option(
    "--method",
    type=click.Choice(["auto", "dawid-skene", "bradley-terry", "majority"]),
    default="auto",
    show_default=True,
    help="How votes are aggregated; auto takes Bradley-Terry where a prompt has three or more "
    "compared outputs, else Dawid-Skene.",
)
@seed_option
@again_option
@json_option
def judge_votes(
    run_ids: tuple[str, ...],
    table: Path | None,
    kind: TableKind | None,
    out: Path | None,
    method: Literal["auto", "dawid-skene", "bradley-terry", "majority"],
    seed: int,
    again: bool,
    as_json: bool,
) -> None:
    """Aggregate the votes on each pair: posterior, margin, votes.

    Of the newest pull of each batch of the round, or of the pull RUNs; where these compare nothing,
    the labels, ratings or thumbs of each prompt or output. With --table, the labels of each item of
    any file; that needs no project.
    """
    from annotate.errors import InputError
    from annotate.judge import judge
    from annotate.judge_table import judge_table

    run_or_table(run_ids, table, kind)
    if table is not None:
        judge_table(table, method, kind=kind).deliver(out, as_json=as_json)
        return
    if out is not None:
        raise InputError("--out goes with --table; a run's judgements lie in the run it makes")
    project = here()
    pull_runs = chosen_pulls(project, run_ids)
    run = judge(project, *pull_runs, method=method, seed=seed, again=again)
    report_judge(run, as_json=as_json)


def report_judge(run: Run, *, as_json: bool) -> None:
    """Say what a judge run holds."""
    if as_json:
        import json

        click.echo(json.dumps({"run": run.id, "metrics": run.metrics}, indent=1))
        return
    found = run.metrics
    people = f"{len(found['annotators']):,} annotators"
    if labelled := found.get("labelled"):
        questions = ", ".join(found["questions"])
        line = f"{labelled:,} prompts or outputs judged on {questions} by {people}"
        pulls = " ".join(parent.id for parent in run.parents)
        report(run, line, f"handloom agreement {pulls}")
        return
    line = f"{found['pairs']:,} pairs judged from {found['votes']:,} votes by {people}"
    if decided := found.get("adjudicated"):
        line += f"; {decided:,} of them decided by reviewers"
    report(run, line, f"handloom build {run.id}")
    from annotate.judgements import calibration_lines

    for shown in calibration_lines(run):
        click.echo(shown)


@annotate_commands.command("runs")
@json_option
def list_runs(as_json: bool) -> None:
    """List the project's runs, oldest first, and what is unfinished."""
    from annotate.listing import print_runs

    print_runs(here(), describers, as_json=as_json)


@annotate_commands.command("verify")
@click.argument("run_id", metavar="[RUN]", required=False)
def verify_runs(run_id: str | None) -> None:
    """Check every file of every run (or of RUN) against its manifest, and the ledger's chain."""
    from annotate.errors import ProjectError
    from annotate.ledger import Ledger
    from annotate.runs import verify

    project = here()
    runs = [project.resolve(run_id)] if run_id else project.run_folders()
    problems = verify(project, runs)
    lines = 0
    if run_id is None:
        ledger = Ledger.of(project)
        verdict = ledger.verdict()
        lines = verdict.lines
        problems += [("ledger", problem) for problem in verdict.problems]
        problems += [("ledger", lost)] if (lost := ledger.lost_by(project)) else []
    for run, problem in problems:
        click.echo(f"{run}: {problem}", err=True)
    if problems:
        raise ProjectError(
            f"{len(problems)} problems in {', '.join(sorted({run for run, _ in problems}))}",
            remedy="Restore what is damaged; a run can also be removed and made again",
        )
    click.echo(f"{len(runs)} runs verified: every file is as it was written")
    if run_id is None:
        click.echo(f"ledger verified: {lines:,} lines in an unbroken chain")


# The other commands, registered by being imported; they build on what stands above.
from annotate import (  # noqa: E402, F401
    cli_agreement,
    cli_annotators,
    cli_guideline,
    cli_ledger,
    cli_loop,
    cli_project,
    cli_queue,
    cli_recovery,
    cli_server,
    cli_users,
)
