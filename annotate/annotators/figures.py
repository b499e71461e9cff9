"""Each person's figures: every one an estimate with its interval, or the reason why there is none.

accuracy      how often they name the true class, their own vote not deciding (`reliability`)
reliability   the same above chance
agreement     how often another answer to the same item is the same
ties          how often they say tie
first         of votes that are no tie, how often for what stood first
longer        of votes that are no tie, how often for the longer
repeated      how often they say the same of the same thing shown again
swapped       the same, with the order turned round
gold          how often they are right where the answer was known before
seconds       the median time a response took
too_fast      how often a response took less than reading takes, at 300 words a minute
"""

from __future__ import annotations

import numpy as np

from annotate.annotations import Codes
from annotate.annotators.panel import Kept, Panel, Reals
from annotate.annotators.rates import medians, shares
from annotate.annotators.reliability import reliability
from annotate.statistics import Estimate

FIGURES = (
    "accuracy", "reliability", "agreement", "ties", "first", "longer", "repeated", "swapped",
    "gold", "seconds", "too_fast",
)  # fmt: skip


def figures(panel: Panel) -> dict[str, list[Estimate]]:
    """Every figure of every person, in the order of the panel's annotators.

    Cost: Dawid–Skene once, and for each figure a few passes over the answers.
    """
    found = reliability(panel)
    return {
        "accuracy": found.accuracy,
        "reliability": found.reliability,
        "agreement": leave_one_out(panel),
        "ties": _ties(panel),
        "first": _of_answers(panel, panel.first, "the order shown is not known"),
        "longer": _of_answers(panel, panel.longer, "how long the outputs are is not known"),
        "repeated": _repeated(panel, ~panel.repeats.swapped, "nothing came again"),
        "swapped": _repeated(panel, panel.repeats.swapped, "nothing came again turned round"),
        "gold": shares(
            panel.gold.annotator, panel.gold.right.astype(np.float64), panel.gold.item,
            panel.people, reason="they answered no gold item",
        ),
        "seconds": _seconds(panel),
        "too_fast": _too_fast(panel),
    }  # fmt: skip


def leave_one_out(panel: Panel) -> list[Estimate]:
    """How often another person's answer to the same item is the same, each item weighing alike."""
    labels = panel.labels
    classes = max(1, len(labels.classes))
    cell = labels.item * classes + labels.label
    _, which, counts = np.unique(cell, return_inverse=True, return_counts=True)
    others = np.bincount(labels.item, minlength=len(labels.items))[labels.item] - 1
    some = others > 0
    share = (counts[which] - 1)[some] / others[some]
    reason = "nobody else answered the same items"
    return _shares(panel, some, share, reason)


def _shares(panel: Panel, keep: Kept, value: Reals, reason: str) -> list[Estimate]:
    annotator: Codes = panel.labels.annotator[keep]
    return shares(annotator, value, panel.prompts[keep], panel.people, reason=reason)


def _ties(panel: Panel) -> list[Estimate]:
    ties = panel.ties
    if ties is None:
        nobody = np.zeros(len(panel.labels), dtype=bool)
        return _shares(panel, nobody, np.zeros(0), "no class is called tie")
    return _shares(panel, np.ones(len(ties), dtype=bool), ties.astype(np.float64), "")


def _of_answers(panel: Panel, value: Reals | None, reason: str) -> list[Estimate]:
    if value is None:
        return _shares(panel, np.zeros(len(panel.labels), dtype=bool), np.zeros(0), reason)
    known = ~np.isnan(value)
    return _shares(panel, known, value[known], "none of their votes can tell")


def _repeated(panel: Panel, keep: Kept, reason: str) -> list[Estimate]:
    repeats = panel.repeats
    same = repeats.same[keep].astype(np.float64)
    return shares(
        repeats.annotator[keep], same, repeats.prompt[keep], panel.people, reason=reason
    )  # fmt: skip


def _timed(panel: Panel) -> Kept:
    """One answer of each response whose time is known, shape (answers,)."""
    one = np.zeros(len(panel.labels), dtype=bool)
    one[np.unique(panel.responses, return_index=True)[1]] = True
    return one & ~np.isnan(panel.seconds) if panel.seconds is not None else one & False


def _seconds(panel: Panel) -> list[Estimate]:
    keep = _timed(panel)
    value = panel.seconds[keep] if panel.seconds is not None else np.zeros(0)
    reason = "how long they took is not known"
    return medians(panel.labels.annotator[keep], value, panel.people, reason=reason)


def _too_fast(panel: Panel) -> list[Estimate]:
    keep = _timed(panel)
    if panel.seconds is None or panel.reading is None:
        keep = keep & False
        return _shares(panel, keep, np.zeros(0), "how long they took, or had to read, is not known")
    keep = keep & ~np.isnan(panel.reading)
    fast = (panel.seconds[keep] < panel.reading[keep]).astype(np.float64)
    return _shares(panel, keep, fast, "how long they took, or had to read, is not known")
