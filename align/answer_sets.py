"""The step `build` where nothing was compared: sets from what people wrote, and from their thumbs.

    pull  (responses, items)  →  build  (sft, kto, kto_decisions, README.md)

Corrections and demonstrations are SFT targets as they are; thumbs become KTO's unpaired rows.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from align.build_sources import ambiguous_ids, first_of_each, lineage_rows
from align.kto_set import KtoSet, kto_set, thumbs
from align.sft_set import Corrections, corrections, sft_set
from align.split import Sides, require_disjoint, sides, sides_taken
from annotate.errors import InputError
from annotate.runs import Project, Run, RunPlan

THUMBS_SHARE = 2 / 3
"""Of an output's thumbs, so many must point one way: one of one, two of two, two of three."""


def build_answer_sets(
    project: Project, pull_runs: Sequence[Run], held_out: float, *, again: bool = False
) -> Run:
    """Build what the texts and thumbs in pull runs make; the finished run, if there is one.

    Args:
        held_out: share of prompts whose rows are never trained on.

    Raises:
        InputError: nothing is left to train on.
        ProjectError: outputs or prompts are not in the lineage.
    """
    newest = max(run.round for run in pull_runs)
    settings = {"held_out": held_out, "thumbs_share": THUMBS_SHARE}
    plan = RunPlan("build", newest, tuple(pull_runs), settings)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    sources = gather_answers(pull_runs)
    sft, kto = make_answer_sets(sources, held_out)
    kto_dropped = _counted(kto.decisions, "reason")
    counts: dict[str, Any] = {
        # As a build of comparisons counts, for whoever reads both.
        **{"pairs": 0, "kept": 0, "dropped": {}, "quarantined": 0, "preference": {}},
        "sft": _counted(sft, "source"),
        "sft_split": _counted(sft, "split"),
        "texts_left_out": sources.written.dropped,
        "kto": _counted(kto.rows, "label"),
        "kto_split": _counted(kto.rows, "split"),
        "kto_dropped": kto_dropped,
    }
    if not sft.num_rows and not kto.rows.num_rows:
        raise InputError(
            "no submitted response has a text or a thumb to train on"
            + "".join(f"; {n} dropped: {why}" for why, n in kto_dropped.items()),
            where=sources.origin,
            remedy="Collect more answers; comparisons go to `handloom judge` first",
        )
    with project.draft(plan) as draft:
        if sft.num_rows:
            draft.write("sft", sft)
        if kto.decisions.num_rows:
            draft.write("kto", kto.rows)
            draft.write("kto_decisions", kto.decisions)
        draft.note(**counts)
        draft.write_text("README.md", _card(plan, pull_runs, sources, counts))
    return draft.run


@dataclass(frozen=True)
class AnswerSources:
    """Everything that a build of answers reads."""

    origin: str
    """Ids of the pull runs."""
    responses: pa.Table
    items: pa.Table
    outputs: pa.Table
    prompts: pa.Table
    written: Corrections
    taken: Sides
    ambiguous: pa.Array
    """Ids that stand for different prompts."""


def gather_answers(pull_runs: Sequence[Run]) -> AnswerSources:
    """Read the answers and, from the runs behind them, outputs and prompts.

    Raises:
        ProjectError: one is not a pull run, or nothing is behind it.
    """
    for run in pull_runs:
        run.require("pull")
    items = pa.concat_tables([run.read("items") for run in pull_runs])
    responses = pa.concat_tables([run.read("responses") for run in pull_runs])
    every = lineage_rows(pull_runs, "prompts", items["prompt_id"])
    return AnswerSources(
        origin=", ".join(run.id for run in pull_runs),
        responses=responses,
        items=items,
        outputs=first_of_each(lineage_rows(pull_runs, "outputs", items["prompt_id"]), "output_id"),
        prompts=first_of_each(every, "prompt_id"),
        written=corrections(responses, items),
        taken=functools.reduce(operator.or_, [sides_taken(run) for run in pull_runs]),
        ambiguous=ambiguous_ids(every),
    )


