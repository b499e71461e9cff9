"""The step `judge`: what the annotators together hold of each pair.

    pull  (responses, items)  →  judge  (votes, judgements, agreement.json)

Three words that are never mixed. `vote_share` is a count: the share of votes for a, a tie half.
`posterior` is a probability: that a beats b, a tie half. `strength_mean` is a degree: how much
better a is, from -3 to 3; `margin` is its size over 3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from annotate.agreement import Level
from annotate.agreement_report import AgreementReport, Measured, agreement_report
from annotate.consensus import (
    Consensus,
    Method,
    aggregate,
    pair_posterior,
    pair_posterior_of_votes,
    vote_counts,
)
from annotate.errors import ProjectError
from annotate.labels import Labels
from annotate.records import SCHEMAS
from annotate.runs import Project, Run, RunPlan
from annotate.votes import labels_by_question, labels_of_votes, votes_of_responses

LEVEL_OF: dict[str, Level] = {"vote": "nominal", "both_bad": "nominal"}
"""Of the questions that are not ordinal."""


def judge(
    project: Project,
    *pull_runs: Run,
    method: Method = "dawid-skene",
    seed: int = 0,
    again: bool = False,
) -> Run:
    """Judge every pair that has a vote in `pull_runs`; the finished run, if there is one.

    Args:
        pull_runs: one or more; what an annotator proved in one batch counts in all of them.
        method: "dawid-skene" weighs annotators by what they proved to be, "majority" alike.
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
    judged = judge_votes(votes, method)
    reports = _reports(labels_by_question(responses, votes), seed)
    with project.draft(plan) as draft:
        draft.write("votes", votes)
        draft.write("judgements", judged.judgements)
        full = {question: report.to_dict() for question, report in reports.items()}
        draft.write_text("agreement.json", json.dumps(full, indent=1, ensure_ascii=False))
        draft.note(
            pairs=judged.judgements.num_rows,
            votes=votes.num_rows,
            # The same items stand in two pulls of one push.
            items_without_vote=len(pc.unique(items["item_id"])) - len(pc.unique(votes["item_id"])),
            converged=judged.consensus.converged,
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


@dataclass(frozen=True)
class Judged:
    """Judgements, and the consensus they were made from."""

    judgements: pa.Table
    consensus: Consensus
    labels: Labels

    def annotators(self) -> dict[str, dict[str, Any]]:
        """Of each annotator: votes, the chance of being right, and that above chance."""
        return self.consensus.of_annotators(self.labels)


def judge_votes(votes: pa.Table, method: Method = "dawid-skene") -> Judged:
    """Judgements from votes, one a pair, sorted by pair id; schema "judgements".

    Args:
        votes: table `votes`, one vote a pair and annotator.
        method: as for `judge`. By majority, the posterior is `pair_posterior_of_votes` and no vote
            is weighted.
    """
    votes = votes.sort_by([("pair_id", "ascending"), ("annotator", "ascending")])
    labels = labels_of_votes(votes)
    consensus = aggregate(labels, method, symmetric=True)
    n = len(labels.items)
    for_b, ties, for_a = vote_counts(labels).T
    total = for_a + for_b + ties
    if method == "majority":
        posterior = pair_posterior_of_votes(for_a, for_b, ties)
        weighted_a = weighted_b = pa.nulls(n, pa.float64())
    else:
        posterior = pair_posterior(consensus.probability)
        weight = consensus.reliability[labels.annotator]
        # Of a vote's weight, half goes to each side of a tie. The classes are b, tie, a.
        weighted_a = np.bincount(labels.item, weight * labels.label / 2, n)
        weighted_b = np.bincount(labels.item, weight * (2 - labels.label) / 2, n)
    first = np.searchsorted(labels.item, np.arange(n))
    strength = _mean_strength(votes, labels)
    columns = {
        **{name: votes[name].take(first) for name in ("pair_id", "prompt_id", "output_a")},
        "output_b": votes["output_b"].take(first),
        "votes_a": for_a,
        "votes_b": for_b,
        "ties": ties,
        "votes": total,
        "both_bad": np.bincount(labels.item[votes["both_bad"].to_numpy()], minlength=n),
        "flags": _lists(*_distinct(labels.item, votes["flags"]), n),
        "vote_share": (for_a + ties / 2) / total,
        "posterior": posterior,
        "noise_rate": np.minimum(posterior, 1 - posterior),
        "strength_mean": strength,
        "margin": pc.divide(pc.abs(strength), 3.0),
        "weighted_a": weighted_a,
        "weighted_b": weighted_b,
        "method": pa.repeat(method, n),
        "annotators": _lists(labels.item, votes["annotator"].combine_chunks(), n),
        "guideline": _joined_guidelines(votes, labels.item, n),
    }
    schema = SCHEMAS["judgements"]
    arrays = [pa.table({"x": columns[column.name]})["x"].cast(column.type) for column in schema]
    return Judged(pa.Table.from_arrays(arrays, schema=schema), consensus, labels)


def _mean_strength(votes: pa.Table, labels: Labels) -> pa.Array:
    """The mean of each pair's signed strengths; null where no vote has one."""
    strength = votes["strength"].to_numpy().astype(np.float64)
    given = ~np.isnan(strength)
    n = len(labels.items)
    count = np.bincount(labels.item[given], minlength=n)
    total = np.bincount(labels.item[given], strength[given], n)
    mean = np.divide(total, count, out=np.zeros(n), where=count > 0)
    return pa.array(mean, mask=count == 0)


def _distinct(pair: NDArray[np.int64], lists: pa.ChunkedArray) -> tuple[Any, pa.Array]:
    """Each pair's distinct values of a list column: pair codes and values, sorted by both."""
    column = lists.combine_chunks()
    owner = pair[pc.list_parent_indices(column).to_numpy()]
    flat = pa.table({"pair": owner, "value": column.flatten()})
    flat = flat.group_by(["pair", "value"]).aggregate([])
    flat = flat.sort_by([("pair", "ascending"), ("value", "ascending")])
    return flat["pair"].to_numpy(), flat["value"].combine_chunks()


def _lists(pair: NDArray[np.int64], values: pa.Array, n: int) -> pa.Array:
    """Values, sorted by pair, as one list a pair."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=n))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _joined_guidelines(votes: pa.Table, pair: NDArray[np.int64], n: int) -> pa.Array:
    """The guideline of each pair's votes; several, as across versions, joined by a comma."""
    one_each = pa.ListArray.from_arrays(
        pa.array(np.arange(votes.num_rows + 1, dtype=np.int32)), votes["guideline"].combine_chunks()
    )
    lists = _lists(*_distinct(pair, pa.chunked_array([one_each])), n)
    return pc.binary_join(lists, ", ")
