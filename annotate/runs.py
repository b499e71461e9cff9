"""Projects, and the runs in them: immutable folders with a manifest.

A project is a folder that holds `guidelines/` and `runs/`, found upwards from where one stands. A
run is `runs/<id>/` with Parquet tables, whatever else its step wrote, and `manifest.json`: parents,
inputs, settings, seed, versions, metrics, and the sha256, size and rows of every file.

A run's id is `r<round>-<step>-<8 hex>`, the hex being a hash of what determines the result, so the
same command on the same input finds the finished run. While a step works, its folder is
`runs/.<id>.partial`; it is fsynced and renamed last. A crash leaves only that hidden folder, and
the same command resumes in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotate.errors import ProjectError, ResourceError
from annotate.records import read_table, write_table

MANIFEST = "manifest.json"
INTERRUPTED = ".handloom-restore.json"
"""A note in a project of which a backup is being put in place; see `annotate.bring_back`."""

_LOCK = ".lock"
_RECORDED = ("step", "round", "parents", "settings", "metrics", "files", "finished")
_VERSIONED = (
    "handloom argilla argilla-server torch transformers trl peft accelerate datasets "
    "ctranslate2 vllm"
).split()


@dataclass(frozen=True)
class RunPlan:
    """What determines a run's result, and therefore its id.

    Args:
        step: the command's verb.
        round: the round of the loop that the run belongs to, 0 for what comes before round 1.
        parents: the runs it reads, in order.
        settings: JSON-able options that change the result.
        seed: of every random choice; None where nothing is random.
        inputs: files from outside the project, identified by their content.
    """

    step: str
    round: int
    parents: tuple[Run, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    inputs: tuple[Path, ...] = ()

    @cached_property
    def input_hashes(self) -> list[dict[str, str]]:
        """Name and sha256 of each file from outside."""
        return [{"file": path.name, "sha256": sha256(path)} for path in self.inputs]

    @cached_property
    def run_id(self) -> str:
        """`r<round>-<step>-<8 hex>`."""
        what = {
            "parents": [parent.manifest_hash for parent in self.parents],
            "settings": dict(self.settings),
            "seed": self.seed,
            "inputs": [entry["sha256"] for entry in self.input_hashes],
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return f"r{self.round}-{self.step}-{digest[:8]}"


@dataclass(frozen=True)
class Run:
    """A finished run: read only."""

    project: Project
    path: Path

    @property
    def id(self) -> str:
        """The folder's name, which is the run's id."""
        return self.path.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the run recorded of itself; see `_seal`."""
        try:
            manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_bytes())
            if not isinstance(manifest, dict):
                raise ValueError("not a JSON object")
            if missing := [key for key in _RECORDED if key not in manifest]:
                raise ValueError(f'"{missing[0]}" is missing')
        except (OSError, ValueError) as error:
            raise ProjectError(
                f"the manifest cannot be read ({error})",
                where=self.id,
                remedy="Run the command that made it again, after removing the folder",
            ) from None
        return manifest

    @cached_property
    def manifest_hash(self) -> str:
        """What a child records of this run."""
        return sha256(self.path / MANIFEST)

    @property
    def step(self) -> str:
        """The verb that made it."""
        return str(self.manifest["step"])

    @property
    def round(self) -> int:
        """The round of the loop it belongs to."""
        return int(self.manifest["round"])

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures its step noted."""
        return dict(self.manifest["metrics"])

    @property
    def parents(self) -> list[Run]:
        """The runs it was made from."""
        return [self.project.resolve(parent["id"]) for parent in self.manifest["parents"]]

    def require(self, step: str, table: str | None = None) -> None:
        """Refuse a run of another step, or one that has no such table.

        Raises:
            ProjectError: it is not of `step`, or lacks the table.
        """
        if self.step != step:
            raise ProjectError(
                f"this is a run of {self.step}, not of {step}",
                where=self.id,
                remedy="`handloom runs` lists them",
            )
        if table is not None and not self.has(table):
            raise ProjectError(
                f"this {step} run has no {table}",
                where=self.id,
                remedy=f"Name another {step} run: `handloom runs` lists them",
            )

    def has(self, table: str) -> bool:
        """Whether it holds this table."""
        return (self.path / f"{table}.parquet").is_file()

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One of its tables, or some columns of it."""
        return read_table(self.path / f"{table}.parquet", columns)

    def ancestors(self) -> list[Run]:
        """Every run this one was made from, nearest first, each once."""
        found: dict[str, Run] = {}
        queue = self.parents
        while queue:
            run = queue.pop(0)
            if run.id not in found:
                found[run.id] = run
                queue += run.parents
        return list(found.values())

    def ancestor(self, step: str) -> Run:
        """The nearest run of `step` that this one was made from.

        Raises:
            ProjectError: there is none.
        """
        for run in self.ancestors():
            if run.step == step:
                return run
        raise ProjectError(f"it was not made from a {step} run", where=self.id)


