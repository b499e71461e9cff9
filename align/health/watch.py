"""Watch a training while it runs: one line on stderr when a rule first finds something."""

from __future__ import annotations

import math
import sys
from typing import Any

from transformers import TrainerCallback

from align.health.examine import examine
from align.health.log import log_of_entries
from align.health.rule import Verdict

# A whole look costs milliseconds, so the next waits until the log has grown by this.
_GROWTH = 1.1


class HealthWatch(TrainerCallback):
    """Examines the log as it grows, on the first process only.

    Args:
        run_id: named in the warning, for `handloom health`.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.told: set[str] = set()
        self.next_look = 0

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Look at the log when it has grown by a tenth, and at once at a bad number."""
        if not state.is_world_process_zero:
            return
        logged = [value for value in (logs or {}).values() if isinstance(value, float)]
        odd = "not a number" not in self.told and not all(map(math.isfinite, logged))
        entries = len(state.log_history)
        if not odd and entries < self.next_look:
            return
        if entries >= self.next_look:
            self.next_look = max(entries + 1, int(entries * _GROWTH))
        for verdict in examine(log_of_entries(state.log_history), finished=False):
            if verdict.flagged and verdict.rule not in self.told:
                self.told.add(verdict.rule)
                self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        first_remedy = verdict.remedy.split(";")[0]
        print(
            f"health: {verdict.rule}: {verdict.said}. {first_remedy} "
            f"(`handloom health {self.run_id}`)",
            file=sys.stderr,
            flush=True,
        )
