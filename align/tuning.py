"""From a build's rows to a TRL trainer: what the methods that tune a model do alike.

Rows without room for a completion are left out here, and counted: the trainers drop them silently,
and one that is left with none fails in its own words, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from align.adapters import adapter_config
from align.conversations import answer_tokens, control_tokens, conversation_tokens, spell_out
from align.model import Loaded, Task, add_special_tokens
from align.processes import rank, world_size
from align.recipe import Tuning
from align.training import CHECKPOINTS, settings_reported, trainer_arguments, with_row_means
from annotate.errors import InputError
from annotate.runs import Draft

if TYPE_CHECKING:
    from datasets import Dataset

# Rows whose tokens are held in memory at once, only to be counted.
_COUNTED_TOGETHER = 1000


@dataclass(frozen=True)
class Prepared:
    """What a trainer reads."""

    train: Dataset
    eval: Dataset | None
    """None where nothing is held out."""
    new_tokens: list[int]
    """Ids of the tokens that the recipe added, its chat template's among them."""


def prepare(
    recipe: Tuning,
    loaded: Loaded,
    rows: pa.Table,
    draft: Draft,
    completions: tuple[str, ...],
    *,
    whole: bool = False,
    apart: bool = False,
    room: int = 1,
    extra: tuple[str, ...] = (),
    unit: str = "pairs",
) -> Prepared:
    """The data sets of both sides, with the counts of what is in them noted in the draft.

    Control tokens in texts are spelled out (`align.conversations`), and the recipe's new special
    tokens added to the model.

    Args:
        completions: the columns that hold them, beside `prompt`; none where they are yet to come.
        whole: leave out what is longer than `max_length`, as a reward is read at the end; else only
            what has less than `room` left after the prompt, since the rest can be cut.
        apart: `max_length` bounds prompt and completion each, as the model reads them apart.
        room: in tokens.
        extra: other columns that the trainer reads.
        unit: what a row is called in the metrics.

    Raises:
        InputError: every row to train on is too long.
        TrainingError: the chat template refuses a conversation.
    """
    added = add_special_tokens(loaded.model, loaded.tokenizer, recipe.new_special_tokens)
    control = control_tokens(loaded)
    texts = ("prompt", *completions)
    table = pa.table(
        {name: spell_out(rows[name], control) for name in texts}
        | {name: rows[name] for name in (*extra, "split")}
    )
    table, counts = _with_room(
        recipe, loaded, table, completions, 0 if whole else room, draft.plan.run_id, apart
    )
    sides = {
        side: table.filter(pc.equal(table["split"], side)).select([*texts, *extra])
        for side in ("train", "eval")
    }
    train, held_out = sides["train"], sides["eval"]
    draft.note(**{unit: train.num_rows, f"eval_{unit}": held_out.num_rows}, **counts)
    sets = {name: _data_set(side, name, draft) for name, side in sides.items() if side.num_rows}
    return Prepared(sets["train"], sets.get("eval"), [*loaded.new_tokens, *added])


def _data_set(rows: pa.Table, name: str, draft: Draft) -> Dataset:
    """The rows as a data set; in a file where several processes read it.

    TRL computes a reference's log-probabilities in all of them and keeps them beside that file, and
    without one each process would look in a folder of its own.
    """
    from datasets import Dataset

    if world_size() == 1:
        return Dataset(rows)
    folder = draft.path / CHECKPOINTS / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / f"{name}.arrow", folder / f"{name}.{rank()}.tmp"
    if not path.exists():
        with (
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_stream(file, rows.schema) as writer,
        ):
            writer.write_table(rows)
        temporary.replace(path)
    return Dataset.from_file(str(path))


def make_trainer(
    trainer_class: Any,
    config_class: Any,
    recipe: Tuning,
    loaded: Loaded,
    prepared: Prepared,
    draft: Draft,
    *,
    task: Task = "causal-lm",
    parts: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """A TRL trainer as the recipe says, ready for `fit`.

    Args:
        trainer_class: one of TRL's.
        config_class: its configuration.
        task: as for `load_model`.
        parts: what only this trainer's constructor takes.
        arguments: of the configuration, over those of the recipe.

    Raises:
        TrainingError: TRL or PEFT refuses the settings.
    """
    chosen = trainer_arguments(recipe, draft, evaluates=prepared.eval is not None) | arguments
    if any(one.name == "max_length" for one in fields(config_class)):
        chosen["max_length"] = recipe.max_length
    with settings_reported(draft.plan.run_id):
        return with_row_means(trainer_class)(
            model=loaded.model,
            args=config_class(**chosen),
            train_dataset=prepared.train,
            eval_dataset=prepared.eval,
            processing_class=loaded.tokenizer,
            peft_config=adapter_config(recipe, prepared.new_tokens, loaded.model, task=task),
            **(parts or {}),
        )


def _with_room(
    recipe: Tuning,
    loaded: Loaded,
    table: pa.Table,
    completions: tuple[str, ...],
    room: int,
    where: str,
    apart: bool,
) -> tuple[pa.Table, dict[str, int]]:
    """The rows that fit, and how many do not (`too_long`) or are cut at their end (`cut`).

    Args:
        room: tokens that must be left after the prompt; 0: the whole row must fit.
    """
    needed = _lengths(loaded, table) + room if room else np.zeros(table.num_rows, dtype=np.int64)
    length = _answer_lengths if apart else _lengths
    longest = np.max([needed, *(length(loaded, table, name) for name in completions)], axis=0)
    over = longest > recipe.max_length
    out = needed > recipe.max_length if room else over
    kept = table.filter(pa.array(~out))
    trained = np.asarray(pc.equal(table["split"], "train"))
    if trained.any() and not (trained & ~out).any():
        raise InputError(
            f"all {int(trained.sum()):,} rows to train on are longer than max_length, "
            f"{recipe.max_length:,} tokens",
            where=where,
            remedy=f"Set max_length up to {int(longest[trained].max()):,}, the longest",
        )
    return kept, {"too_long": int(out.sum()), "cut": int((over & ~out).sum())}


def _lengths(loaded: Loaded, table: pa.Table, completion: str | None = None) -> NDArray[np.int64]:
    """Tokens of each row's prompt alone, or of prompt and completion, shape (rows,)."""
    found: list[int] = []
    for start in range(0, table.num_rows, _COUNTED_TOGETHER):
        part = table.slice(start, _COUNTED_TOGETHER)
        conversations: Sequence[Any] = part["prompt"].to_pylist()
        if completion is not None:
            answers = part[completion].to_pylist()
            conversations = [[*a, *b] for a, b in zip(conversations, answers, strict=True)]
        tokens = conversation_tokens(loaded, conversations, asks=completion is None)
        found += map(len, tokens)
    return np.array(found, dtype=np.int64)


def _answer_lengths(loaded: Loaded, table: pa.Table, completion: str) -> NDArray[np.int64]:
    """Tokens of each row's completion alone, its words and its end, shape (rows,)."""
    found: list[int] = []
    for start in range(0, table.num_rows, _COUNTED_TOGETHER):
        answers = table[completion].slice(start, _COUNTED_TOGETHER).to_pylist()
        found += (len(tokens) for tokens in answer_tokens(loaded, answers))
    return np.array(found, dtype=np.int64)
