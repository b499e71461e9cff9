"""The step `build`: from what people hold of each pair to sets a model can be trained on.

    judge  (judgements)  →  build  (decisions, quarantine, preference, sft, README.md)

Every judged pair ends in one of three places, and the counts add up: kept, dropped with a reason
(`decisions`), or quarantined because its row cannot be used. What is kept becomes one preference
row; corrections and clear winners become SFT rows.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from align.card import CardFacts, card
from align.filters import RULES, Filter, apply, evidence, in_force
from align.preference_set import preference_set
from align.recipe import find_recipe, line_of, nearest
from align.sft_set import Corrections, clear_winners, corrections, sft_set
from align.split import Sides, fingerprints, require_disjoint, sides, sides_taken
from annotate.errors import InputError, ProjectError
from annotate.records import conform
from annotate.runs import Project, Run, RunPlan

DEFAULT_RECIPE = "build-preference"


class BuildRecipe(BaseModel):
    """What of the judgements is trained on. Part of the run's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filters: tuple[Filter, ...]
    """In order; the first that drops a pair is the reason that counts."""

    held_out: float = Field(0.1, ge=0, lt=1)
    """Share of prompts whose pairs are kept but never trained on: they measure reward accuracy."""

    winner_margin: float = Field(0.5, ge=0, le=1)
    """From which margin a kept pair's winner is clear enough to be imitated (SFT)."""


def read_recipe(project: Project, name: str | None = None) -> BuildRecipe:
    """The recipe in a file, or the one of this name in the project, else the shipped one.

    Raises:
        InputError: there is none, or a key of it is wrong; says which and what would be valid.
    """
    path = find_recipe(name or DEFAULT_RECIPE, (project.root / "recipes",))
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"not YAML ({' '.join(str(error).split())})", where=str(path)) from None
    if not isinstance(content, dict):
        raise InputError("a recipe is a mapping", where=str(path), remedy="See align/recipes")
    try:
        return BuildRecipe.model_validate(content)
    except ValidationError as error:
        raise _complaint(error, path, text) from None


def _complaint(error: ValidationError, path: Path, text: str) -> InputError:
    """The first of pydantic's complaints, an unknown key before all others, as one of ours."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    kind, loc = first["type"], first["loc"]
    # After a filter's number pydantic puts the rule's name, which is no key of the file.
    keys = (*loc[:2], *loc[3:]) if loc[0] == "filters" else loc
    name = ".".join(str(key) for key in keys)
    what, remedy = f"{name}: {first['msg']}", ""
    if kind == "union_tag_invalid":
        keys = (*keys, "rule")
        rule = str(first["ctx"]["tag"])
        what, remedy = f"unknown rule {rule!r}", nearest(rule, list(RULES), "Rules")
    elif kind == "union_tag_not_found":
        what, remedy = f'{name} needs a "rule"', f"Rules: {', '.join(RULES)}"
    elif kind == "extra_forbidden":
        beside = RULES[str(loc[2])] if len(loc) > 2 else BuildRecipe
        what = f"unknown key {name!r}"
        remedy = nearest(str(keys[-1]), sorted(beside.model_fields), "Keys")
    line = line_of(yaml.compose(text, Loader=yaml.SafeLoader), keys)
    return InputError(what, where=f"{path}:{line}", remedy=remedy)


def build(
    project: Project,
    judge_runs: Sequence[Run],
    *,
    recipe: str | None = None,
    again: bool = False,
) -> Run:
    """Build the training sets from judge runs; the finished run, if there is one.

    Args:
        judge_runs: usually one; several where a round pushed several batches.
        recipe: a file, or a recipe's name; None for `build-preference`.
        again: make a new run although a finished one exists.

    Raises:
        InputError: the recipe is wrong, or nothing is left to train on.
        ProjectError: the judgements' outputs or prompts are not in the lineage.
    """
    rules = read_recipe(project, recipe)
    for run in judge_runs:
        if run.step != "judge":
            raise ProjectError("this is not a judge run", where=run.id, remedy="`handloom judge`")
    newest = max(run.round for run in judge_runs)
    plan = RunPlan("build", newest, tuple(judge_runs), rules.model_dump(mode="json"))
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    sources = gather(judge_runs)
    sets = make_sets(sources, rules)
    if not sets.preference.num_rows and not sets.sft.num_rows:
        lost = sets.counts["dropped"] | {"quarantine": sets.quarantine.num_rows}
        dropped = ", ".join(f"{rule} {n}" for rule, n in lost.items() if n)
        raise InputError(
            f"no pair is left to train on; dropped by {dropped}",
            where=sources.origin,
            remedy="Collect more votes, or loosen the recipe's filters",
        )
    with project.draft(plan) as draft:
        draft.write("decisions", sets.decisions)
        draft.write("quarantine", sets.quarantine)
        draft.write("preference", sets.preference)
        draft.write("sft", sets.sft)
        draft.note(**sets.counts)
        draft.write_text("README.md", card(_facts(plan, sources, sets, rules)))
    return draft.run


@dataclass(frozen=True)
class Sources:
    """Everything a build reads."""

    origin: str
    """Ids of the judge runs."""
    judgements: pa.Table
    outputs: pa.Table
    prompts: pa.Table
    corrections: Corrections
    taken: Sides
    ambiguous: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    """Ids that stand for different prompts, as where two imported files both count from 1."""


def gather(judge_runs: Sequence[Run]) -> Sources:
    """Read the judgements and, from the runs behind them, outputs, prompts and corrections."""
    judgements = pa.concat_tables([run.read("judgements") for run in judge_runs])
    pulls = _pulls(judge_runs)
    items = pa.concat_tables([run.read("items") for run in pulls])
    wanted = pa.chunked_array([*judgements["prompt_id"].chunks, *items["prompt_id"].chunks])
    taken = [sides_taken(run) for run in judge_runs]
    every = _lineage_rows(pulls, "prompts", wanted)
    return Sources(
        origin=", ".join(run.id for run in judge_runs),
        judgements=judgements,
        outputs=_first_of_each(_lineage_rows(pulls, "outputs", wanted), "output_id"),
        prompts=_first_of_each(every, "prompt_id"),
        corrections=corrections(pa.concat_tables([run.read("responses") for run in pulls]), items),
        taken=functools.reduce(operator.or_, taken),
        ambiguous=_ambiguous(every),
    )


def _pulls(judge_runs: Sequence[Run]) -> list[Run]:
    """The pull runs that these judged, one a batch, each once."""
    parents = [parent for run in judge_runs for parent in run.parents if parent.step == "pull"]
    return list({pull.id: pull for pull in parents}.values())


def _lineage_rows(runs: Sequence[Run], name: str, prompt_ids: pa.ChunkedArray) -> pa.Table:
    """The rows of these prompts in every ancestor's table, the nearest first."""
    every = {holder.id: holder for run in runs for holder in run.ancestors()}
    holders = [holder for holder in every.values() if holder.has(name)]
    if not holders:
        raise ProjectError(f"no {name} behind it", where=runs[0].id, remedy="`handloom runs`")
    distinct = pc.unique(prompt_ids)
    found = []
    for holder in holders:
        table = holder.read(name)
        found.append(table.filter(pc.is_in(table["prompt_id"], value_set=distinct)))
    return pa.concat_tables(found)


