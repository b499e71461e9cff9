"""A measured agreement: its value, two intervals, and what all of it rests on.

The two intervals answer two questions. *Over items*: what would more items judged by this very
panel give? *Over annotators*: what would another panel of as many people like these give, on other
items? The second is the wider, by far where few people answered.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from annotate.statistics import LEVEL

OVER_ITEMS = "items, this panel of annotators"
OVER_PROMPTS = "prompts, this panel of annotators"
OVER_ANNOTATORS = "annotators like these"


@dataclass(frozen=True)
class Interval:
    """Where a figure would lie; `low` and `high` are None where that cannot be said."""

    low: float | None
    high: float | None
    over: str
    """What it generalises over: "items, this panel of annotators"."""
    method: str
    """How it was made: "percentile bootstrap", "Wilson"."""
    level: float = LEVEL
    """Its confidence level."""
    reason: str = ""
    """Why there is none."""

    def __str__(self) -> str:
        """As in "[0.843, 0.887]"."""
        if self.low is None or self.high is None:
            return f"(no interval: {self.reason})"
        # z: a small negative number is 0.000, not -0.000.
        return f"[{self.low:z.3f}, {self.high:z.3f}]"


@dataclass(frozen=True)
class Figure:
    """One measure of agreement. `value` is None where it is undefined; `reason` then says why."""

    value: float | None
    over_items: Interval
    """This panel of annotators, other items (or prompts, where the data name them)."""
    over_annotators: Interval
    """Other people like these, on other items."""
    n_items: int
    """Items with an answer."""
    n_pairable: int
    """Items that the value rests on: most often those that two people or more answered."""
    n_annotators: int
    """People with an answer."""
    definition: str
    """What the value is, in a sentence with its source."""
    method: str
    """How both intervals were made."""
    seed: int | None = None
    """Of the resampling; None where nothing is random."""
    reason: str = ""
    """Why there is no value."""
    guideline: str | None = None
    """The version answered under; None where the data do not say."""

    @property
    def low(self) -> float | None:
        """The lower end over items."""
        return self.over_items.low

    @property
    def high(self) -> float | None:
        """The upper end over items."""
        return self.over_items.high

    @property
    def n(self) -> int:
        """How many items the value rests on."""
        return self.n_pairable

    def to_dict(self) -> dict[str, Any]:
        """All fields, and `low`, `high`, `n`, JSON-able."""
        return asdict(self) | {"low": self.low, "high": self.high, "n": self.n}

    def __str__(self) -> str:
        """As in "0.864 [0.843, 0.887], annotators like these [0.801, 0.927], n=999"."""
        if self.value is None:
            return f"undefined ({self.reason}), n={self.n:,}"
        others = f"{OVER_ANNOTATORS} {self.over_annotators}"
        return f"{self.value:z.3f} {self.over_items}, {others}, n={self.n:,}"
