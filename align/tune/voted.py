"""Voted pairs as arrays: what tuning and planning read of judge runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from align.build import Sources, gather, screen
from align.split import EVAL, fingerprints, sides
from align.tune.features import model_features, text_features
from align.tune.gold import Gold, read_gold
from annotate.errors import InputError
from annotate.records import flat_text
from annotate.runs import Project, Run

Reals = NDArray[np.float64]
Codes = NDArray[np.int64]

TEXT_MODEL = "text"
"""The reward model that needs no other: Bradley–Terry on features of the text."""


@dataclass(frozen=True)
class Known:
    """Pairs that nobody voted on and whose better output is known."""

    differences: Reals
    """Features of the first output less those of the second, shape (pairs, d)."""
    label: Reals
    """1 where the first is the better one, -1 where the second is, shape (pairs,)."""


@dataclass(frozen=True)
class Voted:
    """Pairs that somebody voted on, sorted by pair id, and what a reward model sees of them."""

    origin: str
    """Ids of the judge runs."""
    model: str
    """The reward model, in words."""
    differences: Reals
    """Features of output a less those of output b, shape (pairs, d)."""
    pair_ids: pa.Array
    """Of each pair."""
    prompt: Codes
    """Code of what each pair's prompt says, shape (pairs,)."""
    votes: pa.Table
    """Table `votes`, sorted by pair and annotator."""
    pair: Codes
    """Row of the pair that each vote is about, shape (votes,)."""
    sign: NDArray[np.int8]
    """1 for a, -1 for b, 0 for a tie, shape (votes,)."""
    outputs: pa.Table
    """The texts, for filters that read them."""
    known: Known | None = None
    """Pairs whose winner is known from elsewhere."""

    @property
    def pairs(self) -> int:
        """How many."""
        return len(self.prompt)

    @property
    def given(self) -> Codes:
        """Votes on each pair, shape (pairs,)."""
        return np.bincount(self.pair, minlength=self.pairs)

    @property
    def counts(self) -> Reals:
        """Votes for a, for b and for neither, shape (pairs, 3)."""
        column = np.where(self.sign > 0, 0, np.where(self.sign < 0, 1, 2))
        cells = np.bincount(self.pair * 3 + column, minlength=self.pairs * 3)
        return cells.reshape(-1, 3).astype(np.float64)


def voted(
    project: Project,
    judge_runs: Sequence[Run],
    *,
    model: str,
    seed: int,
    gold: Path | None = None,
) -> Voted:
    """Read the votes behind judge runs; pairs on prompts that evaluations hold out are left out.

    Args:
        model: `text`, or a transformers model: base, a train run, a folder, or an id of the hub.
        seed: of the features.
        gold: a file of pairs whose winner is known; see `align.tune.gold`.

    Raises:
        ProjectError: one is not a judge run, or its texts are not in the lineage.
        InputError: nobody voted on a pair that may be looked at.
        TrainingError: the model cannot be loaded.
    """
    sources, usable = _judged(judge_runs)
    votes, pair, sign = _votes(judge_runs, usable["pair_id"])
    outputs = _shown(usable, sources.outputs)
    golden, features, words = _with_gold(project, outputs, sources.prompts, model, seed, gold)
    extra = features[outputs.num_rows :]
    row = {name: n for n, name in enumerate(outputs["output_id"].to_pylist())}
    a, b = ([row[name] for name in usable[f"output_{side}"].to_pylist()] for side in "ab")
    return Voted(
        origin=sources.origin,
        model=words,
        differences=features[a] - features[b],
        pair_ids=usable["pair_id"].combine_chunks(),
        prompt=_prompt_codes(usable, sources.prompts),
        votes=votes,
        pair=pair,
        sign=sign,
        outputs=outputs,
        known=Known(extra[0::2] - extra[1::2], np.array(golden.label)) if golden.label else None,
    )


