"""Where each round stands: what exists, what is missing, the next command, and its figures.

Everything is read from the manifests; nothing is computed, nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align.card import interval_text
from align.model_ref import REWARD_MODEL, completes, holds_model
from align.recipe import FORMS, FeedbackRecipe, Recipe
from annotate.runs import Project, Run
from annotate.statistics import wilson

SOURCES = ("import", "generate", "failures")
"""Steps whose outputs a round begins with; one of them is enough."""
STEPS = ("push", "pull", "judge", "build", "train", "evaluate")
"""What follows, in order."""

_UNITS = ("pair", "row", "prompt")
"""What a training may learn from, as its metrics count what of it is held out."""


@dataclass(frozen=True)
class RoundState:
    """One round of the loop."""

    round: int
    """0 holds the models from before the first judgement."""
    runs: dict[str, list[str]]
    """Ids of the finished runs of each step, oldest first."""
    trainings: dict[str, str]
    """Id of each train run: what it is, in a few words."""
    missing: list[str]
    """Steps without a run; "outputs" for the one the round begins with. Empty in round 0."""
    unfinished: list[str]
    """Ids of runs that were started and not finished."""
    next_command: str
    """What to type; empty where a later round has begun."""
    win_rates: list[dict[str, Any]]
    """Of the newest evaluation, one an opponent: versus, roles, win_rate, judged_by."""
    agreement: dict[str, Any]
    """Of the newest judgement, by question: Krippendorff's alpha with its interval."""
    pairs: dict[str, Any]
    """Of the newest build: pairs, kept, dropped (by rule), quarantined."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)


def rounds(project: Project) -> list[RoundState]:
    """Every round that has a run, finished or not; round 1 where there is none yet."""
    every = project.all_runs()
    started = {run_id: _round_of(run_id) for run_id in project.unfinished()}
    numbers = sorted({run.round for run in every} | set(started.values())) or [1]
    if numbers[-1] == 0:
        numbers.append(1)
    return [
        _state(
            number,
            [run for run in every if run.round == number],
            [run for run in every if run.round < number],
            [run_id for run_id, theirs in started.items() if theirs == number],
            last=number == numbers[-1],
        )
        for number in numbers
    ]


def _round_of(run_id: str) -> int:
    """The round in `r<round>-<step>-<hex>`."""
    return int(run_id.split("-")[0][1:])


def _state(
    number: int, own: Sequence[Run], before: Sequence[Run], unfinished: list[str], *, last: bool
) -> RoundState:
    by_step: dict[str, list[Run]] = {}
    for run in own:
        by_step.setdefault(run.step, []).append(run)
    own, before = _of_the_loop(own), _of_the_loop(before)
    newest = {run.step: run for run in own}
    missing = []
    if number > 0:
        missing = [] if any(step in newest for step in SOURCES) else ["outputs"]
        missing += [step for step in STEPS if step not in newest]
    return RoundState(
        round=number,
        runs={step: [run.id for run in runs] for step, runs in by_step.items()},
        trainings={run.id: training_text(run) for run in by_step.get("train", [])},
        missing=missing,
        unfinished=unfinished,
        next_command=_next(own, before, missing) if last else "",
        win_rates=_win_rates(newest.get("evaluate")),
        agreement=_agreement(by_step.get("judge", [])),
        pairs=_pairs(by_step.get("build", [])),
    )


def _of_the_loop(runs: Sequence[Run]) -> list[Run]:
    """Without what stands beside the loop: reward models, encoder-decoders and a sweep's trials,
    and what was measured of them."""
    beside = {run.id for run in runs if holds_model(run) and not completes(run)}
    return [
        run
        for run in runs
        if run.id not in beside
        and run.metrics.get("model") not in beside
        and run.metrics.get("makes") != REWARD_MODEL
    ]


def _next(own: Sequence[Run], before: Sequence[Run], missing: Sequence[str]) -> str:
    """The first thing to do: outputs nobody has seen, then the first missing step."""
    seen = {parent["id"] for run in own if run.step == "push" for parent in run.manifest["parents"]}
    waiting = [run.id for run in own if run.step in SOURCES and run.id not in seen]
    if "outputs" in missing:
        trained = [run.id for run in before if run.step == "train"]
        return f"handloom generate {trained[-1] if trained else 'base'}"
    if waiting and ("push" in missing or not missing):
        return f"handloom push {waiting[-1]}"
    newest = {run.step: run.id for run in own}
    built = next((run for run in reversed(own) if run.step == "build"), None)
    follows = {
        "pull": f"handloom pull {newest.get('push')}",
        "judge": f"handloom judge {newest.get('pull')}",
        "build": f"handloom build {newest.get('judge')}",
        "train": after_build(built) if built else "",
        "evaluate": f"handloom evaluate {newest.get('train')}",
    }
    for step in STEPS[1:]:
        if step in missing:
            return follows[step]
    return after_evaluation(_newest_evaluation(own))


def after_build(run: Run) -> str:
    """Training from the model trained here before, or from one that only the user can name."""
    if "kto" in run.metrics:  # nothing was compared: there are texts, or thumbs
        recipe = "sft-lora" if sum(run.metrics["sft"].values()) else "kto-support-desk"
        return f"handloom train {recipe} --model MODEL --data {run.id}"
    if any(ancestor.step == "train" for ancestor in run.ancestors()):
        return f"handloom train dpo-support-desk --data {run.id}"
    return f"handloom train dpo-lora --model MODEL --data {run.id}"


def after_evaluation(run: Run) -> str:
    """People's judgement where it is missing, else failures where they were looked for.

    A reward model has neither.
    """
    if run.metrics.get("makes") == REWARD_MODEL:
        return "handloom rounds"
    if any(comparison.get("unjudged") for comparison in run.metrics.get("comparisons", [])):
        return f"handloom push {run.id}"
    if run.metrics.get("pool") == 0:
        return f"handloom generate {run.metrics.get('model', 'MODEL')}"
    return f"handloom failures {run.id}"


def _newest_evaluation(own: Sequence[Run]) -> Run:
    return next(run for run in reversed(own) if run.step == "evaluate")


def _win_rates(evaluate_run: Run | None) -> list[dict[str, Any]]:
    comparisons = evaluate_run.metrics.get("comparisons", []) if evaluate_run else []
    kept = ("versus", "roles", "win_rate", "judged_by")
    return [{name: one[name] for name in kept} for one in comparisons]


def _agreement(judge_runs: Sequence[Run]) -> dict[str, Any]:
    """By question, of the newest run that judged it."""
    return {
        question: figures.get("alpha")
        for run in judge_runs
        for question, figures in run.metrics.get("agreement", {}).items()
    }


def _pairs(build_runs: Sequence[Run]) -> dict[str, Any]:
    """Of the newest build of comparisons."""
    compared = [run for run in build_runs if "kto" not in run.metrics]
    if not compared:
        return {}
    counted = ("pairs", "kept", "dropped", "quarantined")
    return {name: compared[-1].metrics[name] for name in counted}


def training_text(run: Run) -> str:
    """What a run that holds a model is: method, recipe, start, steps and its held-out figure."""
    found = run.metrics
    method = str(found.get("method", "model"))
    kind = "reward model" if found.get("makes") == REWARD_MODEL else method
    parts = [f"{kind} {found['recipe']}" if found.get("recipe") else kind]
    if found.get("steps") is not None:
        parts.append(_number(found["steps"], "step"))
    if found.get("started_from"):
        parts[-1] += f" from {found['started_from']}"
    if figure := held_out_figure(run):
        parts.append(f"held-out {figure}")
    if trial := run.manifest["settings"].get("sweep"):
        sweep_id, _, number = str(trial).partition("/")
        parts.append(f"trial {number} of {sweep_id}")
    return ", ".join(parts)


def training_result(run: Run) -> str:
    """What a training came to: mean loss, or with rewards the held-out one, and the figure of its
    method on what was held out."""
    form = FORMS.get(str(run.metrics.get("method")), Recipe)
    parts = []
    if not issubclass(form, FeedbackRecipe):
        loss = _figure(run.metrics.get("train_loss"))
        parts.append(f"mean training loss {loss}" if loss else "no loss logged")
    figure, rows = held_out_figure(run), held_out_rows(run)
    if figure:
        parts.append(f"held-out {figure}")
    else:
        parts.append(f"{rows} held out and not evaluated" if rows else "nothing held out")
    return ", ".join(parts)


def held_out_figure(run: Run) -> str:
    """As in "rewards/accuracies 0.444 [0.189, 0.733] of 9 pairs", or empty: the method's own
    figure, a share with Wilson's interval."""
    found = run.metrics
    if found.get("perplexity"):
        documents = _number(found["perplexity"].get("n", 0), "document")
        return f"perplexity {interval_text(found['perplexity'])} of {documents}"
    name = FORMS.get(str(found.get("method")), Recipe).held_out
    value = _figure(found.get(name))
    if not value:
        return ""
    rows = held_out_rows(run)
    if error := _figure(found.get(f"{name}_error")):
        value += f" (standard error {error})"
    elif rows and name.endswith(("accuracy", "accuracies")):
        n = int(rows.split()[0].replace(",", ""))
        value = interval_text(wilson(found[name] * n, n, over="pairs").to_dict())
    return f"{name.removeprefix('eval_')} {value}" + (f" of {rows}" if rows else "")


