"""Which items a batch holds, and in which order each shows its responses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotate.guidelines import Guideline
from annotate.orders import Codes, balanced_rotations, balanced_sides, random_keys
from annotate.records import SCHEMAS, content_id, table_from_rows
from annotate.shown_text import MAX_MARKED

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Arrangement:
    """Items to show, and what gives none."""

    items: pa.Table
    """Sorted by id."""
    quarantine: pa.Table
    """Prompts with fewer or more outputs than the guideline shows, outputs without a prompt, pairs
    of outputs that say the same."""


@dataclass(frozen=True)
class _Sets:
    """Outputs that are to stand in one item each, all of the same number n."""

    ids: Texts
    """Item ids, shape (items,)."""
    prompt_ids: Texts
    outputs: Texts
    """Output ids, shape (items, n), ascending in a row."""
    batch: str

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> _Sets:
        parts = self.ids[chosen], self.prompt_ids[chosen], self.outputs[chosen]
        return _Sets(*parts, self.batch)


def arrange(
    prompts: pa.Table,
    outputs: pa.Table,
    guideline: Guideline,
    *,
    batch: str,
    seed: int,
    pairs_per_prompt: int | None = None,
    pairs: Collection[frozenset[str]] | None = None,
    earlier: pa.Table | None = None,
) -> Arrangement:
    """Make the items of a batch: what of each prompt stands in one depends on the guideline's kind.

    Every pair of outputs to be compared, all of them to be ranked, each by itself, or none. A pair
    of equal completions is not shown: a comparison has nothing to find. A ranking shows them. Ids
    depend on guideline, batch and outputs only; the order shown on these, the seed and `earlier`;
    nothing on the order of rows. A ranking must rank every option of its Argilla dataset, so items
    of different sizes go to datasets of their own: `<batch>-of-3`, `<batch>-of-4`, ….

    Args:
        prompts: table `prompts`.
        outputs: table `outputs`; each output counts once.
        batch: name of the Argilla dataset.
        pairs_per_prompt: of a prompt with more pairs show so many, chosen at random.
        pairs: of the pairs of outputs show these only; all if None. Rankings know no pairs.
        earlier: items that the batch holds already. They keep their order, and new ones mend the
            balance that those left; without them a call balances its own items only.
    """
    known = _distinct(outputs, prompts)
    fits = _fits(known, guideline)
    models = dict(zip(known["output_id"], known["model"].fillna(""), strict=True))
    tables, alike = [], []
    for sets in _sets(known[fits], prompts, guideline, batch):
        if pairs is not None and guideline.kind == "compare":
            asked_for = [frozenset(pair) in pairs for pair in sets.outputs.tolist()]
            sets = sets[np.array(asked_for, dtype=bool)]
        if guideline.kind == "compare":
            same = _same_text(sets, known)
            alike += sets.outputs[same].tolist()
            sets = sets[~same]
        if pairs_per_prompt is not None and guideline.kind == "compare":
            sets = sets[_at_most(sets, pairs_per_prompt, seed)]
        before = _earlier_sets(earlier, sets)
        tables.append(_table(sets, _order(sets, before, models, seed), guideline))
    items = pa.concat_tables([SCHEMAS["items"].empty_table(), *tables]).sort_by("item_id")
    return Arrangement(items, _quarantine(prompts, known, fits, alike, guideline))


def _distinct(outputs: pa.Table, prompts: pa.Table) -> pd.DataFrame:
    """Each output once, sorted; whether its prompt is there, and how many outputs that one has.

    Completions that are equal but for surrounding white space have the same number as `text`.
    """
    table = outputs.select(["output_id", "prompt_id", "model"])
    table = table.append_column("length", pc.fill_null(pc.utf8_length(outputs["completion"]), 0))
    text = pc.utf8_trim_whitespace(pc.fill_null(outputs["completion"], ""))
    table = table.append_column("text", pc.index_in(text, value_set=pc.unique(text)))
    asked = pc.is_in(table["prompt_id"], value_set=prompts["prompt_id"].combine_chunks())
    frame: pd.DataFrame = table.append_column("has_prompt", asked).to_pandas()
    frame = frame.drop_duplicates("output_id").sort_values(["prompt_id", "output_id"])
    frame["size"] = frame.groupby("prompt_id")["output_id"].transform("size")
    return frame


def _fits(known: pd.DataFrame, guideline: Guideline) -> pd.Series[bool]:
    """Which outputs can stand in an item."""
    most = guideline.max_outputs if guideline.kind == "rank" else np.inf
    fits: pd.Series[bool] = known["has_prompt"] & known["size"].between(guideline.min_outputs, most)
    return fits & (known["length"] <= MAX_MARKED) if guideline.kind == "span" else fits


def _sets(
    outputs: pd.DataFrame, prompts: pa.Table, guideline: Guideline, batch: str
) -> Iterator[_Sets]:
    """The sets of outputs that make an item: pairs or single ones in one, rankings by their size.

    Of prompts that are shown alone each makes a set without outputs.
    """
    if guideline.max_outputs < 2:
        single = outputs if guideline.max_outputs else None
        yield _single(single, _texts(pc.unique(prompts["prompt_id"])), guideline, batch)
        return
    parts: list[tuple[Texts, Texts]] = []
    for n in sorted(int(size) for size in outputs["size"].unique()):
        chosen = outputs[outputs["size"] == n]
        members = chosen["output_id"].to_numpy(dtype=object).reshape(-1, n)
        prompt_ids = chosen["prompt_id"].to_numpy(dtype=object)[::n]
        if guideline.kind == "rank":
            yield _named(prompt_ids, members, guideline, f"{batch}-of-{n}")
        else:
            first, second = np.triu_indices(n, k=1)
            pairs = np.stack([members[:, first], members[:, second]], axis=2).reshape(-1, 2)
            parts.append((np.repeat(prompt_ids, len(first)), pairs))
    if parts:
        prompt_ids, members = (np.concatenate(column) for column in zip(*parts, strict=True))
        yield _named(prompt_ids, members, guideline, batch)


def _single(
    outputs: pd.DataFrame | None, prompt_ids: Texts, guideline: Guideline, batch: str
) -> _Sets:
    """Each output by itself, or each prompt without any."""
    if outputs is None:
        named = [content_id("i", guideline.name, guideline.kind, p, batch) for p in prompt_ids]
        none = np.empty((len(prompt_ids), 0), dtype=object)
        return _Sets(np.array(named, dtype=object), prompt_ids, none, batch)
    members = outputs["output_id"].to_numpy(dtype=object).reshape(-1, 1)
    return _named(outputs["prompt_id"].to_numpy(dtype=object), members, guideline, batch)


def _named(prompt_ids: Texts, outputs: Texts, guideline: Guideline, batch: str) -> _Sets:
    named = [content_id("i", guideline.name, guideline.kind, *row, batch) for row in outputs]
    return _Sets(np.array(named, dtype=object), prompt_ids, outputs, batch)


def _same_text(sets: _Sets, known: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which pairs have two completions that say the same."""
    text = known.set_index("output_id")["text"]
    first, second = (text.reindex(column).to_numpy() for column in sets.outputs.T)
    return np.asarray(first == second)


