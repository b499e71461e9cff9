"""`handloom sweep`: which values of a recipe's fields are best."""

from __future__ import annotations

import os

import click

from align.cli import align_commands
from annotate.cli import again_option, here, json_option, report, seed_option


@align_commands.command("sweep")
@click.argument("recipe")
@click.option(
    "--over",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="A field to vary, as trainer.learning_rate=1e-5..1e-3:log or lora.r=4,8,16; repeatable.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Trainings."
)
@click.option(
    "--figure",
    metavar="NAME",
    help="Held-out figure to search for, as the log calls it.  [default: the method's own]",
)
@click.option(
    "--maximise/--minimise",
    default=None,
    help="Whether more of it is better.  [default: as the method says; less]",
)
@click.option("--data", metavar="RUN", help="Build run to train on; by default the newest.")
@click.option("--model", help="What to start from: base, a train run, a folder, or a hub id.")
@json_option
@seed_option
@again_option
def sweep_recipe(
    recipe: str,
    over: tuple[str, ...],
    trials: int,
    figure: str | None,
    maximise: bool | None,
    data: str | None,
    model: str | None,
    as_json: bool,
    seed: int,
    again: bool,
) -> None:
    """Train RECIPE with other values in some of its fields, and say which were best and what
    mattered.

    Each trial is a train run. One that is worse than half of the others were at the same step is
    stopped early. An interrupted sweep goes on with the same command. The best recipe is kept as
    best.yaml in the run; no trial is ever taken for the model of a round.
    """
    project = here()
    from align.sweep.space import read_space
    from align.sweep.step import BEST, sweep
    from align.sweep.text import best_line, importance_lines, trial_lines

    run = sweep(
        project,
        recipe,
        read_space(over),
        trials=trials,
        figure=figure,
        maximise=maximise,
        data=data,
        model=model,
        seed=seed,
        again=again,
    )
    if as_json:
        import json

        click.echo(json.dumps({"run": run.id, **run.metrics}, indent=2))
        return
    for line in [*trial_lines(run), *importance_lines(run)]:
        click.echo(line)
    report(run, best_line(run), f"handloom train {os.path.relpath(run.path / BEST)}")
