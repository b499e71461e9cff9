"""The step `judge`: what the annotators together hold of each pair.

    pull  (responses, items)  →  judge  (votes, judgements, agreement.json, calibration.json)

Three words that are never mixed. `vote_share` is a count: the share of votes for a, a tie half.
`posterior` is a probability: that a beats b, a tie half. `strength_mean` is a degree: how much
better a is, from -3 to 3; `margin` is its size over 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from annotate.adjudication import decide, independent, is_adjudication
from annotate.agreement_report import (
    AgreementReport,
    Measured,
    outputs_behind,
    reports_of_answers,
)
from annotate.annotators import annotators_of_runs
from annotate.consensus import Method
from annotate.errors import ProjectError
from annotate.gold_votes import gold_votes
from annotate.judgements import Judged, judge_votes
from annotate.label_judgements import label_judgements
from annotate.question_labels import question_labels
from annotate.records import SCHEMAS
from annotate.runs import Draft, Project, Run, RunPlan
from annotate.votes import votes_of_responses

__all__ = ["Judged", "agreement_of_run", "judge", "judge_votes", "newest_pulls", "pulls_of"]


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
    reports = reports_of_answers(responses, items, outputs_behind(pull_runs), seed=seed)
    adjudications = adjudications_of(pull_runs)
    if not votes.num_rows:
        labelled = label_judgements(question_labels(responses, items, votes), method)
        if labelled.num_rows:
            return _judged_labels(plan, pull_runs[0].project, labelled, responses, reports)
        raise ProjectError(
            "no submitted response compares or labels anything yet",
            where=", ".join(run.id for run in pull_runs),
            remedy="Let annotators answer, then `handloom pull`",
        )
    judged = judge_votes(votes, method, gold=gold_votes(pull_runs))
    people = annotators_of_runs(pull_runs, responses, items, votes)
    with project.draft(plan) as draft:
        draft.write("votes", votes)
        draft.write("judgements", decide(judged.judgements, adjudications))
        if adjudications.num_rows:
            draft.write("adjudications", adjudications)
            draft.note(adjudicated=len(pc.unique(adjudications["pair_id"])))
        _record_agreement(draft, reports)
        draft.write_text("calibration.json", json.dumps(judged.calibration(), indent=1))
        draft.write_text("annotators.json", json.dumps(people.to_dict(), indent=1))
        draft.note(
            pairs=judged.judgements.num_rows,
            votes=votes.num_rows,
            # The same items stand in two pulls of one push.
            items_without_vote=len(pc.unique(items["item_id"])) - len(pc.unique(votes["item_id"])),
            converged=judged.consensus.converged,
            methods=judged.methods(),
            calibration=judged.temperatures(),
            annotators=judged.annotators(),
        )
    return draft.run


def _record_agreement(draft: Draft, reports: Mapping[str, AgreementReport]) -> None:
    """All figures into a file of the run, the headlines into its manifest."""
    full = {question: report.to_dict() for question, report in reports.items()}
    draft.write_text("agreement.json", json.dumps(full, indent=1, ensure_ascii=False))
    draft.note(agreement={question: report.summary() for question, report in reports.items()})


def _judged_labels(
    plan: RunPlan,
    project: Project,
    labelled: pa.Table,
    responses: pa.Table,
    reports: Mapping[str, AgreementReport],
) -> Run:
    """A judge run of what was labelled and not compared."""
    submitted = responses.filter(pc.equal(responses["status"], "submitted"))
    with project.draft(plan) as draft:
        draft.write("label_judgements", labelled)
        _record_agreement(draft, reports)
        draft.note(
            pairs=0,
            votes=0,
            labelled=len(pc.unique(labelled["unit"])),
            questions=sorted(pc.unique(labelled["question"]).to_pylist()),
            annotators={name: {} for name in pc.unique(submitted["annotator"]).to_pylist()},
        )
    return draft.run


def newest_pulls(project: Project) -> list[Run]:
    """The newest pull of every batch that was pushed in the round of the newest pull.

    Not of batches whose answers are for something else, as a guideline's relabelling.

    Raises:
        ProjectError: nothing was pulled yet.
    """
    round = project.latest("pull").round
    by_push: dict[str, Run] = {}
    for run in project.all_runs():
        if run.step == "pull" and run.round == round:
            pushed = run.ancestor("push")
            if "purpose" not in pushed.manifest["settings"]:
                by_push[pushed.id] = run
    return list(by_push.values())


def pulls_of(run: Run) -> list[Run]:
    """The pull runs that a run rests on: itself, or those that its judge run read."""
    if run.has("responses"):
        return [run]
    judged = run if run.step == "judge" else run.ancestor("judge")
    return [parent for parent in judged.parents if parent.has("responses")]


def answers_of(pull_runs: Sequence[Run]) -> tuple[pa.Table, pa.Table]:
    """The responses of these pull runs, and the items that they are about.

    Without what reviewers decided, who saw the votes of others; see `adjudications_of`.

    Raises:
        ProjectError: one is not a pull run.
    """
    for run in pull_runs:
        run.require("pull")
    runs = independent(pull_runs)
    empty = [SCHEMAS[name].empty_table() for name in ("responses", "items")]
    return (
        pa.concat_tables([empty[0], *(run.read("responses") for run in runs)]),
        pa.concat_tables([empty[1], *(items_of(run) for run in runs)]),
    )


def adjudications_of(pull_runs: Sequence[Run]) -> pa.Table:
    """What reviewers decided, in the form of votes; schema "votes"."""
    tables = [
        votes_of_responses(run.read("responses"), items_of(run))
        for run in pull_runs
        if is_adjudication(run)
    ]
    return pa.concat_tables([SCHEMAS["votes"].empty_table(), *tables])


def items_of(run: Run) -> pa.Table:
    """The items that a pull run's responses are about: its own table, or those of its pushes."""
    if run.has("items"):
        return run.read("items")
    tables = [parent.read("items") for parent in run.parents if parent.has("items")]
    if not tables:
        raise ProjectError("it has no items", where=run.id, remedy="`handloom pull`")
    return pa.concat_tables(tables)


def agreement_of_run(
    *runs: Run,
    mix_guidelines: bool = False,
    without: Sequence[str] = (),
    only: Sequence[str] = (),
    seed: int = 0,
) -> Measured:
    """Agreement on each question answered in these pull runs, or in those that a run rests on.

    Args:
        runs: pull runs, or runs made from some.
        mix_guidelines: take the versions of each task together instead of one report each.
        without: annotators whose answers are left out.
        only: the questions to report; all of them if empty.
        seed: of the intervals.

    Raises:
        ProjectError: nothing was submitted yet.
        InputError: nobody of a name in `without` answered, or nobody a question in `only`.
    """
    pull_runs = [pull_run for run in runs for pull_run in pulls_of(run)]
    responses, items = answers_of(pull_runs)
    reports = reports_of_answers(
        responses, items, outputs_behind(pull_runs),
        mix_guidelines=mix_guidelines, without=without, only=only, seed=seed,
    )  # fmt: skip
    source = ", ".join(run.id for run in pull_runs)
    if not reports and not independent(pull_runs):
        raise ProjectError(
            "these are answers of reviewers, who saw the votes: they are in no figure of agreement",
            where=source,
            remedy="`handloom judge` lets them decide; name a pull of annotators here",
        )
    if not reports:
        raise ProjectError(
            "no response was submitted yet",
            where=source,
            remedy="Let annotators answer, then `handloom pull`",
        )
    return Measured(source, reports)
