"""`handloom generate`, `evaluate` and `failures`: the commands that let models complete prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from align.cli import align_commands
from annotate.cli import again_option, chosen_run, counted, here, report, seed_option

if TYPE_CHECKING:
    from annotate.runs import Run

# Quarantined lines that are shown; the run has them all.
_SHOWN = 5

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
    help="Completions computed together; with transformers it changes speed and memory only.  "
    "[default: 128; 1 with ctranslate2]",
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
    "--backend",
    default="auto",
    show_default=True,
    help="transformers, ctranslate2 (CPU), vllm (GPU) or openai (a server); auto: openai with "
    "--url, else transformers.",
)
@click.option(
    "--url",
    help="A server with OpenAI's protocol, such as http://127.0.0.1:8000/v1; its key stands in "
    "HANDLOOM_OPENAI_API_KEY.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Requests to the server under way at once.",
)
@click.option(
    "--requests-per-minute",
    type=click.FloatRange(min=0, min_open=True),
    help="To the server, at most.  [default: no limit]",
)
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
    batch_size: int | None,
    backend: str,
    url: str | None,
    concurrency: int,
    requests_per_minute: float | None,
    round_: int | None,
    seed: int,
    again: bool,
) -> None:
    """Let models complete prompts, for people to judge.

    A MODEL is base (the small one shipped here), a train run, a checkpoint of one, a folder, an id
    of the Hugging Face hub, or with --url a name of the server's; by default the model trained
    last. The same seed gives the same completions.
    """
    project = here()
    from align.backends import backend_named
    from align.generate import default_models, generate
    from align.prompts import read_prompts
    from align.sampling import Sampling

    chosen = backend_named(
        backend,
        project,
        url=url,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
    )

    source = read_prompts(project, prompts, split=split, count=count, seed=seed)
    rules = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    run = generate(
        project,
        models or default_models(project, chosen),
        source,
        n=n,
        sampling=rules,
        batch_size=batch_size,
        backend=chosen,
        round=round_,
        again=again,
    )
    metrics = run.metrics
    line = f"{counted(metrics['outputs'], 'completion')} of {counted(metrics['prompts'], 'prompt')}"
    if metrics["quarantined"]:
        _show_quarantine(run)
        line += f", {counted(metrics['quarantined'], 'row')} quarantined"
    report(run, line, f"handloom push {run.id}")


def _show_quarantine(run: Run) -> None:
    """On stderr where each of the first quarantined rows stands, and what is wrong with it."""
    table = run.read("quarantine", ["file", "line", "id", "reason"])
    for row in table.slice(0, _SHOWN).to_pylist():
        place = row["line"] if row["line"] is not None else f" {row['id']}"
        click.echo(f"{row['file']}:{place}: {row['reason']}", err=True)
    if (more := table.num_rows - _SHOWN) > 0:
        click.echo(f"and {more:,} more, in the run's table quarantine", err=True)


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
    batch_size: int | None,
    seed: int,
    again: bool,
) -> None:
    """Compare a new model with the old one and with round 0's, on held-out prompts.

    Of a reward model, if TRAIN_RUN is one: how often it is right on held-out pairs.
    """
    project = here()
    from align.evaluate.pools import PromptChoice
    from align.evaluate.report import lines
    from align.evaluate.step import evaluate
    from align.model_ref import newest_model
    from align.rounds import after_evaluation
    from align.sampling import Sampling

    # A reward model is evaluated only where it is named.
    newest = None if run_id else newest_model(project).run
    run = evaluate(
        project,
        newest or chosen_run(project, run_id, "train"),
        against=against,
        scorer=scorer,
        choice=PromptChoice(prompts, count, pool, pool_count),
        sampling=Sampling(
            temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed
        ),
        batch_size=batch_size or 128,
        again=again,
    )
    for line in lines(run):
        click.echo(line)
    pairs = f"{run.metrics['pairs']:,} pairs of " if "pairs" in run.metrics else ""
    line = f"{run.metrics['model']} on {pairs}{run.metrics['held_out']:,} held-out prompts"
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
    from align.failures import failures, newest_evaluation

    evaluation = project.resolve(run_id) if run_id else newest_evaluation(project)
    run = failures(project, evaluation, limit=limit, again=again)
    why = ", ".join(f"{count:,} {name}" for name, count in run.metrics["why"].items())
    line = f"{run.metrics['failures']:,} failures ({why})"
    report(run, f"{line} on {run.metrics['fresh_prompts']:,} prompts", f"handloom push {run.id}")
