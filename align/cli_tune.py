"""`handloom plan` and `handloom tune-filters`: overlap, rule and filters by their outcome."""

from __future__ import annotations

import json

import click

from align.cli import align_commands
from annotate.cli import here, json_option, seed_option

model_option = click.option(
    "--model",
    default="text",
    show_default=True,
    help="The reward model: text (linear, in seconds), or a head on base, a train run, a folder or "
    "an id of the Hugging Face hub.",
)


@align_commands.command("plan")
@click.argument("run_ids", metavar="[JUDGE_RUN]...", nargs=-1)
@click.option(
    "--votes",
    "budgets",
    type=click.IntRange(min=10),
    multiple=True,
    required=True,
    metavar="N",
    help="Further votes to buy; may be given again, for a curve.",
)
@model_option
@click.option(
    "--draws",
    type=click.IntRange(min=4),
    default=40,
    show_default=True,
    help="Simulated futures.",
)
@seed_option
@json_option
def plan_votes(
    run_ids: tuple[str, ...],
    budgets: tuple[int, ...],
    model: str,
    draws: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say how to buy N more votes: overlap and rule, from the votes so far.

    One vote a pair; two, kept where they agree; three by majority; two and a third where they
    differ. Each is simulated from the noise and difficulty that the votes of the newest judge run
    (or of the JUDGE_RUNs) show, with a reward model trained on what it would keep. Where the votes
    cannot tell, it says so. At least 20 pairs must have votes of two people.
    """
    project = here()
    from align.tune.plan import plan

    chosen = [project.resolve(run_id) for run_id in run_ids] or [project.latest("judge")]
    found = plan(project, chosen, budgets, model=model, seed=seed, draws=draws)
    text = json.dumps(found.to_dict(), indent=1) if as_json else "\n".join(found.lines())
    click.echo(text)
