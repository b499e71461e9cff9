"""`handloom import`: a file of prompts and outputs becomes a run."""

from __future__ import annotations

from pathlib import Path

from annotate.records import read_import, require_file
from annotate.runs import Project, Run, RunPlan


def import_file(
    project: Project, path: Path, *, round: int = 1, split: str = "train", again: bool = False
) -> Run:
    """Read DESIGN's import format into `prompts` and `outputs`; bad lines go to `quarantine`.

    Raises:
        InputError: the file cannot be read, or holds no usable line.
        ResourceError: the disk is full.
    """
    require_file(path)
    plan = RunPlan("import", round, settings={"split": split}, inputs=(path,))
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    imported = read_import(path, split=split)
    with project.draft(plan) as draft:
        draft.write("prompts", imported.prompts)
        draft.write("outputs", imported.outputs)
        draft.write("quarantine", imported.quarantine)
        draft.note(
            prompts=imported.prompts.num_rows,
            outputs=imported.outputs.num_rows,
            merged=imported.merged,
            quarantined=imported.quarantine.num_rows,
        )
    return draft.run
