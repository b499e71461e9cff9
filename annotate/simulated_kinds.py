"""SIMULATED annotators: labels, thumbs, marks in a text, and texts of their own.

What is true of a prompt is drawn from its id, so that all see the same: `simulated_annotators.yaml`
says how. Nothing here is learned from anybody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annotate.guidelines import Question

_APART = 3.0
"""Points between two answers drawn at random: a label is told as surely as these."""

UNKNOWN = "(simulated annotator) No better text is known."


@dataclass(frozen=True)
class Subject:
    """One item as one person perceives it, of whatever kind."""

    prompt_id: str
    outputs: list[str]
    """Ids, in the order shown."""
    completions: Mapping[str, str]
    perceived: npt.NDArray[np.float64]
    """Scores of the outputs, in points."""
    better: str | None
    """A text that is better than those shown."""
    rating_range: tuple[float, float]
    precision: float
    attentive: bool
    rng: np.random.Generator

    def labels(self, question: Question, *, several: bool) -> list[Any]:
        """A label or labels: of a prompt by what is true of it, of an output by its score."""
        names = [name for name, _ in question.labels]
        key = "labels" if several else "label"
        found = []
        for output in self.outputs if question.each_output else [None]:
            if output is None:
                chosen = names[self._told(question.name, len(names))]
            else:
                chosen = names[self._grade(output, len(names))]
            about = {"output": output} if output else {}
            found.append({**about, key: [chosen] if several else chosen})
        return found

    def thumbs(self) -> list[Any]:
        """Up for the better half of the scale."""
        return [
            {"output": output, "thumb": "up" if self._grade(output, 2) else "down"}
            for output in self.outputs
        ]

    def spans(self, question: Question) -> list[Any]:
        """One mark in an output of the worse half of the scale, where its error is."""
        names = [name for name, _ in question.labels]
        found = []
        for output in self.outputs:
            text = self.completions[output]
            words = [match.span() for match in re.finditer(r"\S+", text)]
            spans = []
            if words and not self._grade(output, 2):
                start, end = words[self._told(f"{question.name} in {output}", len(words))]
                label = names[_drawn(f"kind of {output}", len(names))]
                spans.append({"start": start, "end": end, "label": label})
            length = len(text) if text.strip() else 0
            found.append({"output": output, "spans": spans, "length": length})
        return found

    def written(self) -> list[Any]:
        """The better text, if one is known and what is shown seems to need it."""
        shown = self.completions[self.outputs[0]] if self.outputs else ""
        needed = not self.outputs or not self._grade(self.outputs[0], 2)
        text = self.better if needed and self.attentive and self.better else shown
        return [{"text": text if text.strip() else self.better or UNKNOWN}]

    def _told(self, name: str, n: int) -> int:
        """What is true, told as surely as two answers are told apart; else any of n."""
        right = self.rng.random() < 1 / (1 + np.exp(-_APART * self.precision))
        if right and self.attentive:
            return _drawn(f"{name} of {self.prompt_id}", n)
        return int(self.rng.integers(n))

    def _grade(self, output: str, n: int) -> int:
        """The perceived score of an output on a scale of n steps, the worst 0."""
        lowest, highest = self.rating_range
        place = (self.perceived[self.outputs.index(output)] - lowest) / (highest - lowest)
        return int(np.clip(np.rint(place * (n - 1)), 0, n - 1))


def _drawn(name: str, n: int) -> int:
    """A number below n that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % n