def _ambiguous(prompts: pa.Table) -> pa.Array:
    """The ids under which rows of `prompts` say different things."""
    said = pa.table({"id": prompts["prompt_id"], "text": fingerprints(prompts["messages"])})
    counts = said.group_by(["id", "text"]).aggregate([])["id"].value_counts()
    several = pc.greater(pc.struct_field(counts, "counts"), 1)
    return pc.struct_field(counts, "values").filter(several)


def _first_of_each(rows: pa.Table, key: str) -> pa.Table:
    first = pc.index_in(pc.unique(rows[key]), value_set=rows[key])
    return rows.take(first)


@dataclass(frozen=True)
class Sets:
    """What a build writes."""

    decisions: pa.Table
    quarantine: pa.Table
    preference: pa.Table
    sft: pa.Table
    counts: dict[str, Any]


def make_sets(sources: Sources, rules: BuildRecipe) -> Sets:
    """Decide every pair and build both sets from those kept. Pure; rows in a fixed order."""
    judgements = sources.judgements.sort_by("pair_id")
    usable, quarantine = screen(judgements, sources)
    decisions = apply(rules.filters, usable, sources.outputs)
    kept = evidence(usable.filter(decisions["kept"]), sources.outputs)
    side = sides(sources.prompts, sources.taken, rules.held_out)
    at = sources.prompts.column_names.index("split")
    prompts = sources.prompts.set_column(at, "split", side)
    preference = preference_set(kept, prompts)
    winners = clear_winners(kept, rules.winner_margin)
    corrected = sources.corrections.rows
    known = pc.invert(_in(corrected["prompt_id"], sources.ambiguous))
    sft = sft_set(corrected.filter(known), winners, prompts)
    for table in (preference, sft):
        trained = table.filter(pc.equal(table["split"], "train"))
        require_disjoint(trained["prompt"], sources.taken, sources.origin)
    counts = {
        "pairs": judgements.num_rows,
        "kept": kept.num_rows,
        "dropped": _counted(decisions, "rule"),
        "quarantined": quarantine.num_rows,
        "preference": _counted(preference, "split"),
        "sft": _counted(sft, "source"),
        "sft_split": _counted(sft, "split"),
        "corrections_left_out": sources.corrections.dropped,
    }
    return Sets(decisions, quarantine, preference, sft, counts)


