"""Agreement on what people answered in pull runs, a report for each question and version."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from annotate.agreement_report.kinds import kind_of
from annotate.agreement_report.length import COMPARISONS, longer_wins
from annotate.agreement_report.report import (
    AgreementReport,
    agreement_report,
    require_names,
    require_questions,
    task_of,
)
from annotate.labels import natural
from annotate.question_labels import Answers, question_labels
from annotate.records import SCHEMAS
from annotate.runs import Run
from annotate.votes import votes_of_responses


def reports_of_answers(
    responses: pa.Table,
    items: pa.Table,
    outputs: pa.Table,
    *,
    mix_guidelines: bool = False,
    without: Collection[str] = (),
    only: Collection[str] = (),
    seed: int = 0,
) -> dict[str, AgreementReport]:
    """How far annotators agree on each question that somebody answered.

    What was answered under two versions of a guideline, or under two guidelines, is never taken
    together unasked. Each version has a report of its own, named "vote (preference@v2)", from the
    latest answer that each annotator gave under it; a question that one version alone asks keeps
    its plain name.

    Args:
        responses: table "responses"; drafts and discards are passed over.
        items: table "items", every item that was answered.
        outputs: output_id and completion of what was compared, as far as they are known.
        mix_guidelines: take the versions of one task together, each annotator's latest answer
            counting; different tasks stay apart.
        without: annotators whose answers are left out.
        only: the questions to report; all of them if empty.
        seed: of the intervals.

    Raises:
        ProjectError: a response is damaged.
        InputError: nobody of a name in `without` answered, or nobody a question in `only`.
    """
    submitted = responses.filter(pc.equal(responses["status"], "submitted"))
    require_names(without, pc.unique(submitted["annotator"]).to_pylist())
    left = pc.is_in(submitted["annotator"], pa.array(sorted(without), pa.string()))
    submitted = submitted.filter(pc.invert(left))
    found = [_questions(part, items) for part in _parts(submitted, mix_guidelines)]
    asked = [question for questions, _ in found for question in questions]
    require_questions(only, asked)
    reports = {}
    for questions, votes in found:
        baseline = longer_wins(votes, outputs, seed=seed) if votes.num_rows else None
        for question, answers in questions.items():
            if only and question not in only:
                continue
            kind, names = kind_of(question, answers), answers.versions
            several = asked.count(question) > 1
            told = ", ".join(name or "no guideline" for name in names)
            reports[f"{question} ({told})" if several else question] = agreement_report(
                answers.pooled() if mix_guidelines else answers,
                kind=kind,
                guidelines=names,
                baseline=baseline if kind in COMPARISONS else None,
                seed=seed,
            )
    return reports


def outputs_behind(pull_runs: Iterable[Run]) -> pa.Table:
    """The texts that were judged: output_id and completion of every run behind these."""
    behind = {holder.id: holder for run in pull_runs for holder in run.ancestors()}
    columns = ["output_id", "completion"]
    tables = [
        holder.read("outputs", columns) for holder in behind.values() if holder.has("outputs")
    ]
    return pa.concat_tables([SCHEMAS["outputs"].empty_table().select(columns), *tables])


def _questions(submitted: pa.Table, items: pa.Table) -> tuple[Mapping[str, Answers], pa.Table]:
    votes = votes_of_responses(submitted, items)
    return question_labels(submitted, items, votes), votes


def _parts(submitted: pa.Table, mixed: bool) -> list[pa.Table]:
    """The responses under each version, in order, or to each task where versions are mixed."""
    guideline = pc.fill_null(submitted["guideline"], "")
    versions = sorted(pc.unique(guideline).to_pylist(), key=natural)
    together: dict[str, list[str]] = {}
    for name in versions:
        together.setdefault(task_of(name) if mixed else name, []).append(name)
    return [
        submitted.filter(pc.is_in(guideline, value_set=pa.array(names, pa.string())))
        for names in together.values()
    ]
