"""The figures of an evaluation as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.card import interval_text
from align.evaluate.scorers import CALLED
from align.model_ref import REWARD_MODEL
from annotate.runs import Run


def lines(run: Run) -> list[str]:
    """Win rates, reward accuracy and lengths, with intervals and who judged; one figure a line.

    Of a reward model its accuracy alone.
    """
    metrics = run.metrics
    accuracy = metrics["reward_accuracy"]
    count = f", n={accuracy['n']:,}" if accuracy["n"] else ""
    if metrics.get("makes") == REWARD_MODEL:
        return [f"right on {interval_text(accuracy)} of held-out pairs{count}, over prompts"]
    text = [f"on {metrics['held_out']} held-out prompts; intervals are 95 %, over prompts"]
    for one in metrics["comparisons"]:
        rate = one["win_rate"]
        text += [
            f"against {one['versus']} ({', '.join(one['roles'])})",
            f"  win rate         {interval_text(rate)}, n={rate['n']:,}, {_judges(one)}",
            f"                   {one['wins']} won, {one['ties']} tied, {one['losses']} lost"
            + (f", {one['unjudged']} unjudged" if one["unjudged"] else ""),
            f"  tokens           {one['tokens']['value']:.1f} against "
            f"{one['versus_tokens']['value']:.1f}, longer by "
            f"{_tokens(one['longer_by'])}",
        ]
    text.append(f"implicit reward right on held-out pairs  {interval_text(accuracy)}{count}")
    return text


def _judges(comparison: Mapping[str, Any]) -> str:
    """Who judged, as in "judged by people 40, the rubric behind the simulated annotators 160"."""
    judged = comparison["judged_by"]
    if not judged:
        return "judged by nobody"
    named = [f"{CALLED.get(who.removeprefix('scorer:'), who)} {n:,}" for who, n in judged.items()]
    return f"judged by {', '.join(named)}"


def _tokens(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:+.1f}"
    return f"{estimate['value']:+.1f} [{estimate['low']:+.1f}, {estimate['high']:+.1f}]"
