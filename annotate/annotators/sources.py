"""Where panels come from: pull runs, or anybody's table of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from annotate.agreement_report import TableKind, read_judgeable, taken_as_names
from annotate.annotators.from_mixed import answers_to_tests
from annotate.annotators.from_votes import Beside, panels_of_votes
from annotate.annotators.panel import Panel
from annotate.annotators.report import AnnotatorReport, report
from annotate.errors import ProjectError
from annotate.labels import Labels
from annotate.publishing import shown_tables
from annotate.question_labels import question_labels
from annotate.records import SCHEMAS
from annotate.runs import Run

# Said together with the vote, by the same person of the same pair: no further evidence of anybody.
_PARTS_OF_A_VOTE = ("vote", "strength", "both_bad")


def annotators_of_runs(
    runs: Sequence[Run],
    responses: pa.Table,
    items: pa.Table,
    votes: pa.Table,
    *,
    pool: bool = False,
    paused: Mapping[str, str] | None = None,
) -> AnnotatorReport:
    """Every annotator of some pull runs.

    Args:
        runs: pull runs.
        responses: theirs, as `annotate.judge.answers_of` gives them.
        items: likewise.
        votes: `votes_of_responses` of both.
        pool: take versions of the guideline together.
        paused: name → since when.

    Raises:
        ProjectError: nothing was submitted that annotators could be compared on, or a run is
            damaged.
    """
    panels = []
    beside = _beside(runs, items)
    if votes.num_rows:
        panels += panels_of_votes(votes, responses, beside, pool=pool)
    for question, answers in question_labels(responses, items, votes).items():
        if isinstance(answers, Labels) and question not in _PARTS_OF_A_VOTE:
            panels += [
                _with_tests(panel, responses, beside, pool=pool)
                for panel in panels_of_labels(answers, question, pool=pool)
            ]
    source = ", ".join(run.id for run in runs)
    if not panels:
        raise ProjectError(
            "no submitted response says anything that annotators can be compared on",
            where=source,
            remedy="Let annotators answer, then `handloom pull`",
        )
    return report(source, panels, paused=paused)


def annotators_of_table(
    path: Path, *, kind: TableKind | None = None, pool: bool = False
) -> AnnotatorReport:
    """Every annotator of a CSV or Parquet file, as `read_label_table` takes it.

    Args:
        path: the file.
        kind: what a label is; a name if None.
        pool: take versions of the guideline together.

    Raises:
        InputError: the file cannot be used, or its labels are neither names nor comparisons.
    """
    table = read_judgeable(path, kind)
    return report(
        str(path),
        panels_of_labels(table.labels, "label", pool=pool),
        quarantine=table.quarantine.to_pylist(),
        merged=table.merged,
        table=str(path),
        note=taken_as_names(table.labels, kind),
    )


def panels_of_labels(labels: Labels, question: str, *, pool: bool = False) -> list[Panel]:
    """One panel a version of the guideline, or a single one if versions are to be pooled."""
    if pool:
        return [Panel(labels.pooled(), question, ", ".join(labels.versions))]
    return [Panel(part, question, name) for name, part in labels.by_version().items()]


def _with_tests(panel: Panel, responses: pa.Table, beside: Beside, *, pool: bool) -> Panel:
    """The panel with what was answered to repeats and gold items."""
    if not beside.mixed.num_rows:
        return panel
    repeats, gold = answers_to_tests(
        panel.question, "" if pool else panel.guideline, responses, beside.mixed_responses,
        beside.mixed, panel.labels.annotators,
    )  # fmt: skip
    return replace(panel, repeats=repeats, gold=gold)


def _beside(runs: Sequence[Run], items: pa.Table) -> Beside:
    """What the pull runs, and the pushes behind them, hold beside the votes."""
    empty = Beside.empty()
    mixed, responses, prompts, outputs = (
        [empty.mixed], [empty.mixed_responses], [empty.prompts], [empty.outputs]
    )  # fmt: skip
    tables = [items.select(SCHEMAS["items"].names)]
    for run in runs:
        if run.has("mixed_responses"):
            mixed.append(run.read("mixed"))
            responses.append(run.read("mixed_responses"))
    for push in {push.id: push for run in runs for push in run.parents}.values():
        if push.has("items"):
            tables.append(push.read("items"))
        source = next(
            (parent for parent in push.parents if parent.has("outputs") and parent.has("prompts")),
            None,
        )
        if source is not None:
            shown = shown_tables(source, push.path)
            prompts.append(shown[0])
            outputs.append(shown[1])
    return replace(
        empty,
        items=pa.concat_tables(tables),
        mixed=pa.concat_tables(mixed),
        mixed_responses=pa.concat_tables(responses),
        prompts=pa.concat_tables(prompts),
        outputs=pa.concat_tables(outputs),
    )
