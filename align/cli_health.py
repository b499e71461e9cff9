"""`handloom health`: what is wrong with a training, and what to do."""

from __future__ import annotations

import json

import click

from align.cli import align_commands
from annotate.cli import here, json_option


@align_commands.command("health")
@click.argument("run_id", metavar="[TRAIN_RUN]", required=False)
@click.option("--strict", is_flag=True, help="Exit with status 1 where something serious is wrong.")
@json_option
def show_health(run_id: str | None, strict: bool, as_json: bool) -> None:
    """Say what is wrong with a training, with the curve and the remedy.

    Of the newest training, or of TRAIN_RUN, be it one that is running, was interrupted or has
    failed; of a sweep's trials only if named. Reads what it logged, and what its model has written
    in the newest generate or evaluate run. The exit status is 0 whatever is found, except with
    --strict.
    """
    from align.health import health, newest_training
    from align.health.report import lines

    project = here()
    found = health(project, run_id or newest_training(project))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        for line in lines(found):
            click.echo(line)
        wrong = [f"{verdict.rule} ({verdict.state})" for verdict in found.flagged]
        click.echo(f"{found.run_id}: {', '.join(wrong) or 'nothing wrong found'}")
        if found.writes and not found.texts_of:
            click.echo(f"  next handloom generate {found.run_id}  (its texts were not looked at)")
    if strict and found.serious:
        raise SystemExit(1)
