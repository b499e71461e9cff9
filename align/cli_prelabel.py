"""`handloom prelabel`: a classifier's suggestions for a push of labels."""

from __future__ import annotations

from typing import Literal

import click

from align.cli import align_commands
from annotate.cli import again_option, chosen_run, here, report


@align_commands.command("prelabel")
@click.argument("model")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option(
    "--about",
    type=click.Choice(["prompt", "output"]),
    default="prompt",
    show_default=True,
    help="What to label: prompts, or each output by itself.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="ITS=OURS",
    help="Call one of its labels by the guideline's name; repeatable.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Of a multi-label classifier: the probability from which a label is suggested.",
)
@again_option
def prelabel_texts(
    model: str,
    run_id: str | None,
    about: Literal["prompt", "output"],
    labels: tuple[str, ...],
    threshold: float,
    again: bool,
) -> None:
    """Let a text classifier suggest labels for a run (the newest generate or import).

    MODEL is a folder, or a model id of the Hugging Face hub, for sequence classification. The
    suggestions go to people with `handloom push --suggestions`, except on a random share of the
    items, so that their pull on people's answers can be measured.
    """
    from align.prelabel import prelabel

    project = here()
    run = prelabel(
        project,
        chosen_run(project, run_id, "generate", "import"),
        model,
        about=about,
        labels=_renamed(labels),
        threshold=threshold,
        again=again,
    )
    noted = run.metrics
    made = ", ".join(f"{count:,} {name}" for name, count in noted["labels"].items())
    line = f"{noted['suggestions']:,} suggestions for {noted['texts']:,} texts ({made})"
    source = run.parents[0].id
    report(run, line, f"handloom push {source} --guideline label --suggestions {run.id}")


def _renamed(labels: tuple[str, ...]) -> dict[str, str]:
    pairs = [label.rpartition("=") for label in labels]
    for label, (own, sign, ours) in zip(labels, pairs, strict=True):
        if not (own and sign and ours):
            from annotate.errors import InputError

            raise InputError(f"--label is ITS=OURS, not {label!r}")
    return {own: ours for own, _, ours in pairs}
