"""SIMULATED annotators: what one of them answers to an item whose truth is known.

The noise model and its settings stand in `simulated_annotators.yaml`, in words and as a formula.
Nothing here knows Argilla; `annotate.simulate` lets them answer through its API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotate.display import Item
from annotate.errors import InputError
from annotate.front_matter import WRITTEN
from annotate.guidelines import Guideline, Question
from annotate.simulated_kinds import Subject

SETTINGS_FILE = Path(__file__).with_name("simulated_annotators.yaml")
PREFIX = "sim-"
"""Begins every simulated annotator's name, so that nobody takes their answers for people's."""

Share = Annotated[float, Field(ge=0, le=1)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Person(_Form):
    """One simulated annotator."""

    precision: Annotated[float, Field(gt=0)]
    """Of perception, in 1 / point: of pairs 1/precision points apart 73 % are told right."""
    lapse: Share = 0.0
    """Share of items answered at random."""
    first_bias: float = 0.0
    """Points added to what is perceived of the output shown first."""


class Occasional(_Form):
    """Something done in the share `rate` of the cases where a perceived score is under `below`."""

    below: float
    rate: Share


class SimulationSettings(_Form):
    """The whole file."""

    people: dict[Annotated[str, Field(pattern=rf"^{PREFIX}[a-z0-9-]+$")], Person]
    strength_from: tuple[float, float, float]
    rating_range: tuple[float, float]
    bad_below: float
    flags: Occasional
    corrections: Occasional
    reasons: Occasional

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.people:
            raise ValueError("there are no people")
        if not 0 <= self.strength_from[0] <= self.strength_from[1] <= self.strength_from[2]:
            raise ValueError("strength_from must ascend from 0 or more")
        if not self.rating_range[0] < self.rating_range[1]:
            raise ValueError("rating_range must ascend")
        return self


def load_settings(path: Path = SETTINGS_FILE) -> SimulationSettings:
    """Read a file of simulated annotators.

    Raises:
        InputError: it cannot be read, is not YAML, or a key is wrong.
    """
    try:
        return SimulationSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(first["msg"], where=f"{path}, {place}" if place else str(path)) from None


@dataclass(frozen=True)
class SimulatedAnnotator:
    """A person of the settings under a seed: the same item is always answered in the same way."""

    name: str
    person: Person
    settings: SimulationSettings
    seed: int

    def answers(
        self,
        item: Item,
        guideline: Guideline,
        scores: Mapping[str, float],
        better: str | None = None,
        completions: Mapping[str, str] | None = None,
    ) -> list[tuple[str, Any]]:
        """Answers to an item's questions in terms of output ids, for `annotate.display.answer`.

        Args:
            scores: the truth by output id, in points.
            better: a text to correct with; None: no correction is ever given.
            completions: by output id; needed where a text is to be mended or marked.
        """
        rng = self._random(item["item_id"])
        outputs = list(item["output_ids"])
        attentive = rng.random() >= self.person.lapse
        truth = np.array([scores[output] for output in outputs])
        perceived = truth + rng.gumbel(size=len(outputs)) / self.person.precision
        perceived[:1] += self.person.first_bias
        if not attentive:
            perceived = rng.uniform(*self.settings.rating_range, len(outputs))
        view = _View(outputs, perceived, attentive, better, self.settings, rng)
        subject = Subject(
            item["prompt_id"],
            outputs,
            completions or {},
            perceived,
            better,
            self.settings.rating_range,
            self.person.precision,
            attentive,
            rng,
        )
        return [
            given
            for question in guideline.questions
            for given in view.answer(question, subject, item["kind"])
        ]

    def _random(self, item_id: str) -> np.random.Generator:
        text = f"{self.seed}/{self.name}/{item_id}"
        return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))


@dataclass(frozen=True)
class _View:
    """One item as one person perceives it."""

    outputs: list[str]
    perceived: npt.NDArray[np.float64]
    attentive: bool
    better: str | None
    settings: SimulationSettings
    rng: np.random.Generator

    def answer(self, question: Question, subject: Subject, kind: str) -> list[tuple[str, Any]]:
        """(question, value) for every answer given; nothing where the question is left open."""
        if question.name == WRITTEN.get(kind):
            return [(question.name, value) for value in subject.written()]
        values = {
            "preference": self._preference,
            "ranking": self._ranking,
            "mark": self._mark,
            "rating": self._rating,
            "flags": self._flags,
            "text": self._text,
            "label": lambda asked: subject.labels(asked, several=False),
            "labels": lambda asked: subject.labels(asked, several=True),
            "thumbs": lambda _: subject.thumbs(),
            "spans": subject.spans,
        }[question.type](question)
        return [(question.name, value) for value in values]

    def _preference(self, question: Question) -> list[Any]:
        first, second = self.outputs
        difference = float(self.perceived[0] - self.perceived[1])
        size = int(np.searchsorted(self.settings.strength_from, abs(difference), side="right"))
        strength = size if difference > 0 else -size
        if not self.attentive:
            strength = int(self.rng.integers(-3, 4))
        if first > second:
            first, second, strength = second, first, -strength
        return [{"a": first, "b": second, "strength": strength}]

    def _ranking(self, question: Question) -> list[Any]:
        order = np.argsort(-self.perceived)
        gaps = -np.diff(self.perceived[order]) >= self.settings.strength_from[0]
        places = np.concatenate([[1], 1 + np.cumsum(gaps)])
        ranks = {self.outputs[at]: int(place) for at, place in zip(order, places, strict=True)}
        return [{"ranks": ranks}]

    def _mark(self, question: Question) -> list[Any]:
        bad = bool(self.outputs and self.perceived.max() < self.settings.bad_below)
        return [bad if self.attentive else bool(self.rng.random() < 0.5)]

    def _rating(self, question: Question) -> list[Any]:
        lowest, highest = self.settings.rating_range
        last = len(question.values) - 1
        exact = (self.perceived - lowest) / (highest - lowest) * last
        places = np.clip(np.rint(exact), 0, last).astype(int)
        return [
            {"output": output, "rating": question.values[place]}
            for output, place in zip(self.outputs, places, strict=True)
        ]

    def _flags(self, question: Question) -> list[Any]:
        labels = [label for label, _ in question.labels]
        flag = "off_topic" if "off_topic" in labels else labels[0]
        rule = self.settings.flags
        return [
            {"output": output, "flags": [flag]}
            for output, perceived in zip(self.outputs, self.perceived, strict=True)
            if perceived < rule.below and self._happens(rule)
        ]

    def _text(self, question: Question) -> list[Any]:
        """A correction, if that is what is asked; any other text is a reason."""
        if not self.attentive or not self.outputs:
            return []
        if question.name == "correction":
            rule = self.settings.corrections
            wanted = self.perceived.max() < rule.below and self._happens(rule)
            return [{"text": self.better}] if wanted and self.better else []
        if not self._happens(self.settings.reasons):
            return []
        letter = "ABCDE"[int(self.perceived.argmax())]
        return [{"text": f"(simulated annotator) {letter} serves the customer best."}]

    def _happens(self, rule: Occasional) -> bool:
        return bool(self.rng.random() < rule.rate)


def assign(
    n_items: int, people: Sequence[str], votes: int, rng: np.random.Generator
) -> list[list[str]]:
    """Who answers each item: `votes` different people, everybody as often as anybody else (±1).

    Raises:
        InputError: there are fewer people than votes.
    """
    if not 1 <= votes <= len(people):
        raise InputError(
            f"{votes} votes an item cannot come from {len(people)} people",
            remedy="Lower --votes, or name more people in --settings",
        )
    load = np.zeros(len(people))
    chosen: list[list[str]] = [[] for _ in range(n_items)]
    for at in rng.permutation(n_items):
        least = np.lexsort((rng.random(len(people)), load))[:votes]
        load[least] += 1
        chosen[at] = [people[i] for i in least]
    return chosen
