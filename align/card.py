"""The data set card: README.md of a `build` run, with the header that the Hugging Face Hub reads.

The card says what the sets hold, whose judgement stands behind them, what was dropped and why, and
which runs they come from. It states a licence only where one is known: it never guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_SIMULATED = "sim-"
"""How the names of simulated annotators begin."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class CardFacts:
    """What a card reports of one build."""

    run_id: str
    counts: Mapping[str, Any]
    """The build's metrics: pairs, kept, dropped, quarantined, sft, preference."""
    filters: list[tuple[str, str]]
    """Rule and threshold, in order."""
    annotators: list[str]
    guidelines: list[str]
    models: list[str]
    """Whose completions were judged."""
    agreement: Mapping[str, Any]
    """By question, as the judge run noted it; empty if it is not known."""
    lineage: list[str]
    """Ids of the runs behind the sets, nearest first."""
    licence: str = "not stated"


def card(facts: CardFacts) -> str:
    """The card as Markdown, ending in a line feed."""
    parts = [
        _header(facts),
        f"# Preference and SFT data, {facts.run_id}\n",
        _people(facts),
        "## Contents\n\n" + _contents(facts),
        "## What was kept\n\n" + _kept(facts),
        "## Noise\n\n" + _noise(facts.counts),
        "## Agreement\n\n" + _agreement(facts.agreement),
        "## Lineage\n\n" + "\n".join(f"- `{run}`" for run in facts.lineage) + "\n",
        _LOADING,
        f"## Licence\n\n{facts.licence}\n",
    ]
    return "\n".join(parts)


def simulated(annotators: list[str]) -> list[str]:
    """Those of the annotators who are simulations."""
    return [name for name in annotators if name.startswith(_SIMULATED)]


_LOADING = """\
## Loading

```python
from datasets import load_dataset

pairs = load_dataset("parquet", data_files="preference.parquet", split="train")
pairs = pairs.filter(lambda row: row["split"] == "train")  # "eval" rows are held out
```

`prompt`, `chosen`, `rejected` and `completion` are lists of messages, as TRL reads them; `margin`
is the mean strength of the preference over 3, from 0 to 1; `p_chosen` is the probability that the
chosen response is the better one, and `noise_rate` 1 less that.
"""


def _header(facts: CardFacts) -> str:
    rows = sum(facts.counts["sft"].values()) + sum(facts.counts["preference"].values())
    names = [name for name in ("preference", "sft") if sum(facts.counts[name].values())]
    tags = ["preference", "dpo", "trl", "handloom"]
    if simulated(facts.annotators):
        tags.append("simulated-annotators")
    header = {
        "pretty_name": f"Handloom {facts.run_id}",
        "size_categories": [next((size for most, size in _SIZES if rows < most), "n>1M")],
        "task_categories": ["text-generation"],
        "tags": tags,
        # One file holds both sides, so no split of the Hub's may be called "train".
        "configs": [
            {"config_name": name, "data_files": [{"split": "all", "path": f"{name}.parquet"}]}
            for name in names
        ],
    }
    return "---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---\n"


def _people(facts: CardFacts) -> str:
    total, made = len(facts.annotators), len(simulated(facts.annotators))
    if made == total and total:
        who = f"{total} **simulated annotators**, not people"
    elif made:
        who = f"{total - made} people and {made} **simulated annotators**"
    else:
        who = f"{total} people"
    guidelines = ", ".join(f"`{name}`" for name in facts.guidelines) or "no recorded guideline"
    models = ", ".join(f"`{name}`" for name in facts.models)
    return f"Judged by {who}, under {guidelines}. Completions by {models}.\n"


def _contents(facts: CardFacts) -> str:
    lines = ["| file | rows | of these |", "|---|---:|---|"]
    for name in ("preference", "sft"):
        parts = facts.counts[name]
        detail = ", ".join(f"{count:,} {part}" for part, count in parts.items() if count)
        lines.append(f"| `{name}.parquet` | {sum(parts.values()):,} | {detail} |")
    lines.append(f"| `decisions.parquet` | {decided(facts.counts):,} | one a pair, with reasons |")
    return "\n".join(lines) + "\n"


def decided(counts: Mapping[str, Any]) -> int:
    """How many pairs were kept or dropped."""
    return int(counts["kept"] + sum(counts["dropped"].values()))


def _kept(facts: CardFacts) -> str:
    counts = facts.counts
    lines = [f"Of {counts['pairs']:,} judged pairs {counts['kept']:,} were kept. Rules in order:\n"]
    lines += ["| rule | demands | dropped first by it |", "|---|---|---:|"]
    for rule, threshold in facts.filters:
        lines.append(f"| {rule} | {threshold} | {counts['dropped'].get(rule, 0):,} |")
    lines.append(f"| quarantined | a usable row | {counts['quarantined']:,} |")
    return "\n".join(lines) + "\n"


def _noise(counts: Mapping[str, Any]) -> str:
    found = counts["noise_rate"]
    decided = ""
    if counts.get("adjudicated"):
        decided = (
            f" {counts['adjudicated']:,} of the kept pairs were decided by reviewers and are not "
            "part of it: their posterior is 1 by decree.\n"
        )
    if found["value"] is None:
        return f"Not estimated: {found['reason']}.\n{decided}"
    return (
        "By the judgement's own estimate the share of pairs whose worse response is chosen is "
        f"{interval_text(found)} (95 % interval over {found['over']}; n={found['n']:,} pairs). "
        "Held against no truth: it is as good as the posteriors are calibrated.\n"
        f"{decided}"
    )


def _agreement(agreement: Mapping[str, Any]) -> str:
    if not agreement:
        return "Not measured.\n"
    lines = [
        "| question | Krippendorff's alpha (95 %: these annotators) | annotators like these "
        "| items | answers |",
        "|---|---|---|---:|---:|",
    ]
    for question, found in agreement.items():
        alpha = found.get("alpha")
        if alpha is None:
            continue  # of free texts, which have none
        counts = f"{found.get('items', 0):,} | {found.get('answers', 0):,}"
        lines.append(f"| {question} | {interval_text(alpha)} | {_others(alpha)} | {counts} |")
    return "\n".join(lines) + "\n"


def _others(alpha: Mapping[str, Any]) -> str:
    """Where alpha would lie with other annotators like these, as far as that can be said."""
    ends = alpha.get("over_annotators") or {}
    if ends.get("low") is None:
        return f"not known: {ends.get('reason') or alpha.get('reason') or 'not measured'}"
    return f"[{ends['low']:.3f}, {ends['high']:.3f}]"


def interval_text(estimate: Mapping[str, Any]) -> str:
    """A recorded estimate as in "0.864 [0.843, 0.887]"; its reason where there is none."""
    if estimate.get("value") is None:
        return f"undefined ({estimate.get('reason') or 'not measured'})"
    if estimate.get("low") is None:
        return f"{estimate['value']:.3f} (no interval: {estimate.get('reason')})"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
