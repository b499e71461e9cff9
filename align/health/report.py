"""What was found, as text: a small curve, what is wrong since when, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np

from align.health.examine import Health
from align.health.log import Curve
from align.health.rule import Verdict, figure

WIDTH, HEIGHT = 60, 5
_BARS = " ▁▂▃▄▅▆▇█"
# Curves shown whatever is wrong: what training drives, and the held-out figure beside it.
_ALWAYS = ("loss", "eval_loss", "reward", "eval_rewards/accuracies", "eval_accuracy")


def lines(found: Health) -> list[str]:
    """The whole report, one line each."""
    text = [] if found.finished else ["unfinished: it is running, was interrupted, or has failed"]
    flagged = found.flagged
    shown = {verdict.curves[0] for verdict in flagged if verdict.curves}
    for name in _ALWAYS:
        if name in found.log.curves and name not in shown:
            text.append(sparkline(found.log.curves[name]))
    for verdict in flagged:
        text += ["", *_finding(found, verdict)]
    if text and flagged:
        text.append("")
    return [*text, *_rest(found)]


def sparkline(curve: Curve) -> str:
    """A curve on one line, with its first and last value and its points."""
    bars = "".join(_BARS[1 + level] for level in _levels(curve, 8))
    first, last = figure(curve.values[0]), figure(curve.values[-1])
    return f"{curve.name:24} {first:>9} {bars} {last}  ({len(curve)} points)"


def plot(curve: Curve, since: int | None = None) -> list[str]:
    """A curve in `HEIGHT` rows of blocks, with its range and steps; ^ marks a step.

    A column stands for the highest value of its steps, so that no spike is lost.
    """
    levels = np.array(_levels(curve, HEIGHT * 8)) + 1
    low, high = figure(float(curve.values.min())), figure(float(curve.values.max()))
    margin = max(len(low), len(high))
    rows = []
    for row in reversed(range(HEIGHT)):
        label = high if row == HEIGHT - 1 else low if row == 0 else ""
        filled = np.clip(levels - 8 * row, 0, 8)
        bars = "".join(_BARS[eighths] for eighths in filled).rstrip()
        rows.append(f"{label:>{margin}} │{bars}")
    first, last = int(curve.steps[0]), int(curve.steps[-1])
    width = len(levels)
    if since is not None and last > first:
        at = min(width - 1, max(0, int((since - first) / (last - first) * width)))
        rows.append(f"{'':{margin}}  {'':{at}}^ step {since}")
    ends = f"{first}{str(last).rjust(max(1, width - len(str(first))))}"
    rows.append(f"{'':{margin}}  {ends}  {curve.name} by step")
    return rows


def _finding(found: Health, verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.state.upper()}: {verdict.rule}: {verdict.said}"
    if verdict.curves:
        yield from (f"  {row}" for row in plot(found.log.curves[verdict.curves[0]], verdict.since))
    yield from textwrap.wrap(
        verdict.remedy + ".", 98, initial_indent="  → ", subsequent_indent="    "
    )


def _rest(found: Health) -> list[str]:
    """The rules that found nothing, could not tell, or had nothing to look at."""
    text = []
    by_state: dict[str, list[Verdict]] = {}
    for verdict in found.verdicts:
        by_state.setdefault(verdict.state, []).append(verdict)
    if fine := by_state.get("fine"):
        text += _wrapped("fine", ", ".join(verdict.rule for verdict in fine))
    for verdict in by_state.get("unknown", []):
        text += _wrapped("no verdict", f"{verdict.rule}: {verdict.said}")
    if absent := by_state.get("not logged"):
        text += _wrapped("not logged", ", ".join(verdict.rule for verdict in absent))
    if found.log.unreadable:
        text += _wrapped("skipped", f"{found.log.unreadable:,} lines of the log make no sense")
    return text


def _wrapped(label: str, said: str) -> list[str]:
    return textwrap.wrap(said, 98, initial_indent=f"{label:11}", subsequent_indent=" " * 11)


def _levels(curve: Curve, count: int) -> list[int]:
    """Of each column: its highest value as one of `count` levels, from 0; every step is shown."""
    values = curve.values
    cuts = np.linspace(0, len(values), min(WIDTH, len(values)) + 1).astype(int)
    tops = np.maximum.reduceat(values, cuts[:-1])
    low, high = float(tops.min()), float(tops.max())
    span = high - low
    if span <= 0:
        return [count // 2] * len(tops)
    return [min(count - 1, int((top - low) / span * count)) for top in tops]
