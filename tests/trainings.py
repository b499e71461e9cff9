"""Small recipes and trainings for the tests of how a training is conducted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from preference_runs import built
from safetensors.numpy import load_file

from annotate.runs import Project, Run

SFT = """
method: sft
model: {model}
demonstrations: {{source: support-desk, n: 40}}
max_length: 256
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 8, learning_rate: 5.0e-3,
  logging_steps: 1{trainer}}}
"""
PAIRS = """
method: {method}
model: {model}
max_length: 128
trainer: {{num_train_epochs: 3, per_device_train_batch_size: 4, learning_rate: 2.0e-3,
  logging_steps: 1{trainer}}}
"""


def write_recipe(
    project: Project, tiny: Path, method: str = "sft", *, trainer: str = "", extra: str = ""
) -> Path:
    """A recipe of a few seconds; for pairs with a build run to learn from.

    Args:
        trainer: more of its arguments, or other values, as in ", max_steps: 2".
    """
    if method != "sft" and not project.all_runs():
        built(project)
    path = project.root / f"{method}.yaml"
    text = SFT if method == "sft" else PAIRS
    content = yaml.safe_load(text.format(method=method, model=tiny, trainer="") + extra)
    arguments = content.pop("trainer") | yaml.safe_load(f"{{{trainer.removeprefix(',')}}}")
    line = yaml.safe_dump(arguments, default_flow_style=True, sort_keys=False, width=1000)
    path.write_text(f"{yaml.safe_dump(content)}trainer: {line}")
    return path


def log_of(run: Run) -> list[dict[str, Any]]:
    """Every line of its log."""
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


def figures_of(run: Run) -> list[dict[str, Any]]:
    """Its log without what a clock says, and without the trainer's own summary at the end."""
    clock = ("_runtime", "_per_second")
    return [
        {name: value for name, value in entry.items() if not name.endswith(clock)}
        for entry in log_of(run)
        if "train_runtime" not in entry
    ]


def assert_same_training(one: Run, other: Run, tolerance: float = 1e-6) -> None:
    """The same figures at every step, which only the same rows in the same order give."""
    for a, b in zip(figures_of(one), figures_of(other), strict=True):
        assert a.keys() == b.keys()
        values = [(a[name], b[name]) for name in a]
        np.testing.assert_allclose(*zip(*values, strict=True), rtol=0, atol=tolerance)
    for name in ("loss", "train_loss", "eval_loss"):
        assert abs(one.metrics[name] - other.metrics[name]) <= tolerance


def weights_of(run: Run) -> np.ndarray[Any, Any]:
    """All of its model's weights in a row."""
    tensors = load_file(run.path / "model" / "model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


@contextlib.contextmanager
def interrupted_when(project: Project, pattern: str) -> Iterator[None]:
    """Press Ctrl-C when a file of the runs folder matches `pattern`."""
    ended = threading.Event()
    # A shell starts what it runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while not ended.wait(0.001):
            if any(project.runs_dir.glob(pattern)):
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
