"""The batches that a project has pushed: their names, workspaces and guidelines."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from annotate.ledger import Ledger
from annotate.pull import write_down
from annotate.runs import Project, Run
from annotate.server import Server, workspace_of
from annotate.server_types import Batch


@dataclass(frozen=True)
class PushedBatch:
    """A data set that pushes of this project have filled."""

    name: str
    workspace: str | None
    """As `annotate.server.workspace_of` says."""
    guideline: str
    """task@vN"""
    runs: tuple[Run, ...]
    """The pushes, oldest first."""

    def item_ids(self) -> set[str]:
        """Every item of the batch."""
        found: set[str] = set()
        for run in self.runs:
            items = run.read("items", ["item_id", "batch"])
            mine = items.filter(pc.equal(items["batch"], self.name))
            found.update(mine["item_id"].to_pylist())
        return found


def pushed_batches(project: Project) -> list[PushedBatch]:
    """Every batch of every finished push, in the order they were first pushed in."""
    runs: dict[str, list[Run]] = {}
    for run in project.all_runs():
        if run.step == "push":
            for name in run.metrics["batches"]:
                runs.setdefault(name, []).append(run)
    return [
        PushedBatch(
            name,
            workspace_of(pushes[-1]),
            pushes[-1].manifest["settings"]["guideline"],
            tuple(pushes),
        )
        for name, pushes in runs.items()
    ]


def on_server(server: Server, pushed: PushedBatch) -> tuple[Server, Batch | None]:
    """The server as the batch's workspace sees it, and the batch if it is there and published.

    The caller closes that server.
    """
    there = server.in_workspace(pushed.workspace or server.workspace)
    found = next((batch for batch in there.batches() if batch.name == pushed.name), None)
    return there, found if found is not None and found.ready else None


def write_down_all(project: Project, server: Server, ledger: Ledger) -> dict[str, int]:
    """Put what the server holds of every batch and the ledger does not into the ledger.

    Returns:
        Batch → new entries, of the batches that the server has.
    """
    written = {}
    for pushed in pushed_batches(project):
        there, batch = on_server(server, pushed)
        with there:
            if batch is not None:
                written[pushed.name] = write_down(there, ledger, pushed.name, pushed.guideline)
    return written
