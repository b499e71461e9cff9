"""KTO with TRL: single completions that people hold to be good or bad (Ethayarajh et al. 2024).

    {"prompt": [{"role": "user", …}], "completion": [{"role": "assistant", …}], "label": true}

They are people's thumbs where the build has any, else both completions of every pair. TRL keeps
the rows' order, since it measures how far the model has moved on each prompt with its neighbour's
completion. So the order is drawn once, by the recipe's seed: neighbours are then of different
prompts, and every batch has both labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from align.model import Loaded
from align.pairs import require_difference
from align.recipe import FROM_DATA, KtoRecipe
from align.training import fit
from align.tuning import make_trainer, prepare
from annotate.errors import InputError
from annotate.runs import Draft


def train_kto(recipe: KtoRecipe, loaded: Loaded, rows: pa.Table, draft: Draft) -> None:
    """Train on the table `kto`, or on `preference`; rows of split "eval" measure the loss.

    Beside it, `eval_rewards/margins` says by how much β log π(y)/π_ref(y) is higher where people
    said yes.

    Raises:
        InputError: every row to train on has the same label, or all are too long.
        TrainingError: TRL or PEFT refuses the recipe's settings.
    """
    from trl import KTOConfig, KTOTrainer

    if "label" not in rows.column_names:
        require_difference(rows)
        rows = apart(rows)
    order = np.random.default_rng(recipe.seed).permutation(rows.num_rows)
    rows = rows.take(pa.array(order))
    prepared = prepare(recipe, loaded, rows, draft, ("completion",), extra=("label",), unit="rows")
    good, bad = labels(prepared.train["label"], draft)
    chosen = recipe.trainer
    arguments: dict[str, Any] = {
        "precompute_ref_log_probs": chosen.get("precompute_ref_log_probs", recipe.reference_first)
    }
    if chosen.get("desirable_weight") == FROM_DATA:
        # The lower end of what the paper recommends (its equation 8): both labels weigh the same.
        arguments["desirable_weight"] = chosen.get("undesirable_weight", 1.0) * bad / good
        draft.note(desirable_weight=arguments["desirable_weight"])
    trainer = make_trainer(KTOTrainer, KTOConfig, recipe, loaded, prepared, draft, **arguments)
    fit(trainer, recipe, draft)


def apart(pairs: pa.Table) -> pa.Table:
    """Both completions of each pair as rows of their own: the chosen ones good, the others bad."""
    sides = [
        pa.table(
            {
                "prompt": pairs["prompt"],
                "completion": pairs[name],
                "label": pa.repeat(pa.scalar(good), pairs.num_rows),
                "split": pairs["split"],
            }
        )
        for name, good in (("chosen", True), ("rejected", False))
    ]
    return pa.concat_tables(sides)


def labels(trained: Sequence[bool], draft: Draft) -> tuple[int, int]:
    """How many rows to train on are good and how many bad; noted in the draft.

    Raises:
        InputError: there are none of one kind.
    """
    good = int(np.sum(trained))
    bad = len(trained) - good
    if not good or not bad:
        raise InputError(
            f"every one of the {len(trained):,} rows to train on is {'good' if good else 'bad'}",
            where=draft.plan.run_id,
            remedy="KTO learns from both: collect more thumbs, or train SFT on good ones",
        )
    draft.note(desirable=good, undesirable=bad)
    return good, bad
