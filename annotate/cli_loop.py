"""Commands between outputs and responses: push, simulate, pull; and trace."""

from __future__ import annotations

from pathlib import Path

import click

from annotate.cli import (
    FILE,
    again_option,
    annotate_commands,
    chosen_run,
    here,
    json_option,
    report,
    seed_option,
)

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
    seed: int,
    again: bool,
) -> None:
    """Show the outputs of a run (the newest generate, import or failures) to people in Argilla.

    An evaluate run can be named too: people then judge the models' completions.

    Pushing again adds nothing: it puts back what is missing on the server.
    """
    from annotate.push import push

    project = here()
    run = push(
        project,
        chosen_run(project, run_id, *SHOWABLE),
        guideline=guideline,
        batch=batch,
        overlap=overlap,
        pairs_per_prompt=pairs_per_prompt,
        seed=seed,
        again=again,
        select=select or None,
        workspace=workspace,
    )
    noted = run.metrics
    line = f"{noted['items']} items in {', '.join(noted['batches'])}"
    if noted["quarantined"]:
        line += f", {noted['quarantined']} prompts or outputs quarantined"
    report(run, line, "handloom pull, when people have answered")


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
    """Fetch what people said about a push (the newest) into the ledger and a table."""
    from annotate.pull import pull

    project = here()
    run = pull(project, chosen_run(project, run_id, "push"), again=again)
    noted = run.metrics
    line = (
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
    then = "handloom judge" if noted["submitted"] else "handloom pull, when people have answered"
    report(run, line, then)


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
