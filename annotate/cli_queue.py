"""Commands that choose what people judge next: `handloom next` and `handloom adjudicate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from annotate.cli import again_option, annotate_commands, chosen_run, here, report, seed_option

if TYPE_CHECKING:
    from annotate.runs import Run

FIRST_LABELS, MOST_LABELS = 1, 5  # as in annotate.queueing, which takes time to import
to_option = click.option(
    "--to", multiple=True, metavar="NAME", help="Only for this person; repeatable."
)


@annotate_commands.command("next")
@click.argument("n", type=int)
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option(
    "--by",
    type=click.Choice(["uniform", "entropy", "disagreement", "failures"]),
    default="entropy",
    show_default=True,
    help="What makes a pair wanted.",
)
@click.option(
    "--first", default=FIRST_LABELS, show_default=True, help="Labels of every pair before entropy."
)
@click.option("--most", default=MOST_LABELS, show_default=True, help="Labels of a pair at most.")
@to_option
@click.option("--cap", type=int, help="With --to: pairs for one person at most.")
@click.option(
    "--whom",
    type=click.Choice(["fewest", "reliable"]),
    default="fewest",
    show_default=True,
    help="With --to: the most open pairs to whoever has fewest, or to who proved most reliable in "
    "the judge RUN (at most twice an even share each, or --cap).",
)
@click.option("--guideline", default="preference", show_default=True, help="With --to: as in push.")
@seed_option
@again_option
def choose_next(
    n: int,
    run_ids: tuple[str, ...],
    by: Literal["uniform", "entropy", "disagreement", "failures"],
    first: int,
    most: int,
    to: tuple[str, ...],
    cap: int | None,
    whom: Literal["fewest", "reliable"],
    guideline: str,
    seed: int,
    again: bool,
) -> None:
    """Choose N pairs for one more label each, and with --to put them before these people.

    By uniform: those with the fewest labels. By entropy: those with fewer than --first, then the
    least decided of the judge RUN (the newest). By disagreement: those that the scorers of the
    evaluate RUNs, two or more, differ about most. By failures: the worst of the failures RUN.

    With --to each pair goes to one person who has not judged it, in a workspace of their own.
    """
    from annotate.next_items import given_out, next_items, reliability_of, share_out

    project = here()
    step = {"failures": "failures", "disagreement": "evaluate"}.get(by, "judge")
    runs = [project.resolve(run_id) for run_id in run_ids] or [
        chosen_run(project, None, step, holding="judgements" if step == "judge" else None)
    ]
    if whom == "reliable" and (step != "judge" or not to):
        raise click.UsageError("--whom reliable goes with --to, and --by entropy or uniform")
    if to:
        from annotate.assignment import require_people
        from annotate.server import connect

        with connect(project) as server:
            require_people(project, server, to)
    run = next_items(project, runs, n, by, first=first, most=most, seed=seed, again=again)
    why = ", ".join(f"{count} by {reason}" for reason, count in run.metrics["why"].items())
    line = f"{run.metrics['chosen']} of {run.metrics['candidates']} pairs chosen ({why})"
    if not to:
        report(run, line, f"handloom push {run.id} --overlap 1")
        return
    worth = reliability_of(runs[0]) if whom == "reliable" else None
    shared, left = share_out(run.read("chosen"), to, cap, worth, given_out(project, besides=run))
    _push_to_each(run, shared, guideline, seed)
    if left:
        click.echo(
            f"  {left} pairs left over: everybody named has judged them, has them before them or "
            "has enough"
        )
    then = "handloom pull, when they have answered"
    report(run, line, then if shared else f"handloom push {run.id} --to OTHERS --overlap 1")


def _push_to_each(run: Run, shared: dict[str, list[str]], guideline: str, seed: int) -> None:
    from annotate.push import push

    project = here()
    for name, pairs in shared.items():
        pushed = push(
            project, run, guideline=guideline, overlap=1, select=pairs, to=[name], seed=seed
        )
        click.echo(f"  {pushed.id}: {len(pairs)} items for {name}")


@annotate_commands.command("adjudicate")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--below",
    type=float,
    metavar="POSTERIOR",
    help="Also pairs whose winner is less certain than this, as 0.8.",
)
@to_option
@click.option("--workspace", metavar="NAME", help="The reviewers' workspace.")
@click.option("--batch", help="Name of the data set, instead of one made up from the run.")
@click.option("--overlap", default=1, show_default=True, help="Reviewers a pair.")
@click.option("--guideline", default="preference", show_default=True, help="As in push.")
@seed_option
@again_option
def adjudicate_split(
    run_id: str | None,
    below: float | None,
    to: tuple[str, ...],
    workspace: str | None,
    batch: str | None,
    overlap: int,
    guideline: str,
    seed: int,
    again: bool,
) -> None:
    """Give the pairs that stay split after a judge RUN (the newest) to reviewers.

    Split: two votes or more, and no answer with more than half of them. Reviewers see the earlier
    votes without names; when `pull` has fetched what they say, it decides in `judge`.
    """
    from annotate.adjudication import adjudicate
    from annotate.push import push

    project = here()
    judged = chosen_run(project, run_id, "judge", holding="judgements")
    run = adjudicate(project, judged, below=below, again=again)
    pushed = push(
        project,
        run,
        guideline=guideline,
        batch=batch,
        overlap=overlap,
        workspace=workspace,
        to=to or None,
        seed=seed,
    )
    why = ", ".join(f"{count} {reason}" for reason, count in run.metrics["why"].items())
    line = f"{pushed.metrics['items']} pairs for reviewers ({why}) in "
    line += ", ".join(pushed.metrics["batches"])
    if not to and workspace is None:
        line += ", before everybody: --to NAME or --workspace NAME keeps them for reviewers"
    report(pushed, line, f"handloom pull {pushed.id}")
