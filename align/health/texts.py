"""Rules on what a trained model writes: loops, copies, one answer to everything, lengths.

Texts are compared by their windows of sixteen characters, so that scripts without blanks count as
well as others. Whole columns at once: a few seconds and about 300 MB for 100,000 completions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from align.health.robust import Reals
from align.health.rule import State, Verdict
from annotate.statistics import Estimate, bootstrap_mean, cluster_means, undefined, wilson

WINDOW = 16
SHORTEST = 32
"""Characters from which a text can repeat itself or copy."""

# An odd multiplier for the rolling hash; any will do.
_BASE = np.uint64(0x9E3779B97F4A7C15)
# Characters hashed at a time.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Written:
    """What one model wrote."""

    model: str
    outputs: pa.Table
    """Rows of `outputs` of this model."""
    asked: pa.Array
    """The prompt of each as one text."""
    before: pa.Table
    """Rows of `outputs` of the model it is compared with, for the same prompts; may be empty."""


def written(outputs: pa.Table, prompts: pa.Table, model: str, before: str | None) -> Written:
    """What `model` wrote, by an `outputs` and a `prompts` table.

    Args:
        before: the model whose lengths are compared with; None for none.
    """
    own = outputs.filter(pc.equal(outputs["model"], model))
    texts = pc.binary_join(_contents(prompts), "\n")
    place = pc.index_in(own["prompt_id"], value_set=prompts["prompt_id"])
    asked = pc.fill_null(texts.take(place), "")
    theirs = outputs.filter(pc.equal(outputs["model"], before or ""))
    return Written(model, own, asked, theirs)


def repeated(texts: pa.Array | pa.ChunkedArray) -> Reals:
    """The share of each text's windows that stand in it before; NaN of short ones. Shape (n,)."""
    found = [_repeated(block) for block in _blocks(_plain(texts))]
    return np.concatenate(found) if found else np.zeros(0)


def copied(texts: pa.Array | pa.ChunkedArray, sources: pa.Array | pa.ChunkedArray) -> Reals:
    """The share of each text's windows that stand in its source; NaN of short texts. Shape (n,)."""
    plain, asked = _plain(texts), _plain(sources)
    found, start = [], 0
    for block in _blocks(plain, asked):
        source = asked.slice(start, len(block))
        start += len(block)
        owner, window = _windows(block)
        known = np.isin(window, _windows(source)[1])
        found.append(_share(block, owner, known))
    return np.concatenate(found) if found else np.zeros(0)


def _loops(what: Written) -> Estimate:
    return _rate(repeated(what.outputs["completion"]) > 0.5, what.outputs)


def _copies(what: Written) -> Estimate:
    return _rate(copied(what.outputs["completion"], what.asked) > 0.8, what.outputs)


def _alike(what: Written) -> Estimate:
    """Of the prompts: how many are given the commonest completion."""
    given = what.outputs.select(["prompt_id", "completion"]).group_by(["prompt_id", "completion"])
    counts = given.aggregate([]).group_by("completion").aggregate([("prompt_id", "count")])
    prompts = len(pc.unique(what.outputs["prompt_id"]))
    most = pc.max(counts["prompt_id_count"]).as_py()
    return wilson(most or 0, prompts, over="prompts")


def _longer(what: Written) -> Estimate:
    """How many times as many tokens as the model before, the geometric mean over prompts."""
    both = [_mean_log_tokens(table) for table in (what.outputs, what.before)]
    shared = sorted(set(both[0]) & set(both[1]))
    if not shared:
        return undefined("no other model completed these prompts", 0, "prompts")
    ratio = np.array([both[0][prompt] - both[1][prompt] for prompt in shared])
    logs = bootstrap_mean(ratio, over="prompts")
    return replace(logs, value=_power(logs.value), low=_power(logs.low), high=_power(logs.high))


@dataclass(frozen=True)
class TextRule:
    """A rate of a model's texts that may lie between two figures, its whole interval outside.

    So a handful of texts flags nothing.
    """

    name: str
    looks_at: str
    said: str
    """With {value} where the estimate belongs."""
    least: float
    most: float
    reason: str
    remedy: str
    rate: Callable[[Written], Estimate]
    serious: bool = True

    @property
    def demands(self) -> str:
        """The threshold in words and figures."""
        lower = f"not surely below {self.least:g}" if self.least > 0 else ""
        return " and ".join(filter(None, (f"not surely over {self.most:g}", lower)))

    def __call__(self, what: Written) -> Verdict:
        """Compare the interval with the thresholds."""
        rate = self.rate(what)
        if rate.value is None or rate.low is None or rate.high is None:
            return Verdict(self.name, "unknown", rate.reason, rate.n)
        said = self.said.format(value=rate)
        if self.least <= rate.high and rate.low <= self.most:
            return Verdict(self.name, "fine", said, rate.n)
        state: State = "serious" if self.serious else "warning"
        return Verdict(self.name, state, said, rate.n, self.remedy)


