"""What tuning found, as text and as a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import yaml

from align.tune.grid import BASE, WORDS, needed
from align.tune.tuned import Tried, Tuned
from annotate.statistics import Estimate

MADE_BY = "# Written by `handloom tune-filters`"
_SHOWN = 12
_BAR = 30
_NAME = 67


def lines(found: Tuned) -> list[str]:
    """The best settings, the choice, and the curve of strictness against accuracy."""
    count = found.counts
    text = [
        f"{found.origin}: {len(found.tried)} settings on {count['with_enough_votes']:,} of "
        f"{count['pairs']:,} pairs (those with {count['largest_overlap']} votes), "
        f"{count['seeds']} seeds",
        f"reward model: {found.model}",
        *_truth(count),
        "",
        f"{'':<{_NAME}}  {f'at {found.votes:,} votes each':<20}  {'behind the choice':<20}  "
        f"at {found.pairs:,} pairs each",
    ]
    distinct = found.distinct
    text += [_row(each, found.choice) for each in distinct[:_SHOWN]]
    if len(distinct) > _SHOWN:
        text.append(f"  … and {len(distinct) - _SHOWN} more: table tuned_settings")
    if twins := len(found.tried) - len(distinct):
        text.append(f"  {twins} settings kept the same pairs as another and are not shown")
    text += ["", *verdict(found), "", *_curves(found)]
    return text


def _truth(count: dict[str, int]) -> list[str]:
    if count["gold"]:
        return [f"truth: {count['gold']:,} gold pairs, whose prompts nobody voted on"]
    return [
        f"truth: the majority of the votes on {count['truths']:,} held-out pairs, which no "
        "setting saw; votes err too,",
        "  so that accuracies are lower than against what people mean, alike for all settings",
    ]


def _row(each: Tried, choice: Tried) -> str:
    behind = "the choice" if each is choice else _short(each.behind)
    return (
        f"  {each.setting.name:<{_NAME - 2}}  {_short(each.at_equal_votes):<20}  {behind:<20}  "
        f"{_short(each.at_equal_pairs)}"
    )


def verdict(found: Tuned) -> list[str]:
    """The choice, what it may be worth, and what the data cannot tell from it."""
    text = [
        f"choice: {found.choice.setting.name}",
        f"  on prompts that had no part in choosing: {_short(found.unselected)}",
    ]
    equal = len(found.as_good)
    if not equal:
        return [*text, "  the data tell it from every other setting"]
    others = "; ".join(each.setting.name for each in found.as_good[:4])
    more = f" and {equal - 4} more" if equal > 4 else ""
    return [*text, f"  these data cannot tell it from {equal} others: {others}{more}"]


def _curves(found: Tuned) -> Iterator[str]:
    """Of each overlap and aggregation, accuracy by the share of pairs dropped."""
    scored = [each for each in found.distinct if each.at_equal_votes.value is not None]
    values = [each.at_equal_votes.value or 0.0 for each in scored]
    low, high = min(values), max(values)
    yield f"strictness against accuracy at equal votes (bars from {low:.3f} to {high:.3f})"
    family = sorted(scored, key=lambda each: (each.setting.overlap, each.setting.method))
    for (overlap, method), group in groupby(
        family, key=lambda each: (each.setting.overlap, each.setting.method)
    ):
        yield f"  {WORDS[overlap]}" + (f", {method}" if overlap != "1" else "")
        for each in sorted(group, key=lambda each: each.dropped):
            value = each.at_equal_votes.value or 0.0
            bar = "▇" * round(1 + (_BAR - 1) * (value - low) / max(high - low, 1e-9))
            rules = each.setting.name.rsplit(", ", maxsplit=1)[-1]
            yield f"    drops {each.dropped:4.0%}  {value:.3f}  {bar:<{_BAR}}  {rules}"


def _short(figure: Estimate) -> str:
    if figure.value is None:
        return f"- ({figure.reason})"
    if figure.low is None or figure.high is None:
        return f"{figure.value:z.3f}"
    return f"{figure.value:z.3f} [{figure.low:z.3f}, {figure.high:z.3f}]"


def recipe(found: Tuned, run_id: str) -> str:
    """A recipe of the choice for `handloom build`, with its runners-up as comments."""
    choice = found.choice.setting
    judged = "" if choice.overlap == "1" else f", after `handloom judge --method {choice.method}`"
    head = [
        f"{MADE_BY}, run {run_id}, from {found.origin}.",
        "#",
        f"# For {WORDS[choice.overlap]} a pair{judged}:",
        "#",
        "#   handloom build --recipe build-tuned",
        "#",
        f"# Chosen among {len(found.tried)} settings at {found.votes:,} votes each, by accuracy on "
        "pairs and votes that no",
        f"# setting saw. Reward model: {found.model}.",
        f"# {choice.name}: {_short(found.choice.at_equal_votes)}; on prompts without a part in "
        f"choosing {_short(found.unselected)}.",
        "# Runners-up, and how far behind:",
    ]
    for each in found.distinct[1:6]:
        told = "" if each.told_apart else " (cannot be told apart)"
        head.append(f"#   {each.setting.name}: {_short(each.behind)}{told}")
    filters = [{"rule": "min_votes", "at_least": min(2, needed(choice.overlap))}]
    if choice.overlap not in ("1", "2+1"):
        filters[0]["at_least"] = needed(choice.overlap)
    filters += [
        rule.model_dump(mode="json", exclude_none=True) for rule in (*choice.filters, *BASE)
    ]
    body = yaml.safe_dump({"filters": filters, "held_out": 0.1}, sort_keys=False)
    return "\n".join(head) + "\n\n" + body