def _judged(judge_runs: Sequence[Run]) -> tuple[Sources, pa.Table]:
    """Everything behind the runs, and the judgements that may be looked at, sorted by pair."""
    for run in judge_runs:
        run.require("judge", "judgements")
    sources = gather(judge_runs)
    usable, _ = screen(sources.judgements.sort_by("pair_id"), sources)
    usable = usable.filter(_open(usable, sources))
    if not usable.num_rows:
        raise InputError(
            "no pair with a vote is left when those that evaluations hold out are set aside",
            where=sources.origin,
            remedy="Let people judge outputs of other prompts",
        )
    return sources, usable


def _votes(
    judge_runs: Sequence[Run], pairs: pa.ChunkedArray
) -> tuple[pa.Table, Codes, NDArray[np.int8]]:
    """The votes on these pairs, one a person, the row of each vote's pair, and its sign."""
    votes = pa.concat_tables([run.read("votes") for run in judge_runs])
    votes = votes.filter(pc.is_in(votes["pair_id"], value_set=pairs))
    votes = votes.sort_by([(key, "ascending") for key in ("pair_id", "annotator", "time")])
    # Runs that judged the same pull hold the same votes: a person's latest counts, once.
    whose = [np.asarray(votes[key].combine_chunks().dictionary_encode().indices)
             for key in ("pair_id", "annotator")]  # fmt: skip
    again = np.logical_and(*((codes[1:] == codes[:-1]) for codes in whose))
    votes = votes.filter(pa.array(np.append(~again, True)[: votes.num_rows]))
    pair = pc.index_in(votes["pair_id"], value_set=pairs).to_numpy()
    vote = votes["vote"]
    sign = pc.if_else(pc.equal(vote, "tie"), 0, pc.if_else(pc.equal(vote, "a"), 1, -1))
    return votes, pair.astype(np.int64), sign.to_numpy().astype(np.int8)


def _open(judgements: pa.Table, sources: Sources) -> pa.Array:
    """Whether each pair's prompt is one that no evaluation holds out."""
    side = sides(sources.prompts, sources.taken, held_out=0.0)
    held = sources.prompts["prompt_id"].filter(pc.equal(side, EVAL))
    return pc.invert(pc.is_in(judgements["prompt_id"], value_set=held))


def _prompt_codes(judgements: pa.Table, prompts: pa.Table) -> Codes:
    """A code for what each pair's prompt says: one conversation may stand under several ids."""
    at = pc.index_in(judgements["prompt_id"], value_set=prompts["prompt_id"])
    said = fingerprints(prompts["messages"].take(at))
    return np.asarray(said.dictionary_encode().indices, dtype=np.int64)


def _shown(judgements: pa.Table, outputs: pa.Table) -> pa.Table:
    """The rows of the outputs that these pairs compare."""
    names = pa.chunked_array([*judgements["output_a"].chunks, *judgements["output_b"].chunks])
    return outputs.filter(pc.is_in(outputs["output_id"], value_set=pc.unique(names)))


def _with_gold(
    project: Project,
    outputs: pa.Table,
    prompts: pa.Table,
    model: str,
    seed: int,
    gold: Path | None,
) -> tuple[Gold, Reals, str]:
    """Gold, the features of all outputs followed by gold's, and the reward model in words."""
    at = pc.index_in(outputs["prompt_id"], value_set=prompts["prompt_id"])
    asked = prompts["messages"].take(at).to_pylist()
    golden = read_gold(gold, {flat_text(turns) for turns in asked}) if gold else Gold([], [], [])
    features, words = _features(
        project,
        asked + [turns for turns in golden.prompts for _ in range(2)],
        outputs["completion"].to_pylist() + [text for two in golden.completions for text in two],
        model,
        seed,
    )
    return golden, features, words


def _features(
    project: Project,
    asked: Sequence[Sequence[Mapping[str, str]]],
    completions: Sequence[str],
    model: str,
    seed: int,
) -> tuple[Reals, str]:
    """Features of each completion, and the reward model in words."""
    if model == TEXT_MODEL:
        prompts = [flat_text(turns) for turns in asked]
        features = text_features(prompts, completions, seed=seed)
        return features, f"Bradley–Terry on {features.shape[1]} features of the text"
    features = model_features(project, model, asked, completions, seed=seed)
    return features, f"Bradley–Terry head on {model}'s mean last hidden state, its body frozen"
