"""Keep a judged pair, or drop it with a reason.

A filter is a small pydantic model. Its call takes the table of evidence (judgements, the prompt,
the two completions, the votes, the winner) and returns a column of text: the value that broke the
rule, null where the pair is kept. Filters run in the recipe's order; the first reason counts, all
are kept:

    filters:
      - {rule: min_votes, at_least: 2}
      - {rule: agreement, at_least: 1.0}

To add one: write the model, and name it in `deciding.Filter`. A misspelt rule then lists the valid
ones.

Every filter treats a and b alike: swapping them changes no decision. Everything is vectorised; for
a million pairs docs/filters.md states the cost.
"""

from align.filters.belief import Posterior, Reliability
from align.filters.contaminated import Contaminated
from align.filters.counts import Agreement, BothBad, MinVotes, Ties
from align.filters.deciding import ALWAYS, RULES, Filter, apply, in_force
from align.filters.evaluation_texts import EvaluationTexts, evaluation_texts
from align.filters.evidence import Evidence, evidence, winners
from align.filters.flagged import Flags
from align.filters.rule import Rule
from align.filters.strengths import Margin, Spread
from align.filters.texts import Identical, LengthRatio, NearIdentical

__all__ = [
    "ALWAYS",
    "RULES",
    "Agreement",
    "BothBad",
    "Contaminated",
    "EvaluationTexts",
    "Evidence",
    "Filter",
    "Flags",
    "Identical",
    "LengthRatio",
    "Margin",
    "MinVotes",
    "NearIdentical",
    "Posterior",
    "Reliability",
    "Rule",
    "Spread",
    "Ties",
    "apply",
    "evaluation_texts",
    "evidence",
    "in_force",
    "winners",
]