def _at_most(sets: _Sets, count: int, seed: int) -> npt.NDArray[np.bool_]:
    """Chooses `count` sets of each prompt at random."""
    keys = pd.Series(random_keys(sets.ids.tolist(), seed))
    return (keys.groupby(sets.prompt_ids).rank(method="first") <= count).to_numpy()


def _earlier_sets(earlier: pa.Table | None, sets: _Sets) -> _Sets:
    """What the batch holds already; the outputs in the order shown."""
    n = sets.outputs.shape[1]
    table = SCHEMAS["items"].empty_table() if earlier is None else earlier
    in_batch = pc.equal(table["batch"], sets.batch)
    table = table.filter(pc.and_(in_batch, pc.equal(pc.list_value_length(table["output_ids"]), n)))
    return _Sets(
        ids=_texts(table["item_id"]),
        prompt_ids=_texts(table["prompt_id"]),
        outputs=_texts(pc.list_flatten(table["output_ids"])).reshape(table.num_rows, n),
        batch=sets.batch,
    )


def _texts(column: pa.ChunkedArray | pa.Array) -> Texts:
    texts: Texts = np.array(column.to_pylist(), dtype=object)
    return texts


def _order(sets: _Sets, before: _Sets, models: dict[str, str], seed: int) -> Texts:
    """The outputs of `sets`, each row in the order shown."""
    n = sets.outputs.shape[1]
    if n < 2:
        return sets.outputs
    return (_pair_order if n == 2 else _ranking_order)(sets, before, models, seed)


def _pair_order(sets: _Sets, before: _Sets, models: dict[str, str], seed: int) -> Texts:
    """The pairs of `sets` in the order shown."""
    new = sets[~_among(sets.ids, before.ids)]
    outputs = np.concatenate([np.sort(before.outputs, axis=1), new.outputs])
    code = _model_codes(outputs, models)
    model_pair = pd.factorize(code.min(axis=1) * (code.max(initial=0) + 1) + code.max(axis=1))[0]
    decided = np.where(before.outputs[:, 0] == outputs[: len(before.ids), 0], 1, -1)
    ids = np.concatenate([before.ids, new.ids])
    sides = balanced_sides(
        model_pair=model_pair,
        agree=np.where(code[:, 0] <= code[:, 1], 1, -1).astype(np.int8),
        keys=random_keys(ids.tolist(), seed),
        earlier=np.concatenate([decided, np.zeros(len(new.ids))]).astype(np.int8),
    )
    shown = np.where((sides > 0)[:, None], outputs, outputs[:, ::-1])
    return _pick(shown, ids, sets.ids)