def screen(judgements: pa.Table, sources: Sources) -> tuple[pa.Table, pa.Table]:
    """Usable judgements, and the others as `quarantine` rows with the first thing that is wrong."""
    reason = pa.nulls(judgements.num_rows, pa.string())
    for text, wrong in _problems(judgements, sources).items():
        reason = pc.if_else(pc.and_(pc.is_null(reason), wrong), text, reason)
    bad = judgements.filter(pc.is_valid(reason))
    row = pc.indices_nonzero(pc.is_valid(reason))
    quarantine = {
        "file": pa.repeat(f"{sources.origin}: judgements", bad.num_rows),
        "line": pc.add(pc.cast(row, pa.int64()), 1),
        "id": bad["pair_id"],
        "reason": reason.filter(pc.is_valid(reason)),
        "content": pa.array([json.dumps(each, default=str) for each in bad.to_pylist()]),
    }
    return judgements.filter(pc.is_null(reason)), conform("quarantine", pa.table(quarantine))


def _problems(judgements: pa.Table, sources: Sources) -> dict[str, Any]:
    """What can be wrong with a judgement, and where it is: true or false for each row."""
    first = pc.index_in(judgements["pair_id"], value_set=judgements["pair_id"])
    outputs, prompts = sources.outputs["output_id"], sources.prompts["prompt_id"]
    cast = pc.add(pc.add(judgements["votes_a"], judgements["votes_b"]), judgements["ties"])
    same = pc.equal(judgements["output_a"], judgements["output_b"])
    return {
        "the pair has no id": pc.is_null(judgements["pair_id"]),
        "the pair stands here twice": pc.not_equal(first, pa.array(range(len(first)), pa.int32())),
        "its prompt's id stands for different prompts": _in(
            judgements["prompt_id"], sources.ambiguous
        ),
        "its prompt is in no run behind it": pc.invert(_in(judgements["prompt_id"], prompts)),
        "output_a is in no run behind it": pc.invert(_in(judgements["output_a"], outputs)),
        "output_b is in no run behind it": pc.invert(_in(judgements["output_b"], outputs)),
        "an output is compared with itself": pc.fill_null(same, False),
        "votes_a, votes_b and ties do not add up to votes": pc.fill_null(
            pc.not_equal(cast, judgements["votes"]), True
        ),
        "the posterior is not between 0 and 1": _outside(judgements["posterior"], 0, 1),
        "strength_mean is not between -3 and 3": _outside(judgements["strength_mean"], -3, 3),
    }


def _in(values: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(values, value_set=known)


def _outside(column: pa.ChunkedArray, low: float, high: float) -> pa.ChunkedArray:
    """Where a number is given that is NaN or out of range."""
    inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    return pc.fill_null(pc.invert(inside), False)


def _counted(table: pa.Table, column: str) -> dict[str, int]:
    """How often each value occurs, the most frequent first; null is not counted."""
    given = table[column].drop_null()
    rows = given.value_counts().to_pylist()
    rows.sort(key=lambda row: (-row["counts"], row["values"]))
    return {row["values"]: row["counts"] for row in rows}


def _facts(plan: RunPlan, sources: Sources, sets: Sets, rules: BuildRecipe) -> CardFacts:
    judged, outputs = sources.judgements, sources.outputs
    shown = [_in(outputs["output_id"], judged[f"output_{side}"]) for side in "ab"]
    behind = [run for parent in plan.parents for run in (parent, *parent.ancestors())]
    return CardFacts(
        run_id=plan.run_id,
        counts=sets.counts,
        filters=[(rule.rule, rule.threshold) for rule in in_force(rules.filters)],
        annotators=_distinct(pc.list_flatten(judged["annotators"])),
        guidelines=_distinct(judged["guideline"]),
        models=_distinct(outputs.filter(pc.or_(*shown))["model"]),
        agreement={
            f"{question} ({run.id})" if len(plan.parents) > 1 else question: figures
            for run in plan.parents
            for question, figures in run.metrics.get("agreement", {}).items()
        },
        lineage=list(dict.fromkeys(run.id for run in behind)),
    )


def _distinct(column: Any) -> list[str]:
    return sorted(value for value in pc.unique(column).to_pylist() if value is not None)


def lines(run: Run) -> list[str]:
    """What was kept and dropped, as a table in text; the counts add up to the pairs."""
    metrics = run.metrics
    rows = {"judged pairs": metrics["pairs"], "kept": metrics["kept"]}
    rows |= {f"dropped by {rule}": count for rule, count in metrics["dropped"].items()}
    rows["quarantined"] = metrics["quarantined"]
    width = max(map(len, rows))
    return [f"  {name:<{width}}  {count:>7,}" for name, count in rows.items()]
