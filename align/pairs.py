"""What people's pairs tell a loss beside which completion they chose: how sure that is, by pair.

`p_chosen` is the judgement's probability that the chosen completion is the better one, `noise_rate`
its complement, `margin` how much better it is, from 0 to 1 (`align.preference_set`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from align.conversations import flat
from align.preference_set import mean_noise_rate
from align.recipe import FROM_DATA
from annotate.errors import InputError
from annotate.records import conform
from annotate.runs import Draft


def require_difference(rows: pa.Table) -> None:
    """Refuse a pair whose completions are equal: its gradient is zero whatever people said.

    Raises:
        InputError: naming the first of them.
    """
    equal = pc.equal(flat(rows["chosen"]), flat(rows["rejected"]))
    if pc.any(equal).as_py():
        raise InputError(
            "chosen equals rejected",
            where=rows["row_id"].filter(equal)[0].as_py(),
            remedy="Build the set with the filter `identical`",
        )


def flip_probability(rows: pa.Table, draft: Draft) -> float:
    """The mean noise rate of the pairs trained on, in [0, 0.5); noted in the draft, with its n.

    Raises:
        InputError: the build states none, or one that leaves nothing to learn.
    """
    trained = rows.filter(pc.equal(rows["split"], "train"))
    noise = mean_noise_rate(conform("preference", trained))
    where = draft.plan.run_id
    if noise.value is None:
        raise InputError(
            f"label_smoothing: {FROM_DATA}, but {noise.reason}",
            where=where,
            remedy="Judge and build again, or type a number",
        )
    if not noise.value < 0.5:
        raise InputError(
            f"half of the labels may be flipped (noise rate {noise})",
            where=where,
            remedy="Collect more votes, or build with a higher posterior",
        )
    draft.note(label_smoothing=noise.to_dict())
    return noise.value


def with_doubt(rows: pa.Table, draft: Draft, *, soft: bool, weighted: bool) -> pa.Table:
    """The rows with the columns `target` and `weight` that a doubting loss reads.

    Args:
        soft: the target is `p_chosen`; else 1, the label as it stands.
        weighted: the weight is 2 p_chosen - 1, by which a pair that says nothing counts for
            nothing, over its mean in the pairs trained on; else 1.

    Raises:
        InputError: no pair trained on states a posterior, or all of them are undecided.
    """
    p = rows["p_chosen"]
    trained = np.asarray(pc.equal(rows["split"], "train"))
    unknown = np.asarray(pc.is_null(p))
    if unknown[trained].all():
        raise InputError(
            "soft_labels and row_weights need p_chosen, and no pair has a posterior",
            where=draft.plan.run_id,
            remedy="Judge and build again, or leave them out",
        )
    # A pair without a posterior is taken at its word.
    sure = np.asarray(pc.fill_null(p, 1.0), dtype=np.float64)
    weight = np.clip(2 * sure - 1, 0, None)
    mean = float(weight[trained].mean())
    if weighted and mean == 0:
        raise InputError(
            "row_weights: every pair is undecided, and none would count",
            where=draft.plan.run_id,
            remedy="Collect more votes",
        )
    ones = np.ones(len(sure))
    draft.note(without_posterior=int(unknown[trained].sum()))
    return rows.append_column("target", pa.array(sure if soft else ones)).append_column(
        "weight", pa.array(weight / mean if weighted else ones)
    )
