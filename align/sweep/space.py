"""Which fields of a recipe a sweep varies, as the command line says it:

trainer.learning_rate=1e-5..1e-3:log      from 1e-5 to 1e-3, evenly in the logarithm
trainer.num_train_epochs=1..4             a whole number
lora.r=4,8,16                             one of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from annotate.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool | None

_FORM = "KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=ONE,OTHER"


@dataclass(frozen=True)
class Dimension:
    """One field, and what may stand there."""

    key: str
    """Keys of the recipe from the outermost in, a dot between."""
    choices: tuple[Value, ...] = ()
    low: float | int | None = None
    """Of a range; None for choices. Both ends may be drawn."""
    high: float | int | None = None
    logarithmic: bool = False

    def distribution(self) -> BaseDistribution:
        """As Optuna draws from it."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.low is None or self.high is None:
            return CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.logarithmic)
        return FloatDistribution(float(self.low), float(self.high), log=self.logarithmic)

    def to_text(self) -> str:
        """As it was given, in one form."""
        if self.low is None:
            return f"{self.key}={','.join(str(choice) for choice in self.choices)}"
        return f"{self.key}={self.low}..{self.high}{':log' if self.logarithmic else ''}"


def read_space(texts: Sequence[str]) -> tuple[Dimension, ...]:
    """The dimensions that the command line names.

    Raises:
        InputError: none is named, one is named twice, or one has another form.
    """
    if not texts:
        raise InputError(
            "a sweep varies at least one field",
            remedy=f"Name one with --over: {_FORM}",
        )
    found = tuple(_dimension(text) for text in texts)
    keys = [one.key for one in found]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError("this field is named twice", where=f"--over {twice[0]}")
    return found


def _dimension(text: str) -> Dimension:
    key, equals, values = text.partition("=")
    key, values = key.strip(), values.strip()
    if not key or not equals or not values:
        raise InputError("this says no values", where=f"--over {text}", remedy=f"Write {_FORM}")
    low, dots, high = values.removesuffix(":log").partition("..")
    logarithmic = values.endswith(":log")
    if not dots:
        choices = tuple(_value(part) for part in values.split(","))
        if logarithmic or len(set(map(str, choices))) < max(2, len(choices)):
            raise InputError(
                "choices must be two or more, each once",
                where=f"--over {text}",
                remedy=f"Write {_FORM}",
            )
        return Dimension(key, choices)
    ends = (_value(low), _value(high))
    numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) < 2 or not numbers[0] < numbers[1] or (logarithmic and numbers[0] <= 0):
        raise InputError(
            "a range goes from a number up to a larger one"
            + (", both above 0 on a logarithmic scale" if logarithmic else ""),
            where=f"--over {text}",
            remedy=f"Write {_FORM}",
        )
    return Dimension(key, low=numbers[0], high=numbers[1], logarithmic=logarithmic)


def _value(text: str) -> Value:
    """As YAML reads it, but 1e-5 is a number too."""
    text = text.strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    found = yaml.safe_load(text)
    return found if isinstance(found, str | bool | None) else text


def with_values(content: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A recipe's content with other values in some of its fields; the original is not changed.

    Raises:
        InputError: a key leads through something that is no mapping.
    """
    changed = dict(content)
    for key, value in values.items():
        *outer, last = key.split(".")
        place = changed
        for name in outer:
            inside = place.get(name) or {}
            if not isinstance(inside, Mapping):
                raise InputError("this is no mapping of the recipe", where=f"--over {key}: {name}")
            place[name] = dict(inside)
            place = place[name]
        place[last] = value
    return changed