def make_answer_sets(sources: AnswerSources, held_out: float) -> tuple[pa.Table, KtoSet]:
    """The table `sft` and the KTO set. Pure; rows in a fixed order."""
    side = sides(sources.prompts, sources.taken, held_out)
    at = sources.prompts.column_names.index("split")
    prompts = sources.prompts.set_column(at, "split", side)
    known = pc.and_(
        pc.is_in(sources.written.rows["prompt_id"], value_set=prompts["prompt_id"]),
        pc.invert(pc.is_in(sources.written.rows["prompt_id"], value_set=sources.ambiguous)),
    )
    sft = sft_set(sources.written.rows.filter(known), None, prompts)
    kto = kto_set(
        thumbs(sources.responses, sources.items),
        sources.outputs,
        prompts,
        sources.ambiguous,
        THUMBS_SHARE,
    )
    for table in (sft, kto.rows):
        trained = table.filter(pc.equal(table["split"], "train"))
        require_disjoint(trained["prompt"], sources.taken, sources.origin)
    return sft, kto


def lines(run: Run) -> list[str]:
    """What a run of this step holds, as a table in text."""
    found = run.metrics
    rows = {f"SFT rows, {source}": n for source, n in found["sft"].items()}
    rows |= {f"KTO rows, thumbs {thumb}": n for thumb, n in found["kto"].items()}
    rows |= {f"texts left out, {why}": n for why, n in found["texts_left_out"].items()}
    rows |= {f"outputs left out, {why}": n for why, n in found["kto_dropped"].items()}
    width = max(map(len, rows))
    return [f"  {name:<{width}}  {count:>7,}" for name, count in rows.items()]


def _counted(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value occurs, the most frequent first; thumbs by name, null not counted."""
    values = table[column].drop_null()
    if pa.types.is_boolean(values.type):
        values = pc.if_else(values, "up", "down")
    rows = sorted(
        values.value_counts().to_pylist(), key=lambda row: (-row["counts"], row["values"])
    )
    return {row["values"]: row["counts"] for row in rows}


_LOADING = """\
## Loading

```python
from datasets import load_dataset

rows = load_dataset("parquet", data_files="{name}.parquet", split="train")
rows = rows.filter(lambda row: row["split"] == "train")  # "eval" rows are held out
```

`prompt` and `completion` are lists of messages, as TRL reads them.
"""


def _card(
    plan: RunPlan, pull_runs: Sequence[Run], sources: AnswerSources, counts: dict[str, Any]
) -> str:
    """The data set card, ending in a line feed."""
    submitted = sources.responses.filter(pc.equal(sources.responses["status"], "submitted"))
    people = pc.unique(submitted["annotator"]).to_pylist()
    made = sum(name.startswith("sim-") for name in people)
    who = f"{len(people) - made} people" if made < len(people) else ""
    if made:
        who += f"{' and ' if who else ''}{made} **simulated annotators**, not people"
    under = ", ".join(f"`{name}`" for name in sorted(pc.unique(submitted["guideline"]).to_pylist()))
    names = [name for name in ("sft", "kto") if sum(counts[name].values())]
    header = {
        "pretty_name": f"Handloom {plan.run_id}",
        "task_categories": ["text-generation"],
        "tags": ["trl", "handloom", *names, *(["simulated-annotators"] if made else [])],
        "configs": [
            {"config_name": name, "data_files": [{"split": "all", "path": f"{name}.parquet"}]}
            for name in names
        ],
    }
    table = ["| file | rows | of these |", "|---|---:|---|"]
    for name in names:
        detail = ", ".join(f"{n:,} {part}" for part, n in counts[name].items())
        table.append(f"| `{name}.parquet` | {sum(counts[name].values()):,} | {detail} |")
    lost = {**counts["texts_left_out"], **counts["kto_dropped"]}
    left = "\n".join(f"- {n:,}: {why}" for why, n in lost.items()) or "Nothing."
    behind = dict.fromkeys(run.id for pull in pull_runs for run in (pull, *pull.ancestors()))
    return "\n".join(
        [
            "---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---\n",
            f"# {' and '.join(name.upper() for name in names)} data, {plan.run_id}\n",
            f"Made by {who}, under {under}.\n",
            "## Contents\n\n" + "\n".join(table) + "\n",
            f"## Left out\n\n{left}\n",
            "## Lineage\n\n" + "\n".join(f"- `{run}`" for run in behind) + "\n",
            _LOADING.format(name=names[0]),
            "## Licence\n\nnot stated\n",
        ]
    )
