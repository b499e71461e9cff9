"""The `handloom` command: the people's commands and those that learn, in the order of the loop."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotate.cli import (
    LoopGroup,
    again_option,
    annotate_commands,
    counted,
    describers,
    here,
    json_option,
    report,
    seed_option,
)

if TYPE_CHECKING:
    from annotate.runs import Run

_ORDER = (
    "init up down users guideline import generate prelabel push simulate pull agreement annotators "
    "judge adjudicate next plan tune-filters build train merge sweep health evaluate failures "
    "rounds dashboard runs verify trace ledger reindex backup restore demo"
).split()


@click.group(cls=LoopGroup)
def align_commands() -> None:
    """The model's side of the loop."""


@click.group(cls=LoopGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Work as if started in this folder.",
)
@click.version_option(package_name="handloom")
@click.pass_context
def main(context: click.Context, folder: Path | None) -> None:
    """Learn a language model from people's judgement, round after round.

    generate or import outputs, push them to Argilla, pull what people said, judge, build the
    training sets, train, evaluate, and push the failures back.
    """
    if folder is not None:
        context.with_resource(contextlib.chdir(folder))


@align_commands.command("build")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--recipe", help="A file, or a recipe's name.  [default: build-preference]")
@again_option
def build_sets(run_ids: tuple[str, ...], recipe: str | None, again: bool) -> None:
    """Build the training sets: keep what people agree on, and say why the rest was dropped.

    Of judge RUNs (the newest) preference pairs, corrections and clear winners; of pull RUNs, whose
    answers compare nothing, corrections and demonstrations (SFT) and thumbs (KTO).
    """
    project = here()
    from align.build import build, lines
    from align.rounds import after_build

    chosen = [project.resolve(run_id) for run_id in run_ids] or [
        project.latest("judge", holding="judgements")
    ]
    run = build(project, chosen, recipe=recipe, again=again)
    for line in lines(run):
        click.echo(line)
    metrics = run.metrics
    sft = _split("SFT row", metrics["sft"], metrics.get("sft_split"))
    if "kto" in metrics:
        made = f"{sft} and {_split('KTO row', metrics['kto'], metrics.get('kto_split'))}"
    else:
        pairs = metrics["preference"]
        made = f"{_split('preference pair', pairs, pairs)} and {sft}"
    report(run, made, after_build(run))


def _split(what: str, rows: dict[str, int], sides: dict[str, int] | None) -> str:
    """How many rows a set has, and how many of them are held out (if the build noted it)."""
    said = counted(sum(rows.values()), what)
    return said if sides is None else f"{said} (of which {sides.get('eval', 0):,} held out)"


@align_commands.command("train")
@click.argument("recipe")
@click.option("--data", metavar="RUN", help="Build run to train on; by default the newest.")
@click.option("--model", help="What to start from: base, a train run, a folder, or a hub id.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--dry-run", is_flag=True, help="Only say what it would do, take and cost in steps.")
@click.option("--unchecked", is_flag=True, help="Begin even if memory seems too small.")
@click.option(
    "--launch",
    metavar="N|FILE",
    help="Train in several processes: how many, or an accelerate configuration (a file, or the "
    "name of one shipped: fsdp, zero3).",
)
@again_option
def train_model(
    recipe: str,
    data: str | None,
    model: str | None,
    seed: int | None,
    dry_run: bool,
    unchecked: bool,
    launch: str | None,
    again: bool,
) -> None:
    """Train a model as RECIPE says: a YAML file, or the name of a recipe.

    The recipes of the project, and those shipped: {sft,dpo,kto,orpo,cpo,simpo,reward}-support-desk
    and more, for a GPU and for eight. An interrupted training goes on from its last checkpoint.
    """
    project = here()
    if dry_run:
        from align.resources.dry_run import dry_run as described

        said = described(project, recipe, data=data, model=model, seed=seed, launch=launch)
        click.echo("\n".join(said.lines()))
        return
    from align.launch import train_in_processes

    options = {"data": data, "model": model, "seed": seed, "again": again, "unchecked": unchecked}
    run = train_in_processes(project, recipe, options, launch)
    if run is not None:
        report(run, _trained(run), _after_training(run))


def _trained(run: Run) -> str:
    from align.rounds import training_result

    metrics = run.metrics
    line = f"{metrics['method']} model after {counted(metrics['steps'], 'step')}, "
    line += training_result(run)
    if metrics.get("started_from"):
        line += f", from {metrics['started_from']}"
    for key, what in {"too_long": "left out as too long", "cut": "cut at their end"}.items():
        if metrics.get(key):
            line += f"; {counted(metrics[key], 'row')} {what}"
    if metrics.get("best_step"):
        line += f", best at step {metrics['best_step']:,}"
    return line


def _after_training(run: Run) -> str:
    """A look at what is wrong, where the log shows something serious; else to use the model."""
    from align.health import examine, log_path, read_log

    log = log_path(run.project, run.id)
    verdicts = examine(read_log(log)) if log.is_file() else ()
    if serious := [verdict.rule for verdict in verdicts if verdict.state == "serious"]:
        return f"handloom health {run.id}  (look first: {', '.join(serious)})"
    return "handloom generate" if run.round == 0 else f"handloom evaluate {run.id}"


def _described(run: Run) -> str:
    from align.rounds import training_text

    return training_text(run)


describers.update(train=_described, merge=_described)


@align_commands.command("rounds")
@json_option
def show_rounds(as_json: bool) -> None:
    """Show where each round stands, its figures, and the next command."""
    from align.rounds import lines, rounds

    states = rounds(here())
    if as_json:
        click.echo(json.dumps([state.to_dict() for state in states], indent=2))
        return
    for line in lines(states):
        click.echo(line)


@align_commands.command("dashboard")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: any free."
)
def show_dashboard(port: int) -> None:
    """Show rounds, failures, agreement and training curves in the browser.

    Serves on this machine only, until Ctrl-C. Failures chosen there can be sent to Argilla.
    """
    from align.dashboard import HOST, become_dashboard, free_port

    project = here()
    port = free_port(port)
    click.echo(f"dashboard: http://{HOST}:{port}  (Ctrl-C ends it)")
    become_dashboard(project, port)


@align_commands.command("demo")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo",
    show_default=True,
    help="The project to make; what is done there already is not done again.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, help="Rounds.")
@click.option("--serve/--no-serve", default=True, help="Leave Argilla and the dashboard running.")
@seed_option
def demo(folder: Path, rounds: int, serve: bool, seed: int) -> None:
    """Run the whole loop offline, with SIMULATED annotators, in a few minutes.

    The last line printed is a JSON object of what was measured.
    """
    from align.demo import DemoSizes, run_demo

    run_demo(folder, seed=seed, serve=serve, sizes=DemoSizes(rounds=rounds))


from align import (  # noqa: E402  (registered by being imported)
    cli_generate,  # noqa: F401
    cli_health,  # noqa: F401
    cli_merge,  # noqa: F401
    cli_prelabel,  # noqa: F401
    cli_sweep,  # noqa: F401
    cli_tune,  # noqa: F401
)

_all = {**annotate_commands.commands, **align_commands.commands}
for _name in sorted(_all, key=_ORDER.index):
    main.add_command(_all[_name])
