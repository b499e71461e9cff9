"""Where else a training's figures go: `report_to` in a recipe.

All of them write inside of the project, `.handloom/trackers/`, and send nothing anywhere. Who wants
more says so in the tracker's own environment variables, which are left as they are.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from annotate.errors import InputError, TrainingError
from annotate.runs import Draft

FOLDER = "trackers"
"""Within the project's `.handloom/`."""

_INSTALLED_BY = {
    "trackio": "pip install 'handloom[track]'",
    "tensorboard": "pip install 'handloom[track]'",
    "mlflow": "pip install mlflow",
    "wandb": "pip install wandb",
}


def require_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"{name} is not installed", where="report_to", remedy=f"`{_INSTALLED_BY[name]}`"
            )


def set_up_trackers(names: Sequence[str], draft: Draft) -> None:
    """Tell the trackers, which transformers' callbacks start, where to write.

    Raises:
        InputError: one is not installed.
        TrainingError: trackio was loaded before and writes elsewhere.
    """
    require_trackers(names)
    if not names:
        return
    folder = draft.project.state_dir / FOLDER
    folder.mkdir(exist_ok=True)
    # This run's, so never an earlier one's of the same process.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard" / draft.plan.run_id)
    wanted = {
        "TRACKIO_DIR": str(folder / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": draft.project.root.name,
        "WANDB_DIR": str(folder),
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": draft.project.root.name,
        "WANDB_SILENT": "true",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if "trackio" in names:
        _require_own_trackio(Path(os.environ["TRACKIO_DIR"]))


def _require_own_trackio(folder: Path) -> None:
    """trackio reads where to write once, when it is imported."""
    loaded = sys.modules.get("trackio.utils")
    if loaded is not None and folder != loaded.TRACKIO_DIR:
        raise TrainingError(
            f"trackio already writes to {loaded.TRACKIO_DIR} in this process",
            where="report_to",
            remedy="Train in a process of its own",
        )
