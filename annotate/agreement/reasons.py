"""Why a figure has no value, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from annotate.agreement.figure import OVER_ANNOTATORS, OVER_ITEMS, OVER_PROMPTS, Figure, Interval
from annotate.annotations import Annotations, Codes


def nothing_to_compare(data: Annotations, pairable: int) -> str:
    """Why agreement on these data cannot be measured at all; "" where it can."""
    if len(data.versions) > 1:
        return (
            f"answered under {len(data.versions)} versions of the guideline "
            f"({', '.join(data.versions)}): one figure each, or pool them"
        )
    if distinct(data.annotator) < 2:
        return "only one annotator" if len(data) else "no answers"
    return "" if pairable else "no item has two answers"


def undefined_figure(
    data: Annotations, reason: str, definition: str, *, pairable: int = 0
) -> Figure:
    """The figure of a measure that these data do not define."""
    return Figure(
        value=None,
        over_items=Interval(None, None, over_items(data), "none", reason=reason),
        over_annotators=Interval(None, None, OVER_ANNOTATORS, "none", reason=reason),
        n_pairable=pairable,
        definition=definition,
        method="none",
        reason=reason,
        **context(data),
    )


def over_items(data: Annotations) -> str:
    """What the bootstrap of these data generalises over."""
    return OVER_ITEMS if data.prompt is None else OVER_PROMPTS


def context(data: Annotations) -> dict[str, Any]:
    """What a figure says of its data: n_items, n_annotators, guideline."""
    return {
        "n_items": distinct(data.item),
        "n_annotators": distinct(data.annotator),
        "guideline": ", ".join(data.versions) or None,
    }


def distinct(codes: Codes) -> int:
    """How many different codes there are; counting them is faster than sorting."""
    return int(np.count_nonzero(np.bincount(codes))) if len(codes) else 0
