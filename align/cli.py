"""The `handloom` command: the people's commands and those that learn, in the order of the loop."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from annotate.cli import (
    LoopGroup,
    again_option,
    annotate_commands,
    chosen_run,
    here,
    json_option,
    report,
    seed_option,
)

_ORDER = (
    "init up down users guideline import generate prelabel push simulate pull agreement annotators "
    "judge adjudicate next plan tune-filters build train health evaluate failures rounds dashboard "
    "runs verify trace ledger reindex backup restore demo"
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


_temperature = click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="0 takes the most probable token.",
)
_top_p = click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw from the tokens that together have this probability.",
)
_max_new_tokens = click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="A longer completion is cut.",
)
_batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Completions computed together; changes speed and memory only.",
)


@align_commands.command("generate")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--prompts",
    default="support-desk",
    show_default=True,
    metavar="SOURCE",
    help='A JSONL file with {"prompt": …} a line, a run, or support-desk (made up).',
)
@click.option("--count", type=click.IntRange(min=1), help="How many prompts.  [default: all; 100]")
@click.option(
    "--n",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Completions of each prompt by each model.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "eval"]),
    default="train",
    show_default=True,
    help="Which side the prompts are on; eval is never trained on.",
)
@_temperature
@_top_p
@_max_new_tokens
@_batch_size
@click.option(
    "--round",
    "round_",
    type=click.IntRange(min=0),
    help="The round these outputs begin.  [default: the one after the model's]",
)
@seed_option
@again_option
def generate_outputs(
    models: tuple[str, ...],
    prompts: str,
    count: int | None,
    n: int,
    split: str,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    round_: int | None,
    seed: int,
    again: bool,
) -> None:
    """Let models complete prompts, for people to judge.

    A MODEL is base (the small one shipped here), a train run, a folder, or an id of the Hugging
    Face hub; by default the model trained last. The same seed gives the same completions.
    """
    project = here()
    from align.generate import generate
    from align.model import newest_model
    from align.prompts import read_prompts
    from align.sampling import Sampling

    source = read_prompts(project, prompts, split=split, count=count, seed=seed)
    rules = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    run = generate(
        project,
        models or [newest_model(project).name],
        source,
        n=n,
        sampling=rules,
        batch_size=batch_size,
        round=round_,
        again=again,
    )
    metrics = run.metrics
    line = f"{metrics['outputs']:,} completions of {metrics['prompts']:,} prompts"
    if metrics["quarantined"]:
        line += f", {metrics['quarantined']:,} rows quarantined"
    report(run, line, f"handloom push {run.id}")


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

    chosen = [project.resolve(run_id) for run_id in run_ids] or [project.latest("judge")]
    run = build(project, chosen, recipe=recipe, again=again)
    for line in lines(run):
        click.echo(line)
    metrics = run.metrics
    pairs, rows = sum(metrics["preference"].values()), sum(metrics["sft"].values())
    made = f"{pairs:,} preference pairs and {rows:,} SFT rows"
    if "kto" in metrics:
        made = f"{rows:,} SFT rows and {sum(metrics['kto'].values()):,} KTO rows"
    report(run, made, after_build(run))


@align_commands.command("train")
@click.argument("recipe")
@click.option("--data", metavar="RUN", help="Build run to train on; by default the newest.")
@click.option("--model", help="What to start from: base, a train run, a folder, or a hub id.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@again_option
def train_model(
    recipe: str, data: str | None, model: str | None, seed: int | None, again: bool
) -> None:
    """Train a model as RECIPE says: a YAML file, or the name of a recipe.

    The recipes of the project and those shipped: pretrain-support-desk, sft-support-desk,
    dpo-support-desk, sft-lora, dpo-lora. An interrupted training goes on from its last checkpoint.
    """
    project = here()
    from align.train import train

    run = train(project, recipe, data=data, model=model, seed=seed, again=again)
    metrics = run.metrics
    loss = metrics.get("loss", metrics.get("train_loss"))
    line = f"{metrics['method']} model after {metrics['steps']:,} steps, loss {loss:.3f}"
    if metrics.get("started_from"):
        line += f", from {metrics['started_from']}"
    then = "handloom generate" if run.round == 0 else f"handloom evaluate {run.id}"
    report(run, line, then)


@align_commands.command("evaluate")
@click.argument("run_id", metavar="[TRAIN_RUN]", required=False)
@click.option(
    "--against",
    multiple=True,
    metavar="MODEL",
    help="Compare with this instead; may be given again.  [default: the model it was trained from "
    "and the round 0 model]",
)
@click.option(
    "--prompts",
    metavar="SOURCE",
    help="Held-out prompts: a file, a run, or support-desk.  [default: those evaluated on before]",
)
@click.option("--count", type=click.IntRange(min=1), help="How many of them.  [default: all; 100]")
@click.option(
    "--pool",
    metavar="SOURCE",
    help="Fresh prompts to look for failures on, which may be learnt from.  [default: the support "
    "desk if the held-out prompts are from there]",
)
@click.option(
    "--pool-count",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many of these.",
)
@click.option(
    "--scorer", metavar="NAME", help="Judges the pairs that no annotator did: support-rubric."
)
@_temperature
@_top_p
@_max_new_tokens
@_batch_size
@seed_option
@again_option
def evaluate_model(
    run_id: str | None,
    against: tuple[str, ...],
    prompts: str | None,
    count: int | None,
    pool: str | None,
    pool_count: int,
    scorer: str | None,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    again: bool,
) -> None:
    """Compare a new model with the old one and with round 0's, on held-out prompts."""
    project = here()
    from align.evaluate.pools import PromptChoice
    from align.evaluate.report import lines
    from align.evaluate.step import evaluate
    from align.rounds import after_evaluation
    from align.sampling import Sampling

    run = evaluate(
        project,
        chosen_run(project, run_id, "train"),
        against=against,
        scorer=scorer,
        choice=PromptChoice(prompts, count, pool, pool_count),
        sampling=Sampling(
            temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed
        ),
        batch_size=batch_size,
        again=again,
    )
    for line in lines(run):
        click.echo(line)
    line = f"{run.metrics['model']} on {run.metrics['held_out']:,} held-out prompts"
    if run.metrics["quarantined"]:
        line += f", {run.metrics['quarantined']:,} set aside (table quarantine says why)"
    report(run, line, after_evaluation(run))


@align_commands.command("failures")
@click.argument("run_id", metavar="[EVALUATE_RUN]", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="The worst so many.  [default: all]")
@again_option
def collect_failures(run_id: str | None, limit: int | None, again: bool) -> None:
    """Collect what the new model loses or ties, or where the evidence is thin, for the next round.

    Only on the evaluation's fresh prompts: the held-out ones are never learnt from.
    """
    project = here()
    from align.failures import failures

    run = failures(project, chosen_run(project, run_id, "evaluate"), limit=limit, again=again)
    why = ", ".join(f"{count:,} {name}" for name, count in run.metrics["why"].items())
    line = f"{run.metrics['failures']:,} failures ({why})"
    report(run, f"{line} on {run.metrics['fresh_prompts']:,} prompts", f"handloom push {run.id}")


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


from align import cli_health, cli_prelabel, cli_tune  # noqa: E402, F401  (registered by being imported)

_all = {**annotate_commands.commands, **align_commands.commands}
for _name in sorted(_all, key=_ORDER.index):
    main.add_command(_all[_name])
