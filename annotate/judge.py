"""The step `judge`: what the annotators together hold of each pair.

    pull  (responses, items)  →  judge  (votes, judgements, agreement.json, calibration.json)

Three words that are never mixed. `vote_share` is a count: the share of votes for a, a tie half.
`posterior` is a probability: that a beats b, a tie half. `strength_mean` is a degree: how much
better a is, from -3 to 3; `margin` is its size over 3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from annotate.agreement import Level
from annotate.agreement_report import AgreementReport, Measured, agreement_report
from annotate.consensus import Method
from annotate.errors import ProjectError
from annotate.gold_votes import gold_votes
from annotate.judgements import Judged, judge_votes
from annotate.labels import Labels
from annotate.runs import Project, Run, RunPlan
from annotate.votes import labels_by_question, votes_of_responses

__all__ = ["Judged", "agreement_of_run", "judge", "judge_votes", "newest_pulls", "pulls_of"]

LEVEL_OF: dict[str, Level] = {"vote": "nominal", "both_bad": "nominal"}
"""Of the questions that are not ordinal."""


def judge(
    project: Project,
    *pull_runs: Run,
    method: Method = "auto",
    seed: int = 0,
    again: bool = False,
) -> Run:
    """Judge every pair that has a vote in `pull_runs`; the finished run, if there is one.

    Args:
        pull_runs: one or more; what an annotator proved in one batch counts in all of them.
        method: "auto" weighs annotators by what they proved to be, by Dawid–Skene or Bradley–Terry
            as a pair's prompt allows (see `annotate.consensus.pairs`); "majority" weighs all alike.
        seed: of the intervals of the agreement figures.
        again: make a new run although a finished one exists.

    Raises:
        ProjectError: nothing was submitted yet, or a response is damaged.
    """
    round = max(run.round for run in pull_runs)
    plan = RunPlan("judge", round, pull_runs, {"method": method}, seed)
    if again:
        plan = project.again(plan)
    elif (finished := project.finished(plan)) is not None:
        return finished
    responses, items = answers_of(pull_runs)
    votes = votes_of_responses(responses, items)
    if not votes.num_rows:
        raise ProjectError(
            "no submitted response compares two outputs yet",
            where=", ".join(run.id for run in pull_runs),
            remedy="Let annotators answer, then `handloom pull`",
        )
    judged = judge_votes(votes, method, gold=gold_votes(pull_runs))
    reports = _reports(labels_by_question(responses, votes), seed)
    with project.draft(plan) as draft:
        draft.write("votes", votes)
        draft.write("judgements", judged.judgements)
        full = {question: report.to_dict() for question, report in reports.items()}
        draft.write_text("agreement.json", json.dumps(full, indent=1, ensure_ascii=False))
        draft.write_text("calibration.json", json.dumps(judged.calibration(), indent=1))
        draft.note(
            pairs=judged.judgements.num_rows,
            votes=votes.num_rows,
            # The same items stand in two pulls of one push.
            items_without_vote=len(pc.unique(items["item_id"])) - len(pc.unique(votes["item_id"])),
            converged=judged.consensus.converged,
            methods=judged.methods(),
            calibration=judged.temperatures(),
            annotators=judged.annotators(),
            agreement={question: report.summary() for question, report in reports.items()},
        )
    return draft.run


def newest_pulls(project: Project) -> list[Run]:
    """The newest pull of every batch that was pushed in the round of the newest pull.

    Raises:
        ProjectError: nothing was pulled yet.
    """
    round = project.latest("pull").round
    by_push: dict[str, Run] = {}
    for run in project.all_runs():
        if run.step == "pull" and run.round == round:
            by_push[run.ancestor("push").id] = run
    return list(by_push.values())


def pulls_of(run: Run) -> list[Run]:
    """The pull runs that a run rests on: itself, or those that its judge run read."""
    if run.has("responses"):
        return [run]
    judged = run if run.step == "judge" else run.ancestor("judge")
    return [parent for parent in judged.parents if parent.has("responses")]


def answers_of(pull_runs: Sequence[Run]) -> tuple[pa.Table, pa.Table]:
    """The responses of these pull runs, and the items that they are about.

    Raises:
        ProjectError: one is not a pull run.
    """
    for run in pull_runs:
        run.require("pull")
    return (
        pa.concat_tables([run.read("responses") for run in pull_runs]),
        pa.concat_tables([items_of(run) for run in pull_runs]),
    )


def items_of(run: Run) -> pa.Table:
    """The items that a pull run's responses are about: its own table, or those of its pushes."""
    if run.has("items"):
        return run.read("items")
    tables = [parent.read("items") for parent in run.parents if parent.has("items")]
    if not tables:
        raise ProjectError("it has no items", where=run.id, remedy="`handloom pull`")
    return pa.concat_tables(tables)


def agreement_of_run(*runs: Run, seed: int = 0) -> Measured:
    """Agreement on each question answered in these pull runs, or in those that a run rests on.

    "vote" nominal, "strength" and "rating" ordinal, "both_bad" nominal.

    Raises:
        ProjectError: nothing was submitted yet.
    """
    pull_runs = [pull_run for run in runs for pull_run in pulls_of(run)]
    responses, items = answers_of(pull_runs)
    reports = _reports(labels_by_question(responses, votes_of_responses(responses, items)), seed)
    source = ", ".join(run.id for run in pull_runs)
    if not reports:
        raise ProjectError(
            "no response was submitted yet",
            where=source,
            remedy="Let annotators answer, then `handloom pull`",
        )
    return Measured(source, reports)


def _reports(labels: dict[str, Labels], seed: int) -> dict[str, AgreementReport]:
    return {
        question: agreement_report(answers, LEVEL_OF.get(question, "ordinal"), seed=seed)
        for question, answers in labels.items()
    }
