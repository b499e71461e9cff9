"""Which settings are compared: votes used, how they are aggregated, which filters follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from align.filters import Agreement, BothBad, Filter, Flags, Identical, Margin, Posterior, Ties
from annotate.errors import InputError

Overlap = Literal["1", "2", "2+1", "3", "4", "5"]
Method = Literal["majority", "dawid-skene"]
Filters = tuple[Filter, ...]

BASE: Filters = (Ties(), BothBad(at_most=0), Flags(), Identical())
"""Hold in every setting, as in the shipped recipe."""

WORDS: dict[str, str] = {
    "1": "one vote",
    "2": "two votes",
    "2+1": "two votes, a third where they differ",
    "3": "three votes",
    "4": "four votes",
    "5": "five votes",
}


class Grid(BaseModel):
    """Every combination is a setting, except those that could not differ from another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlaps: tuple[Overlap, ...] = ("1", "2", "2+1", "3")
    """Votes used of each pair; those that the data do not hold are passed over."""
    methods: tuple[Method, ...] = ("majority", "dawid-skene")
    filters: tuple[Filters, ...] = Field(
        default=(
            (),
            (Agreement(at_least=1.0),),
            (Posterior(at_least=0.7),),
            (Posterior(at_least=0.8),),
            (Posterior(at_least=0.9),),
            (Posterior(at_least=0.95),),
            (Margin(at_least=0.33),),
            (Margin(at_least=0.66),),
        )
    )
    """Each entry a list of filters that hold together, beside `BASE`."""

    def settings(self, most: int) -> list[Setting]:
        """The settings that pairs of `most` votes allow."""
        return [
            Setting(overlap, method, filters)
            for overlap in self.overlaps
            if needed(overlap) <= most
            for method in self.methods
            if overlap != "1" or method == self.methods[0]
            for filters in self.filters
            if _matters(overlap, method, filters)
        ]


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    overlap: Overlap
    method: Method
    filters: Filters

    @property
    def name(self) -> str:
        """As in "two votes, majority, agreement 1"."""
        rules = [" ".join([rule.rule, *_numbers_of(rule)]) for rule in self.filters]
        method = [] if self.overlap == "1" else [self.method]
        return ", ".join([WORDS[self.overlap], *method, *(rules or ["no filter"])])


def needed(overlap: Overlap) -> int:
    """Votes that a pair must have for this overlap to be tried on it."""
    return 3 if overlap == "2+1" else int(overlap)


def read_grid(path: Path | None) -> Grid:
    """The grid of a YAML file with the keys overlaps, methods, filters; by default the shipped.

    Raises:
        InputError: it cannot be read, or a key of it is wrong.
    """
    if path is None:
        return Grid()
    try:
        return Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"cannot be read ({' '.join(str(error).split())})", where=str(path)
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(
            first["msg"],
            where=f"{path}, {place}" if place else str(path),
            remedy="Keys: overlaps, methods, filters (a list of lists of rules)",
        ) from None


def _matters(overlap: Overlap, method: Method, filters: Filters) -> bool:
    """Whether these filters can do anything: one vote always agrees with itself, and a majority's
    posterior says no more than its agreement.
    """
    rules = {rule.rule for rule in filters}
    if overlap == "1" and rules & {"agreement", "posterior"}:
        return False
    return not (method == "majority" and "posterior" in rules)


def _numbers_of(rule: BaseModel) -> list[str]:
    return [f"{value:g}" for value in rule.model_dump().values() if isinstance(value, int | float)]