TEXT_RULES = {
    rule.name: rule
    for rule in (
        TextRule(
            name="repetitive output",
            looks_at="completions more than half of whose windows of 16 characters came before",
            said="{value} of the prompts' completions go round in circles",
            least=0.0,
            most=0.05,
            reason="people and healthy models repeat a tenth of their windows; a text that loops "
            "repeats nearly all of them, so that half separates the two",
            remedy="Sample at a temperature over 0, look for an end of turn that is never learnt "
            "(eos masked or cut off by max_length), train less or with a larger beta",
            rate=_loops,
        ),
        TextRule(
            name="copied output",
            looks_at="completions more than four fifths of whose windows stand in the prompt",
            said="{value} of the prompts' completions are copied from the prompt",
            least=0.0,
            most=0.1,
            reason="an answer quotes its question and still says something; extraction and "
            "rewriting copy on purpose: pass over it there",
            remedy="Look whether the loss is on the completion alone (assistant_only_loss, the "
            "chat template's generation marks) and whether the set holds copies of its prompts",
            rate=_copies,
            serious=False,
        ),
        TextRule(
            name="one output for all",
            looks_at="the completion that most prompts are given",
            said="{value} of the prompts are given the same completion",
            least=0.0,
            most=0.2,
            reason="different prompts have different answers, greetings and refusals apart; where "
            "few answers exist (classification) pass over it",
            remedy="The model has collapsed: lower trainer.learning_rate, raise beta, and look "
            "whether one completion fills the set",
            rate=_alike,
        ),
        TextRule(
            name="longer or shorter output",
            looks_at="tokens a completion against the model before, on the same prompts",
            said="{value} times as long as those of the model before",
            least=0.667,
            most=1.5,
            reason="as for length drift, of which this is the measure where training samples "
            "nothing",
            remedy="Balance length in the pairs (filter length_ratio), take SimPO or sigmoid_norm, "
            "or raise beta",
            rate=_longer,
            serious=False,
        ),
    )
}


def _rate(flags: NDArray[np.bool_], outputs: pa.Table) -> Estimate:
    """The mean over prompts of the share of completions flagged."""
    means = cluster_means(flags.astype(float), outputs["prompt_id"].to_pylist())
    if len(means) and np.ptp(means) == 0:
        return wilson(float(means.sum()), len(means), over="prompts")
    return bootstrap_mean(means, over="prompts")


def _power(log: float | None) -> float | None:
    return None if log is None else float(np.exp2(log))


def _mean_log_tokens(table: pa.Table) -> dict[str, float]:
    known = table.filter(pc.is_valid(table["tokens"]))
    logs = pc.log2(pc.max_element_wise(pc.cast(known["tokens"], pa.float64()), 1.0))
    by_prompt = known.append_column("log", logs).group_by("prompt_id").aggregate([("log", "mean")])
    return dict(
        zip(by_prompt["prompt_id"].to_pylist(), by_prompt["log_mean"].to_pylist(), strict=True)
    )


def _contents(prompts: pa.Table) -> Any:
    """What each prompt's messages say, a list of texts."""
    messages = prompts["messages"].combine_chunks()
    flat = pc.struct_field(messages.flatten(), "content")
    return pa.ListArray.from_arrays(pc.subtract(messages.offsets, messages.offsets[0]), flat)


def _plain(texts: pa.Array | pa.ChunkedArray) -> Any:
    """Lower case, one blank for any white space."""
    lower = pc.utf8_lower(pc.fill_null(texts, ""))
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"\s+", " "))
    return plain.combine_chunks() if isinstance(plain, pa.ChunkedArray) else plain


def _blocks(texts: Any, others: Any = None) -> Iterator[Any]:
    """The texts in slices of bounded size."""
    lengths = np.asarray(pc.utf8_length(texts), dtype=np.int64)
    if others is not None:
        lengths = lengths + np.asarray(pc.utf8_length(others), dtype=np.int64)
    block = np.cumsum(lengths) // _BLOCK
    cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(texts)]
    for start, end in itertools.pairwise(cuts):
        if end > start:
            yield texts.slice(start, end - start)


def _windows(texts: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The text of every window of `WINDOW` characters, and a hash of both."""
    joined = "".join(texts.to_pylist()).encode("utf-32-le")
    code = np.frombuffer(joined, dtype="<u4").astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), np.asarray(pc.utf8_length(texts), dtype=np.int64))
    count = max(0, len(code) - WINDOW + 1)
    hashed = np.zeros(count, dtype=np.uint64)
    for place in range(WINDOW):
        hashed = hashed * _BASE + code[place : place + count]
    whole = owner[:count] == owner[WINDOW - 1 : WINDOW - 1 + count]
    owner = owner[:count][whole]
    return owner, hashed[whole] * _BASE + owner.astype(np.uint64)


def _repeated(texts: Any) -> Reals:
    owner, window = _windows(texts)
    first = np.zeros(len(window), dtype=bool)
    first[np.unique(window, return_index=True)[1]] = True
    return _share(texts, owner, ~first)


def _share(texts: Any, owner: NDArray[np.int64], marked: NDArray[np.bool_]) -> Reals:
    """Of each text's windows the share that is marked; NaN of a short text."""
    windows = np.bincount(owner, minlength=len(texts))
    hits = np.bincount(owner, weights=marked, minlength=len(texts))
    long = np.asarray(pc.utf8_length(texts)) >= SHORTEST
    return np.where(long, hits / np.maximum(1, windows), np.nan)
