"""Watch a training while it runs: one line on stderr when what a rule finds has lasted.

A single look is often wrong: the last points of a short or noisy curve go up and down. So only what
three looks in a row have found is said, the last of them so long after the first that the level at
the end is another stretch of the curve. At the end all is looked at once more: what was said and no
longer holds is taken back, and what holds then is said, as `handloom health` will.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from transformers import TrainerCallback

from align.health.examine import examine
from align.health.log import log_of_entries
from align.health.rule import Verdict

# A whole look costs milliseconds, so the next waits until the log has grown by this.
_GROWTH = 1.1
# Looks in a row that must find the same, and the entries from the first of them to the last: more
# than the points whose median is the level at the end (`robust.at_end`).
_LOOKS, _ENTRIES, _SHARE = 3, 4, 0.125
# What no later point can undo.
_AT_ONCE = frozenset({"not a number"})


class HealthWatch(TrainerCallback):
    """Examines the log as it grows, on the first process only.

    Args:
        run_id: named in the warning, for `handloom health`.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.told: list[str] = []
        self.next_look = 0
        self.found: dict[str, list[int]] = {}
        """Of each rule that finds something now: the log's length at each look in a row."""

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
            if self._lasts(verdict, entries) and verdict.rule not in self.told:
                self.told.append(verdict.rule)
                self._tell(verdict, verdict.said.replace("at the end", "now"))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take back what no longer holds, and say what holds only now."""
        if not state.is_world_process_zero:
            return
        verdicts = examine(log_of_entries(state.log_history), finished=False)
        wrong = {verdict.rule: verdict for verdict in verdicts if verdict.flagged}
        self._take_back(rule for rule in self.told if rule not in wrong)
        for rule, verdict in wrong.items():
            if rule not in self.told:
                self._tell(verdict, verdict.said)

    def _lasts(self, verdict: Verdict, entries: int) -> bool:
        """Whether it has been found for long enough, this look at `entries` entries included."""
        if not verdict.flagged:
            self.found.pop(verdict.rule, None)
            return False
        looks = self.found.setdefault(verdict.rule, [])
        looks.append(entries)
        lasted = entries - looks[0] >= max(_ENTRIES, _SHARE * entries)
        return verdict.rule in _AT_ONCE or (len(looks) >= _LOOKS and lasted)

    def _tell(self, verdict: Verdict, said: str) -> None:
        first_remedy = verdict.remedy.split(";")[0]
        self._print(f"{verdict.rule}: {said}. {first_remedy}")

    def _take_back(self, rules: Iterable[str]) -> None:
        if names := ", ".join(rules):
            self._print(f"no longer found at the end of the training: {names}")

    def _print(self, said: str) -> None:
        line = f"health: {said} (`handloom health {self.run_id}`)"
        print(line, file=sys.stderr, flush=True)
