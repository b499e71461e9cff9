"""Where prompts come from: a run, a JSONL file, or the made-up support desk.

A file has one `{"id"?, "prompt": text or messages, "metadata"?}` a line; a line that cannot be used
is quarantined with its reason. "outputs" may be there and are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotate.errors import InputError, ProjectError
from annotate.records import SCHEMAS, content_id, read_import, table_from_rows
from annotate.runs import Project, Run

SUPPORT_DESK = "support-desk"


@dataclass(frozen=True)
class PromptSource:
    """Prompts, and what a run that uses them records of where they came from."""

    prompts: pa.Table
    quarantine: pa.Table
    parents: tuple[Run, ...] = ()
    inputs: tuple[Path, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def read_prompts(
    project: Project, source: str, *, split: str, count: int | None = None, seed: int = 0
) -> PromptSource:
    """Prompts of one side, in a fixed order.

    Args:
        source: a run's id, a file, or "support-desk".
        split: "train" or "eval". From a run only this side's prompts are taken; the prompts of a
            file or of the support desk are declared to be on it.
        count: the first so many; None takes all (100 from the support desk, which has no end).
        seed: which prompts the support desk draws.

    Raises:
        InputError: the file cannot be used, or nothing is there on this side.
        ProjectError: there is neither such a file nor such a run.
    """
    settings = {"prompts": source, "split": split, "count": count}
    if source == SUPPORT_DESK:
        count = 100 if count is None else count
        prompts = support_desk_prompts(count, seed=seed, split=split)
        settings |= {"count": count, "prompt_seed": seed}
        return PromptSource(prompts, SCHEMAS["quarantine"].empty_table(), settings=settings)
    if Path(source).is_file():
        found = read_import(Path(source), split=split, with_outputs=False)
        settings["prompts"] = Path(source).name
        return PromptSource(
            found.prompts.slice(0, count), found.quarantine, (), (Path(source),), settings
        )
    try:
        run = project.resolve(source)
    except ProjectError:
        raise InputError(
            "neither a file nor a run",
            where=source,
            remedy=f'`handloom runs` lists runs; "{SUPPORT_DESK}" needs no file',
        ) from None
    return prompts_of_run(run, split=split, count=count)


def prompts_of_run(run: Run, *, split: str, count: int | None = None) -> PromptSource:
    """The prompts that a run holds on one side.

    Raises:
        InputError: it holds none.
    """
    prompts = run.read("prompts") if run.has("prompts") else SCHEMAS["prompts"].empty_table()
    prompts = prompts.filter(pc.equal(prompts["split"], split)).slice(0, count)
    if not prompts.num_rows:
        raise InputError(f"it has no prompts on the side {split!r}", where=run.id)
    settings = {"prompts": run.id, "split": split, "count": count}
    return PromptSource(prompts, SCHEMAS["quarantine"].empty_table(), (run,), (), settings)


def support_desk_prompts(count: int, *, seed: int, split: str) -> pa.Table:
    """The `prompts` table of `count` made-up prompts (annotate.support_desk)."""
    from annotate.support_desk import prompts

    return table_from_rows(
        "prompts",
        [
            {
                "prompt_id": content_id("p", json.dumps(messages, sort_keys=True)),
                "messages": messages,
                "source": SUPPORT_DESK,
                "split": split,
                "metadata": "{}",
            }
            for messages in prompts(count, seed=seed, split=split)
        ],
    )
