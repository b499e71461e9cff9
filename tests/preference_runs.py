"""Builds of pairs and of thumbs, small enough to train the tiny model on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotate.records import table_from_rows, text_message
from annotate.runs import Project, Run, RunPlan

YES, NO = "yes, gladly", "no, never"


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A row of `preference` whose chosen completion says yes; every fourth is held out."""
    row = {
        "row_id": f"t-{number:02}",
        "prompt_id": f"p-{number}",
        "pair_id": f"j-{number}",
        "prompt": [text_message("user", f"may I ask number {number}?")],
        "chosen": [text_message("assistant", YES)],
        "rejected": [text_message("assistant", NO + "!" * (number % 3))],
        "margin": number % 4 / 3,
        "p_chosen": 0.6 + 0.1 * (number % 4),
        "noise_rate": 0.4 - 0.1 * (number % 4),
        "chosen_output": f"o-{number}-a",
        "rejected_output": f"o-{number}-b",
        "split": "eval" if number % 4 == 3 else "train",
    }
    return row | changes


def built(project: Project, rows: list[dict[str, Any]] | None = None, n: int = 16) -> Run:
    """A build run of pairs: `rows`, or `n` plain ones."""
    pairs = [pair(number) for number in range(n)] if rows is None else rows
    with project.draft(RunPlan("build", 1, settings={"rows": repr(pairs)})) as draft:
        draft.write("preference", table_from_rows("preference", pairs))
        draft.write("sft", table_from_rows("sft", []))
        draft.note(pairs=len(pairs), kept=len(pairs), dropped={}, quarantined=0)
    return draft.run


def thumbs(project: Project, n: int = 16, *, up: tuple[int, ...] = (0, 2)) -> Run:
    """A build run of thumbs: those whose number has remainder `up` by 3 say yes and are good."""
    rows = []
    for number in range(n):
        good = number % 3 in up
        rows.append(
            {
                "row_id": f"k-{number:02}",
                "prompt_id": f"p-{number}",
                "output_id": f"o-{number}",
                "prompt": [text_message("user", f"may I ask number {number}?")],
                "completion": [text_message("assistant", YES if good else NO)],
                "label": good,
                "up": int(good),
                "down": int(not good),
                "split": "eval" if number % 4 == 3 else "train",
            }
        )
    with project.draft(RunPlan("build", 1, settings={"n": n, "up": up})) as draft:
        draft.write("kto", table_from_rows("kto", rows))
    return draft.run


def recipe(
    project: Project, model: Path | str, method: str, extra: str = "", **trainer: Any
) -> Path:
    """A recipe file of few steps; `extra` are more lines, `trainer` more arguments."""
    arguments = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 2e-3}
    listed = "".join(f"  {key}: {value}\n" for key, value in (arguments | trainer).items())
    path = project.root / "r.yaml"
    path.write_text(f"method: {method}\nmodel: {model}\nmax_length: 128\n{extra}trainer:\n{listed}")
    return path
