"""Let SIMULATED annotators answer a push through Argilla's API, each under their own name.

They see what a person sees and answer as `annotate.simulated_annotators` says, from a known truth:
a score of every output, in points. The same seed gives the same answers, whatever was interrupted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotate.accounts import add_users
from annotate.display import Item, answer, texts_by_id
from annotate.errors import InputError, ServerError
from annotate.guidelines import Guideline, load_guideline
from annotate.progress import progress
from annotate.publishing import shown_tables
from annotate.runs import Project, Run
from annotate.server import RESPONSES_A_REQUEST, Server, connect, workspace_of
from annotate.server_types import Submission
from annotate.simulated_annotators import (
    SETTINGS_FILE,
    SimulatedAnnotator,
    SimulationSettings,
    assign,
    load_settings,
)

Scorer = Callable[[list[dict[str, str]], str], float]
"""The truth: of a prompt's messages and a completion, how good it is, in points."""


@dataclass(frozen=True)
class Simulated:
    """What `simulate` did."""

    answered: dict[str, int]
    """Items answered now, by person."""
    present: int
    """Items × people that had been answered before."""


@dataclass(frozen=True)
class _Truth:
    """Scores of all outputs, and the best known text for each prompt with its score."""

    scores: Mapping[str, float]
    best: Mapping[str, tuple[float, str]]
    completions: Mapping[str, str]

    def correction(self, item: Item) -> str | None:
        """A text that is better than all an item shows; None if none is known."""
        score, text = self.best.get(item["prompt_id"], (-math.inf, ""))
        shown = [self.scores[output] for output in item["output_ids"]]
        return text if score > max(shown, default=-math.inf) else None


def simulate(
    project: Project,
    push_run: Run,
    *,
    seed: int = 0,
    per_item: int | None = None,
    people: Sequence[str] | None = None,
    settings_file: Path = SETTINGS_FILE,
    scorer: Scorer | None = None,
) -> Simulated:
    """Have simulated annotators answer the items of a push until each has `per_item` responses.

    Items are shared out evenly. Whoever answered an item already is passed over, so that an
    interrupted simulation goes on where it stopped.

    Args:
        per_item: submitted responses an item is to have; the push's overlap if None.
        people: names from the settings; all of them if None.
        scorer: the truth; by default the support desk's rubric.

    Raises:
        InputError: the settings are wrong, or ask more votes than there are people.
        ProjectError: not a push run.
        ServerError: Argilla cannot be reached or refuses an answer.
    """
    push_run.require("push")
    settings = load_settings(settings_file)
    names = _names(settings, people)
    recorded = push_run.manifest["settings"]
    guideline = load_guideline(project.root, recorded["guideline"])
    items = push_run.read("items")
    truth = _truth(push_run, items, scorer or _rubric)
    votes = per_item if per_item is not None else int(recorded["overlap"])
    rng = np.random.default_rng(seed)
    rows: list[Item] = items.sort_by("item_id").to_pylist()
    shared = dict(
        zip((row["item_id"] for row in rows), assign(len(rows), names, votes, rng), strict=True)
    )
    with connect(project, workspace_of(push_run)) as server:
        record_ids, done = _state(server, items)
        todo = _todo(rows, shared, done, votes)
        users = {user.name: user for user in add_users(project, server, names)}
        with progress("simulated annotators", sum(map(len, todo.values()))) as advance:
            for name, mine in todo.items():
                who = SimulatedAnnotator(name, settings.people[name], settings, seed)
                with server.as_user(users[name]) as desk:
                    _answer(desk, who, mine, record_ids, guideline, truth, advance)
    present = sum(len(done[row["item_id"]]) for row in rows)
    return Simulated({name: len(todo.get(name, ())) for name in names}, present)


def _names(settings: SimulationSettings, people: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(people or ()) - set(settings.people))
    if unknown:
        known = ", ".join(settings.people)
        raise InputError(f"there is no simulated annotator {unknown[0]}", remedy=f"Known: {known}")
    return list(dict.fromkeys(people)) if people is not None else list(settings.people)


def _rubric(messages: list[dict[str, str]], completion: str) -> float:
    from annotate.support_desk import rubric

    return 10 * rubric(messages, completion).total


def _truth(push_run: Run, items: pa.Table, scorer: Scorer) -> _Truth:
    prompts, outputs = shown_tables(push_run.parents[0], push_run.path)
    outputs = outputs.filter(pc.is_in(outputs["prompt_id"], pc.unique(items["prompt_id"])))
    messages, completions = texts_by_id(prompts, outputs)
    scores: dict[str, float] = {}
    best: dict[str, tuple[float, str]] = {}
    ids = outputs["output_id"].to_pylist(), outputs["prompt_id"].to_pylist()
    for output_id, prompt_id in zip(*ids, strict=True):
        turns = [dict(turn) for turn in messages[prompt_id]]
        scores[output_id] = scorer(turns, completions[output_id])
        known = (scores[output_id], completions[output_id])
        best[prompt_id] = max(best.get(prompt_id, known), known)
    return _Truth(scores, best, completions)


def _state(server: Server, items: pa.Table) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Argilla's record id of each item, and who submitted it already."""
    record_ids: dict[str, str] = {}
    done: dict[str, set[str]] = defaultdict(set)
    for name in pc.unique(items["batch"]).to_pylist():
        batch = server.batch(name)
        record_ids |= server.record_ids(batch)
        for response in server.responses(batch):
            if response.status == "submitted":
                done[response.item_id].add(response.annotator)
    missing = [i for i in items["item_id"].to_pylist() if i not in record_ids]
    if missing:
        raise ServerError(
            f"{len(missing)} items of this push are not on the server",
            where=server.url,
            remedy="`handloom push` puts them there",
        )
    return record_ids, done


def _todo(
    rows: Sequence[Item],
    shared: Mapping[str, Sequence[str]],
    done: Mapping[str, set[str]],
    votes: int,
) -> dict[str, list[Item]]:
    """The items each person is still to answer: no more than the votes that an item lacks."""
    todo: dict[str, list[Item]] = defaultdict(list)
    for row in rows:
        present = done.get(row["item_id"], set())
        open_to = [name for name in shared[row["item_id"]] if name not in present]
        for name in open_to[: max(0, votes - len(present))]:
            todo[name].append(row)
    return todo


def _answer(
    desk: Server,
    who: SimulatedAnnotator,
    items: Sequence[Item],
    record_ids: Mapping[str, str],
    guideline: Guideline,
    truth: _Truth,
    advance: Callable[[int], None],
) -> None:
    """Submit one person's answers, a request's worth at a time."""
    for start in range(0, len(items), RESPONSES_A_REQUEST):
        part = items[start : start + RESPONSES_A_REQUEST]
        submissions = []
        for item in part:
            texts = truth.completions
            given = who.answers(item, guideline, truth.scores, truth.correction(item), texts)
            values = answer(given, item, guideline, texts)
            submissions.append(Submission(record_ids[item["item_id"]], values))
        for item, problem in zip(part, desk.submit(submissions), strict=True):
            if problem:
                where = f"item {item['item_id']}, {who.name}"
                raise ServerError(f"Argilla refuses an answer ({problem})", where=where)
        advance(len(part))
