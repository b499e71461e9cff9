"""Commands between outputs and responses: push, simulate, pull; and trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotate.cli import (
    FILE,
    again_option,
    annotate_commands,
    before,
    chosen_run,
    here,
    json_option,
    report,
    seed_option,
)

if TYPE_CHECKING:
    from annotate.runs import Run

SHOWABLE = ("failures", "generate", "import")
"""Steps whose outputs can be pushed."""


@annotate_commands.command("push")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--guideline",
    default="preference",
    show_default=True,
    help="A task for its latest version, or task@vN.",
)
@click.option("--batch", help="Name of the Argilla data set, instead of one made up from the run.")
@click.option("--overlap", type=int, help="People an item, instead of the guideline's number.")
@click.option("--pairs-per-prompt", type=int, help="Show at most so many pairs of a prompt.")
@click.option(
    "--select", multiple=True, metavar="ID", help="Only this failure or prompt; repeatable."
)
@click.option(
    "--workspace",
    metavar="NAME",
    help="Only its members see the items: a round's or a team's. The project's own if not given.",
)
@click.option(
    "--suggestions",
    metavar="RUN",
    help="Show what a prelabel run suggests, except on a random share of the items.",
)
@click.option(
    "--without",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="That share: it measures how far people follow suggestions.",
)
@click.option("--gold", type=float, default=0.0, help="Mix in gold items: a share, as 0.05.")
@click.option("--repeats", type=float, default=0.0, help="Show a share of the items again, unseen.")
@click.option("--to", multiple=True, metavar="NAME", help="Only these people; repeatable.")
@click.option(
    "--assign",
    type=FILE,
    help="CSV: name, workspace. The prompts are shared out among the workspaces.",
)
@click.option("--cap", type=int, help="Items of a data set that one person may answer.")
@seed_option
@again_option
def push_outputs(
    run_id: str | None,
    guideline: str,
    batch: str | None,
    overlap: int | None,
    pairs_per_prompt: int | None,
    select: tuple[str, ...],
    workspace: str | None,
    suggestions: str | None,
    without: float,
    gold: float,
    repeats: float,
    to: tuple[str, ...],
    assign: Path | None,
    cap: int | None,
    seed: int,
    again: bool,
) -> None:
    """Show the outputs of a run (the newest generate, import or failures) to people in Argilla.

    An evaluate run can be named too: people then judge the models' completions.

    Pushing again adds nothing: it puts back what is missing on the server.
    """
    from annotate.push import push, push_to_groups

    project = here()
    source = chosen_run(project, run_id, *SHOWABLE)
    options: dict[str, Any] = {
        "guideline": guideline,
        "batch": batch,
        "overlap": overlap,
        "pairs_per_prompt": pairs_per_prompt,
        "seed": seed,
        "again": again,
        "select": select or None,
        "suggestions": project.resolve(suggestions) if suggestions else None,
        "without": without,
        "gold": gold,
        "repeats": repeats,
        "cap": cap,
    }
    if assign is None:
        runs = [push(project, source, workspace=workspace, to=to or None, **options)]
    else:
        runs = push_to_groups(project, source, _groups(assign, workspace, to), **options)
    for run in runs:
        line, then = _pushed(run), "handloom pull, when people have answered"
        if first := _to_be_seen(run):
            line, then = f"{line}\n  nobody but the owner can see them yet", f"{first}; {then}"
        report(run, line, then)


def _groups(assign: Path, workspace: str | None, to: tuple[str, ...]) -> dict[str, list[str]]:
    from annotate.assignment import read_groups
    from annotate.errors import InputError

    if workspace is not None or to:
        raise InputError("--assign names people and workspaces: leave out --to and --workspace")
    return read_groups(assign)


def _to_be_seen(run: Run) -> str:
    """The command that lets somebody see a push which nobody can see yet; else nothing."""
    from annotate.accounts import seen_by
    from annotate.server import connect, workspace_of

    with connect(run.project, workspace_of(run)) as server:
        if seen_by(server):
            return ""
    asked = run.manifest["settings"].get("workspace")
    return "handloom users add NAME" + (f" --workspace {asked}" if asked else "")


def _pushed(run: Run) -> str:
    noted = run.metrics
    line = f"{noted['items']} items in {', '.join(noted['batches'])}"
    line += f" under {run.manifest['settings']['guideline']}"
    for what in ("gold", "repeats"):
        if noted.get(what):
            line += f", {noted[what]} of them {what}"
    if people := run.manifest["settings"].get("to"):
        line += f", for {', '.join(people)}"
    if noted["quarantined"]:
        line += f", {noted['quarantined']} prompts, outputs or pairs quarantined"
    return line


@annotate_commands.command("simulate")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--votes", type=int, help="Responses an item, instead of the push's overlap.")
@click.option("--settings", "settings_file", type=FILE, help="YAML of simulated annotators.")
@seed_option
def simulate_answers(
    run_id: str | None, votes: int | None, settings_file: Path | None, seed: int
) -> None:
    """Have SIMULATED annotators answer a push through Argilla's API: for trials, not for data."""
    from annotate.simulate import simulate
    from annotate.simulated_annotators import SETTINGS_FILE

    project = here()
    push_run = chosen_run(project, run_id, "push")
    done = simulate(
        project, push_run, seed=seed, per_item=votes, settings_file=settings_file or SETTINGS_FILE
    )
    total = sum(done.answered.values())
    click.echo(f"{push_run.id}: {total} simulated responses, {done.present} were there before")
    for name, count in done.answered.items():
        click.echo(f"  {name:<16}{count}")
    click.echo("  next handloom pull")


