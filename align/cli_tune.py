"""`handloom plan` and `handloom tune-filters`: overlap, rule and filters by their outcome."""

from __future__ import annotations

import json
from pathlib import Path

import click

from align.cli import align_commands
from annotate.cli import again_option, here, json_option, report, seed_option

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

    chosen = [project.resolve(run_id) for run_id in run_ids] or [
        project.latest("judge", holding="judgements")
    ]
    found = plan(project, chosen, budgets, model=model, seed=seed, draws=draws)
    text = json.dumps(found.to_dict(), indent=1) if as_json else "\n".join(found.lines())
    click.echo(text)


@align_commands.command("tune-filters")
@click.argument("run_ids", metavar="[JUDGE_RUN]...", nargs=-1)
@click.option(
    "--grid",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML with overlaps, methods and filters to combine instead of the shipped grid.",
)
@click.option(
    "--gold",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Pairs whose better output is known, as the truth instead of held-out votes: JSONL like "
    "a guideline's gold.jsonl.",
)
@model_option
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="How often prompts are dealt anew into what is trained on and what is held out.",
)
@seed_option
@again_option
@json_option
def tune_filters(
    run_ids: tuple[str, ...],
    grid: Path | None,
    gold: Path | None,
    model: str,
    seeds: int,
    seed: int,
    again: bool,
    as_json: bool,
) -> None:
    """Choose overlap, aggregation and filters by what they do to a reward model.

    Every setting is scored on held-out pairs by the majority of votes that it never saw, at equal
    votes bought and at equal pairs. The choice and its runners-up go into recipes/build-tuned.yaml;
    figures over held-out prompts and seeds. Pairs need two votes or more to be a truth.
    """
    project = here()
    from align.tune.grid import read_grid
    from align.tune.tune import tune

    chosen = [project.resolve(run_id) for run_id in run_ids] or [
        project.latest("judge", holding="judgements")
    ]
    run = tune(
        project,
        chosen,
        grid=read_grid(grid),
        model=model,
        gold=gold,
        seeds=seeds,
        seed=seed,
        again=again,
    )
    if as_json:
        click.echo((run.path / "tuned.json").read_text(encoding="utf-8"))
        return
    click.echo((run.path / "tuned.txt").read_text(encoding="utf-8"))
    line = f"{run.metrics['choice']}, of {run.metrics['settings']} settings"
    report(run, f"{line}; recipes/build-tuned.yaml", "handloom build --recipe build-tuned")