@dataclass
class Draft:
    """A run while it is being written, in a hidden folder that survives an interruption."""

    project: Project
    plan: RunPlan
    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    _run: Run | None = None

    @property
    def run(self) -> Run:
        """The finished run; only after the `with` block."""
        if self._run is None:
            raise RuntimeError("the run is still being written")
        return self._run

    def write(self, table: str, rows: pa.Table) -> None:
        """Write a table of the run, whole or not at all."""
        target = self.path / f"{table}.parquet"
        temporary = target.with_suffix(".tmp")
        write_table(temporary, table, rows)
        temporary.replace(target)

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the run, whole or not at all."""
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path / name)

    def note(self, **metrics: Any) -> None:
        """Record figures in the manifest."""
        self.metrics.update(metrics)


@dataclass(frozen=True)
class Project:
    """The folder a team works in."""

    root: Path

    @property
    def runs_dir(self) -> Path:
        """Where the runs lie."""
        return self.root / "runs"

    @property
    def state_dir(self) -> Path:
        """The embedded server's data, credentials and the ledger: private to this machine."""
        state = self.root / ".handloom"
        state.mkdir(mode=0o700, exist_ok=True)
        return state

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that `start` (the working directory) lies in.

        Raises:
            ProjectError: neither it nor a folder above it is one, or it is half restored.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / INTERRUPTED).is_file():
                raise ProjectError(
                    "putting a backup in place was cut off here",
                    where=str(folder),
                    remedy="Go on with `handloom restore --from BACKUP`, the same backup",
                )
            if (folder / "runs").is_dir() and (folder / "guidelines").is_dir():
                return cls(folder)
        raise ProjectError("no project here or above", where=str(here), remedy="`handloom init`")

    def all_runs(self) -> list[Run]:
        """Finished runs, oldest first."""
        runs = [run for run in self.run_folders() if (run.path / MANIFEST).is_file()]
        return sorted(runs, key=lambda run: (run.manifest["finished"], run.id))

    def run_folders(self) -> list[Run]:
        """Finished runs by id, whatever has become of their manifests."""
        folders = sorted(path for path in self.runs_dir.glob("r*-*") if path.is_dir())
        return [Run(self, path) for path in folders]

    def unfinished(self) -> list[str]:
        """Ids of runs that were started and not finished."""
        return sorted(path.name[1:-8] for path in self.runs_dir.glob(".*.partial"))

    def resolve(self, run_id: str) -> Run:
        """The run with this id or with an id that begins so.

        Raises:
            ProjectError: none, or several.
        """
        path = self.runs_dir / run_id
        if (path / MANIFEST).is_file() and path.parent == self.runs_dir:
            return Run(self, path)
        runs = [run for run in self.all_runs() if run.id.startswith(run_id)]
        if len(runs) == 1:
            return runs[0]
        what = f"{len(runs)} runs begin so" if runs else "no such run"
        raise ProjectError(what, where=run_id, remedy="`handloom runs` lists them")

    def latest(self, *steps: str, round: int | None = None, holding: str | None = None) -> Run:
        """The newest finished run of one of these steps, in a round if one is named.

        Args:
            holding: a table that it must have.

        Raises:
            ProjectError: there is none.
        """
        for run in reversed(self.all_runs()):
            fits = run.step in steps and round in (None, run.round)
            if fits and (holding is None or run.has(holding)):
                return run
        which = " or ".join(steps) + (f" run in round {round}" if round is not None else " run")
        which += f" with {holding}" if holding else ""
        raise ProjectError(f"there is no {which} yet", remedy=f"`handloom {steps[0]} --help`")

    def finished(self, plan: RunPlan) -> Run | None:
        """The finished run of this plan, if there is one."""
        path = self.runs_dir / plan.run_id
        return Run(self, path) if (path / MANIFEST).is_file() else None

    def again(self, plan: RunPlan) -> RunPlan:
        """The same plan under an id of its own, for `--again`."""
        count = 1
        while True:
            other = RunPlan(
                plan.step,
                plan.round,
                plan.parents,
                {**plan.settings, "again": count},
                plan.seed,
                plan.inputs,
            )
            if self.finished(other) is None:
                return other
            count += 1

    @contextlib.contextmanager
    def draft(self, plan: RunPlan) -> Iterator[Draft]:
        """Write the run of `plan`: yields its hidden folder, finishes it when the block ends.

        The folder of an interrupted attempt is found as it was left. When the block raises, it
        stays hidden and the project is as before; if nothing was written yet, it goes.

        Raises:
            ProjectError: another process is writing the same run.
            ResourceError: the disk is full.
        """
        folder = self.runs_dir / f".{plan.run_id}.partial"
        started = datetime.now(UTC)
        with _full_disk_reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, plan.run_id):
                draft = Draft(self, plan, folder)
                with _nothing_left_of_nothing(folder):
                    yield draft
                _seal(draft, started)
                draft._run = Run(self, self.runs_dir / plan.run_id)