@annotate_commands.command("pull")
@click.argument("run_id", metavar="[RUN]", required=False)
@again_option
def pull_responses(run_id: str | None, again: bool) -> None:
    """Fetch what people said about a push into the ledger and a table.

    Without RUN: about every push of the newest one's round, a table each.
    """
    from annotate.errors import ServerError
    from annotate.ledger import Ledger
    from annotate.pull import pull
    from annotate.push import pushes_of_round

    project = here()
    newest = chosen_run(project, run_id, "push")
    if lost := Ledger.of(project).lost_by(project):
        click.echo(
            f"{lost}; this pull begins a new one with what Argilla still has. "
            "`handloom restore --from BACKUP` brings the history back",
            err=True,
        )
    pulled = []
    for one in [] if run_id else pushes_of_round(newest):
        if one.id == newest.id:
            continue
        try:
            run = pull(project, one, again=again)
        except ServerError as error:  # an earlier batch that is gone holds up no newer one
            click.echo(f"{one.id}: {error}", err=True)
        else:
            pulled.append(run)
            click.echo(f"{run.id}: {_pulled(run)}{before(run)}")
    run = pull(project, newest, again=again)
    report(run, _pulled(run), _after_pulls([*pulled, run]))
    _report_anchoring(run)


def _pulled(run: Run) -> str:
    noted, pushed = run.metrics, run.ancestor("push")
    shown = ", ".join(pushed.metrics.get("batches", [])) or pushed.id
    line = (
        f"{shown} ({pushed.manifest['settings']['guideline']}): "
        f"{noted['submitted']} submitted responses of {noted['annotators']} annotators, "
        f"{noted['answered']} of {noted['items']} items answered"
    )
    for word in ("drafts", "discarded"):
        if noted[word]:
            line += f", {noted[word]} {word}"
    if extra := noted.get("extra"):  # runs of older versions did not count them
        line += f", {extra} extra {'submission' if extra == 1 else 'submissions'}"
    if noted["quarantined"]:
        line += f", {noted['quarantined']} unreadable answers quarantined"
    return line


def _report_anchoring(run: Run) -> None:
    push_run = run.ancestor("push")
    if push_run.has("suggested"):
        from annotate.suggesting import anchoring

        for found in anchoring(run.read("responses"), push_run.read("suggested")):
            click.echo(f"  {found}")


_JUDGE = "handloom judge"
_NEXT = {
    **dict.fromkeys(("compare", "rank", "rate", "label"), _JUDGE),
    **dict.fromkeys(("correct", "demonstrate", "thumbs"), "handloom build {run}"),
}


def _after_pulls(runs: list[Run]) -> str:
    """The next command for what was answered: judging first, since it reads all of them."""
    answered = [run for run in runs if run.metrics["submitted"]]
    if not answered:
        return "handloom pull, when people have answered"
    commands = [_after_pull(run) for run in answered]
    return next((one for one in commands if one == _JUDGE), commands[-1])


def _after_pull(run: Run) -> str:
    """The next command for what was asked; marks are measured only."""
    if run.ancestor("push").manifest["settings"].get("purpose") == "relabel":
        return "handloom guideline effect"
    kind = run.read("items", ["kind"])["kind"][0].as_py()
    return _NEXT.get(kind, "handloom agreement {run}").format(run=run.id)


@annotate_commands.command("trace")
@click.argument("row_id", metavar="ID")
@json_option
def trace_row(row_id: str, as_json: bool) -> None:
    """Walk from a training row, failure, pair, item, output or prompt back to its sources."""
    import json

    from annotate.trace import trace
    from annotate.trace_text import trace_text

    found = trace(here(), row_id)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else trace_text(found))