def _ranking_order(sets: _Sets, before: _Sets, models: dict[str, str], seed: int) -> Texts:
    """The outputs of `sets`, each row in the order shown."""
    new = sets[~_among(sets.ids, before.ids)]
    n = sets.outputs.shape[1]
    code = _model_codes(np.concatenate([before.outputs, new.outputs]), models)
    distinct, stratum = np.unique(np.sort(code, axis=1), axis=0, return_inverse=True)
    stratum = stratum.reshape(-1)
    names = sorted({*models.values(), ""})
    strata = [content_id("s", *(names[c] for c in row)) for row in distinct]
    new_stratum = stratum[len(before.ids) :]
    rotation = balanced_rotations(
        new_stratum,
        n,
        keys=random_keys(new.ids.tolist(), seed),
        seeds=random_keys(strata, seed),
        before=np.bincount(stratum[: len(before.ids)], minlength=len(strata)),
    )
    by_model = np.argsort(code[len(before.ids) :], axis=1, kind="stable")
    order = np.take_along_axis(by_model, rotation, axis=1)
    shown = np.concatenate([before.outputs, np.take_along_axis(new.outputs, order, axis=1)])
    return _pick(shown, np.concatenate([before.ids, new.ids]), sets.ids)


def _among(ids: Texts, others: Texts) -> npt.NDArray[np.bool_]:
    """Which ids are among the others; hashed, where numpy.isin compares objects all with all."""
    return np.asarray(pd.Index(ids).isin(pd.Index(others)))


def _pick(rows: Texts, ids: Texts, wanted: Texts) -> Texts:
    picked: Texts = rows[pd.Index(ids).get_indexer(pd.Index(wanted))]
    return picked


def _model_codes(outputs: Texts, models: dict[str, str]) -> Codes:
    """Each output's model as its place among the sorted names; an unknown one is the empty name."""
    place = {name: at for at, name in enumerate(sorted({*models.values(), ""}))}
    known = {output: place[model] for output, model in models.items()}
    flat = pd.Series(outputs.ravel(), dtype=object).map(known).fillna(place[""])
    return np.asarray(flat, dtype=np.int64).reshape(outputs.shape)


def _table(sets: _Sets, shown: Texts, guideline: Guideline) -> pa.Table:
    count, n = shown.shape
    return pa.table(
        {
            "item_id": sets.ids,
            "prompt_id": sets.prompt_ids,
            "output_ids": pa.ListArray.from_arrays(
                np.arange(count + 1, dtype=np.int32) * np.int32(n),
                pa.array(shown.ravel(), pa.string()),
            ),
            "kind": [guideline.kind] * count,
            "guideline": [guideline.name] * count,
            "batch": [sets.batch] * count,
        },
        schema=SCHEMAS["items"],
    )


def _quarantine(
    prompts: pa.Table,
    known: pd.DataFrame,
    fits: pd.Series[bool],
    alike: Sequence[Sequence[str]],
    guideline: Guideline,
) -> pa.Table:
    fewest, most = guideline.min_outputs, guideline.max_outputs
    span = f"{fewest} to {most}" if guideline.kind == "rank" else f"{fewest} or more"
    long = known[known["has_prompt"] & ~fits & (known["size"] >= fewest) & (fewest == 1)]
    size = known[known["has_prompt"] & ~fits].drop(index=long.index).drop_duplicates("prompt_id")
    orphans = known[~known["has_prompt"]]
    bare = pc.unique(prompts["prompt_id"]).slice(0, None if fewest else 0)
    bare = bare.filter(pc.invert(pc.is_in(bare, pa.array(known["prompt_id"])))).to_pylist()
    counts = [*zip(size["prompt_id"], size["size"], strict=True), *((p, 0) for p in bare)]
    rows = [
        {"id": prompt, "reason": f"number of outputs is {n}, {guideline.name} takes {span}"}
        for prompt, n in counts
    ]
    rows += [
        {"id": output, "reason": f"its text has {n:,} characters, {MAX_MARKED:,} can be marked"}
        for output, n in zip(long["output_id"], long["length"], strict=True)
    ]
    rows += [
        {"id": output, "content": prompt, "reason": "its prompt is not among the prompts"}
        for output, prompt in zip(orphans["output_id"], orphans["prompt_id"], strict=True)
    ]
    rows += [
        {"id": one, "content": other, "reason": f"it says the same as {other}: nothing to compare"}
        for one, other in alike
    ]
    return table_from_rows("quarantine", rows)