def held_out_rows(run: Run) -> str:
    """How many rows of its kind a training held out, as "9 pairs"; empty if none, or not known."""
    counts = {unit: run.metrics.get(f"eval_{unit}s") for unit in _UNITS}
    return next((_number(count, unit) for unit, count in counts.items() if count), "")


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def lines(states: Sequence[RoundState]) -> list[str]:
    """The rounds as text."""
    text = []
    for state in states:
        text.append(f"round {state.round}")
        for step in (*SOURCES, *STEPS):
            text += [
                f"  {step:<9} {run_id}  {state.trainings.get(run_id, '')}".rstrip()
                for run_id in state.runs.get(step, [])
            ]
        if state.missing and state.next_command:
            text.append(f"  missing   {', '.join(state.missing)}")
        text += [f"  {run_id}: unfinished" for run_id in state.unfinished]
        text += [
            f"  alpha of {name}: {interval_text(a)}" for name, a in state.agreement.items() if a
        ]
        if state.pairs:
            text.append(f"  pairs kept {state.pairs['kept']:,} of {state.pairs['pairs']:,}")
        for one in state.win_rates:
            rate = interval_text(one["win_rate"])
            text.append(f"  win rate {rate} against {one['versus']} ({', '.join(one['roles'])})")
        if state.next_command:
            text.append(f"  next {state.next_command}")
    return text
