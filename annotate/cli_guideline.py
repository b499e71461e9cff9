"""Guidelines as code that learns: `handloom guideline`."""

from __future__ import annotations

import click

from annotate.cli import annotate_commands, chosen_pulls, here, json_option, report, seed_option


@annotate_commands.group("guideline")
def guideline() -> None:
    """Check, publish and compare guidelines, and measure what a new version does."""


def _print(found: object, lines: list[str], as_json: bool) -> None:
    import json

    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines))


@guideline.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def check(names: tuple[str, ...]) -> None:
    """Check every version of every guideline, or those of NAME: a task or task@vN.

    Front matter, length, names, place, and that no published version was edited.
    """
    from annotate.errors import HandloomError, InputError
    from annotate.guidelines import guideline_names, load_guideline, published_versions

    project = here()
    published = published_versions(project.root)
    problems = 0
    for name in guideline_names(project.root, names):
        try:
            found = load_guideline(project.root, name)
        except HandloomError as error:
            problems += 1
            click.echo(f"{name}: {error}", err=True)
            continue
        state = "published" if found.name in published else "not published yet"
        asked = ", ".join(question.name for question in found.questions)
        click.echo(f"{found.name}: {found.kind}, overlap {found.overlap}, asks {asked}; {state}")
    if problems:
        raise InputError(
            f"{problems} guidelines cannot be used",
            where="guidelines",
            remedy="See the lines above",
        )


@guideline.command("publish")
@click.argument("name", metavar="TASK[@vN]")
def publish(name: str) -> None:
    """Publish a version: from now on its file must not be edited. `push` does it by itself."""
    from annotate.guidelines import load_guideline, publish_guideline

    project = here()
    found = load_guideline(project.root, name)
    new = publish_guideline(project.root, found)
    click.echo(f"{found.name}: {'published' if new else 'was published before'}")
    click.echo(f"  in   {project.root / 'guidelines' / 'published.lock'}")
    click.echo(f"  next handloom push --guideline {found.name}")


@guideline.command("diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@json_option
def diff(old: str, new: str, as_json: bool) -> None:
    """What changed between two versions, as in `diff preference@v1 preference@v2`.

    Questions, labels and passages, and whether answers under both can be compared.
    """
    from annotate.guideline_diff import guideline_diff
    from annotate.guidelines import load_guideline

    root = here().root
    found = guideline_diff(load_guideline(root, old), load_guideline(root, new))
    _print(found.to_dict(), found.lines(), as_json)


@guideline.command("clauses")
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@seed_option
@json_option
def clauses(run_ids: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Where people disagree, by the clause of the guideline that they ticked as deciding.

    On the newest pull of each batch of the round, or on the pull RUNs. The clause with the most
    opposite votes comes first, with items to look at: `handloom trace ITEM`. Only people who were
    asked for a clause count, each with the vote given then.
    """
    from annotate.clauses import clause_figures, clause_lines
    from annotate.judge import answers_of

    responses, items = answers_of(chosen_pulls(here(), run_ids))
    found = clause_figures(responses, items, seed=seed)
    _print([each.to_dict() for each in found], clause_lines(found), as_json)


@guideline.command("relabel")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--prompts", default=100, show_default=True, help="To answer again, in both halves.")
@seed_option
def relabel(old: str, new: str, run_id: str | None, prompts: int, seed: int) -> None:
    """Have prompts that were answered under OLD answered again, half under NEW, half under OLD.

    Of the pull of the round with the most prompts that two people answered under OLD, or of the
    pull RUN. Nobody sees which half is which.
    """
    from annotate.relabelling import most_answered
    from annotate.relabelling import relabel as push_again

    project = here()
    before = most_answered(chosen_pulls(project, (run_id,) if run_id else ()), old)
    run = push_again(project, before, old, new, prompts=prompts, seed=seed)
    _, *pushes = run.parents
    line = f"{run.metrics['prompts']} prompts again, in {', '.join(run.metrics['batches'])}"
    pulls = "; ".join(f"handloom pull {each.id}" for each in pushes)
    report(run, line, f"{pulls}; handloom guideline effect {run.id}, when people have answered")


@guideline.command("effect")
@click.argument("run_id", metavar="[RUN]", required=False)
@seed_option
@json_option
def show_effect(run_id: str | None, seed: int, as_json: bool) -> None:
    """What the new version did to agreement, against the control half, with its interval."""
    from annotate.relabelling import effect

    project = here()
    run = project.resolve(run_id) if run_id else project.latest("relabel")
    found = effect(project, run, seed=seed)
    _print(found.to_dict(), found.lines(), as_json)
