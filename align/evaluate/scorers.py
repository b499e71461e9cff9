"""Scorers that judge a completion where no person has: a dict of functions, by name.

A scorer takes the prompt's messages and the completion and returns a number, higher being better.
Equal numbers are a tie. What a scorer says is never called people's judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from annotate import support_desk
from annotate.errors import InputError

Scorer = Callable[[Sequence[dict[str, str]], str], float]


def support_rubric(messages: Sequence[dict[str, str]], completion: str) -> float:
    """The rubric behind the simulated annotators (annotate.support_desk.rubric)."""
    return support_desk.rubric(messages, completion).total


SCORERS: dict[str, Scorer] = {"support-rubric": support_rubric}

CALLED: dict[str, str] = {"support-rubric": "the rubric behind the simulated annotators"}
"""What reports and pages call a scorer."""


def scorer_named(name: str) -> Scorer:
    """The scorer of this name.

    Raises:
        InputError: there is none; names those there are.
    """
    if name not in SCORERS:
        raise InputError("no such scorer", where=name, remedy=f"There are: {', '.join(SCORERS)}")
    return SCORERS[name]
