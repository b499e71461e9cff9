"""Which models a trained model is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from align.model_ref import ModelRef, resolve_model
from annotate.errors import InputError
from annotate.runs import Project, Run

PREVIOUS, ROUND_0, NAMED = "previous", "round 0", "named"


@dataclass(frozen=True)
class Opponent:
    """A model to be beaten, and why it is asked."""

    ref: ModelRef
    roles: tuple[str, ...]
    """"previous" and "round 0", one model may be both; or "named" on the command line."""


def started_from(project: Project, train_run: Run) -> ModelRef | None:
    """The model that a train run started from; None where it started from nothing."""
    name = train_run.manifest["settings"].get("model")
    return resolve_model(project, name) if name else None


def opponents(
    project: Project, train_run: Run, against: Sequence[str] | None = None
) -> list[Opponent]:
    """The previous model and the round 0 model, or those named in `against`.

    The round 0 model is the last one of round 0 that `train_run` descends from (the SFT model that
    round 1's completions came from), or what the first training started from if there is none.

    Raises:
        InputError: `against` names the model itself, or it has no ancestor to compare with.
    """
    if against:
        named = [resolve_model(project, name) for name in dict.fromkeys(against)]
        if any(ref.name == train_run.id for ref in named):
            raise InputError("a model is not compared with itself", where=train_run.id)
        return [Opponent(ref, (NAMED,)) for ref in named]
    line = _ancestors(project, train_run)
    if not line:
        raise InputError(
            "it was trained from scratch: there is no earlier model",
            where=train_run.id,
            remedy="Name one with --against",
        )
    first = next((ref for ref in line if ref.run is not None and ref.run.round == 0), line[-1])
    if first.name == line[0].name:
        return [Opponent(first, (PREVIOUS, ROUND_0))]
    return [Opponent(line[0], (PREVIOUS,)), Opponent(first, (ROUND_0,))]


def _ancestors(project: Project, train_run: Run) -> list[ModelRef]:
    """The models it descends from, nearest first."""
    line: list[ModelRef] = []
    run: Run | None = train_run
    while run is not None and (ref := started_from(project, run)) is not None:
        line.append(ref)
        run = ref.run
    return line