def sha256(path: Path) -> str:
    """The hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(project: Project, runs: Sequence[Run] | None = None) -> list[tuple[str, str]]:
    """Check runs against their manifests: (run id, what is wrong), empty where all is well.

    Reads every byte of every run once.
    """
    problems = []
    for run in runs if runs is not None else project.run_folders():
        try:
            problems += [(run.id, problem) for problem in _problems(run)]
        except ProjectError as error:
            problems.append((run.id, error.what))
    return problems


def _problems(run: Run) -> Iterator[str]:
    recorded = run.manifest["files"]
    present = {str(path.relative_to(run.path)) for path in _files(run.path)} - {MANIFEST}
    for name in sorted(set(recorded) - present):
        yield f"{name} is missing"
    for name in sorted(present - set(recorded)):
        yield f"{name} is not in the manifest"
    for name in sorted(present & set(recorded)):
        if sha256(run.path / name) != recorded[name]["sha256"]:
            yield f"{name} was changed after the run finished"
    for parent in run.manifest["parents"]:
        path = run.project.runs_dir / parent["id"] / MANIFEST
        if not path.is_file():
            yield f"its parent {parent['id']} is missing"
        elif sha256(path) != parent["sha256"]:
            yield f"its parent {parent['id']} was changed"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _LOCK)


def _seal(draft: Draft, started: datetime) -> None:
    """Hash, fsync and rename: after this the run exists, before it nothing does."""
    plan, folder = draft.plan, draft.path
    files = {}
    for path in _files(folder):
        if path.name in (MANIFEST, f"{MANIFEST}.tmp"):
            continue
        entry: dict[str, Any] = {"sha256": sha256(path), "bytes": path.stat().st_size}
        if path.suffix == ".parquet":
            entry["rows"] = pq.read_metadata(path).num_rows
        files[str(path.relative_to(folder))] = entry
        _fsync(path)
    manifest = {
        "id": plan.run_id,
        "step": plan.step,
        "round": plan.round,
        "parents": [{"id": run.id, "sha256": run.manifest_hash} for run in plan.parents],
        "inputs": plan.input_hashes,
        "settings": dict(plan.settings),
        "seed": plan.seed,
        "metrics": draft.metrics,
        "files": files,
        "versions": versions(),
        "started": started.isoformat(),
        "finished": datetime.now(UTC).isoformat(),
    }
    draft.write_text(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    _fsync(folder / MANIFEST)
    (folder / _LOCK).unlink(missing_ok=True)
    _fsync(folder)
    folder.rename(draft.project.runs_dir / plan.run_id)
    _fsync(draft.project.runs_dir)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def versions() -> dict[str, str]:
    """Of Python and of the packages that determine a run's result, where they are installed."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def _locked(folder: Path, run_id: str) -> Iterator[None]:
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError(
                "another process is writing this run", where=run_id, remedy="Wait for it to end"
            ) from None
        yield


@contextlib.contextmanager
def _nothing_left_of_nothing(folder: Path) -> Iterator[None]:
    """Remove the folder of an attempt that failed before it wrote: there is nothing to resume."""
    try:
        yield
    except BaseException:
        if not _files(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder.parent).free
        raise ResourceError(
            f"the disk is full ({free / 1e6:.0f} MB free)",
            where=str(folder.parent),
            remedy="Free some space and run the same command again: it resumes",
        ) from None
