"""Which model a name means, in a project.

A model is named in one of four ways: `base` (the small one shipped here), a train run's id, a
folder, or an id on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from align.adapters import ADAPTER_FOLDER, holds_adapters
from annotate.errors import ProjectError, TrainingError
from annotate.runs import Project, Run

BASE = Path(__file__).parent / "base_model"
# In a train run's folder.
MODEL_FOLDER = "model"

MODEL, REWARD_MODEL = "model", "reward-model"
"""What a train run may hold, by its metric `makes`: a model that completes prompts, or one that
scores completions."""

# A run that holds a model.
_RUN = re.compile(r"r\d+-(train|merge)-")
_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class ModelRef:
    """Which model is meant, before it is loaded."""

    name: str
    """As the tables call it: a run's id, `base`, a folder's name or a hub id."""
    source: str
    """A folder, or a hub id."""
    run: Run | None = None
    """The run that trained it, if it was trained here."""


def resolve_model(project: Project, name: str) -> ModelRef:
    """What `name` means in this project.

    Raises:
        ProjectError: it is a run that trained nothing, or has no such checkpoint.
        TrainingError: it looks like a folder or a run that does not exist.
    """
    if name == "base":
        return ModelRef("base", str(BASE))
    folder = Path(name).expanduser()
    if not folder.is_dir() and "/" in name:
        folder = project.runs_dir / name
    if folder.is_dir():
        if folder.parent == project.runs_dir and _folder_in(folder) is not None:
            return _of_run(project.resolve(folder.name))
        return _of_folder(project, folder.resolve())
    if _RUN.match(name):
        run_id, _, inside = name.partition("/")
        run = project.resolve(run_id)
        return _of_checkpoint(run, inside) if inside else _of_run(run)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise TrainingError("no such folder", where=name, remedy="Name a model's folder or id")
    return ModelRef(name, name)


def model_before(project: Project, round: int) -> ModelRef:
    """What a round starts from: the newest model of an earlier round, else `base`."""
    trained = [run for run in project.all_runs() if completes(run) and run.round < round]
    if not trained:
        return resolve_model(project, "base")
    return _of_run(max(trained, key=lambda run: (run.round, run.manifest["finished"])))


def newest_model(project: Project) -> ModelRef:
    """The model trained last, else `base`."""
    trained = [run for run in project.all_runs() if completes(run)]
    if not trained:
        return resolve_model(project, "base")
    return _of_run(trained[-1])


def completes(run: Run) -> bool:
    """Whether a run holds a model that completes prompts, which a reward model does not, and is no
    trial of a sweep."""
    return _makes(run) == MODEL


def judges(run: Run) -> bool:
    """Whether a run holds a reward model, and is no trial of a sweep."""
    return _makes(run) == REWARD_MODEL


def holds_model(run: Run) -> bool:
    """Whether a run holds a model of any kind, a sweep's trial too."""
    return run.step in ("train", "merge")


def _makes(run: Run) -> str | None:
    """What kind of model a run holds; None where it holds none, or a trial's."""
    if not holds_model(run) or run.manifest["settings"].get("sweep"):
        return None
    return str(run.metrics.get("makes", MODEL))


def _of_run(run: Run) -> ModelRef:
    folder = _folder_in(run.path)
    if folder is None:
        raise ProjectError("this run holds no model", where=run.id, remedy="Name a train run")
    return ModelRef(run.id, str(folder), run)


def _of_checkpoint(run: Run, inside: str) -> ModelRef:
    """A checkpoint of a run that was named by how its id begins; others are folders by then.

    Raises:
        ProjectError: it has none of this name; with those that it has.
    """
    kept = {path.name: path for path in run.path.glob("checkpoint-*") if path.is_dir()}
    if inside in kept:
        return ModelRef(f"{run.id}/{inside}", str(kept[inside]), run)
    names = sorted(kept, key=lambda name: (len(name), name))
    raise ProjectError(
        f"this run has no {inside}",
        where=run.id,
        remedy=f"It kept {', '.join(names)}"
        if names
        else "It kept no checkpoint: `keep_checkpoints: true` in a recipe keeps them",
    )


def _of_folder(project: Project, folder: Path) -> ModelRef:
    """A model's folder; within a train run, a checkpoint, called by the run and its place there."""
    runs = project.runs_dir.resolve()
    if runs in folder.parents:
        run_id, *inside = folder.relative_to(runs).parts
        if inside and not run_id.startswith("."):
            return ModelRef("/".join((run_id, *inside)), str(folder), project.resolve(run_id))
    if _CHECKPOINT.fullmatch(folder.name):  # every training's are called so
        return ModelRef(f"{folder.parent.name}/{folder.name}", str(folder))
    return ModelRef(folder.name, str(folder))


def _folder_in(run: Path) -> Path | None:
    """Where a run's model lies, or its adapters where they stand alone."""
    folders = (run / MODEL_FOLDER, run / ADAPTER_FOLDER)
    return next((folder for folder in folders if folder.is_dir()), None)


def weights(ref: ModelRef) -> tuple[Path, ...]:
    """The files with a local model's weights, by which a run identifies what it started from."""
    folder = Path(ref.source)
    return tuple(sorted(folder.glob("*.safetensors"))) if folder.is_dir() else ()


def base_folder(ref: ModelRef) -> str:
    """Where the weights lie: for adapters that stand alone, those that they were trained beside."""
    folder = Path(ref.source)
    if not holds_adapters(folder):
        return ref.source
    if ref.run is not None:
        # A project may have moved since; a run's id stays what it is.
        started_from = str(ref.run.metrics.get("started_from", ""))
        if started_from == "base" or _RUN.match(started_from):
            return resolve_model(ref.run.project, started_from).source
    recorded = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return str(recorded["base_model_name_or_path"])
