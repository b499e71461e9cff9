"""`handloom merge`: a whole model of a run's adapters."""

from __future__ import annotations

import click

from align.cli import align_commands
from annotate.cli import again_option, chosen_run, here, report


@align_commands.command("merge")
@click.argument("run_id", metavar="[TRAIN_RUN]", required=False)
@again_option
def merge_adapters(run_id: str | None, again: bool) -> None:
    """Merge a run's adapters into the model that they were trained beside.

    Only training beside weights of 4 bits (quantization: nf4) leaves adapters alone: other adapters
    are merged when training ends. The base is loaded anew in 16 or 32 bits. A prefix cannot be
    merged, and need not be: generate and evaluate take the run as it is.
    """
    project = here()
    from align.merge import merge

    chosen = chosen_run(project, run_id, "train")
    run = merge(project, chosen, again=again)
    made = run.id != chosen.id
    line = f"the whole model of {chosen.id}, in model/"
    if not made:
        line = "it holds a whole model already, in model/"
    report(run, line, f"handloom generate {run.id}", made=made)
